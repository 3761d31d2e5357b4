"""What became of every address of a set: the ledger of links, dead ones included, so that nobody asks a dead host again and again.

Belongs here: the record, its file, when a link is asked again. Does not belong here: requests (`web.py`), probing (`media.py`).
"""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from pathlib import Path

import msgspec

DEAD_SECONDS = 24 * 3600.0
"""A link that the host said is gone is asked again after this; one that met passing trouble, whenever media are collected."""
GONE = ("404", "410", "451", "403", "401", "400", "address", "too_large", "checksum")


class Link(msgspec.Struct, frozen=True, kw_only=True):
    """One address as it was last asked: `sha256` of its bytes, or the `answer` in their place (a status, or a word)."""

    url: str
    sha256: str | None = None
    answer: str = "200"
    detail: str = ""
    asked: float = 0.0


class Ledger:
    """Links of one set by url, appended to a file as they are learnt: a run that is killed loses none."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._links: dict[str, Link] = {}
        self._lock = threading.Lock()
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.is_file():
            with path.open("rb") as stream:
                for line in stream:
                    try:
                        link = msgspec.json.decode(line, type=Link)
                    except msgspec.DecodeError:
                        continue  # the last line of a killed run, or what another process wrote into it
                    self._links[link.url] = link

    def get(self, url: str) -> Link | None:
        """What is known of an address."""
        return self._links.get(url)

    def is_dead(self, url: str) -> bool:
        """Whether an address was gone when it was last asked, not long ago."""
        link = self._links.get(url)
        return link is not None and link.sha256 is None and link.answer in GONE and time.time() - link.asked < DEAD_SECONDS

    def add(self, link: Link) -> None:
        """Remember an answer."""
        with self._lock:
            self._links[link.url] = link
            with self.path.open("ab") as stream:
                stream.write(msgspec.json.encode(link) + b"\n")

    def dead(self, urls: Sequence[str]) -> dict[str, int]:
        """How often each answer stands in the place of bytes, the most frequent first."""
        counts: dict[str, int] = {}
        for url in urls:
            link = self._links.get(url)
            if link is not None and link.sha256 is None:
                counts[link.answer] = counts.get(link.answer, 0) + 1
        return dict(sorted(counts.items(), key=lambda item: (-item[1], item[0])))
