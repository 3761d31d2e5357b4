"""Sets that are published at plain addresses: `source.files` are URLs, `source.params.sha256` the published hash of some of them.

Belongs here: names of the files, the ledger of what was had. Does not belong here: requests (`web.py`), unpacking (`archives.py`).
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urlsplit

from molmo2_assets.sources.arriving import arriving
from molmo2_assets.sources.outcome import FetchResult, SourceError, SourceUnavailable, how_to_get
from molmo2_assets.sources.progress import Progress
from molmo2_assets.sources.web import Web, WebFault
from training_backend.data.fingerprint import file_sha256, fingerprint, short

if TYPE_CHECKING:
    from molmo2_assets.profile import DatasetSpec

_ODD = re.compile(r"[^\w.\-]+")


def identity(spec: DatasetSpec) -> dict[str, Any]:
    """Addresses and published hashes. What stood at an address is the revision of what was fetched."""
    return {"files": list(spec.source.files), "sha256": dict(sorted(_published(spec).items()))}


def _published(spec: DatasetSpec) -> dict[str, str]:
    found: dict[str, str] = spec.source.params.get("sha256", {})
    return found


def names_of(urls: tuple[str, ...]) -> dict[str, Path]:
    """URL → where its file lies in the raw folder: its last name, below the host's where two hosts use the same. Raises SourceError
    where an address has no file name."""
    last = {url: _name(url) for url in urls}
    often = Counter(last.values())
    found = {url: Path(name) if often[name] == 1 else Path(_safe(urlsplit(url).netloc)) / name for url, name in last.items()}
    if len(set(found.values())) < len(found):  # two folders of one host
        found = {url: Path(short(fingerprint(url))) / name for url, name in last.items()}
    return found


def _name(url: str) -> str:
    name = _safe(unquote(urlsplit(url).path).rpartition("/")[2])
    if not name.strip("."):
        raise SourceError(f"{url} names no file; write the address of a file into source.files.")
    return name


def _safe(text: str) -> str:
    return _ODD.sub("_", text)


def fetch_url(spec: DatasetSpec, dest: Path, log: Callable[[str], None], downloads: Path | None = None) -> FetchResult:
    """Download every address into `dest`. Raises SourceUnavailable naming the first that cannot be had."""
    if not spec.source.files:
        raise SourceError(f"{spec.name} is published at plain addresses but its entry names none in source.files.")
    web, published = Web(), _published(spec)
    names = names_of(spec.source.files)
    checksums: dict[str, str] = {}
    with arriving(downloads, dest, short(fingerprint(identity(spec))), log) as folder:
        with Progress(spec.name, None, "B", log) as progress:
            for url, name in names.items():
                path = folder / name
                path.parent.mkdir(parents=True, exist_ok=True)
                try:
                    checksums[name.as_posix()] = _one(web, url, path, published.get(url), progress.add)
                except WebFault as fault:
                    shown = urlsplit(url)._replace(query="", fragment="").geturl()  # a query may hold somebody's key
                    raise SourceUnavailable(
                        f"{spec.name}: {shown} cannot be had: {fault}.", how_to_get(spec), passing=fault.passing
                    ) from None
        total = sum((folder / name).stat().st_size for name in names.values())
    log(f"{spec.name}: {len(names)} files, {total} bytes")
    facts = {"files": len(names), "bytes": total, "sha256": checksums}
    return FetchResult(revision=f"url-{short(fingerprint(checksums))}", facts=facts)


def _one(web: Web, url: str, path: Path, sha256: str | None, told: Callable[[int], None]) -> str:
    """Download one file unless it is there; only whole ones have their name. Returns its sha256."""
    if path.is_file():
        return file_sha256(path)
    part = path.with_name(f".{path.name}.part")
    digest = web.download(url, part, sha256=sha256, told=told)
    part.rename(path)
    return digest
