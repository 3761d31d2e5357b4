"""The fast way through rows that already are examples: one loop that takes what it knows of earlier lines, and decodes, gathers
facts, encodes and hashes the others, in several processes over ranges of the file.

Belongs here: that loop and its processes. Does not belong here: what such a row must be (`adapters/canonical.py`), the rules
(`contracts.py`), the order of steps for every other layout (`validate.py`). What is told
apart by them is told apart here: ids are unique, and rows are judged by the same contract.
"""

from __future__ import annotations

import gc
import itertools
from array import array
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import msgspec
import numpy as np
from numpy.typing import NDArray

from molmo2_assets.ingest import rows as reading
from molmo2_assets.ingest.adapters import Context
from molmo2_assets.ingest.adapters.canonical import check_media, check_row, schema_fault
from molmo2_assets.ingest.contracts import BATCH, FACTS, Facts, facts_of, facts_of_label, prepare, verdicts
from molmo2_assets.ingest.media_table import MediaRecord, read_media
from molmo2_assets.ingest.quarantine import Quarantined, preview
from molmo2_assets.ingest.reasons import RowFault
from training_backend.data.example import Example, Media, Source, decode_row, seal
from training_backend.data.sealer import Sealed, Sealer
from training_backend.data.store import RowColumns
from training_backend.pool import processes, processors

if TYPE_CHECKING:
    from training_backend.data.example import Family

RANGE_BYTES = 16 << 20
"""Bytes of the file that one process takes at a time: few enough that processes end at about the same time."""
LINES = ".lines-"
"""How files of lines that wait to be taken begin."""
_NEWLINE = ord("\n")
PROCESSES = min(4, processors())


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
    """What became of a range. `lines` are the rows that could be read, one after the other, until another range is written over
    them; `columns` index them. Whoever takes the lines takes the columns too: what is left is about twenty bytes of each row.

    `starts` and `numbers` say where each row began in the raw file and which it was. `facts` are the different ones among them,
    until the contract has judged them, and `said` is which of these each row has; `keep` is then true for the rows that it passes.
    `figures` are what the sketch is made of: seconds of each row, and branches, media and words of each of the different facts.
    """

    range: Range
    lines: Path
    columns: RowColumns = field(default_factory=RowColumns)
    aside: list[Quarantined] = field(default_factory=list)
    rows: int = 0
    starts: array[int] = field(default_factory=lambda: array("Q"))
    numbers: array[int] = field(default_factory=lambda: array("L"))
    facts: list[Facts] = field(default_factory=list)
    said: NDArray[np.uint32] = field(default_factory=lambda: np.empty(0, np.uint32))
    keep: NDArray[np.bool_] = field(default_factory=lambda: np.empty(0, np.bool_))
    figures: dict[str, NDArray[Any]] = field(default_factory=dict)

    def sketch(self) -> dict[str, NDArray[Any]]:
        """The figures of every row that is kept."""
        return {name: (values if name == "seconds" else values[self.said])[self.keep] for name, values in self.figures.items()}


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
    block = bytearray(1 << 18)  # one for all: new memory costs more time than the counting
    values = np.frombuffer(block, np.uint8)
    with path.open("rb", buffering=0) as stream:
        while start < end:
            stop = min(end, start + size)
            count = 0
            if stop < end:
                stream.seek(stop - 1)
                while taken := stream.readinto(block):  # to the end of the line that the cut fell into
                    place = block.find(b"\n", 0, taken)
                    stop = stream.tell() - taken + (place + 1 if place >= 0 else taken)
                    if place >= 0:
                        break
            stream.seek(start)
            left = stop - start
            while left and (taken := stream.readinto(block)):
                count += int(np.count_nonzero(values[: min(left, taken)] == _NEWLINE))
                left -= min(left, taken)
            yield Range(path, name, start, stop, first)
            start, first = stop, first + count


def read_parts(task: Task, parts: Iterable[Range], told: Callable[[Part], None]) -> None:
    """Every range read, in order, and judged; in processes where there is enough to read. `told` is given parts as they
    are done, the last of them not judged yet; it takes their lines, or they are gone.

    The contract is judged here, for all processes: there are few different facts, and loading it costs as much time as the rows
    of a range.
    """
    waiting: list[Part] = []
    with closing(_read(task, parts)) as read:  # where `told` fails, the processes have ended before anybody cleans up after them
        for part in read:
            waiting.append(part)
            told(part)
            if sum(len(one.facts) for one in waiting) >= BATCH:
                _judge(task, waiting)
                waiting = []
    _judge(task, waiting)


def _read(task: Task, parts: Iterable[Range]) -> Generator[Part, None, None]:
    ahead = iter(parts)
    begun = list(itertools.islice(ahead, 2))
    ahead = itertools.chain(begun, ahead)
    if len(begun) < 2 or PROCESSES < 2:
        yield from (read_part(task, part, 0) for part in ahead)
        return
    # A file of lines is written again when they were taken: on a new one of each range the kernel would spend more time than on all
    # else that is done with lines. One range is being taken, one is done before its turn.
    places = PROCESSES + 2
    # After an error nothing more is read, or a full disk would be told when all ranges are.
    with processes(PROCESSES) as pool:
        asked = deque(pool.submit(read_part, task, part, place) for place, part in enumerate(itertools.islice(ahead, places)))
        prepare(task.family)
        place = 0
        while asked:
            yield asked.popleft().result()
            asked.extend(pool.submit(read_part, task, part, place) for part in itertools.islice(ahead, 1))
            place = (place + 1) % places


@lru_cache(maxsize=1)
def _sealer(dataset: str, kind: str, folder: Path, mark: int) -> Sealer[Facts]:
    """What is known of rows and their media; kept between ranges."""
    table = read_media(folder)

    def look(media: tuple[Media, ...]) -> float:
        """Whether media are as they say, and the seconds of the first. Raises RowFault."""
        check_media(media, _known(media, table))
        return (media[0].seconds or 0.0) if media else 0.0

    return Sealer(f"{dataset}/", kind, look, facts_of, facts_of_label)


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


def read_part(task: Task, part: Range, place: int) -> Part:
    """One range: its rows that can be read, in file number `place` of lines, over what stood there, with the facts that they are
    judged by."""
    sealer = _sealer(task.dataset, task.context.task, task.media, (task.media / "media.jsonl").stat().st_mtime_ns)
    out = Part(part, task.dest / f"{LINES}{place}")
    out.lines.touch()
    with _no_collector(), out.lines.open("r+b") as stream:
        _loop(task, part, sealer, stream, out)
    for name in ("branches", "media", "words"):
        column = FACTS.index(name)
        out.figures[name] = np.array([facts[column] for facts in out.facts], dtype=np.uint32)
    return out


def _loop(task: Task, part: Range, sealer: Sealer[Facts], stream: BinaryIO, out: Part) -> None:
    kind, name = task.context.task, msgspec.json.encode(part.name)
    source = b'{"file":' + name.replace(b"%", b"%%") + b',"row":%d}'
    # Packed as they come: objects that stay would cost more time, in pages of memory never touched before, than their making.
    hashes, seconds, said = bytearray(), array("f"), array("L")
    offsets, lengths, rows = array("Q"), array("L"), array("L")
    facts: dict[Facts, int] = {}
    first = part.first
    for starts, lines, sizes in reading.blocks_between(part.path, part.start, part.stop):
        numbers: Sequence[int] = range(first, first + len(lines))
        first += len(lines)
        done = sealer.recall(lines, source, numbers[0])
        if None in done:
            for place, line in enumerate(lines):
                if done[place] is None and (line is None or (line and not line.isspace())):
                    try:
                        done[place] = _line(line, sizes[place], sealer, kind, source, part.name, numbers[place])
                    except RowFault as fault:
                        out.aside.append(_aside(task, part, fault, numbers[place], starts[place], sizes[place], line))
            kept = [place for place, one in enumerate(done) if one is not None]
            starts, numbers = [starts[place] for place in kept], [numbers[place] for place in kept]
        if numbers:
            sealed, digests, shown, about = zip(*filter(None, done), strict=True)
            offsets.extend(starts)
            rows.extend(numbers)
            lengths.extend(map(len, sealed))
            hashes += b"".join(digests)
            seconds.extend(shown)
            said.extend([facts.setdefault(one, len(facts)) for one in about])
            stream.write(b"\n".join((*sealed, b"")))
    out.rows = len(rows) + len(out.aside)
    out.columns.extend(hashes, offsets, lengths, kind, rows)
    out.starts, out.numbers = offsets, rows
    out.facts, out.said = list(facts), np.array(said, dtype=np.uint32)
    out.figures["seconds"] = np.array(seconds)


def _line(line: bytes | None, size: int, sealer: Sealer[Facts], kind: str, source: bytes, file: str, number: int) -> Sealed[Facts]:
    """One row. Raises RowFault."""
    if line is None:
        raise RowFault("line_too_long", "", f"{size} bytes, the limit is {reading.MAX_LINE}")
    try:
        example = decode_row(line)
    except (msgspec.DecodeError, UnicodeDecodeError):
        example = _slowly(line)
    check_row(example, kind)
    return sealer.seal(example, line, source % number) or _not_ours(example, line, sealer, file, number)


def _not_ours(example: Example, line: bytes, sealer: Sealer[Facts], file: str, number: int) -> Sealed[Facts]:
    """A row in another hand than ours. Raises RowFault for what the decoder takes without a word: keys that stand twice."""
    reading.parse_line(line)
    name = example.id if example.id.startswith(sealer.prefix) else sealer.prefix + example.id
    line, hashes = seal(msgspec.structs.replace(example, id=name, source=Source(file=file, row=number)))
    digests = b"".join((hashes.id_hash, hashes.row_hash, hashes.text, hashes.grounding, hashes.media, hashes.meta))
    return line, digests, sealer.look(example.media), sealer.facts(example.branches, example.media)


def _slowly(line: bytes) -> Example:
    """A row that the decoder refuses, looked at by the reader of every other layout. Raises RowFault."""
    data = reading.parse_line(line)
    try:
        return msgspec.convert(data, Example)
    except msgspec.ValidationError as error:
        raise schema_fault(error) from None


def _known(media: tuple[Media, ...], table: dict[str, MediaRecord]) -> list[Media]:
    """What was collected for the media of a row. Raises RowFault."""
    found = []
    for item in media:
        record = table.get(item.uri)
        if record is None:
            raise RowFault("media_missing", item.uri, "no such medium was collected")
        if record.state != "ok":
            raise RowFault(f"media_{record.reason}", item.uri, record.detail)
        if item.sha256 != record.sha256:
            raise RowFault("media_checksum", item.uri, f"stated {item.sha256[:12]}…")
        found.append(record.media(item.id))
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


def set_aside(dataset: str, part: Part, place: int, fault: RowFault, stage: Any) -> None:
    """Row number `place` of those that were kept by their loop, found out afterwards: it is read once more."""
    part.keep[place] = False
    raw, start = part.range, part.starts[place]
    with raw.path.open("rb") as stream:
        stream.seek(start)
        line = stream.readline()
    part.aside.append(
        Quarantined(
            dataset=dataset, file=raw.name, row=part.numbers[place], stage=stage, reason=fault.reason, field=fault.field,
            detail=fault.detail[:200], byte_offset=start, byte_length=len(line), preview=preview(reading.parse_line(line)),
        )
    )  # fmt: skip


def _judge(task: Task, parts: list[Part]) -> None:
    """Set aside the rows that break the contract. What is said of each of the different facts holds for all rows that have them."""
    found = verdicts(task.family, [facts for part in parts for facts in part.facts])
    begin = 0
    for part in parts:
        bad = {place: item for place, item in enumerate(found[begin : begin + len(part.facts)]) if item is not None}
        begin += len(part.facts)
        part.keep = np.ones(len(part.said), dtype=bool)
        for row in np.flatnonzero(np.isin(part.said, list(bad))).tolist():
            (reason, name), facts = bad[int(part.said[row])], part.facts[int(part.said[row])]
            set_aside(task.dataset, part, row, RowFault(reason, name, str(facts[FACTS.index(name)])), "contract")
        part.facts = []
