"""Rows of a whole set: which files hold them, where they stand in those, what other files say about them, which are wanted.

Belongs here: what a catalogue entry declares about its files (`source.tables`, `select`). Does not belong here: file types
(`rows.py`), what a row means (`adapters/`). A row is numbered by its place among the rows of its file; a row out of a nested
list has the byte range of the record that holds it.
"""

from __future__ import annotations

import fnmatch
import itertools
import json
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from molmo2_assets.ingest import rows
from molmo2_assets.ingest.joins import Joined
from molmo2_assets.ingest.pluck import pluck
from molmo2_assets.ingest.reasons import RowFault
from molmo2_assets.ingest.rows import BadRow, RawRow
from molmo2_assets.sources.places import folder_of

if TYPE_CHECKING:
    from molmo2_assets.profile import DatasetSpec
    from molmo2_assets.profile.structs import SelectSpec, TableSpec

PEEKED = 100
"""Rows of a file that are looked at before it is said to lack a column: JSON writes absent fields as nothing."""


def rows_of(
    spec: DatasetSpec, path: Path, raw: Path, columns: tuple[str, ...] = (), optional: tuple[str, ...] = ()
) -> Iterator[RawRow | BadRow]:
    """Rows of one file in the raw folder of a set; those that the entry does not select are bad rows of that reason.

    Raises ValueError naming the file where it is not of its type, or has not the columns: all of them where the file names its
    columns, those that are not `optional` where its rows do.
    """
    name = path.relative_to(raw).as_posix()
    if any(join.file == name for table in spec.source.tables for join in table.joins.values()):
        return  # it is looked into, it has no rows of its own
    tables = [table for table in spec.source.tables if _reads(table, name)]
    if not tables:
        found: Iterator[RawRow | BadRow] = rows.read_rows(path, raw, columns)
    else:
        joined = Joined(raw, folder_of(spec.media))
        found = _numbered(row for table in tables for row in _table(path, name, table, joined))
    for row in _published(spec, name, found, tuple(column for column in columns if column not in optional)):
        yield row if spec.select is None or isinstance(row, BadRow) else _selected(row, spec.select)


def _reads(table: TableSpec, name: str) -> bool:
    return not table.files or any(fnmatch.fnmatch(name, pattern) for pattern in table.files)


def _numbered(found: Iterable[RawRow | BadRow]) -> Iterator[RawRow | BadRow]:
    for number, row in enumerate(found):
        if isinstance(row, RawRow):
            yield RawRow(row.file, number, row.data, row.offset, row.length)
        else:
            yield BadRow(row.file, number, row.fault, row.offset, row.length, row.preview)


def _published(
    spec: DatasetSpec, name: str, found: Iterator[RawRow | BadRow], columns: tuple[str, ...]
) -> Iterator[RawRow | BadRow]:
    """The same rows, once the first of them are seen to have what the adapter reads. Raises ValueError."""
    first = list(itertools.islice(found, PEEKED))
    seen: dict[str, None] = {}
    for row in first:
        if isinstance(row, RawRow):
            seen.update(dict.fromkeys(row.data))
    missing = [column for column in columns if column not in seen]
    if seen and missing:
        what_to_do = {
            "assumed": "The layout of this entry is assumed, not confirmed: correct its adapter_params by what the file has.",
            "confirmed": "The published layout has changed: see the adapter.",
        }
        raise ValueError(f"{name} lacks the columns {missing}; its rows have {sorted(seen)}. {what_to_do[spec.layout]}")
    yield from first
    yield from found


# -- where rows stand -------------------------------------------------------------------------------------------------------


def _table(path: Path, name: str, table: TableSpec, joined: Joined) -> Iterator[RawRow | BadRow]:
    for row in _records(path, name, table):
        if isinstance(row, BadRow):
            yield row
            continue
        try:
            found = list(_exploded(row.data, table.explode))
        except RowFault as fault:
            yield _bad(row, fault)
            continue
        for data in found:
            try:
                yield RawRow(row.file, row.row, joined.add({**data, **table.add}, table.joins), row.offset, row.length)
            except RowFault as fault:
                yield _bad(row, fault)


def _bad(row: RawRow, fault: RowFault) -> BadRow:
    return BadRow(row.file, row.row, fault, row.offset, row.length, json.dumps(row.data, default=str)[:200])


def _records(path: Path, name: str, table: TableSpec) -> Iterator[RawRow | BadRow]:
    if table.pattern is not None:
        return _text_lines(path, name, re.compile(table.pattern))
    if path.suffix in (".csv", ".tsv", ".txt"):
        return rows.read_csv(path, name, (), table.separator, table.header)
    if path.suffix == ".jsonl":
        return _lists(path, name, table.header) if _starts_with_list(path) else rows.read_json_lines(path, name)
    if path.suffix == ".json" and (table.at or table.keyed):
        return _document(path, name, table.at, table.keyed)
    return rows.read_rows(path, path.parents[name.count("/")], ())


def _text_lines(path: Path, name: str, pattern: re.Pattern[str]) -> Iterator[RawRow | BadRow]:
    """Lines of a text file, whose columns are the groups of a pattern."""
    for number, (start, line, size) in enumerate(rows.read_lines(path)):
        if line is None:
            yield BadRow(name, number, RowFault("line_too_long", "", f"{size} bytes"), start, size, "")
            continue
        try:
            text = line.decode().strip()
        except UnicodeDecodeError as error:
            yield BadRow(name, number, RowFault("not_text", "", str(error)), start, size, "")
            continue
        if not text:
            continue
        found = pattern.fullmatch(text)
        if found is None:
            yield BadRow(
                name, number, RowFault("not_csv", "", f"the line is not of the form {pattern.pattern}"), start, size, text[:200]
            )
        else:
            yield RawRow(name, number, found.groupdict(), start, size)


def _starts_with_list(path: Path) -> bool:
    for _, line, _ in rows.read_lines(path):
        if line is not None and line.strip():
            return line.lstrip().startswith(b"[")
    return False


def _lists(path: Path, name: str, header: tuple[str, ...]) -> Iterator[RawRow | BadRow]:
    """JSON lists, one a line; the first names the columns unless `header` does."""
    names: list[Any] = list(header)
    for number, (start, line, size) in enumerate(rows.read_lines(path)):
        if line is None:
            yield BadRow(name, number, RowFault("line_too_long", "", f"{size} bytes"), start, size, "")
            continue
        if not line.strip():
            continue
        try:
            values = msgspec.json.decode(line)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
            yield BadRow(name, number, RowFault("not_json", "", str(error)), start, size, line[:200].decode(errors="replace"))
            continue
        if not isinstance(values, list):
            yield BadRow(name, number, RowFault("not_json", "", "not a list"), start, size, line[:200].decode(errors="replace"))
        elif not names:
            names = [str(value) for value in values]
        elif len(values) != len(names):
            fault = RowFault("length_mismatch", "", f"{len(values)} fields under {len(names)} columns")
            yield BadRow(name, number, fault, start, size, line[:200].decode(errors="replace"))
        else:
            yield RawRow(name, number, dict(zip(names, values, strict=True)), start, size)


def _document(path: Path, name: str, at: str | None, keyed: str | None) -> Iterator[RawRow | BadRow]:
    """Rows inside one JSON document: a list, or the values of an object. The document is held whole, as it must be to be parsed."""
    document = rows.read_document(path, name)
    try:
        found: Any = json.loads(document, parse_constant=rows.no_constant, object_pairs_hook=rows.unique_fields)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{name} is not JSON: {error}") from None
    for key in at.split(".") if at else ():
        if not isinstance(found, dict) or key not in found:
            held = sorted(found)[:12] if isinstance(found, dict) else f"a {type(found).__name__}"
            raise ValueError(f"{name} has no {at!r}; it holds {held}. The published layout has changed: see source.tables.")
        found = found[key]
    for number, (key, item) in enumerate(_named(name, found, keyed)):
        if not isinstance(item, dict):
            fault = RowFault("not_json", "", f"a {type(item).__name__}, not an object")
            yield BadRow(name, number, fault, None, None, str(item)[:200])
        else:
            yield RawRow(name, number, {**item, keyed: key} if keyed else item)


def _named(name: str, found: Any, keyed: str | None) -> Iterable[tuple[str, Any]]:
    """Items of a list (without names), or of an object with their keys. Raises ValueError."""
    if keyed and isinstance(found, dict):
        return found.items()
    if not keyed and isinstance(found, list):
        return (("", item) for item in found)
    wanted = "an object" if keyed else "a list"
    raise ValueError(f"{name} has a {type(found).__name__} where its rows should stand in {wanted}.")


def _exploded(data: dict[str, Any], path: tuple[str, ...]) -> Iterator[dict[str, Any]]:
    """One record for each item of a nested list, its fields over those around it. Raises RowFault."""
    if not path:
        yield data
        return
    name, *rest = path
    items = data.get(name)
    if items is None:
        items = []
    if not isinstance(items, list):
        raise RowFault("wrong_type", name, f"{type(items).__name__}, not a list")
    outer = {key: value for key, value in data.items() if key != name}
    for item in items:
        if not isinstance(item, dict):
            raise RowFault("wrong_type", name, f"{type(item).__name__}, not an object")
        yield from _exploded({**outer, **item}, tuple(rest))


# -- which rows are wanted --------------------------------------------------------------------------------------------------


def _selected(row: RawRow, select: SelectSpec) -> RawRow | BadRow:
    reason = _not_wanted(row.data, select)
    if reason is None:
        return row
    return BadRow(row.file, row.row, RowFault("not_selected", *reason), row.offset, row.length, "")


def _not_wanted(data: dict[str, Any], select: SelectSpec) -> tuple[str, str] | None:
    """(column, what stands there) of the first condition that a row does not meet."""
    for name, values in select.only.items():
        if pluck(data, name) not in values:
            return name, str(pluck(data, name))[:80]
    for name, values in select.never.items():
        if pluck(data, name) in values:
            return name, str(pluck(data, name))[:80]
    for name, (low, high) in select.between.items():
        found = pluck(data, name)
        size = len(found) if isinstance(found, list | tuple) else found
        if not isinstance(size, int | float):
            return name, f"{type(found).__name__}"
        if (low is not None and size < low) or (high is not None and size > high):
            return name, f"{size:g}"
    return None
