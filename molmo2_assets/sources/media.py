"""Collecting the media of a set: every uri that its rows name, resolved, stored by content, probed once.

Belongs here: where bytes come from (inside rows, or files beside them) and what is recorded. Does not belong here: decoding
(`training_backend.data.media`), setting rows aside (`ingest/validate.py`). A medium that is missing or broken is a line of the
table, never an exception: it sets its rows aside, it does not stop its set.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from molmo2_assets.ingest.adapters import Reference, adapter_of
from molmo2_assets.ingest.media_table import MediaRecord, write_media
from molmo2_assets.ingest.rows import BadRow, RawRow, annotation_files
from molmo2_assets.ingest.tables import rows_of
from molmo2_assets.sources.places import file_of
from training_backend.data.fingerprint import fingerprint, short
from training_backend.data.media import DEFAULT_LIMITS, Limits, MediaCache, MediaFacts, MediaFault, MediaKind, probe

if TYPE_CHECKING:
    from molmo2_assets.profile import DatasetSpec

_LOG_SECONDS = 30.0


@dataclass
class MediaReport:
    """What was collected: version over (uri, sha256, facts, state), counts by state and reason."""

    data_version: str
    counts: dict[str, int]
    facts: dict[str, Any]


def collect_media(
    spec: DatasetSpec, raw: Path, cache: MediaCache, dest: Path, log: Callable[[str], None], limits: Limits = DEFAULT_LIMITS
) -> MediaReport:
    """Write media.jsonl into `dest` and the bytes into the cache."""
    adapter, context = adapter_of(spec)
    records: dict[str, MediaRecord] = {}
    spoke = time.monotonic()
    for path in annotation_files(raw, spec.source.files):
        for row in rows_of(spec, path, raw):  # the validator names columns that are missing
            if isinstance(row, BadRow):
                continue
            try:
                references = adapter.media(row, context)
            except Exception:
                continue  # the validator meets it again and names it
            for reference in references:
                if reference.uri not in records:
                    records[reference.uri] = _one(spec, row, reference, raw, cache, limits)
            if time.monotonic() - spoke > _LOG_SECONDS:
                log(f"{spec.name}: {len(records)} media collected")
                spoke = time.monotonic()
    write_media(dest, list(records.values()))
    ordered = sorted(records.values(), key=lambda record: record.uri)
    identity = [
        [r.uri, r.sha256, r.kind, r.width, r.height, r.duration, r.fps, r.n_frames, r.codec, r.state, r.reason] for r in ordered
    ]
    states = Counter(record.state for record in ordered)
    reasons = Counter(str(record.reason) for record in ordered if record.state != "ok")
    counts = {"media": len(ordered), **{state: states[state] for state in ("ok", "missing", "broken")}}
    facts = {"reasons": dict(sorted(reasons.items())), "bytes": sum(record.bytes or 0 for record in ordered)}
    return MediaReport(f"{len(ordered)}-{short(fingerprint(identity))}", counts, facts)


def _one(spec: DatasetSpec, row: RawRow, reference: Reference, raw: Path, cache: MediaCache, limits: Limits) -> MediaRecord:
    """Resolve, store and probe one medium."""
    try:
        if spec.media.kind == "embedded":
            if not reference.data:
                raise MediaFault("missing", "the row holds no bytes")
            digest = cache.add_bytes(reference.data)
        else:
            digest = cache.add_file(file_of(spec.media, row, reference, raw))
        facts = _probe(cache.path(digest), limits, reference.kind)
    except MediaFault as fault:
        state = "missing" if fault.reason == "missing" else "broken"
        return MediaRecord(uri=reference.uri, kind=reference.kind, state=state, reason=fault.reason, detail=str(fault)[:200])  # type: ignore[arg-type]
    return MediaRecord(
        uri=reference.uri, kind=reference.kind, state="ok", sha256=digest, width=facts.width, height=facts.height,
        duration=facts.duration, fps=facts.fps, n_frames=facts.n_frames, codec=facts.codec, bytes=facts.bytes,
    )  # fmt: skip


def _probe(path: Path, limits: Limits, kind: MediaKind) -> MediaFacts:
    """Facts of a file; whatever a decoder says of hostile bytes is a fault of those bytes. Raises MediaFault."""
    try:
        return probe(path, limits, kind)
    except MediaFault:
        raise
    except Exception as error:
        raise MediaFault("decode", f"{type(error).__name__}: {error}") from error
