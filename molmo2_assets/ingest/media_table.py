"""The media table of a set: one line for each uri, what it is and whether it can be used.

Belongs here: the record and its file. Does not belong here: collecting (`sources/media.py`).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Literal

import msgspec

from training_backend.data.example import Media

MEDIA_FILE = "media.jsonl"
PUBLISHED_FILE = "published.json"
"""Beside validated rows: sha256 of each proxy → that of its film as published. Absent where there are none."""


class MediaRecord(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """One medium. Facts are None where `state` is not ok; `reason` is then a FaultReason of `training_backend.data.media`.

    Of a film with a proxy `sha256` and the facts are the proxy's, but `duration` is the film's; `published` is then the hash of the
    bytes as they came and `proxy` how it was made.
    """

    uri: str
    kind: Literal["image", "video"]
    state: Literal["ok", "missing", "broken"]
    sha256: str | None = None
    width: int | None = None
    height: int | None = None
    duration: float | None = None
    fps: float | None = None
    n_frames: int | None = None
    codec: str | None = None
    bytes: int | None = None
    reason: str | None = None
    detail: str = ""
    published: str | None = None
    proxy: str | None = None

    @property
    def published_sha256(self) -> str | None:
        """Hash of the bytes as they were published."""
        return self.published or self.sha256

    def media(self, identifier: str) -> Media:
        """The record as an example's medium. Only for state ok."""
        assert self.state == "ok"
        assert self.sha256 is not None
        assert self.width is not None
        assert self.height is not None
        return Media(
            id=identifier, kind=self.kind, uri=self.uri, sha256=self.sha256, width=self.width, height=self.height,
            duration=self.duration, fps=self.fps, n_frames=self.n_frames,
        )  # fmt: skip


def write_media(folder: Path, records: Sequence[MediaRecord]) -> None:
    """Write `media.jsonl`, sorted by uri."""
    ordered = sorted(records, key=lambda record: record.uri)
    (folder / MEDIA_FILE).write_bytes(b"".join(msgspec.json.encode(record) + b"\n" for record in ordered))


def write_published(folder: Path, records: Iterable[MediaRecord]) -> None:
    """Write `published.json`, if any of `records` is of a proxy."""
    found = {str(record.sha256): record.published for record in records if record.published is not None}
    if found:
        (folder / PUBLISHED_FILE).write_bytes(msgspec.json.encode(found, order="sorted"))


def read_published(folder: Path) -> dict[str, str]:
    """`published.json` of a folder of validated rows."""
    path = folder / PUBLISHED_FILE
    return msgspec.json.decode(path.read_bytes(), type=dict[str, str]) if path.is_file() else {}


def read_media(folder: Path) -> dict[str, MediaRecord]:
    """Records of a media asset's folder by uri."""
    records = msgspec.json.Decoder(MediaRecord).decode_lines((folder / MEDIA_FILE).read_bytes())
    return {record.uri: record for record in records}
