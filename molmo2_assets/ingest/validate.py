"""raw rows + media facts → validated rows: frame, parse, facts, contract, across rows, write.

Belongs here: the order of these steps, and that every row is accounted for. Does not belong here: layouts, rules, file formats,
what waits between two steps (`gather.py`). rows_in = rows_ok + rows_quarantined, always.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import msgspec
import numpy as np
from numpy.typing import NDArray

from molmo2_assets.ingest.adapters import Adapter, Context, Piece, adapter_of, canonical
from molmo2_assets.ingest.contracts import Facts, facts_of
from molmo2_assets.ingest.gather import Gathered, Sketch, any_twice, contradictions
from molmo2_assets.ingest.media_table import MediaRecord, read_media, write_published
from molmo2_assets.ingest.quarantine import Quarantined, by_reason, write_quarantine
from molmo2_assets.ingest.reasons import LEFT_OUT, RowFault
from molmo2_assets.ingest.rows import BadRow, RawRow, annotation_files
from molmo2_assets.ingest.tables import rows_of
from molmo2_assets.sources.progress import Progress
from training_backend.data.example import Example
from training_backend.data.store import RowColumns, RowStore, RowWriter, StoreInfo

if TYPE_CHECKING:
    from molmo2_assets.ingest.canonical import Part
    from molmo2_assets.profile import DatasetSpec

SAMPLES_FILE = "samples.json"
_SAMPLES = 12


@dataclass
class ValidateReport:
    """What became of a set's rows. `rejected`: more were set aside than the entry allows; nothing is published then."""

    rows_in: int
    rows_ok: int
    quarantined: dict[str, int]
    data_version: str
    facts: dict[str, Any]
    rejected: bool
    examples: int = 0


def validate(spec: DatasetSpec, raw: Path, media: Path, dest: Path, log: Callable[[str], None]) -> ValidateReport:
    """Write data.jsonl, data.idx, quarantine.jsonl, samples.json and, where films have proxies, published.json into `dest`.

    Equal inputs give equal bytes. Memory does not grow with the rows, but for about a hundred bytes of each: what they say waits on
    disk. Raises ValueError where a whole file does not have the published layout.
    """
    adapter, context = adapter_of(spec)
    files = annotation_files(raw, spec.source.patterns)
    if not files:
        wanted = list(spec.source.patterns) or "a known type"
        raise ValueError(f"{spec.name}: its raw files hold no annotations that match {wanted}")
    with Progress(f"{spec.name}, validating", None, "rows", log) as progress:
        if adapter.name == canonical.NAME and spec.select is None and not spec.source.tables:
            return _examples(spec, context, files, raw, media, dest, progress)
        with Gathered(dest / ".pieces", spec, files, raw) as work:
            table = read_media(media)
            for path in files:
                for row in rows_of(spec, path, raw, adapter.needs(context), adapter.optional):
                    work.rows += 1
                    read_row(row, adapter, context, table, work)
                    progress.add()
            work.compare()
            write_published(dest, table.values())
            return _publish(spec, dest, work.rows, work.aside(), work.examples())


def _publish(spec: DatasetSpec, dest: Path, rows: int, aside: list[Quarantined], examples: Iterable[Example]) -> ValidateReport:
    """Write what is kept, unless too much was set aside."""
    facts, rejected = _verdict(spec, dest, rows, aside)
    if rejected:
        return ValidateReport(rows, rows - len(aside), by_reason(aside), "rejected", facts, rejected=True)
    sketch = Sketch()
    with RowWriter(dest) as writer:
        for example in examples:
            writer.add(example)
            sketch.add(example)
    assert writer.info is not None
    return _report(dest, rows, aside, facts | sketch.facts(), writer.info)


def _verdict(spec: DatasetSpec, dest: Path, rows: int, aside: list[Quarantined]) -> tuple[dict[str, Any], bool]:
    """The quarantine written, the share that is in it, and whether that is more than the entry allows."""
    left_out = sum(row.reason in LEFT_OUT for row in aside)
    share = (len(aside) - left_out) / (rows - left_out) if rows > left_out else 0.0
    write_quarantine(dest, aside)
    return {"bad_fraction": round(share, 6), "max_bad_fraction": spec.max_bad_fraction}, share > spec.max_bad_fraction


def _report(dest: Path, rows: int, aside: list[Quarantined], facts: dict[str, Any], info: StoreInfo) -> ValidateReport:
    store = RowStore(dest)
    offsets = store.column("offset")
    chosen = np.sort(offsets)[:: max(1, len(store) // _SAMPLES)][:_SAMPLES]  # in the order in which they were written
    samples = [store.example(int(np.flatnonzero(offsets == offset)[0])).id for offset in chosen]
    (dest / SAMPLES_FILE).write_bytes(msgspec.json.encode(samples))
    facts = {**facts, "tasks": info.tasks}
    return ValidateReport(rows, rows - len(aside), by_reason(aside), info.data_version, facts, rejected=False, examples=info.rows)


def _examples(
    spec: DatasetSpec, context: Context, files: list[Path], raw: Path, media: Path, dest: Path, progress: Progress
) -> ValidateReport:
    """Rows that already are examples, by the fast way."""
    from molmo2_assets.ingest.canonical import LINES, Task, ranges, read_parts

    for path in files:
        if path.suffix != ".jsonl":
            raise ValueError(f"{path.relative_to(raw)}: rows that already are examples come as JSON lines")
    parts = (part for path in files for part in ranges(path, path.relative_to(raw).as_posix()))
    done: list[Part] = []

    def told(part: Part) -> None:
        # Written as if all were kept, while the others are read: what must go is known when all are, and seldom is anything.
        done.append(part)
        writer.add_rows(part.lines, part.columns, part.range.name)
        part.columns = RowColumns()
        progress.add(part.rows)

    try:
        with RowWriter(dest) as writer:
            read_parts(Task(spec.name, context, spec.family, media, dest), parts, told)
            _across(spec.name, done, writer)
            aside = [item for part in done for item in part.aside]
            rows = sum(part.rows for part in done)
            facts, rejected = _verdict(spec, dest, rows, aside)
            if rejected:
                writer.discard()
                return ValidateReport(rows, rows - len(aside), by_reason(aside), "rejected", facts, rejected=True)
            if not all(part.keep.all() for part in done):
                writer.keep_only(np.concatenate([part.keep for part in done]))
            sketch = Sketch()
            while done:
                sketch.extend(done.pop(0).sketch())
            facts |= sketch.facts()
            del sketch  # before the index is written, which takes the most memory
        assert writer.info is not None
        return _report(dest, rows, aside, facts, writer.info)
    finally:
        for lines in dest.glob(f"{LINES}*"):
            lines.unlink()


def _across(dataset: str, parts: list[Part], writer: RowWriter) -> None:
    """Set aside what contradicts other rows of its id, or says again what one said. `writer` has the rows of all parts."""
    from molmo2_assets.ingest.canonical import set_aside

    keep = np.concatenate([np.empty(0, bool), *(part.keep for part in parts)])

    def kept(column: str) -> NDArray[np.uint8]:
        values = writer.digest(column)
        return values if keep.all() else values[keep]

    if not any_twice(keys := kept("id_hash")):
        return
    reasons = contradictions(keys, said := kept("row_hash"), said)
    rows, starts = np.flatnonzero(keep), np.cumsum([0, *(len(part.keep) for part in parts)])
    for place, (reason, detail) in reasons.items():
        number = int(np.searchsorted(starts, rows[place], side="right")) - 1
        set_aside(dataset, parts[number], int(rows[place] - starts[number]), RowFault(reason, "id", detail), "cross")


class Sink(Protocol):
    """What takes a row that was read."""

    def set_aside(self, row: RawRow | BadRow, stage: Any, fault: RowFault) -> None: ...

    def accept(self, row: RawRow, piece: Piece, facts: Facts) -> None: ...


def read_row(row: RawRow | BadRow, adapter: Adapter, context: Context, table: dict[str, MediaRecord], work: Sink) -> None:
    """Read one row and give it to `work`, as a piece with its facts or with what is wrong with it."""
    if isinstance(row, BadRow):
        work.set_aside(row, "parse", row.fault)
        return
    try:
        references = adapter.media(row, context)
    except Exception as error:
        work.set_aside(row, "layout", _fault(error))
        return
    found = []
    for number, reference in enumerate(references):
        record = table.get(reference.uri)
        if record is None:
            work.set_aside(row, "media", RowFault("media_missing", reference.uri, "no such medium was collected"))
            return
        if record.state != "ok":
            work.set_aside(row, "media", RowFault(f"media_{record.reason}", reference.uri, record.detail))
            return
        if reference.sha256 and reference.sha256 != record.published_sha256:
            work.set_aside(row, "media", RowFault("media_checksum", reference.uri, f"published {reference.sha256[:12]}…"))
            return
        found.append(record.media(f"m{number}"))
    try:
        piece = adapter.read(row, found, context)
        facts = facts_of(piece.branches, piece.media)
    except Exception as error:
        work.set_aside(row, "layout", _fault(error))
        return
    work.accept(row, piece, facts)


def _fault(error: Exception) -> RowFault:
    """What an adapter said of a row. Adapters name what they foresee; a row built in a way that they do not is set aside as well,
    and counts towards the limit that rejects a set whose layout has changed."""
    if isinstance(error, RowFault):
        return error
    return RowFault("wrong_type", "", f"{type(error).__name__}: {error}")
