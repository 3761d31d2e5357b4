"""Rows that already are examples: the fused loop keeps what the careful parts keep, byte for byte, however a file is divided."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from molmo2_assets.ingest import canonical
from molmo2_assets.ingest import rows as reading
from molmo2_assets.ingest.canonical import ranges
from molmo2_assets.ingest.contracts import facts_of, facts_of_label
from molmo2_assets.ingest.media_table import MediaRecord, write_media
from molmo2_assets.ingest.quarantine import read_quarantine
from molmo2_assets.ingest.validate import validate
from tests.support.small_sets import json_lines, quiet, spec_of
from training_backend.data.example import Example, Media, encode_row, hash_row, seal
from training_backend.data.sealer import Sealer
from training_backend.data.store import RowStore

SPEC = spec_of("molmo2_examples", "image_pointing", style="pointing")
Row = dict[str, Any]


def row(number: int, **changes: Any) -> Row:
    picture = number % 4
    return {
        "id": f"set/{number:03d}", "schema": "molmo2/1", "task": "image_pointing",
        "source": {"file": "old.jsonl", "row": 900 + number},
        "media": [{"id": "m0", "kind": "image", "uri": f"{picture}.png", "sha256": f"{picture:064x}", "width": 200, "height": 100}],
        "branches": [{"id": "dot", "style": "pointing", "turns": [{"role": "assistant", "parts": [
            {"type": "points", "label": f"dot {number}", "points": [{"x": 0.5, "y": 0.25, "id": 0}]}]}]}],
        **changes,
    }  # fmt: skip


def ours(data: Row) -> bytes:
    """A row as this project writes it."""
    return encode_row(msgspec.convert(data, Example))


@pytest.fixture
def folders(tmp_path: Path) -> Path:
    for name in ("raw", "media", "validated"):
        (tmp_path / name).mkdir()
    records = [MediaRecord(uri=f"{n}.png", kind="image", state="ok", sha256=f"{n:064x}", width=200, height=100) for n in range(4)]
    gone = MediaRecord(uri="gone.png", kind="image", state="missing", reason="missing", detail="404")
    write_media(tmp_path / "media", [*records, gone])
    return tmp_path


def run(folders: Path, lines: bytes) -> tuple[Any, dict[int, str]]:
    (folders / "raw" / "rows.jsonl").write_bytes(lines)
    report = validate(SPEC, folders / "raw", folders / "media", folders / "validated", quiet)
    return report, {item.row: item.reason for item in read_quarantine(folders / "validated")}


def test_rows_are_kept_as_they_are_but_for_where_they_came_from(folders: Path) -> None:
    rows = [row(n) for n in range(6)]
    report, reasons = run(folders, b"".join(ours(item) + b"\n" for item in rows[:3]) + json_lines(rows[3:]))
    assert (report.rows_ok, report.examples, reasons) == (6, 6, {})
    store = RowStore(folders / "validated")
    for example in store:
        number = int(example.id.removeprefix("set/"))
        assert (example.source.file, example.source.row) == ("rows.jsonl", number)
        whole = msgspec.convert(rows[number], Example)
        assert hash_row(example) == hash_row(whole)
        assert store.line(store.find(example.id) or 0) == encode_row(msgspec.structs.replace(whole, source=example.source))
    assert sorted(path.name for path in (folders / "validated").iterdir()) == [
        "data.idx", "data.jsonl", "quarantine.jsonl", "samples.json",
    ]  # fmt: skip


def put(*path: Any, to: Any) -> Any:
    def apply(data: Row) -> Row:
        inside: Any = data
        for step in path[:-1]:
            inside = inside[step]
        inside[path[-1]] = to
        return data

    return apply


POINTS = ("branches", 0, "turns", 0, "parts", 0)
BROKEN: list[tuple[str, Any]] = [
    ("not_json", lambda data: json.dumps(data).encode()[:-3]),
    ("not_json", lambda data: b"[1]"),
    ("not_json", lambda data: json.dumps(data).encode() + b" {}"),
    ("not_json", lambda data: json.dumps(data).encode().replace(b'"task"', b'"id": "set/x", "task"')),
    ("not_json", lambda data: ours(data).replace(b'"width":200', b'"width":100,"width":200')),
    ("not_json", lambda data: json.dumps(data).encode().replace(b"0.25", b"NaN")),
    ("not_json", lambda data: b"[" * 50_000),
    ("not_text", lambda data: json.dumps(data).encode().replace(b"dot ", b"dot\xff ")),
    ("not_text", lambda data: json.dumps(data).encode().replace(b"dot ", b"\\ud83d ")),
    ("line_too_long", lambda data: json.dumps({**data, "meta": {"a": "x" * 200_000}}).encode()),
    ("missing_field", lambda data: {key: value for key, value in data.items() if key != "branches"}),
    ("missing_field", put("branches", to=[])),
    ("wrong_type", put("schema", to="molmo2/0")),
    ("wrong_type", put("task", to="text")),
    ("wrong_type", put("more", to=1)),
    ("wrong_type", put("media", 0, "width", to="200")),
    ("wrong_type", put(*POINTS, "points", 0, "x", to="0.5")),
    ("empty_text", put(*POINTS, "label", to=" ")),
    ("text_too_long", put(*POINTS, "label", to="x" * 60_001)),
    ("control_character", put(*POINTS, "label", to="a\x00")),
    ("roles", put("branches", 0, "turns", 0, "role", to="user")),
    ("point_outside", put(*POINTS, "points", 0, "x", to=1.001)),
    ("point_outside", put(*POINTS, "points", 0, "y", to=-0.1)),
    ("point_outside", put(*POINTS, "points", 0, "image", to=1)),
    ("not_finite", lambda data: ours(data).replace(b'"x":0.5', b'"x":1e999')),
    ("count_mismatch", lambda data: put("branches", 0, "turns", 0, "parts", to=[
        *data["branches"][0]["turns"][0]["parts"], {"type": "count", "label": "dot", "count": 2}])(data)),
    ("no_media", put("media", to=[])),
    ("media_missing", put("media", 0, "uri", to="gone.png")),
    ("media_missing", put("media", 0, "uri", to="never.png")),
    ("media_checksum", put("media", 0, "sha256", to="f" * 64)),
    ("size_mismatch", put("media", 0, "width", to=201)),
    ("size_mismatch", put("media", 0, "duration", to=1.0)),
    ("duplicate", lambda data: {**data, "branches": data["branches"] * 2}),
]  # fmt: skip


@pytest.mark.parametrize("pieces", [1, 5])
def test_everything_that_is_wrong_is_found_and_nothing_else(folders: Path, monkeypatch: pytest.MonkeyPatch, pieces: int) -> None:
    monkeypatch.setattr(reading, "MAX_LINE", 100_000)
    lines, expected = [], {}
    for number, (reason, apply) in enumerate(BROKEN):
        lines += [ours(row(2 * number)), apply(copy.deepcopy(row(2 * number + 1)))]
        expected[2 * number + 1] = reason
    written = json_lines(lines)
    monkeypatch.setattr(canonical, "RANGE_BYTES", len(written) // pieces + 1)
    monkeypatch.setattr(canonical, "PROCESSES", 1)
    report, reasons = run(folders, written)
    assert reasons == expected
    assert report.rows_in == report.rows_ok + len(reasons) == 2 * len(BROKEN)
    for item in read_quarantine(folders / "validated"):
        assert item.byte_offset is not None
        assert item.byte_length is not None
        assert written[item.byte_offset : item.byte_offset + item.byte_length].strip() == json_lines([lines[item.row]]).strip()


def test_ids_are_unique_and_the_order_of_the_source_decides_nothing(folders: Path) -> None:
    other = put(*POINTS, "label", to="something else")(row(1))
    rows = [row(0), row(1), other, row(1), row(2), row(0)]
    report, reasons = run(folders, json_lines(rows))
    assert reasons == {2: "id_conflict", 3: "duplicate", 5: "duplicate"}
    version = report.data_version
    report, _ = run(folders, json_lines(rows[::-1]))
    assert report.data_version == version


@pytest.mark.parametrize("pieces", [3, 12])
def test_a_file_that_is_read_in_processes_gives_the_same_bytes(folders: Path, monkeypatch: pytest.MonkeyPatch, pieces: int) -> None:
    outside = put(*POINTS, "points", 0, "x", to=1.5)
    written = json_lines([b"broken" if not n % 7 else outside(row(n)) if not n % 11 else row(n) for n in range(400)])
    whole, reasons = run(folders, written)
    data = (folders / "validated" / "data.jsonl").read_bytes()
    index = (folders / "validated" / "data.idx").read_bytes()
    monkeypatch.setattr(canonical, "RANGE_BYTES", len(written) // pieces)
    monkeypatch.setattr(canonical, "PROCESSES", 2)
    assert run(folders, written) == (whole, reasons)
    assert (folders / "validated" / "data.jsonl").read_bytes() == data
    assert (folders / "validated" / "data.idx").read_bytes() == index


@given(lines=st.lists(st.binary(max_size=30), max_size=30), size=st.integers(1, 60), ended=st.booleans())
@settings(max_examples=60, deadline=None)
def test_ranges_are_whole_lines_with_their_numbers(
    lines: list[bytes], size: int, ended: bool, tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = tmp_path_factory.mktemp("ranges") / "a.jsonl"
    data = b"\n".join(line.replace(b"\n", b"") for line in lines) + (b"\n" if ended else b"")
    path.write_bytes(data)
    parts = list(ranges(path, "a.jsonl", size))
    assert b"".join(data[part.start : part.stop] for part in parts) == data
    for part in parts:
        assert part.first == data.count(b"\n", 0, part.start)
        assert part.start == 0 or data[part.start - 1 : part.start] == b"\n"


@given(
    data=st.lists(st.sampled_from([b"\n", b"\r", b"a", b"bcd", b"\xef\xbb\xbf", b" ", b"x" * 9]), max_size=40).map(b"".join),
    most=st.integers(1, 12),
    limit=st.integers(2, 12),
    size=st.integers(1, 60),
)
@settings(max_examples=200, deadline=None)
def test_lines_are_the_same_one_by_one_and_in_blocks(
    data: bytes, most: int, limit: int, size: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = tmp_path_factory.mktemp("blocks") / "a.jsonl"
    path.write_bytes(data)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(reading, "_BLOCK", most)
        patch.setattr(reading, "MAX_LINE", limit)
        for part in ranges(path, "a.jsonl", size):
            blocks = reading.blocks_between(path, part.start, part.stop)
            found = [item for block in blocks for item in zip(*block, strict=True)]
            wanted = reading.lines_between(path, part.start, part.stop)
            assert found == [(at, line and line.rstrip(b"\r\n"), length) for at, line, length in wanted]


TEXTS = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=12) | st.sampled_from(
    ['","media":[', '","branches":[', '"}],"weight":1.0}]', "\\", '","source":{', "é😀"]
)


@given(identifier=TEXTS, label=TEXTS, branch=TEXTS, weight=st.sampled_from([1.0, 0.5, 2.25e-7]), twice=st.booleans())
@settings(max_examples=150, deadline=None)
def test_a_line_that_is_known_again_has_the_hashes_of_its_example(
    identifier: str, label: str, branch: str, weight: float, twice: bool
) -> None:
    data = row(1, id=identifier)
    data["branches"][0] |= {"id": branch, "weight": weight}
    put(*POINTS, "label", to=label)(data)
    if twice:
        data["branches"][0]["turns"].insert(0, {"role": "user", "parts": [{"type": "text", "text": label}]})
    example = msgspec.convert(data, Example)
    line, hashes = seal(example)
    assert line == encode_row(example)
    looked: list[tuple[Media, ...]] = []
    sealer = Sealer("", "image_pointing", lambda media: looked.append(media) or 3.0, facts_of, facts_of_label)  # type: ignore[func-returns-value]
    for _ in range(2):
        done = sealer.seal(example, line, b'{"file":"b","row":7}')
        assert done is not None
        moved = msgspec.json.decode(done[0], type=Example)
        assert (moved.source.file, moved.source.row) == ("b", 7)
        assert done[0] == encode_row(moved)
        assert hash_row(moved).row_hash == hashes.row_hash
        assert done[1] == b"".join(getattr(hashes, name) for name in hashes.__struct_fields__)
        assert done[2:] == (3.0, facts_of(example.branches, example.media))
        plain = not twice and facts_of_label("assistant", label) is not None
        assert sealer.recall([line], b'{"file":"b","row":%d}', 7) == [done if plain else None]
    assert looked == [example.media]
    assert sealer.seal(example, line + b" ", b"{}") is None


def changed(line: bytes, cuts: list[tuple[int, int, bytes]]) -> bytes:
    for begin, size, put_in in cuts:
        place = begin % (len(line) + 1)
        line = line[:place] + put_in + line[place + size :]
    return line.replace(b"\n", b"")


PIECES = st.binary(max_size=3) | st.sampled_from(
    [b'"', b'",', b"]", b"[", b"}", b"},{", b",", b" ", b"0", b"1", b"-1", b"1e999", b"null", b"\\", b"\\u0041", b"\xff",
     b'"points":[', b',"media":[]', b',"branches":[]', b'"image":1', b'"x":0.1,', b'],"weight":1.0}],"meta":{}}',
     b'"label":"a",', b',"style":"s"', b'"uri":"2.png",', b',"subtitles":[]']
)  # fmt: skip


@given(
    spots=st.lists(st.tuples(st.floats(-1, 2), st.floats(0, 1), st.integers(0, 9), st.integers(0, 1)), max_size=3),
    identifier=TEXTS,
    label=TEXTS,
    cuts=st.lists(st.tuples(st.integers(0, 900), st.integers(0, 3), PIECES), max_size=2),
)
@settings(max_examples=400, deadline=None)
def test_lines_that_are_known_again_are_those_that_this_project_writes(
    spots: list[tuple[float, float, int, int]], identifier: str, label: str, cuts: list[tuple[int, int, bytes]]
) -> None:
    def sealed(line: bytes, number: int) -> Any:
        """What is said of a line by itself."""
        try:
            example = msgspec.json.decode(line, type=Example)
        except (msgspec.DecodeError, UnicodeDecodeError):
            return None
        alone = Sealer("set/", "image_pointing", lambda media: media[0].width, facts_of, facts_of_label)
        if example.task != "image_pointing" or example.schema != "molmo2/1":
            return None
        return alone.seal(example, line, b'{"file":"b","row":%d}' % number)

    sealer = Sealer("set/", "image_pointing", lambda media: media[0].width, facts_of, facts_of_label)
    said: Any = put(*POINTS, "label", to=label)
    for number in range(2):
        first = ours(said(row(number)))
        assert sealer.seal(msgspec.json.decode(first, type=Example), first, b"{}") is not None
    points = [{"x": x, "y": y, "id": name, "image": image} for x, y, name, image in spots]
    whole = ours(put(*POINTS, "points", to=points)(said(row(1, id=f"set/{identifier}"))))
    lines = [ours(said(row(1))), whole, changed(whole, cuts), ours(said(row(0)))]
    for found, wanted in (
        (sealer.recall(lines, b'{"file":"b","row":%d}', 5), [sealed(line, number) for number, line in enumerate(lines, 5)]),
        (sealer.recall(lines[:2], b'{"file":"b","row":%d}', 5), [sealed(line, number) for number, line in enumerate(lines[:2], 5)]),
    ):
        for one, other in zip(found, wanted, strict=True):
            assert one is None or one == other
    if facts_of_label("assistant", label) and all(0 <= x <= 1 and not image for x, _, _, image in spots):
        assert None not in found
