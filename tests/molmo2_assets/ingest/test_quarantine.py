"""What was set aside: read back as written, and its byte range cuts the row out of the raw file."""

from __future__ import annotations

from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from molmo2_assets.ingest.quarantine import QUARANTINE_FILE, Quarantined, by_reason, preview, read_quarantine, write_quarantine
from molmo2_assets.ingest.reasons import REASONS
from tests.support.published_rows import LAYOUTS
from tests.support.small_sets import json_lines, run, spec_of


def row(number: int, reason: str = "not_json", file: str = "a.jsonl") -> Quarantined:
    return Quarantined(
        dataset="set", file=file, row=number, stage="parse", reason=reason, field="x", detail="Müll 😀", byte_offset=7,
        byte_length=9, preview='{"a": "“quoted”"}',
    )  # fmt: skip


def test_rows_come_back_sorted_whatever_order_they_were_found_in(tmp_path: Path) -> None:
    rows = [row(3), row(20), row(0, file="b.jsonl"), row(1)]
    write_quarantine(tmp_path, rows)
    assert list(read_quarantine(tmp_path)) == [rows[3], rows[0], rows[1], rows[2]]
    first = (tmp_path / QUARANTINE_FILE).read_bytes()
    write_quarantine(tmp_path, rows[::-1])
    assert (tmp_path / QUARANTINE_FILE).read_bytes() == first
    write_quarantine(tmp_path, [])
    assert list(read_quarantine(tmp_path)) == []


def test_reasons_are_counted_most_frequent_first() -> None:
    assert list(by_reason([row(0, "roles"), row(1), row(2), row(3, "duplicate")]).items()) == [
        ("not_json", 2), ("duplicate", 1), ("roles", 1),
    ]  # fmt: skip


def test_a_preview_names_what_it_does_not_show() -> None:
    assert preview({"image": {"bytes": b"12345"}}) == '{"image":{"bytes":"<5 bytes>"}}'
    assert preview({"x": list(range(9)), "y": float("nan")}) == '{"x":[0,1,2,3,"…"],"y":"nan"}'
    assert preview({None: ["left over"]}) == '{"None":["left over"]}'
    assert len(preview({"text": "x" * 10_000_000})) == 200


def test_a_preview_of_a_deep_row_ends() -> None:
    deep: object = "ground"
    for _ in range(5_000):
        deep = [deep]
    assert preview({"a": deep}) == '{"a":[[[[["…"]]]]]}'


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.binary(),
    lambda inside: st.lists(inside) | st.dictionaries(st.text(), inside),
    max_leaves=20,
)


@settings(max_examples=25, deadline=None)
@given(st.dictionaries(st.text(), VALUES))
def test_every_row_has_a_preview(data: dict[str, object]) -> None:
    shown = preview(data)
    assert len(shown) <= 200
    shown.encode()


def test_the_byte_range_cuts_the_row_out_of_the_raw_file(tmp_path: Path) -> None:
    good = LAYOUTS["molmo2_tulu4"].row
    rows = [
        good,
        '{"id": "naïve'.encode(),
        {**good, "id": "größer", "messages": []},
        {**good, "messages": [{"role": "user", "content": "Only asked."}]},
        b"\xff\xff",
        good,
    ]
    done = run(spec_of("molmo2_tulu4", "text"), tmp_path, rows)
    assert done.reasons == {1: "not_json", 2: "roles", 3: "roles", 4: "not_text", 5: "duplicate"}
    raw = (done.raw / "rows.jsonl").read_bytes()
    for item in done.aside:
        assert item.byte_offset is not None
        assert item.byte_length is not None
        assert raw[item.byte_offset : item.byte_offset + item.byte_length] == json_lines([rows[item.row]])
        assert item.reason in REASONS
        assert (item.dataset, item.file) == ("set", "rows.jsonl")
    assert [item.stage for item in done.aside] == ["parse", "contract", "contract", "parse", "cross"]
