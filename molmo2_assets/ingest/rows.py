"""Reading published annotation files row by row, with where each row stands.

Belongs here: file types. Does not belong here: what a row means (`adapters/`). A line that is no JSON is a fault of that line alone.
"""

from __future__ import annotations

import csv
import fnmatch
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from molmo2_assets.ingest.reasons import RowFault

SUFFIXES = (".parquet", ".jsonl", ".json", ".csv")
NOT_ANNOTATIONS = ("media", "masks", "videos", "images", "audio")
MAX_LINE = 64 << 20
"""Bytes of one JSON line; a longer one is set aside unread."""
_BATCH = 512


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
        if not path.is_file() or path.name == "manifest.json" or path.suffix not in SUFFIXES:
            continue
        if patterns:
            if any(fnmatch.fnmatch(relative.as_posix(), pattern) for pattern in patterns):
                found.append(path)
        elif relative.parts[0] not in NOT_ANNOTATIONS:
            found.append(path)
    return found


def read_rows(path: Path, raw: Path, columns: tuple[str, ...]) -> Iterator[RawRow | BadRow]:
    """Rows of one file in order. Raises ValueError naming the file where a required column is missing altogether."""
    name = path.relative_to(raw).as_posix()
    if path.suffix == ".parquet":
        yield from _parquet(path, name, columns)
    elif path.suffix == ".jsonl":
        yield from _json_lines(path, name)
    elif path.suffix == ".json":
        yield from _json_array(path, name)
    else:
        yield from _csv(path, name, columns)


def _parquet(path: Path, name: str, columns: tuple[str, ...]) -> Iterator[RawRow]:
    import pyarrow.parquet as pq

    try:
        file = pq.ParquetFile(path)
    except Exception as error:
        raise ValueError(f"{name} is not a Parquet file that can be read: {error}") from None
    with file:
        _require(name, columns, file.schema_arrow.names)
        number = 0
        for batch in file.iter_batches(batch_size=_BATCH):
            for data in batch.to_pylist():
                yield RawRow(name, number, data)
                number += 1


def _require(name: str, wanted: tuple[str, ...], present: list[str]) -> None:
    missing = [column for column in wanted if column not in present]
    if missing:
        raise ValueError(
            f"{name} lacks the columns {missing}; it has {present}. The published layout has changed: see the adapter."
        )


def _json_lines(path: Path, name: str) -> Iterator[RawRow | BadRow]:
    offset = 0
    with path.open("rb") as stream:
        number = -1
        while line := stream.readline(MAX_LINE + 1):
            number += 1
            start, size = offset, len(line)
            if size > MAX_LINE:
                while not line.endswith(b"\n") and (line := stream.readline(MAX_LINE)):
                    size += len(line)
                offset += size
                fault = RowFault("line_too_long", "", f"{size} bytes, the limit is {MAX_LINE}")
                yield BadRow(name, number, fault, start, size, "")
                continue
            offset += size
            if not line.strip():
                continue
            try:
                data = json.loads(line, parse_constant=_no_constant)
                if not isinstance(data, dict):
                    raise ValueError("the line is not a JSON object")
            except (ValueError, RecursionError) as error:
                fault = RowFault("not_json", "", str(error))
                yield BadRow(name, number, fault, start, size, line[:200].decode(errors="replace"))
                continue
            yield RawRow(name, number, data, start, size)


def _no_constant(word: str) -> float:
    raise ValueError(f"{word} is not JSON")


def _json_array(path: Path, name: str) -> Iterator[RawRow]:
    try:
        rows = json.loads(path.read_bytes())
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{name} is not JSON: {error}") from None
    for number, data in enumerate(rows if isinstance(rows, list) else [rows]):
        yield RawRow(name, number, data if isinstance(data, dict) else {"value": data})


def _csv(path: Path, name: str, columns: tuple[str, ...]) -> Iterator[RawRow]:
    with path.open(encoding="utf-8", newline="") as stream:
        reader = csv.DictReader(stream)
        _require(name, columns, list(reader.fieldnames or []))
        for number, data in enumerate(reader):
            yield RawRow(name, number, dict(data))
