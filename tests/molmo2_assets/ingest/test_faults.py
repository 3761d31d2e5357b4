"""Faults of every reason, put between good rows at random: each caught with its reason, and no good row with them."""

from __future__ import annotations

import copy
import json
import random
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, get_args

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from molmo2_assets.ingest import rows as reading
from molmo2_assets.ingest.contracts import MAX_TEXT
from molmo2_assets.ingest.media_table import MediaRecord, write_media
from molmo2_assets.ingest.quarantine import read_quarantine
from molmo2_assets.ingest.reasons import REASONS
from molmo2_assets.ingest.validate import validate
from tests.support.published_rows import LAYOUTS
from tests.support.small_sets import json_lines, quiet, spec_of
from training_backend.data.media import FaultReason
from training_backend.data.store import RowStore

GOOD = 12
"""Good rows of every set; films and pictures are shared by two rows each."""
LIMIT = 100_000
"""Bytes of a line in these tests."""

Row = dict[str, Any]
Break = Callable[[Row, int], Row | bytes]


def put(*path: Any, to: Any) -> Break:
    """A row with one place inside of it changed."""

    def apply(row: Row, number: int) -> Row:
        inside: Any = row
        for step in path[:-1]:
            inside = inside[step]
        inside[path[-1]] = to
        return row

    return apply


def without(name: str) -> Break:
    return lambda row, number: {key: value for key, value in row.items() if key != name}


def cut(row: Row, number: int) -> bytes:
    return json.dumps(row).encode()[:-9]


def half_a_character(row: Row, number: int) -> bytes:
    return json.dumps(row).encode()[:-1] + b', "more": "\\ud83d"}'


def giant(row: Row, number: int) -> bytes:
    return json.dumps({**row, "more": "x" * LIMIT}).encode()


def again(row: Row, number: int) -> Row:
    """The good row itself: of two equal ones the later is set aside."""
    return row


@dataclass(frozen=True)
class Kind:
    """A set of one layout: good row `number`, the ways to break one, and how rows are written."""

    adapter: str
    good: Callable[[Row, int], Row]
    faults: list[tuple[str, Break]]
    suffix: str = "jsonl"
    media: list[MediaRecord] = field(default_factory=list)


def films() -> list[MediaRecord]:
    """Usable films, and one for everything that can be wrong with a film."""
    usable = [
        MediaRecord(
            uri=f"film-{n}",
            kind="video",
            state="ok",
            sha256=f"{n:064x}",
            width=400,
            height=200,
            duration=10.0,
            fps=8.0,
            n_frames=80,
        )
        for n in range(GOOD)
    ]
    return usable + [MediaRecord(uri=reason, kind="video", state="broken", reason=reason) for reason in get_args(FaultReason)]


def pictures() -> list[MediaRecord]:
    return [
        MediaRecord(uri=f"picture-{n}", kind="image", state="ok", sha256=f"{n:064x}", width=200, height=100) for n in range(GOOD)
    ]


def of_film(**fields: Callable[[int], Any]) -> Callable[[Row, int], Row]:
    """Row `number` about one of the films, some fields made from its number."""

    def make(row: Row, number: int) -> Row:
        column = "video" if "video" in row else "video_id"
        return {**row, column: f"film-{number // 2}", **{name: value(number) for name, value in fields.items()}}

    return make


def csv_line(row: Row) -> bytes:
    return f"{row['question']},{row['answer']}\n".encode()


MOMENT = ("frame_trajectories", 1)
HIDDEN = {"id": 7, "point": [1.0, 1.0], "occluded": True}
LATE = {"start": 60.0, "end": 61.0, "text": "a"}
LONG = "x" * (MAX_TEXT + 1)
KINDS = {
    "messages": Kind(
        "molmo2_tulu4",
        lambda row, number: {**row, "id": f"tulu/{number}"},
        [
            ("not_json", cut), ("not_json", lambda row, number: b"[]"), ("not_text", half_a_character), ("line_too_long", giant),
            ("missing_field", without("messages")), ("wrong_type", put("messages", to="hello")),
            ("empty_text", put("messages", 1, "content", to=" ")), ("text_too_long", put("messages", 1, "content", to=LONG)),
            ("control_character", put("messages", 2, "content", to="a\x00")), ("roles", put("messages", 2, "role", to="user")),
            ("duplicate", again),
        ],
    ),
    "lines": Kind(
        "question_answer_lines",
        lambda row, number: {"question": f"What is {number} + 1?", "answer": f"{number + 1}"},
        [("not_csv", lambda row, number: b'1,"2"3\n'), ("not_text", lambda row, number: b"1,\xff\n"),
         ("length_mismatch", lambda row, number: b"1\n"), ("empty_text", lambda row, number: b" ,2\n")],
        suffix="csv",
    ),
    "points": Kind(
        "molmo2_video_point",
        of_film(label=lambda number: f"boats {number}"),
        [
            ("point_outside", put("points", 0, 0, "x", to=100.1)), ("point_outside", put("points", 1, 1, "y", to=-0.1)),
            ("not_finite", lambda row, number: json.dumps(row).encode().replace(b'"x": 75.0', b'"x": 1e999')),
            ("count_mismatch", put("count", to=4)), ("length_mismatch", put("two_fps_timestamps", to=[2.0])),
            ("time_outside", put("two_fps_timestamps", to=[0.5, 2.0])), ("time_outside", put("two_fps_timestamps", to=[6.5, 2.0])),
            ("clip_invalid", put("clip_end", to=60.0)), ("unsure", put("annotator_unsure", to=True)), ("duplicate", again),
            *((f"media_{reason}", put("video_id", to=reason)) for reason in get_args(FaultReason)),
        ],
        media=films(),
    ),
    "tracks": Kind(
        "molmo2_track_instruction",
        of_film(expression=lambda number: f"the boats {number}"),
        [
            ("time_order", put(*MOMENT, "time", to=0.0)), ("object_twice", put(*MOMENT, "points", to=[HIDDEN, HIDDEN])),
            ("never_seen", put("frame_trajectories", to=[])),
            ("never_seen", put("frame_trajectories", 0, "points", 0, "occluded", to=True)),
            ("rate_mismatch", put("sampling_fps", to=3)), ("size_mismatch", put("width", to=200)), ("duplicate", again),
        ],
        media=films(),
    ),
    "subtitles": Kind(
        "molmo2_video_subtitle_qa",
        of_film(Question=lambda number: f"What is said, {number}?"),
        [
            ("id_conflict", lambda row, number: {**row, "subtitle": [{"start": 0.0, "end": 1.0, "text": f"other words {number}"}]}),
            ("no_options", put("NegativeAnswers", to=[])), ("answer_ambiguous", put("NegativeAnswers", to=["boat"])),
            ("time_order", put("subtitle", 0, "end", to=0.25)), ("time_outside", put("subtitle", 0, to=LATE)),
            ("duplicate", again),
        ],
        media=films(),
    ),
    "captions": Kind(
        "molmo2_cap",
        of_film(video_caption=lambda number: f"A boat {number}."),
        [("low_score", put("annotation_score", to=1)), ("clip_invalid", put("video_start", to=10.0)), ("duplicate", again)],
        media=films(),
    ),
    "several": Kind(
        "molmo2_multi_image_qa",
        lambda row, number: {
            "image_urls": [f"picture-{number}", f"picture-{(number + 1) % GOOD}"], "qa_pairs": row["qa_pairs"],
        },
        [("no_media", put("image_urls", to=[])),
         ("media_missing", put("image_urls", 0, to="never collected")), ("duplicate", again)],
        media=pictures(),
    ),
    "checked": Kind(
        "pixmo_ask_model_anything",
        lambda row, number: {"image_url": f"picture-{number}", "image_sha256": f"{number:064x}", "question": "a?", "answer": "b"},
        [("media_checksum", put("image_sha256", to="f" * 64)), ("missing_field", put("image_url", to=None))],
        media=pictures(),
    ),
}  # fmt: skip


def test_every_reason_is_injected_somewhere() -> None:
    injected = {reason for kind in KINDS.values() for reason, _ in kind.faults}
    # Whether a row is selected is the entry's to say, and whether an option is there that of question layouts: test_tables.py,
    # test_adapters_questions.py.
    assert injected == set(REASONS) - {"answer_outside", "not_selected"}


def injected(kind: Kind, places: list[int], order: random.Random) -> tuple[list[tuple[str | None, Row | bytes]], list[Row]]:
    """Good rows with broken ones between them, each beside its reason; a good row is the model of one broken row at most."""
    layout = LAYOUTS[kind.adapter]
    good = [kind.good(copy.deepcopy(layout.row), number) for number in range(GOOD)]
    rows: list[tuple[str | None, Row | bytes]] = [(None, row) for row in good]
    models = order.sample(range(GOOD), len(places))
    for place, model in zip(places, models, strict=True):
        reason, apply = kind.faults[place]
        rows.append((reason, apply(copy.deepcopy(good[model]), model)))
    order.shuffle(rows)
    return rows, good


@pytest.mark.parametrize("name", KINDS)
@settings(max_examples=6, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_every_fault_is_caught_and_no_good_row(name: str, data: st.DataObject, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reading, "MAX_LINE", LIMIT)
    kind = KINDS[name]
    drawn = data.draw(st.lists(st.integers(0, len(kind.faults) - 1), max_size=8))
    check(kind, drawn, data.draw(st.randoms(use_true_random=False)))


@pytest.mark.parametrize("name", KINDS)
def test_every_fault_of_a_layout_is_caught(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reading, "MAX_LINE", LIMIT)
    every = list(range(len(KINDS[name].faults)))
    for start in range(0, len(every), GOOD):
        check(KINDS[name], every[start : start + GOOD], random.Random(start))


def check(kind: Kind, places: list[int], order: random.Random) -> None:
    rows, good = injected(kind, places, order)
    layout = LAYOUTS[kind.adapter]
    spec = spec_of(kind.adapter, layout.task, style=layout.style, adapter_params=layout.params)
    with tempfile.TemporaryDirectory() as folder:
        raw, media, dest = (Path(folder) / name for name in ("raw", "media", "validated"))
        for path in (raw, media, dest):
            path.mkdir()
        if kind.suffix == "csv":
            lines = [row if isinstance(row, bytes) else csv_line(row) for _, row in rows]
            (raw / "rows.csv").write_bytes(b"question,answer\n" + b"".join(lines))
        else:
            (raw / "rows.jsonl").write_bytes(json_lines(row for _, row in rows))
        write_media(media, kind.media)
        report = validate(spec, raw, media, dest, quiet)
        assert {item.row: item.reason for item in read_quarantine(dest)} == expected(rows)
        assert report.rows_in == report.rows_ok + sum(report.quarantined.values()) == len(rows)
        assert report.rows_ok == len(good)
        kept = sum(len(example.branches) for example in RowStore(dest))
    assert kept % len(good) == 0, "every good row said equally much"


def expected(rows: list[tuple[str | None, Row | bytes]]) -> dict[int, str]:
    """Row number → reason; of a row and its copy the later one is the duplicate."""
    found: dict[int, str] = {}
    for number, (reason, row) in enumerate(rows):
        if reason == "duplicate":
            twin = next(place for place, (other, same) in enumerate(rows) if other is None and same == row)
            found[max(number, twin)] = reason
        elif reason is not None:
            found[number] = reason
    return found
