"""Reading published annotation files row by row, with where each row stands.

Belongs here: file types. Does not belong here: what a row means (`adapters/`). A row that cannot be read is a fault of that row
alone; a file that is not of its type at all raises ValueError naming it.

Text is UTF-8 everywhere, also in what JSON escapes: half of a surrogate pair can be neither stored nor shown, so it is found here.
"""

from __future__ import annotations

import csv
import fnmatch
import itertools
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from molmo2_assets.ingest.reasons import RowFault

if TYPE_CHECKING:
    import pyarrow as pa

SUFFIXES = (".parquet", ".arrow", ".jsonl", ".json", ".csv")
NAMED_SUFFIXES = (".tsv", ".txt")
"""Types that hold rows only where a pattern of the entry names them."""
NOT_ANNOTATIONS = ("media", "masks", "videos", "images", "audio")
MAX_LINE = 64 << 20
"""Bytes of one line of JSON or CSV; a longer one is set aside unread."""
MAX_DOCUMENT = 4 << 30
"""Bytes of a file that is one JSON document: it is held whole."""
_BATCH = 512
_BLOCK = 1 << 16
"""Bytes that are read at once: small enough to stay near the processor until their lines are done with."""
_BOM = b"\xef\xbb\xbf"
_SURROGATE = re.compile(r"\\u[dD][89a-fA-F]")
_BETWEEN = re.compile(r"[ \t\n\r]*")


@dataclass(frozen=True, slots=True)
class RawRow:
    """One row: file relative to the raw folder, number in it from 0, its fields, and its bytes in the file (text files only)."""

    file: str
    row: int
    data: dict[str, Any]
    offset: int | None = None
    length: int | None = None


@dataclass(frozen=True, slots=True)
class BadRow:
    """A row that could not even be parsed."""

    file: str
    row: int
    fault: RowFault
    offset: int | None
    length: int | None
    preview: str


def annotation_files(raw: Path, patterns: tuple[str, ...]) -> list[Path]:
    """Files of `raw` that hold rows, sorted: those that match `patterns`, else every known type outside media folders."""
    found = []
    for path in sorted(raw.rglob("*")):
        relative = path.relative_to(raw)
        if not path.is_file() or relative.as_posix() == "manifest.json" or path.suffix not in (*SUFFIXES, *NAMED_SUFFIXES):
            continue
        if patterns:
            if any(fnmatch.fnmatch(relative.as_posix(), pattern) for pattern in patterns):
                found.append(path)
        elif path.suffix in SUFFIXES and relative.parts[0] not in NOT_ANNOTATIONS:
            found.append(path)
    return found


def read_rows(path: Path, raw: Path, columns: tuple[str, ...]) -> Iterator[RawRow | BadRow]:
    """Rows of one file in order. Raises ValueError naming the file where a required column is missing altogether."""
    name = path.relative_to(raw).as_posix()
    if path.suffix == ".parquet":
        yield from _parquet(path, name, columns)
    elif path.suffix == ".arrow":
        yield from _arrow(path, name, columns)
    elif path.suffix == ".jsonl":
        yield from read_json_lines(path, name)
    elif path.suffix == ".json":
        yield from _json_array(path, name)
    else:
        yield from read_csv(path, name, columns)


def _require(name: str, wanted: tuple[str, ...], present: list[str]) -> None:
    missing = [column for column in wanted if column not in present]
    if missing:
        raise ValueError(
            f"{name} lacks the columns {missing}; it has {present}. The published layout has changed: see the adapter."
        )


def read_document(path: Path, name: str, most: int | None = None) -> bytes:
    """A file that has to be held whole. Raises ValueError naming it where it has more than `most` bytes (default MAX_DOCUMENT)."""
    most = MAX_DOCUMENT if most is None else most
    size = path.stat().st_size
    if size > most:
        raise ValueError(f"{name} has {size} bytes in one document, the limit is {most}.")
    return path.read_bytes()


# -- Parquet ----------------------------------------------------------------------------------------------------------------


def _parquet(path: Path, name: str, columns: tuple[str, ...]) -> Iterator[RawRow | BadRow]:
    import pyarrow.parquet as pq

    try:
        file = pq.ParquetFile(path)
    except Exception as error:
        raise ValueError(f"{name} is not a Parquet file that can be read: {error}") from None
    with file:
        _require(name, columns, file.schema_arrow.names)
        number = 0
        batches = file.iter_batches(batch_size=_BATCH)
        while True:
            try:
                batch = next(batches, None)
            except (OSError, ValueError) as error:  # pyarrow's errors are one or the other
                raise ValueError(f"{name} is damaged after row {number}: {error}") from None
            if batch is None:
                return
            yield from _batch(batch, name, number)
            number += len(batch)


def _arrow(path: Path, name: str, columns: tuple[str, ...]) -> Iterator[RawRow | BadRow]:
    """Rows of a table that `datasets` saved to disk: an Arrow stream."""
    import pyarrow as pa

    try:
        with pa.memory_map(str(path)) as source, pa.ipc.open_stream(source) as reader:
            _require(name, columns, reader.schema.names)
            number = 0
            for batch in reader:
                yield from _batch(batch, name, number)
                number += len(batch)
    except pa.ArrowInvalid as error:
        raise ValueError(f"{name} is not an Arrow stream that can be read: {error}") from None


def _batch(batch: pa.RecordBatch, name: str, first: int) -> Iterator[RawRow | BadRow]:
    """Rows of a batch; one by one where the batch holds bytes that are no text."""
    try:
        for place, data in enumerate(batch.to_pylist()):
            yield RawRow(name, first + place, data)
    except UnicodeDecodeError:
        for place in range(len(batch)):
            try:
                (data,) = batch.slice(place, 1).to_pylist()
            except UnicodeDecodeError as error:
                yield BadRow(name, first + place, RowFault("not_text", "", str(error)), None, None, "")
            else:
                yield RawRow(name, first + place, data)


# -- JSON -------------------------------------------------------------------------------------------------------------------


def read_json_lines(path: Path, name: str) -> Iterator[RawRow | BadRow]:
    for number, (start, line, size) in enumerate(read_lines(path)):
        if line is None:
            fault = RowFault("line_too_long", "", f"{size} bytes, the limit is {MAX_LINE}")
            yield BadRow(name, number, fault, start, size, "")
        elif line.strip():
            try:
                data = parse_line(line)
            except RowFault as fault:
                yield BadRow(name, number, fault, start, size, line[:200].decode(errors="replace"))
            else:
                yield RawRow(name, number, data, start, size)


def read_lines(path: Path) -> Iterator[tuple[int, bytes | None, int]]:
    """See `lines_between`, of a whole file."""
    return lines_between(path, 0, path.stat().st_size)


def lines_between(path: Path, start: int, stop: int) -> Iterator[tuple[int, bytes | None, int]]:
    """(offset, bytes, length) of each line that begins in [start, stop); no bytes where it is longer than MAX_LINE. A byte order
    mark belongs to no line."""
    with path.open("rb") as stream:
        offset = len(_BOM) if start == 0 and stream.read(len(_BOM)) == _BOM else start
        stream.seek(offset)
        while offset < stop and (line := stream.readline(MAX_LINE + 1)):
            size = len(line)
            long = size > MAX_LINE
            while long and not line.endswith(b"\n") and (line := stream.readline(MAX_LINE)):
                size += len(line)
            yield offset, None if long else line, size
            offset += size


def blocks_between(path: Path, start: int, stop: int) -> Iterator[tuple[list[int], list[bytes | None], list[int]]]:
    """What `lines_between` says of the lines of [start, stop), which end with the last of them: offsets, bytes without the line's
    end, lengths with it; many lines at a time, for loops in which the cost of a call for each line would show."""
    with path.open("rb", buffering=0) as stream:
        offset = len(_BOM) if start == 0 and stream.read(len(_BOM)) == _BOM else start
        stream.seek(offset)
        most = min(_BLOCK, MAX_LINE // 2)  # no line that is cut from two of them is too long
        data = b""
        while offset < stop:
            block = stream.read(min(most, stop - offset - len(data)))
            data += block
            end = len(data) if not block or offset + len(data) == stop else data.rfind(b"\n") + 1
            if end:
                lines: list[bytes | None] = [*data[: end - (data[end - 1 : end] == b"\n")].split(b"\n")]
                sizes = [len(line) + 1 for line in lines if line is not None]
                sizes[-1] = end - sum(sizes[:-1])
                starts = list(itertools.accumulate(sizes[:-1], initial=offset))
                if b"\r" in data:
                    lines = [line.rstrip(b"\r") for line in lines if line is not None]
                yield starts, lines, sizes
                offset, data = offset + end, data[end:]
            elif not block:
                return
            elif len(data) > most:
                ((offset, long, size),) = lines_between(path, offset, offset + 1)
                yield [offset], [None if long is None else long.rstrip(b"\r\n")], [size]
                offset, data = offset + size, b""
                stream.seek(offset)


def parse_line(line: bytes) -> dict[str, Any]:
    """The object on a line. Raises RowFault."""
    return _object(_decode(line))


def _decode(data: bytes) -> str:
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        raise RowFault("not_text", "", str(error)) from None


def _object(text: str) -> dict[str, Any]:
    """The object that a line holds. Raises RowFault."""
    try:
        if text.startswith("\ufeff"):
            raise json.JSONDecodeError("Unexpected UTF-8 BOM (decode using utf-8-sig)", text, 0)
        data = _JSON.decode(text)
    except (ValueError, RecursionError) as error:
        raise RowFault("not_json", "", str(error)) from None
    if not isinstance(data, dict):
        raise RowFault("not_json", "", f"a {type(data).__name__}, not an object")
    if _SURROGATE.search(text):
        _whole_characters(data)
    return data


def no_constant(word: str) -> float:
    raise ValueError(f"{word} is not JSON")


def unique_fields(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Python would keep the last of two equal keys and say nothing."""
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        raise ValueError(f"the key {next(name for name in names if names.count(name) > 1)!r} stands twice in one object")
    return found


_JSON = json.JSONDecoder(parse_constant=no_constant, object_pairs_hook=unique_fields)
"""What `json.loads` would make anew for every line."""


def _whole_characters(data: dict[str, Any]) -> None:
    try:
        json.dumps(data, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        raise RowFault("not_text", "", "half of a surrogate pair") from None
    except RecursionError as error:
        raise RowFault("not_json", "", str(error)) from None


def _json_array(path: Path, name: str) -> Iterator[RawRow | BadRow]:
    """Objects of one array, or one object. The array is one document: where it breaks, the whole file cannot be trusted."""
    data = read_document(path, name)
    try:
        text = data.removeprefix(_BOM).decode()
        place, byte = 0, len(data) - len(data.removeprefix(_BOM))
        for number, (start, end) in enumerate(_items(text)):
            byte += len(text[place:start].encode())
            item = text[start:end]
            size = len(item.encode())
            try:
                found: RawRow | BadRow = RawRow(name, number, _object(item), byte, size)
            except RowFault as fault:
                found = BadRow(name, number, fault, byte, size, item[:200])
            yield found
            place, byte = end, byte + size
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{name} is not JSON: {error}") from None


def _items(text: str) -> Iterator[tuple[int, int]]:
    """Begin and end of each item of the array that `text` is; of the whole where it is no array. Raises ValueError."""
    scan = json.JSONDecoder().raw_decode
    place = _skip(text, 0)
    array = text[place : place + 1] == "["
    place = _skip(text, place + 1) if array else place
    first = True
    while not (array and first and text[place : place + 1] == "]"):
        _, end = scan(text, place)
        yield place, end
        first, place = False, _skip(text, end)
        if not array or text[place : place + 1] != ",":
            break
        place = _skip(text, place + 1)
    if array and text[place : place + 1] != "]":
        raise json.JSONDecodeError("Expecting ',' or ']'", text, place)
    if (place := _skip(text, place + 1 if array else place)) < len(text):
        raise json.JSONDecodeError("Extra data", text, place)


def _skip(text: str, place: int) -> int:
    found = _BETWEEN.match(text, place)
    assert found is not None
    return found.end()


# -- CSV --------------------------------------------------------------------------------------------------------------------


def read_csv(
    path: Path, name: str, columns: tuple[str, ...], separator: str = ",", names: tuple[str, ...] = ()
) -> Iterator[RawRow | BadRow]:
    """Records under a header, or under `names` where there is none.

    A quoted field may span lines, so the record's bytes are counted as the parser takes them.
    """
    taken = len(_BOM) if path.open("rb").read(len(_BOM)) == _BOM else 0

    def lines() -> Iterator[str]:
        nonlocal taken
        for start, line, size in read_lines(path):
            taken = start + size
            if line is None:
                raise ValueError(f"{name} has a line of {size} bytes, the limit is {MAX_LINE}")
            yield line.decode(errors="surrogateescape")

    limit = csv.field_size_limit(MAX_LINE)
    try:
        reader = csv.reader(lines(), strict=True, delimiter=separator)
        header = list(names) or next(reader, [])
        _require(name, columns, header)
        for number in itertools.count():
            start = taken
            try:
                record = next(reader, None)
            except csv.Error as error:
                if "unexpected end" in str(error):  # a quote that is never closed swallowed every row after it
                    raise ValueError(f"{name} is cut off in the record that begins at byte {start}: {error}") from None
                yield BadRow(name, number, RowFault("not_csv", "", str(error)), start, taken - start, "")
                continue
            if record is None:
                return
            if record:
                yield _record(name, number, header, record, start, taken - start)
    finally:
        csv.field_size_limit(limit)


def _record(name: str, number: int, header: list[str], record: list[str], offset: int, length: int) -> RawRow | BadRow:
    shown = ",".join(record)[:200].encode(errors="surrogateescape").decode(errors="replace")
    if any("\udc80" <= letter <= "\udcff" for field in record for letter in field if not field.isascii()):
        return BadRow(name, number, RowFault("not_text", "", "bytes that are not UTF-8"), offset, length, shown)
    if len(record) != len(header):
        fault = RowFault("length_mismatch", "", f"{len(record)} fields under {len(header)} columns")
        return BadRow(name, number, fault, offset, length, shown)
    return RawRow(name, number, dict(zip(header, record, strict=True)), offset, length)
