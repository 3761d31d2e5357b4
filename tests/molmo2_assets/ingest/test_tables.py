"""Where rows stand: documents, lists, lines of text, nested lists, joined files, views; and what is told when they do not."""

from __future__ import annotations

import json
import struct
import zlib
from pathlib import Path
from typing import Any

import pytest

from molmo2_assets.ingest import joins, rows
from molmo2_assets.ingest.pluck import pluck
from molmo2_assets.ingest.reasons import LEFT_OUT, REASONS
from molmo2_assets.ingest.rows import BadRow, RawRow
from molmo2_assets.ingest.tables import rows_of
from molmo2_assets.profile.structs import JoinSpec, SelectSpec, SourceSpec, TableSpec
from tests.support.layouts import write
from tests.support.small_sets import spec_of


def found(raw: Path, name: str, *tables: TableSpec, select: SelectSpec | None = None, columns: tuple[str, ...] = ()) -> list[Any]:
    """Rows of one file: their fields, or the reason why one is none."""
    spec = spec_of("image_questions", "image_qa", source=SourceSpec(kind="manual", path="x", tables=tables), select=select)
    return [row.fault.reason if isinstance(row, BadRow) else row.data for row in rows_of(spec, raw / name, raw, columns)]


def test_dotted_names_go_through_objects_and_lists() -> None:
    data = {"a": {"b": [{"c": 1}, {"c": 2}, {}]}, "x.y": 3}
    assert pluck(data, "a.b.c") == [1, 2, None]
    assert pluck(data, "x.y") == 3
    assert pluck(data, "a.nothing.c") is None
    assert pluck("text", "a") is None


def test_rows_inside_a_document(tmp_path: Path) -> None:
    write(tmp_path, {"a.json": {"info": {"data": [{"q": 1}, 7, {"q": 2}]}}, "b.json": {"one": {"q": 1}, "two": {"q": 2}}})
    assert found(tmp_path, "a.json", TableSpec(at="info.data")) == [{"q": 1}, "not_json", {"q": 2}]
    assert found(tmp_path, "b.json", TableSpec(keyed="id")) == [{"q": 1, "id": "one"}, {"q": 2, "id": "two"}]


@pytest.mark.parametrize(
    ("text", "table", "says"),
    [
        ('{"rows": []}', TableSpec(at="data"), r"has no 'data'; it holds \['rows'\]"),
        ('{"data": {}}', TableSpec(at="data"), "has a dict where its rows should stand in a list"),
        ("[]", TableSpec(keyed="id"), "has a list where its rows should stand in an object"),
        ('{"a": {}, "a": {}}', TableSpec(keyed="id"), "is not JSON: the key 'a' stands twice"),
        ('{"data": [', TableSpec(at="data"), "is not JSON"),
        ('{"data": [NaN]}', TableSpec(at="data"), "is not JSON"),
        ("[" * 100_000, TableSpec(at="data"), "is not JSON"),
    ],
)
def test_a_document_that_is_none_is_one_error_naming_the_file(text: str, table: TableSpec, says: str, tmp_path: Path) -> None:
    write(tmp_path, {"a.json": text})
    with pytest.raises(ValueError, match=rf"a\.json {says}"):
        found(tmp_path, "a.json", table)


def test_lists_under_their_first_line_or_declared_names(tmp_path: Path) -> None:
    write(tmp_path, {"a.jsonl": '["q","a"]\n[1,"x"]\n[1]\n\nnot json\n{"q":1}\n[2,"y"]\n'})
    assert found(tmp_path, "a.jsonl", TableSpec()) == [
        {"q": 1, "a": "x"}, "length_mismatch", "not_json", "not_json", {"q": 2, "a": "y"},
    ]  # fmt: skip
    write(tmp_path, {"b.jsonl": '[1,"x"]\n'})
    assert found(tmp_path, "b.jsonl", TableSpec(header=("q", "a"))) == [{"q": 1, "a": "x"}]


def test_lines_of_text_by_a_pattern(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes("v1 2.5##Ünder\r\n\r\nnothing\nv2 3##x\n".encode() + b"v3 4##\xff\n")
    table = TableSpec(pattern=r"(?P<video>\S+) (?P<start>[\d.]+)##(?P<text>.*)")
    assert found(tmp_path, "a.txt", table) == [
        {"video": "v1", "start": "2.5", "text": "Ünder"}, "not_csv", {"video": "v2", "start": "3", "text": "x"}, "not_text",
    ]  # fmt: skip


def test_tables_without_a_header_and_with_another_separator(tmp_path: Path) -> None:
    write(tmp_path, {"a.tsv": 'v1\t"a\tb"\nv2\n'})
    assert found(tmp_path, "a.tsv", TableSpec(separator="\t", header=("video", "text"))) == [
        {"video": "v1", "text": "a\tb"}, "length_mismatch",
    ]  # fmt: skip


def test_nested_lists_become_rows_with_what_is_around_them(tmp_path: Path) -> None:
    rows = [
        {"id": 1, "clips": [{"n": 1, "labels": [{"label": "a"}, {"label": "b", "id": 9}]}, {"n": 2, "labels": None}]},
        {"id": 2},
    ]
    write(tmp_path, {"a.json": [*rows, {"id": 3, "clips": "x"}, {"id": 4, "clips": [1]}]})
    assert found(tmp_path, "a.json", TableSpec(explode=("clips", "labels"))) == [
        {"id": 1, "n": 1, "label": "a"}, {"id": 9, "n": 1, "label": "b"}, "wrong_type", "wrong_type",
    ]  # fmt: skip


def test_rows_are_numbered_through_all_tables_of_a_file(tmp_path: Path) -> None:
    write(tmp_path, {"a.jsonl": [{"q": 1}, {"q": 2}]})
    tables = (TableSpec(), TableSpec(add={"kind": "second"}))
    spec = spec_of("image_questions", "image_qa", source=SourceSpec(kind="manual", path="x", tables=tables))
    rows = [row for row in rows_of(spec, tmp_path / "a.jsonl", tmp_path) if isinstance(row, RawRow)]
    assert [(row.row, row.data.get("kind"), row.offset) for row in rows] == [
        (0, None, 0),
        (1, None, 9),
        (2, "second", 0),
        (3, "second", 9),
    ]


# -- joined files -----------------------------------------------------------------------------------------------------------

TABLES: dict[str, Any] = {
    "map.json": {"1": "one"}, "list.json": ["zero", "one"], "rows.jsonl": [{"k": 1, "v": "one"}], "lines.txt": "zero\none\n",
    "table.csv": "k,v\n1,one\n", "deep.json": {"all": [{"k": 1, "v": "one"}]}, "a.jsonl": [{"q": 1}, {"q": 2}],
}  # fmt: skip


@pytest.mark.parametrize(
    "join",
    [
        JoinSpec(file="map.json", on="q"),
        JoinSpec(file="list.json", on="q"),
        JoinSpec(file="lines.txt", on="q"),
        JoinSpec(file="rows.jsonl", on="q", key="k", column="v"),
        JoinSpec(file="table.csv", on="q", key="k", column="v"),
        JoinSpec(file="deep.json", on="q", key="k", column="v", at="all"),
    ],
)
def test_what_other_files_say_of_a_row_is_a_column_of_it(join: JoinSpec, tmp_path: Path) -> None:
    write(tmp_path, TABLES)
    assert found(tmp_path, "a.jsonl", TableSpec(files=("a.jsonl",), joins={"said": join})) == [{"q": 1, "said": "one"}, {"q": 2}]
    assert found(tmp_path, join.file, TableSpec(joins={"said": join})) == [], "a joined file has no rows of its own"


@pytest.mark.parametrize(
    ("join", "says"),
    [
        (JoinSpec(file="gone.json", on="q"), r"gone\.json is not among the raw files"),
        (JoinSpec(file="map.json", on="q", at="nothing"), "holds a NoneType where a table should stand"),
        (JoinSpec(file="rows.jsonl", on="q", key="other"), "has records without 'other'"),
        (JoinSpec(file="bad.json", on="q"), r"bad\.json cannot be read"),
    ],
)
def test_a_joined_file_that_is_none_is_an_error_of_the_set(join: JoinSpec, says: str, tmp_path: Path) -> None:
    write(tmp_path, {**TABLES, "bad.json": "{"})
    with pytest.raises(ValueError, match=says):
        found(tmp_path, "a.jsonl", TableSpec(joins={"said": join}))


def test_documents_of_single_rows_cannot_lie_elsewhere(tmp_path: Path) -> None:
    raw = tmp_path / "raw"
    write(
        raw,
        {
            "a.jsonl": [{"p": "one"}, {"p": "../secret"}, {"p": "gone"}, {"p": None}, {"p": "bad"}],
            "d/one.json": {"x": 1},
            "d/bad.json": "{",
        },
    )
    write(tmp_path, {"secret.json": {"x": 2}})
    join = JoinSpec(file="d/{p}.json")
    assert found(raw, "a.jsonl", TableSpec(joins={"doc": join})) == [
        {"p": "one", "doc": {"x": 1}}, "media_escapes", {"p": "gone"}, {"p": None}, "wrong_type",
    ]  # fmt: skip


def _png(width: int, height: int) -> bytes:
    """A PNG that says this size and holds no pixels."""
    chunks = [(b"IHDR", struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0)), (b"IDAT", zlib.compress(b"")), (b"IEND", b"")]
    framed = (struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body)) for name, body in chunks)
    return b"\x89PNG\r\n\x1a\n" + b"".join(framed)


def test_hostile_documents_of_single_rows_are_faults_of_those_rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Masks of a gigapixel and of what is no picture, a deep document, one that is too long to be read."""
    monkeypatch.setattr(joins, "MAX_LINE", 300_000)
    files = {
        "giga.png": _png(40_000, 25_000), "large.png": _png(10_000, 10_000), "none.png": "<html>", "deep.json": "[" * 100_000,
        "long.json": json.dumps("x" * 300_000),
    }  # fmt: skip
    write(tmp_path, {"a.jsonl": [{"p": name} for name in (*files, "right.json")], **files, "right.json": {"x": 1}})
    said = found(tmp_path, "a.jsonl", TableSpec(joins={"doc": JoinSpec(file="{p}")}))
    assert said == ["wrong_type"] * len(files) + [{"p": "right.json", "doc": {"x": 1}}]


@pytest.mark.parametrize("name", ["array.json", "table.json", "joined.json", "lines.txt"])
def test_a_document_too_large_to_be_held_is_one_error_naming_the_file(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rows, "MAX_DOCUMENT", 30)
    write(tmp_path, {"a.jsonl": [{"q": 1}], name: [{"q": 1}] * 9 if name.endswith("json") else "x\n" * 20})
    own, joined = (
        {"array.json": TableSpec(), "table.json": TableSpec(keyed="id")},
        TableSpec(joins={"said": JoinSpec(file=name, on="q")}),
    )
    file, table = (name, own[name]) if name in own else ("a.jsonl", joined)
    with pytest.raises(ValueError, match=rf"{name} has \d+ bytes in one document, the limit is 30"):
        found(tmp_path, file, table)


# -- views ------------------------------------------------------------------------------------------------------------------


def test_a_view_has_only_the_rows_that_it_selects(tmp_path: Path) -> None:
    rows = [{"kind": "a", "n": 1, "images": [1, 2]}, {"kind": "b", "n": 9, "images": [1]}, {"kind": None, "n": None}]
    write(tmp_path, {"a.jsonl": rows})

    def kept(**conditions: Any) -> list[int]:
        seen = found(tmp_path, "a.jsonl", select=SelectSpec(**conditions))
        assert all(isinstance(row, dict) or row == "not_selected" for row in seen)
        return [number for number, row in enumerate(seen) if isinstance(row, dict)]

    assert kept(only={"kind": ("a",)}) == [0]
    assert kept(never={"kind": ("a", None)}) == [1]
    assert kept(between={"n": (None, 5)}) == [0]
    assert kept(between={"images": (2, None)}) == [0]
    assert kept(only={"kind": ("a", "b")}, between={"n": (2, 9)}) == [1]


def test_reasons_that_are_no_faults_are_known_ones() -> None:
    assert set(REASONS) > LEFT_OUT


def test_json_that_lacks_a_column_in_all_its_first_rows_is_refused(tmp_path: Path) -> None:
    write(tmp_path, {"a.jsonl": [{"q": 1}, {"q": 2, "a": 3}], "b.json": [{"q": 1}], "c.jsonl": "not json\n"})
    assert len(found(tmp_path, "a.jsonl", columns=("q", "a"))) == 2
    with pytest.raises(ValueError, match=r"b\.json lacks the columns \['a'\]; its rows have \['q'\]"):
        found(tmp_path, "b.json", columns=("q", "a"))
    assert found(tmp_path, "c.jsonl", columns=("q", "a")) == ["not_json"]
