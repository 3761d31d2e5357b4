"""Rows on disk: `data.jsonl` and beside it `data.idx`, columns that loaders, planners and diffs read without touching the JSON.

Belongs here: the index format, writing, random access. Does not belong here: what a row is (`example.py`), which rows are good
(`molmo2_assets.ingest`).

A row's number is the rank of its id hash, so numbers are a function of content: a reordered source renumbers nothing.

`data.idx` = 8 bytes magic, 8 bytes little-endian header length, a JSON header {schema, rows, data_bytes, data_sha256, version,
files, columns: [[name, dtype, shape, offset]]}, then the columns, each aligned to 64 bytes from the file's start and sorted by
id hash.
"""

from __future__ import annotations

import hashlib
import io
import math
import mmap
from array import array
from collections.abc import Callable, Iterator
from pathlib import Path
from types import TracebackType
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from training_backend.data.example import TASKS, Example, RowHashes, content_version, decode_row, seal
from training_backend.data.manifest import storage_error

DATA_FILE = "data.jsonl"
INDEX_FILE = "data.idx"
INDEX_SCHEMA = "molmo2-index/1"
_MAGIC = b"MOLMO2IX"
_ALIGN = 64
_BLOCK = 1 << 18
"""Bytes that are copied at once."""
_TASK_NUMBER = {name: number for number, name in enumerate(TASKS)}


class StoreError(ValueError):
    """A row store that cannot be read; the message names the file and the way out."""


class StoreInfo(msgspec.Struct, frozen=True, kw_only=True):
    """What was written: rows, their content version, rows of each task, bytes of `data.jsonl`."""

    rows: int
    data_version: str
    tasks: dict[str, int]
    data_bytes: int


_DIGESTS = {"id_hash": 16, "row_hash": 16, "text": 8, "grounding": 8, "media": 8, "meta": 8}
_NUMBERS = {"offset": "Q", "length": "L", "task": "B", "file": "L", "row": "L"}
_DTYPES = {"offset": np.uint64, "length": np.uint32, "task": np.uint8, "file": np.uint32, "row": np.uint32}


class RowColumns:
    """The index columns of rows in the order in which they are written: about 90 bytes a row."""

    def __init__(self) -> None:
        self.digests = {name: bytearray() for name in _DIGESTS}
        self.numbers = {name: array(code) for name, code in _NUMBERS.items()}

    def __len__(self) -> int:
        return len(self.numbers["row"])

    def add(self, hashes: RowHashes, offset: int, length: int, task: str, file: int, row: int) -> None:
        """One row: bytes [offset, offset + length) of the data, row `row` of source file number `file`."""
        digests, numbers = self.digests, self.numbers
        digests["id_hash"] += hashes.id_hash
        digests["row_hash"] += hashes.row_hash
        digests["text"] += hashes.text
        digests["grounding"] += hashes.grounding
        digests["media"] += hashes.media
        digests["meta"] += hashes.meta
        numbers["offset"].append(offset)
        numbers["length"].append(length)
        numbers["task"].append(_TASK_NUMBER[task])
        numbers["file"].append(file)
        numbers["row"].append(row)

    def extend(self, hashes: bytearray, offsets: array[int], lengths: array[int], task: str, rows: array[int]) -> None:
        """Many rows of one task and of source file 0; `hashes` as `Sealer.seal` gives them."""
        table = np.frombuffer(bytes(hashes), np.uint8).reshape(-1, sum(_DIGESTS.values()))
        begin = 0
        for name, width in _DIGESTS.items():
            self.digests[name] += table[:, begin : begin + width].tobytes()
            begin += width
        numbers = self.numbers
        numbers["offset"].extend(offsets)
        numbers["length"].extend(lengths)
        numbers["row"].extend(rows)
        numbers["task"].frombytes(bytes([_TASK_NUMBER[task]]) * len(rows))
        numbers["file"].frombytes(bytes(numbers["file"].itemsize * len(rows)))

    def only(self, keep: NDArray[np.bool_]) -> RowColumns:
        """The rows where `keep` is true."""
        kept = RowColumns()
        for name in _DIGESTS:
            kept.digests[name] += self.digest(name)[keep].tobytes()
        for name in _NUMBERS:
            column = kept.numbers[name]
            column.frombytes(self.number(name)[keep].astype(f"u{column.itemsize}").tobytes())
        return kept

    def digest(self, name: str) -> NDArray[np.uint8]:
        """uint8 [n, width] of one column of hashes."""
        return np.frombuffer(bytes(self.digests[name]), dtype=np.uint8).reshape(-1, _DIGESTS[name])

    def number(self, name: str) -> NDArray[Any]:
        """One column of numbers."""
        return np.array(self.numbers[name], dtype=_DTYPES[name])


class RowWriter:
    """Writes a store into a folder. Use as a context manager; after it `info` is set. Ids must be unique: a duplicate raises
    StoreError when the index is written."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.info: StoreInfo | None = None
        self._columns = RowColumns()
        self._files: dict[str, int] = {}
        self._digest = hashlib.sha256()
        self._offset = 0
        self._discarded = False

    def __enter__(self) -> RowWriter:
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            self._stream = (self.folder / DATA_FILE).open("wb", buffering=1 << 20)
        except OSError as error:
            raise storage_error(error, self.folder / DATA_FILE) from error
        return self

    def add(self, example: Example) -> None:
        """Append one row."""
        line, hashes = seal(example)
        file = self._files.setdefault(example.source.file, len(self._files))
        self._columns.add(hashes, self._offset, len(line), example.task, file, example.source.row)
        self._digest.update(line + b"\n")
        self._write(line + b"\n")
        self._offset += len(line) + 1

    def add_rows(self, lines: Path, columns: RowColumns, file: str) -> None:
        """Append rows that were written to the file `lines` already, in its order; `columns` index them, all of source file `file`.

        `lines` may hold more than these rows; what stands behind them is left.
        """
        number = self._files.setdefault(file, len(self._files))
        ends = self._offset + np.cumsum(columns.number("length").astype(np.int64) + 1)
        size = int(ends[-1]) - self._offset if len(ends) else 0
        for block in _blocks(lines.open("rb", buffering=0), [(0, size)]):
            self._digest.update(block)
            self._write(block)
        mine = self._columns
        for name in _DIGESTS:
            mine.digests[name] += columns.digests[name]
        for name in ("length", "task", "row"):
            mine.numbers[name].extend(columns.numbers[name])
        for name, values in (("offset", np.concatenate(([self._offset], ends))[:-1]), ("file", np.full(len(columns), number))):
            column = mine.numbers[name]
            column.frombytes(values.astype(f"u{column.itemsize}").tobytes())
        self._offset += size

    def digest(self, name: str) -> NDArray[np.uint8]:
        """uint8 [n, width] of one column of hashes of the rows so far."""
        return self._columns.digest(name)

    def keep_only(self, keep: NDArray[np.bool_]) -> None:
        """Leave out the rows so far where `keep` is false; those that stay move together."""
        starts, lengths = self._columns.number("offset").astype(np.int64), self._columns.number("length").astype(np.int64)
        runs = [(int(starts[first]), int(starts[after - 1] + lengths[after - 1]) + 1) for first, after in _runs(keep)]
        self._digest, self._offset = hashlib.sha256(), 0
        try:
            self._stream.flush()
            self._stream.seek(0)
            # In place: what is written never passes what was read.
            for block in _blocks((self.folder / DATA_FILE).open("rb", buffering=0), runs):
                self._digest.update(block)
                self._write(block)
                self._offset += len(block)
            self._stream.truncate()
        except OSError as error:
            raise storage_error(error, self.folder / DATA_FILE) from error
        self._columns = self._columns.only(keep)
        moved = np.concatenate(([0], np.cumsum(lengths[keep] + 1)))[:-1]
        offset = self._columns.numbers["offset"] = array(_NUMBERS["offset"])
        offset.frombytes(moved.astype(f"u{offset.itemsize}").tobytes())

    def discard(self) -> None:
        """Leave no store behind."""
        self._discarded = True

    def _write(self, data: bytes | memoryview) -> None:
        try:
            self._stream.write(data)
        except OSError as error:
            raise storage_error(error, self.folder / DATA_FILE) from error

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None) -> None:
        try:
            self._stream.close()
        except OSError as error:
            raise storage_error(error, self.folder / DATA_FILE) from error
        if self._discarded:
            (self.folder / DATA_FILE).unlink()
        elif kind is None:
            self._write_index()

    def _write_index(self) -> None:
        columns = self._columns
        rows = len(columns)
        order = _order(columns.digest("id_hash"))
        ordered = _taken(columns.digest("id_hash"), order)
        twice = rows and bool((ordered[1:] == ordered[:-1]).all(axis=1).any())
        del ordered  # of the size of all that is held at a time
        if twice:
            raise StoreError(f"{self.folder / DATA_FILE}: two rows have the same id; ids must be unique within a set.")
        counts = np.bincount(columns.number("task"), minlength=len(TASKS))
        version = content_version(columns.digests["row_hash"])

        def column(name: str) -> NDArray[Any]:
            return _taken(columns.digest(name), order) if name in _DIGESTS else columns.number(name)[order]

        names = sorted(self._files, key=self._files.__getitem__)
        _write_columns(
            self.folder / INDEX_FILE,
            rows,
            column,
            {
                "rows": rows,
                "data_bytes": self._offset,
                "data_sha256": self._digest.hexdigest(),
                "version": version,
                "files": names,
            },
        )
        tasks = {name: int(counts[number]) for number, name in enumerate(TASKS) if counts[number]}
        self.info = StoreInfo(rows=rows, data_version=version, tasks=tasks, data_bytes=self._offset)


def _blocks(stream: io.FileIO, runs: list[tuple[int, int]]) -> Iterator[memoryview]:
    """Bytes [begin, end) of every run, in blocks that hold until the next one is asked for. Closes the file."""
    buffer = memoryview(bytearray(_BLOCK))  # one for all: new memory costs more time than what is read into it
    with stream:
        for begin, end in runs:
            stream.seek(begin)
            while begin < end:
                size = stream.readinto(buffer[: end - begin])
                if not size:
                    raise StoreError(f"{stream.name} ended before its last row: materialise the asset again.")
                yield buffer[:size]
                begin += size


def _order(ids: NDArray[np.uint8]) -> NDArray[np.intp]:
    """Places of ids of 16 bytes in the order of their bytes. Half of them tells almost all apart, and sorts faster as a number."""

    def half(number: int) -> NDArray[np.uint64]:
        return ids.view(">u8")[:, number].astype(np.uint64)

    begins = half(0)
    order = np.argsort(begins, kind="stable")
    begins = begins[order]
    if bool((begins[1:] == begins[:-1]).any()):
        return np.lexsort((half(1), half(0)))
    return order


def _taken(hashes: NDArray[np.uint8], order: NDArray[np.intp]) -> NDArray[np.uint8]:
    """`hashes[order]`, each moved as one value and not byte by byte."""
    width = hashes.shape[1]
    return hashes.view(f"V{width}").ravel()[order].view(np.uint8).reshape(-1, width)


def _runs(keep: NDArray[np.bool_]) -> list[tuple[int, int]]:
    """[first, after) of every run of true values."""
    edges = np.flatnonzero(np.diff(np.concatenate(([False], keep, [False])).astype(np.int8)))
    return [(int(first), int(after)) for first, after in edges.reshape(-1, 2)]


def _write_columns(path: Path, rows: int, column: Callable[[str], NDArray[Any]], header: dict[str, Any]) -> None:
    """Write an index; each column is asked for when it is its turn, and given up."""
    layout: dict[str, tuple[np.dtype[Any], list[int]]] = {
        name: (np.dtype(np.uint8), [rows, width]) for name, width in _DIGESTS.items()
    }
    layout |= {name: (np.dtype(_DTYPES[name]), [rows]) for name in _NUMBERS}
    table: list[tuple[str, str, list[int], int]] = []
    cursor = 0
    for name, (kind, shape) in layout.items():
        table.append((name, kind.str, shape, cursor))
        cursor += -(-kind.itemsize * math.prod(shape) // _ALIGN) * _ALIGN
    head = msgspec.json.encode({"schema": INDEX_SCHEMA, **header, "columns": table})
    start = -(-(16 + len(head)) // _ALIGN) * _ALIGN
    try:
        with path.open("wb") as stream:
            stream.write(_MAGIC + len(head).to_bytes(8, "little") + head)
            for name, _, _, offset in table:
                stream.seek(start + offset)
                stream.write(np.ascontiguousarray(column(name)).data)
            stream.truncate(start + cursor)
    except OSError as error:
        raise storage_error(error, path) from error


class RowStore:
    """Random access to a written store by row number. Memory-mapped; cheap to open, safe to open in every worker."""

    def __init__(self, folder: Path) -> None:
        self.folder = Path(folder)
        self._columns, self.header = _read_columns(self.folder / INDEX_FILE)
        data = self.folder / DATA_FILE
        size = data.stat().st_size if data.is_file() else -1
        if size != self.header["data_bytes"]:
            raise StoreError(
                f"{data} has {size} bytes, its index was written for {self.header['data_bytes']}: materialise the asset again."
            )
        self._map: mmap.mmap | None = None
        if size:
            with data.open("rb") as stream:
                self._map = mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ)

    def __len__(self) -> int:
        return int(self.header["rows"])

    @property
    def version(self) -> str:
        """Content version of the rows."""
        return str(self.header["version"])

    def column(self, name: str) -> NDArray[Any]:
        """One index column by row number: id_hash, row_hash [n,16]; text, grounding, media, meta [n,8] (uint8); offset, length,
        task (into TASKS), file (into `files`), row."""
        return self._columns[name]

    @property
    def files(self) -> list[str]:
        """Source files that the `file` column refers to."""
        return list(self.header["files"])

    def line(self, number: int) -> bytes:
        """The JSON of row `number`. Raises IndexError outside [0, len)."""
        if not 0 <= number < len(self):
            raise IndexError(f"row {number} of {self.folder}: it has {len(self)} rows")
        assert self._map is not None
        start = int(self._columns["offset"][number])
        return self._map[start : start + int(self._columns["length"][number])]

    def example(self, number: int) -> Example:
        """Row `number`, decoded."""
        return decode_row(self.line(number))

    def find(self, example_id: str) -> int | None:
        """Number of the row with this id, or None."""
        from training_backend.data.example import id_hash

        wanted = np.frombuffer(id_hash(example_id), dtype=np.uint8)
        hits = np.flatnonzero((self._columns["id_hash"] == wanted).all(axis=1))
        return int(hits[0]) if len(hits) else None

    def __iter__(self) -> Iterator[Example]:
        for number in range(len(self)):
            yield self.example(number)


def _read_columns(path: Path) -> tuple[dict[str, NDArray[Any]], dict[str, Any]]:
    try:
        raw = np.memmap(path, dtype=np.uint8, mode="r")
    except (FileNotFoundError, ValueError):
        raise StoreError(f"{path} is missing or empty: materialise the asset again.") from None
    if raw[:8].tobytes() != _MAGIC:
        raise StoreError(f"{path} is not a row index.")
    length = int.from_bytes(raw[8:16].tobytes(), "little")
    try:
        header = msgspec.json.decode(raw[16 : 16 + length].tobytes())
    except msgspec.DecodeError:
        raise StoreError(f"{path} is torn: materialise the asset again.") from None
    if header["schema"] != INDEX_SCHEMA:
        raise StoreError(f"{path} has schema {header['schema']}, this version reads {INDEX_SCHEMA}.")
    start = -(-(16 + length) // _ALIGN) * _ALIGN
    columns = {}
    end = start
    for name, dtype, shape, offset in header["columns"]:
        size = int(np.prod(shape)) * np.dtype(dtype).itemsize
        end = start + offset + -(-size // _ALIGN) * _ALIGN
        if end > len(raw):
            raise StoreError(f"{path} is truncated in column {name}: materialise the asset again.")
        columns[name] = raw[start + offset : start + offset + size].view(dtype).reshape(shape)
    if end != len(raw):
        raise StoreError(f"{path} has {len(raw)} bytes instead of {end}: materialise the asset again.")
    return columns, header
