"""Every file type, read row by row: where each row stands, and what cannot be read."""

from __future__ import annotations

import itertools
import json
import resource
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from molmo2_assets.ingest import rows as reading
from molmo2_assets.ingest.rows import BadRow, RawRow, annotation_files, read_rows


def read(path: Path, *columns: str) -> list[RawRow | BadRow]:
    """All rows of a file; the bytes that each text row claims are checked to lie behind each other."""
    found = list(read_rows(path, path.parent, columns))
    assert [row.file for row in found] == [path.name] * len(found)
    ends = [(row.offset, row.offset + row.length) for row in found if row.offset is not None and row.length is not None]
    assert all(end <= start for (_, end), (start, _) in itertools.pairwise(ends))
    return found


def lines(folder: Path, data: bytes) -> list[RawRow | BadRow]:
    path = folder / "rows.jsonl"
    path.write_bytes(data)
    return read(path)


def cut(path: Path, row: RawRow | BadRow) -> bytes:
    assert row.offset is not None
    assert row.length is not None
    return path.read_bytes()[row.offset : row.offset + row.length]


# -- JSON lines -------------------------------------------------------------------------------------------------------------


def test_json_lines_know_their_bytes(tmp_path: Path) -> None:
    text = '{"a": "naïve"}\n\n  {"a": [1, 2.5, null, true]}\r\n{"a": "last, without an end"}'.encode()
    found = lines(tmp_path, text)
    assert [row.data for row in found if isinstance(row, RawRow)] == [
        {"a": "naïve"}, {"a": [1, 2.5, None, True]}, {"a": "last, without an end"},
    ]  # fmt: skip
    assert [row.row for row in found] == [0, 2, 3], "rows are lines; an empty one is no row"
    for row in found:
        assert isinstance(row, RawRow)
        assert json.loads(cut(tmp_path / "rows.jsonl", row)) == row.data


@pytest.mark.parametrize(
    ("line", "reason", "detail"),
    [
        (b"GARBAGE", "not_json", "Expecting value"),
        (b'{"a": "cut of', "not_json", "Invalid control character"),
        (b'{"a": 1} {"a": 2}', "not_json", "Extra data"),
        (b"[1, 2]", "not_json", "a list, not an object"),
        (b'"words"', "not_json", "a str, not an object"),
        (b"null", "not_json", "a NoneType, not an object"),
        (b'{"x": NaN}', "not_json", "NaN is not JSON"),
        (b'{"x": -Infinity}', "not_json", "-Infinity is not JSON"),
        (b'{"a": 1, "b": {"c": 1, "c": 2}}', "not_json", "the key 'c' stands twice"),
        (b'{"a": ' + b"[" * 100_000 + b"]" * 100_000 + b"}", "not_json", "recursion"),
        (b'{"a": ' + b"1" * 5_000 + b"}", "not_json", "4300 digits"),
        (b'{"a": "\xff\xfe"}', "not_text", "can't decode byte 0xff"),
        (b'{"a": "\xed\xa0\x80"}', "not_text", "can't decode byte 0xed"),
        (b'{"a": "\\ud83d"}', "not_text", "half of a surrogate pair"),
        (b'{"a": [{"\\uDC00": 1}]}', "not_text", "half of a surrogate pair"),
        ('{"a": 1}'.encode("utf-16-le"), "not_json", "Expecting"),
    ],
)
def test_a_line_that_cannot_be_read_is_a_fault_of_that_line_alone(tmp_path: Path, line: bytes, reason: str, detail: str) -> None:
    first, bad, last = lines(tmp_path, b'{"a": 1}\n' + line + b'\n{"a": 2}\n')
    assert isinstance(first, RawRow)
    assert isinstance(last, RawRow)
    assert isinstance(bad, BadRow)
    assert (first.data, last.data) == ({"a": 1}, {"a": 2})
    assert (bad.row, bad.fault.reason) == (1, reason)
    assert detail in bad.fault.detail
    assert cut(tmp_path / "rows.jsonl", bad) == line + b"\n"
    assert len(bad.preview) <= 200
    bad.preview.encode()


def test_a_whole_character_may_be_written_as_two_escapes(tmp_path: Path) -> None:
    (row,) = lines(tmp_path, b'{"a": "\\ud83d\\ude00 and \\\\ud83d"}')
    assert isinstance(row, RawRow)
    assert row.data == {"a": "😀 and \\ud83d"}


def test_a_truncated_last_line_is_named(tmp_path: Path) -> None:
    good, bad = lines(tmp_path, b'{"a": 1}\n{"a": ')
    assert isinstance(good, RawRow)
    assert isinstance(bad, BadRow)
    assert (bad.fault.reason, bad.offset, bad.length) == ("not_json", 9, 6)


def test_a_byte_order_mark_belongs_to_no_row(tmp_path: Path) -> None:
    first, second = lines(tmp_path, b'\xef\xbb\xbf{"a": 1}\n{"a": 2}')
    assert isinstance(first, RawRow)
    assert (first.data, first.offset, second.offset) == ({"a": 1}, 3, 12)


def test_a_file_without_rows_has_none(tmp_path: Path) -> None:
    assert lines(tmp_path, b"") == lines(tmp_path, b"\n \n\r\n") == lines(tmp_path, b"\xef\xbb\xbf") == []


def test_a_giant_line_is_set_aside_unread(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reading, "MAX_LINE", 32)
    giant = b'{"a": "' + b"x" * 100 + b'"}\n'
    fits = b'{"a": "' + b"x" * 22 + b'"}\n'
    assert len(fits) == 32
    bad, good, last = lines(tmp_path, giant + fits + giant[:-1])
    assert isinstance(bad, BadRow)
    assert isinstance(good, RawRow)
    assert isinstance(last, BadRow)
    assert (bad.fault.reason, bad.length, bad.preview) == ("line_too_long", len(giant), "")
    assert cut(tmp_path / "rows.jsonl", good) == fits
    assert (last.fault.reason, last.row, last.length) == ("line_too_long", 2, len(giant) - 1)


# -- JSON -------------------------------------------------------------------------------------------------------------------


def array(folder: Path, data: bytes) -> list[RawRow | BadRow]:
    path = folder / "rows.json"
    path.write_bytes(data)
    return read(path)


def test_objects_of_an_array_know_their_bytes(tmp_path: Path) -> None:
    data = '\ufeff [ {"a": "naïve 😀"},\n{"a": {"b": [1]}} , {"a": NaN}, 7, {"a": "\\ud83d"}] \n'.encode()
    found = array(tmp_path, data)
    assert [row.data if isinstance(row, RawRow) else row.fault.reason for row in found] == [
        {"a": "naïve 😀"}, {"a": {"b": [1]}}, "not_json", "not_json", "not_text",
    ]  # fmt: skip
    texts = ['{"a": "naïve 😀"}', '{"a": {"b": [1]}}', '{"a": NaN}', "7", '{"a": "\\ud83d"}']
    assert [cut(tmp_path / "rows.json", row).decode() for row in found] == texts


def test_one_object_is_one_row_and_an_empty_array_none(tmp_path: Path) -> None:
    (row,) = array(tmp_path, b' {"a": 1}\n')
    assert isinstance(row, RawRow)
    assert (row.data, row.offset, row.length) == ({"a": 1}, 1, 8)
    assert array(tmp_path, b" [ ] ") == []


@pytest.mark.parametrize("data", [b"", b'[{"a": 1}, {"a"', b'[{"a": 1} {"a": 2}]', b'[{"a": 1},]', b'[{"a": 1}', b"[] []", b"\xff"])
def test_an_array_that_breaks_is_no_file_to_trust(tmp_path: Path, data: bytes) -> None:
    with pytest.raises(ValueError, match=r"rows\.json is not JSON"):
        array(tmp_path, data)


# -- CSV --------------------------------------------------------------------------------------------------------------------


def table(folder: Path, data: bytes, *columns: str) -> list[RawRow | BadRow]:
    path = folder / "rows.csv"
    path.write_bytes(data)
    return read(path, *columns)


def test_csv_records_know_their_bytes(tmp_path: Path) -> None:
    data = b'\xef\xbb\xbfid,text\r\n1,na\xc3\xafve\r\n2,"two\r\nlines, ""quoted"""\r\n\r\n3,' + b"x" * 200_000 + b"\n"
    found = table(tmp_path, data, "id", "text")
    assert [row.data for row in found if isinstance(row, RawRow)] == [
        {"id": "1", "text": "naïve"}, {"id": "2", "text": 'two\r\nlines, "quoted"'}, {"id": "3", "text": "x" * 200_000},
    ]  # fmt: skip
    assert [row.row for row in found] == [0, 1, 3]
    assert cut(tmp_path / "rows.csv", found[0]) == b"1,na\xc3\xafve\r\n"
    assert cut(tmp_path / "rows.csv", found[1]) == b'2,"two\r\nlines, ""quoted"""\r\n'
    assert cut(tmp_path / "rows.csv", found[2]) == b"3," + b"x" * 200_000 + b"\n"


@pytest.mark.parametrize(
    ("line", "reason"),
    [(b"2", "length_mismatch"), (b"2,b,c", "length_mismatch"), (b"2,\xff", "not_text"), (b'2,"b"c', "not_csv")],
)
def test_a_record_that_cannot_be_read_is_a_fault_of_that_record_alone(tmp_path: Path, line: bytes, reason: str) -> None:
    first, bad, last = table(tmp_path, b"id,text\n1,a\n" + line + b"\n3,c\n")
    assert isinstance(first, RawRow)
    assert isinstance(bad, BadRow)
    assert isinstance(last, RawRow)
    assert (bad.row, bad.fault.reason, last.data) == (1, reason, {"id": "3", "text": "c"})
    assert cut(tmp_path / "rows.csv", bad) == line + b"\n"
    bad.preview.encode()


def test_a_quote_that_is_never_closed_is_no_file_to_trust(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"rows\.csv is cut off in the record that begins at byte 12"):
        table(tmp_path, b'id,text\n1,a\n2,"b\n3,c\n4,d\n')


def test_missing_columns_are_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"rows\.csv lacks the columns \['label'\]; it has \['id', 'text'\]"):
        table(tmp_path, b"id,text\n1,a\n", "id", "label")
    assert table(tmp_path, b"") == []


# -- Parquet ----------------------------------------------------------------------------------------------------------------


def test_parquet_rows_are_numbered_through_batches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reading, "_BATCH", 4)
    pq.write_table(pa.table({"id": range(10), "x": [[{"a": n}] for n in range(10)]}), tmp_path / "rows.parquet", row_group_size=3)
    found = read(tmp_path / "rows.parquet", "id")
    assert [(row.row, row.data) for row in found if isinstance(row, RawRow)] == [(n, {"id": n, "x": [{"a": n}]}) for n in range(10)]
    assert {row.offset for row in found} == {None}
    with pytest.raises(ValueError, match=r"rows\.parquet lacks the columns \['label'\]"):
        read(tmp_path / "rows.parquet", "label")


def test_parquet_text_that_is_none_is_a_fault_of_its_row(tmp_path: Path) -> None:
    values = pa.array([b"a", b"\xff\xfe", b"c"], pa.binary())
    pq.write_table(pa.table({"id": pa.Array.from_buffers(pa.string(), 3, values.buffers())}), tmp_path / "rows.parquet")
    first, bad, last = read(tmp_path / "rows.parquet")
    assert isinstance(first, RawRow)
    assert isinstance(bad, BadRow)
    assert isinstance(last, RawRow)
    assert (first.data, bad.row, bad.fault.reason, last.data, last.row) == ({"id": "a"}, 1, "not_text", {"id": "c"}, 2)


def test_a_damaged_parquet_file_is_named(tmp_path: Path) -> None:
    path = tmp_path / "rows.parquet"
    path.write_bytes(b"<html>404</html>")
    with pytest.raises(ValueError, match=r"rows\.parquet is not a Parquet file"):
        read(path)
    pq.write_table(pa.table({"id": [f"row {n}" for n in range(2000)]}), path, compression="zstd", use_dictionary=False)
    data = bytearray(path.read_bytes())
    data[60:200] = b"\xaa" * 140
    path.write_bytes(data)
    with pytest.raises(ValueError, match=r"rows\.parquet is damaged after row 0"):
        read(path)


# -- files ------------------------------------------------------------------------------------------------------------------


def test_annotation_files_are_those_of_known_types_outside_media_folders(tmp_path: Path) -> None:
    annotations = ("b/train.parquet", "a.jsonl", "c.csv", "d.json", "b/manifest.json", "b/media/x.json")
    for name in (*annotations, "manifest.json", "README.md", "media/notes.json", "masks/m.json"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("")

    def names(*patterns: str) -> list[str]:
        return [path.relative_to(tmp_path).as_posix() for path in annotation_files(tmp_path, patterns)]

    assert names() == ["a.jsonl", "b/manifest.json", "b/media/x.json", "b/train.parquet", "c.csv", "d.json"]
    assert names("*.csv", "b/*.parquet") == ["b/train.parquet", "c.csv"]
    assert names("media/*.json") == ["media/notes.json"]
    assert names("README.md") == []


@pytest.mark.slow
def test_a_line_of_two_gigabytes_is_set_aside_unread(tmp_path: Path) -> None:
    """Sparse on disk; in memory never more than a few times the limit of a line."""
    path = tmp_path / "rows.jsonl"
    good = b'{"a": 1}\n'
    with path.open("wb") as stream:
        stream.write(good)
        stream.seek(2 << 30, 1)
        stream.write(b"\n" + good)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    found = list(read_rows(path, tmp_path, ()))
    assert [type(row) for row in found] == [RawRow, BadRow, RawRow]
    assert isinstance(found[1], BadRow)
    assert (found[1].fault.reason, found[1].length) == ("line_too_long", (2 << 30) + 1)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 600 << 10
