"""The fast way through rows that already are examples: one loop a row that decodes, gathers facts, encodes and hashes, in several
processes over ranges of the file.

Belongs here: that loop and its processes. Does not belong here: what such a row must be (`adapters/canonical.py`), the rules
(`contracts.py`), the order of steps for every other layout (`validate.py`). What is told
apart by them is told apart here: ids are unique, and rows are judged by the same contract.
"""

from __future__ import annotations

import gc
import multiprocessing
import os
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from molmo2_assets.ingest import rows as reading
from molmo2_assets.ingest.adapters import Context
from molmo2_assets.ingest.adapters.canonical import check_media, check_row, schema_fault
from molmo2_assets.ingest.contracts import FACTS, Facts, facts_of, verdicts
from molmo2_assets.ingest.media_table import MediaRecord, read_media
from molmo2_assets.ingest.quarantine import Quarantined, preview
from molmo2_assets.ingest.reasons import RowFault
from training_backend.data.example import Example, Media, Sealer, Source, seal
from training_backend.data.store import RowColumns

if TYPE_CHECKING:
    from training_backend.data.example import Family

RANGE_BYTES = 48 << 20
"""Bytes of the file that one process takes at a time: about a contract's batch of small rows, or more."""
PROCESSES = min(4, len(os.sched_getaffinity(0)))
_WORDS = FACTS.index("words")


@dataclass(frozen=True)
class Range:
    """A part of a file that begins and ends between lines, and the number of its first line."""

    path: Path
    name: str
    start: int
    stop: int
    first: int


@dataclass
class Part:
    """What became of a range. `lines`: the rows that were kept, one after the other; `columns` index them, `offset` is where each
    began in the raw file; `numbers` are what the sketch is made of (branches, media, seconds, words)."""

    lines: Path
    columns: RowColumns
    aside: list[Quarantined]
    rows: int
    numbers: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Task:
    """What a process needs besides its range."""

    dataset: str
    context: Context
    family: Family
    media: Path
    dest: Path


def ranges(path: Path, name: str, size: int | None = None) -> Iterator[Range]:
    """Parts of about `size` bytes. Lines are counted on the way, for their numbers."""
    size = size or RANGE_BYTES
    end = path.stat().st_size
    start = first = 0
    with path.open("rb") as stream:
        while start < end:
            stop = min(end, start + size)
            count = 0
            if stop < end:
                stream.seek(stop - 1)
                while block := stream.read(1 << 16):  # to the end of the line that the cut fell into
                    place = block.find(b"\n")
                    stop = stream.tell() - len(block) + (place + 1 if place >= 0 else len(block))
                    if place >= 0:
                        break
            stream.seek(start)
            left = stop - start
            while left and (block := stream.read(min(left, 1 << 22))):
                count += block.count(b"\n")
                left -= len(block)
            yield Range(path, name, start, stop, first)
            start, first = stop, first + count


def read_parts(task: Task, parts: list[Range], told: Callable[[Part], None]) -> list[Part]:
    """Every range read, in order; in processes where there is enough to read. `told` hears of parts as they are done."""
    found = []
    if len(parts) < 2 or PROCESSES < 2:
        for number, part in enumerate(parts):
            found.append(read_part(task, part, number))
            told(found[-1])
        return found
    # Not forked: a process that has threads must not be.
    with ProcessPoolExecutor(min(PROCESSES, len(parts)), multiprocessing.get_context("spawn")) as pool:
        for done in pool.map(read_part, [task] * len(parts), parts, range(len(parts))):
            found.append(done)
            told(done)
    return found


@lru_cache(maxsize=1)
def _table(folder: Path, mark: int) -> dict[str, tuple[MediaRecord, Media | None]]:
    """Media by uri, each beside what an example would say of it; kept between ranges."""
    return {uri: (record, record.media("m") if record.state == "ok" else None) for uri, record in read_media(folder).items()}


@contextmanager
def _no_collector() -> Iterator[None]:
    """Rows die young and hold no cycles: looking for some would cost a third of the time."""
    was = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was:
            gc.enable()


def read_part(task: Task, part: Range, number: int) -> Part:
    """One range: its rows judged, those that are kept written to a file of their own."""
    table = _table(task.media, (task.media / "media.jsonl").stat().st_mtime_ns)
    out = Part(task.dest / f".part-{number:06d}", RowColumns(), [], 0)
    facts: list[tuple[Any, ...]] = []
    with _no_collector(), out.lines.open("wb", buffering=1 << 20) as stream:
        _loop(task, part, table, stream, out, facts)
    found = verdicts(task.family, facts)
    bad = [place for place, verdict in enumerate(found) if verdict is not None]
    if bad:
        _drop(task, part, out, {place: found[place] for place in bad}, facts)
    _sketch(out, [row for place, row in enumerate(facts) if found[place] is None] if bad else facts)
    return out


def _lines(part: Range) -> Iterator[tuple[int, bytes | None, int]]:
    """Offset, bytes and length of every line. A range that holds no giant is split at once."""
    if part.start == 0 or part.stop - part.start > RANGE_BYTES + reading.MAX_LINE:
        yield from reading.lines_between(part.path, part.start, part.stop)
        return
    with part.path.open("rb") as stream:
        stream.seek(part.start)
        data = stream.read(part.stop - part.start)
    start = part.start
    lines = data.split(b"\n")
    del data
    if not lines[-1]:
        lines.pop()
    for line in lines:
        size = len(line) + 1
        yield start, line if size <= reading.MAX_LINE else None, size
        start += size


def _loop(task: Task, part: Range, table: dict[str, Any], stream: Any, out: Part, facts: list[Facts]) -> None:
    def look(media: tuple[Media, ...]) -> float:
        """Whether media are as they say, and the seconds of the first. Raises RowFault."""
        check_media(media, _known(media, table))
        return (media[0].seconds or 0.0) if media else 0.0

    decode, fast = msgspec.json.Decoder(Example).decode, Sealer(look).seal
    prefix, kind, name = f"{task.dataset}/", task.context.task, msgspec.json.encode(part.name)
    source = b'{"file":' + name.replace(b"%", b"%%") + b',"row":%d}'
    number, write = part.first - 1, stream.write
    hashes: list[bytes] = []
    offsets: list[int] = []
    lengths: list[int] = []
    rows: list[int] = []
    seconds: list[float] = []
    for start, line, size in _lines(part):
        number += 1
        if line is not None:
            line = line.rstrip(b"\r\n")
            if not line.strip():
                continue
        out.rows += 1
        try:
            if line is None:
                raise RowFault("line_too_long", "", f"{size} bytes, the limit is {reading.MAX_LINE}")
            try:
                example = decode(line)
            except (msgspec.DecodeError, UnicodeDecodeError):
                example = _slowly(line)
            check_row(example, kind)
            done = fast(example, line, source % number) if example.id.startswith(prefix) else None
            if done is None:
                done = (*_not_ours(example, line, prefix, part.name, number), look(example.media))
        except RowFault as fault:
            out.aside.append(_aside(task, part, fault, number, start, size, line))
            continue
        sealed, digests, shown = done
        facts.append(facts_of(example.branches, example.media))
        seconds.append(shown)
        hashes.append(digests)
        offsets.append(start)
        lengths.append(len(sealed))
        rows.append(number)
        write(sealed)
        write(b"\n")
    out.columns.extend(hashes, offsets, lengths, kind, rows)
    out.numbers["seconds"] = seconds


def _not_ours(example: Example, line: bytes, prefix: str, file: str, number: int) -> tuple[bytes, bytes]:
    """A row in another hand than ours. Raises RowFault for what the decoder takes without a word: keys that stand twice."""
    reading.parse_line(line)
    name = example.id if example.id.startswith(prefix) else prefix + example.id
    line, hashes = seal(msgspec.structs.replace(example, id=name, source=Source(file=file, row=number)))
    return line, b"".join((hashes.id_hash, hashes.row_hash, hashes.text, hashes.grounding, hashes.media, hashes.meta))


def _slowly(line: bytes) -> Example:
    """A row that the decoder refuses, looked at by the reader of every other layout. Raises RowFault."""
    data = reading.parse_line(line)
    try:
        return msgspec.convert(data, Example)
    except msgspec.ValidationError as error:
        raise schema_fault(error) from None


def _known(media: tuple[Media, ...], table: dict[str, Any]) -> list[Media]:
    """What was collected for the media of a row. Raises RowFault."""
    found = []
    for item in media:
        entry = table.get(item.uri)
        if entry is None:
            raise RowFault("media_missing", item.uri, "no such medium was collected")
        record, collected = entry
        if collected is None:
            raise RowFault(f"media_{record.reason}", item.uri, record.detail)
        if item.sha256 != record.sha256:
            raise RowFault("media_checksum", item.uri, f"stated {item.sha256[:12]}…")
        found.append(collected)
    return found


def _aside(task: Task, part: Range, fault: RowFault, number: int, start: int, size: int, line: bytes | None) -> Quarantined:
    parse, media = fault.reason in ("not_json", "not_text", "line_too_long"), fault.reason.startswith("media_")
    stage: Any = "parse" if parse else "media" if media else "layout"
    try:
        shown = preview(reading.parse_line(line)) if line is not None else ""
    except RowFault:
        shown = (line or b"")[:200].decode(errors="replace")
    return Quarantined(
        dataset=task.dataset, file=part.name, row=number, stage=stage, reason=fault.reason, field=fault.field,
        detail=fault.detail[:200], byte_offset=start, byte_length=size, preview=shown,
    )  # fmt: skip


def quarantined(task_dataset: str, path: Path, name: str, row: int, start: int, fault: RowFault, stage: Any) -> Quarantined:
    """A row that was kept by its loop and is set aside afterwards: read once more, from where it stands."""
    with path.open("rb") as stream:
        stream.seek(start)
        line = stream.readline()
    return Quarantined(
        dataset=task_dataset, file=name, row=row, stage=stage, reason=fault.reason, field=fault.field, detail=fault.detail[:200],
        byte_offset=start, byte_length=len(line), preview=preview(reading.parse_line(line)),
    )  # fmt: skip


def _drop(task: Task, part: Range, out: Part, bad: dict[int, Any], facts: list[tuple[Any, ...]]) -> None:
    """Set aside the rows that break the contract, and write the others again without them."""
    import numpy as np

    keep = np.ones(len(facts), dtype=bool)
    offsets, numbers = out.columns.numbers["offset"], out.columns.numbers["row"]
    for place, (reason, name) in bad.items():
        keep[place] = False
        fault = RowFault(reason, name, str(facts[place][FACTS.index(name)]))
        out.aside.append(quarantined(task.dataset, part.path, part.name, numbers[place], offsets[place], fault, "contract"))
    kept = out.lines.with_name(out.lines.name + "-kept")
    with out.lines.open("rb") as old, kept.open("wb") as new:
        for place, line in enumerate(old):
            if keep[place]:
                new.write(line)
    kept.replace(out.lines)
    out.columns = out.columns.only(keep)
    out.numbers["seconds"] = [value for place, value in enumerate(out.numbers["seconds"]) if keep[place]]


def _sketch(out: Part, facts: list[tuple[Any, ...]]) -> None:
    import numpy as np

    for name, place in (("branches", FACTS.index("branches")), ("media", FACTS.index("media")), ("words", _WORDS)):
        out.numbers[name] = np.array([row[place] for row in facts], dtype=np.uint32)
    out.numbers["seconds"] = np.array(out.numbers["seconds"], dtype=np.float32)
