"""Collecting the media of a set: every uri that its rows name, resolved, stored by content, probed once.

Belongs here: where bytes come from (inside rows, files beside them, addresses) and what is recorded. Does not belong here: decoding
(`training_backend.data.media`), setting rows aside (`ingest/validate.py`). A medium that is missing or broken is a line of the
table, never an exception: it sets its rows aside, it does not stop its set.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import tempfile
import time
import uuid
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from molmo2_assets.ingest.adapters import Reference, adapter_of
from molmo2_assets.ingest.media_table import MediaRecord, write_media
from molmo2_assets.ingest.rows import BadRow, RawRow, annotation_files
from molmo2_assets.ingest.tables import rows_of
from molmo2_assets.sources.links import Ledger, Link
from molmo2_assets.sources.places import file_of
from molmo2_assets.sources.progress import Progress
from molmo2_assets.sources.proxies import recipe, write_proxy
from molmo2_assets.sources.web import Web, WebFault
from training_backend.data.fingerprint import fingerprint, short
from training_backend.data.manifest import storage_error
from training_backend.data.media import (
    DEFAULT_LIMITS,
    FaultReason,
    Limits,
    MediaCache,
    MediaFacts,
    MediaFault,
    MediaKind,
    probe,
)

if TYPE_CHECKING:
    from molmo2_assets.profile import DatasetSpec, ProxySpec

_DOWNLOADS = 32
"""Requests at a time over all hosts."""
_LOOKS = 4
"""Files that are hashed and decoded at a time. Each may hold a picture of the largest size."""


@dataclass
class MediaReport:
    """What was collected: version over (uri, sha256, facts, state), counts by state and reason."""

    data_version: str
    counts: dict[str, int]
    facts: dict[str, Any]


@dataclass(frozen=True)
class _Shelf:
    """Where bytes go, what decoders may do, what earlier looks at the same bytes found (by sha256), how films are proxied."""

    cache: MediaCache
    limits: Limits
    known: Mapping[str, MediaRecord]
    proxy: ProxySpec | None


def collect_media(
    spec: DatasetSpec,
    raw: Path,
    cache: MediaCache,
    dest: Path,
    log: Callable[[str], None],
    limits: Limits = DEFAULT_LIMITS,
    earlier: Iterable[MediaRecord] = (),
) -> MediaReport:
    """Write media.jsonl into `dest` and the bytes into the cache.

    Media at `urls` are downloaded, several at a time and a few a host; what was had before is not asked for again. `earlier` are
    records that this code made with these limits: bytes that they tell of are not decoded again.
    """
    known = {record.published_sha256: record for record in earlier if record.published_sha256 is not None}
    shelf = _Shelf(cache, limits, known, spec.media.proxy)
    facts: dict[str, Any] = {}
    if spec.media.kind == "urls":
        wanted = _addresses(spec, raw)
        ledger = Ledger(cache.root / "links" / f"{spec.name}.jsonl")
        records = _download_all(spec, wanted, shelf, ledger, log)
        facts["dead_links"] = ledger.dead(sorted(wanted))
    else:
        records = _look_all(spec, raw, shelf, log)
    write_media(dest, list(records.values()))
    ordered = sorted(records.values(), key=lambda record: record.uri)
    identity = [
        [r.uri, r.sha256, r.kind, r.width, r.height, r.duration, r.fps, r.n_frames, r.codec, r.state, r.reason]
        + ([r.published, r.proxy] if r.proxy is not None else [])
        for r in ordered
    ]
    states = Counter(record.state for record in ordered)
    reasons = Counter(str(record.reason) for record in ordered if record.state != "ok")
    counts = {"media": len(ordered), **{state: states[state] for state in ("ok", "missing", "broken")}}
    proxies = sum(record.proxy is not None for record in ordered)
    facts = {"reasons": dict(sorted(reasons.items())), "bytes": sum(record.bytes or 0 for record in ordered), **facts}
    if proxies:
        facts["proxies"] = proxies
    return MediaReport(f"{len(ordered)}-{short(fingerprint(identity))}", counts, facts)


def _named(spec: DatasetSpec, raw: Path) -> Iterator[tuple[RawRow, Reference]]:
    """Every medium that a row names, as often as rows do."""
    adapter, context = adapter_of(spec)
    for path in annotation_files(raw, spec.source.patterns):
        for row in rows_of(spec, path, raw):  # the validator names columns that are missing
            if isinstance(row, BadRow):
                continue
            try:
                references = adapter.media(row, context)
            except Exception:
                continue  # the validator meets it again and names it
            yield from ((row, reference) for reference in references)


def _look_all(spec: DatasetSpec, raw: Path, shelf: _Shelf, log: Callable[[str], None]) -> dict[str, MediaRecord]:
    """Records of media in rows or in files, by uri; several are looked at together, and few wait with their bytes."""
    records: dict[str, MediaRecord] = {}
    asked: set[str] = set()
    waiting: deque[Future[MediaRecord]] = deque()

    def take(most: int) -> None:
        while len(waiting) > most:
            record = waiting.popleft().result()
            records[record.uri] = record
            progress.add()

    with Progress(f"{spec.name}, collecting", None, "media", log) as progress, ThreadPoolExecutor(_LOOKS) as pool:
        try:
            for row, reference in _named(spec, raw):
                if reference.uri not in asked:
                    asked.add(reference.uri)
                    waiting.append(pool.submit(_one, spec, row, reference, raw, shelf))
                    take(4 * _LOOKS)
            take(0)
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise
    return records


def _one(spec: DatasetSpec, row: RawRow, reference: Reference, raw: Path, shelf: _Shelf) -> MediaRecord:
    """Resolve, store and probe one medium."""

    def store() -> str:
        if spec.media.kind != "embedded":
            return shelf.cache.add_file(file_of(spec.media, row, reference, raw))
        if not reference.data:
            raise MediaFault("missing", "the row holds no bytes")
        return shelf.cache.add_bytes(reference.data)

    return _record(reference, shelf, store)


def _record(reference: Reference, shelf: _Shelf, store: Callable[[], str]) -> MediaRecord:
    """The line of one medium; `store` puts its bytes into the cache and gives their sha256, or raises MediaFault."""
    try:
        digest = store()
        proxy = shelf.proxy if reference.kind == "video" else None
        known = shelf.known.get(digest)
        if known is not None and known.kind == reference.kind and known.proxy == (recipe(proxy) if proxy is not None else None):
            return msgspec.structs.replace(known, uri=reference.uri)
        facts = _probe(shelf.cache.path(digest), shelf.limits, reference.kind)
        if proxy is not None:
            return _proxied(reference, shelf, proxy, digest, facts)
    except MediaFault as fault:
        state = "missing" if fault.reason == "missing" else "broken"
        return MediaRecord(uri=reference.uri, kind=reference.kind, state=state, reason=fault.reason, detail=str(fault)[:200])  # type: ignore[arg-type]
    return MediaRecord(
        uri=reference.uri, kind=reference.kind, state="ok", sha256=digest, width=facts.width, height=facts.height,
        duration=facts.duration, fps=facts.fps, n_frames=facts.n_frames, codec=facts.codec, bytes=facts.bytes,
    )  # fmt: skip


def _proxied(reference: Reference, shelf: _Shelf, proxy: ProxySpec, published: str, film: MediaFacts) -> MediaRecord:
    """The line of a film that is read from its proxy. Raises MediaFault."""
    downloads = shelf.cache.root / "downloads"
    downloads.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=downloads, prefix="proxy-") as folder:
        path = Path(folder) / "film.mp4"
        try:
            write_proxy(shelf.cache.path(published), path, proxy, shelf.limits)
        except MediaFault:
            raise
        except OSError as error:
            raise storage_error(error, path) from error  # of our file: what is wrong with the film's is a MediaFault
        except Exception as error:
            raise MediaFault("decode", f"{type(error).__name__}: {error}") from error
        digest = shelf.cache.add_file(path)
        facts = _probe(path, shelf.limits, "video")
    return MediaRecord(
        uri=reference.uri, kind="video", state="ok", sha256=digest, width=facts.width, height=facts.height,
        duration=film.duration, fps=facts.fps, n_frames=facts.n_frames, codec=facts.codec, bytes=facts.bytes,
        published=published, proxy=recipe(proxy),
    )  # fmt: skip


# -- addresses --------------------------------------------------------------------------------------------------------------


def _addresses(spec: DatasetSpec, raw: Path) -> dict[str, Reference]:
    """What rows name, by uri; the first that publishes a hash counts."""
    wanted: dict[str, Reference] = {}
    for _, reference in _named(spec, raw):
        known = wanted.setdefault(reference.uri, reference)
        if known.sha256 is None and reference.sha256 is not None:
            wanted[reference.uri] = reference
    return wanted


def _download_all(
    spec: DatasetSpec, wanted: dict[str, Reference], shelf: _Shelf, ledger: Ledger, log: Callable[[str], None]
) -> dict[str, MediaRecord]:
    """Records of media at addresses, by uri."""
    web = Web()
    folder = shelf.cache.root / "downloads" / f"media-{os.getpid()}-{uuid.uuid4().hex[:8]}"
    folder.mkdir(parents=True)

    def work(reference: Reference) -> MediaRecord:
        record = _record(reference, shelf, lambda: _download(reference, web, shelf, ledger, folder))
        progress.add()
        return record

    # In an order of their own: published neighbours often share a host, and would wait for each other.
    mixed = sorted(wanted.values(), key=lambda reference: _mixed(reference.uri))
    try:
        with Progress(f"{spec.name}, downloading", len(wanted), "media", log) as progress, ThreadPoolExecutor(_DOWNLOADS) as pool:
            tasks = [pool.submit(work, reference) for reference in mixed]
            try:
                return {task.result().uri: task.result() for task in as_completed(tasks)}
            except BaseException:
                pool.shutdown(wait=False, cancel_futures=True)
                raise
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _mixed(uri: str) -> bytes:
    return hashlib.blake2b(uri.encode(errors="surrogatepass"), digest_size=8).digest()


def _download(reference: Reference, web: Web, shelf: _Shelf, ledger: Ledger, folder: Path) -> str:
    """sha256 of a medium whose bytes are in the cache, downloaded unless they were had before. Raises MediaFault."""
    known = ledger.get(reference.uri)
    if known is not None and known.sha256 is not None and reference.sha256 in (None, known.sha256):
        if shelf.cache.path(known.sha256).is_file():
            return known.sha256
    elif known is not None and ledger.is_dead(reference.uri):
        raise _dead(known.answer, known.detail)
    part = folder / _mixed(reference.uri).hex()
    most = shelf.limits.max_bytes if reference.kind == "video" else shelf.limits.max_image_bytes
    try:
        digest = web.download(reference.uri, part, sha256=reference.sha256, max_bytes=most)
    except WebFault as fault:
        ledger.add(Link(url=reference.uri, answer=fault.answer, detail=str(fault), asked=time.time()))
        raise _dead(fault.answer, str(fault)) from None
    shelf.cache.add_file(part)
    part.unlink()
    ledger.add(Link(url=reference.uri, sha256=digest, asked=time.time()))
    return digest


def _dead(answer: str, detail: str) -> MediaFault:
    """The fault of a link: what the host gave is wrong, or it gave nothing."""
    reason: FaultReason = {"too_large": "too_large", "checksum": "checksum"}.get(answer, "missing")  # type: ignore[assignment]
    return MediaFault(reason, detail)


def _probe(path: Path, limits: Limits, kind: MediaKind) -> MediaFacts:
    """Facts of a file; whatever a decoder says of hostile bytes is a fault of those bytes. Raises MediaFault."""
    try:
        return probe(path, limits, kind)
    except MediaFault:
        raise
    except Exception as error:
        raise MediaFault("decode", f"{type(error).__name__}: {error}") from error
