"""Layouts of small sets that somebody keeps in a folder."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from molmo2_assets.ingest.adapters import ADAPTERS, Context, Reference
from molmo2_assets.ingest.adapters.base import ask
from molmo2_assets.ingest.rows import RawRow
from tests.support.published_rows import LAYOUTS, film, piece_of, refusal_of
from training_backend.data.example import Count, Point, Points, Subtitle


@pytest.mark.parametrize(("name", "path", "kind"), [("annotated_images", "a.png", "image"), ("labelled_clips", "a.mp4", "video")])
def test_which_file_a_row_names(name: str, path: str, kind: Any) -> None:
    row = RawRow("a.jsonl", 0, LAYOUTS[name].row)
    assert ADAPTERS[name].media(row, Context("", LAYOUTS[name].task, {})) == [Reference(path, kind)]


def test_everything_said_about_a_picture_becomes_one_tree() -> None:
    piece = piece_of("annotated_images")
    boats = Points(label="boat", points=(Point(x=0.25, y=0.5, id=0), Point(x=0.75, y=0.1, id=1)))
    assert piece.branches == (
        ask("caption", "long_caption", None, "Two boats."),
        ask("Colour?", "user_qa", "Colour?", "Red"),
        ask("boat/point_count", "point_count", None, boats, Count(label="boat", count=2)),
        ask("wave/count", "count", None, Count(label="wave", count=9)),
        ask("mast/point", "pointing", None, Points(label="mast", points=(Point(x=0.5, y=0.5, id=0),))),
    )
    assert piece.meta == {"partial_points": {"wave": 1}}, "one point of nine waves teaches nothing, and is not lost in silence"


def test_a_picture_needs_only_one_annotation() -> None:
    bare = {"caption": None, "qa": None, "counts": None, "points": None, "width": None}
    assert piece_of("annotated_images", bare).branches == (), "that there must be one is the contract's rule"
    (branch,) = piece_of("annotated_images", {**bare, "caption": "A boat."}).branches
    assert branch == ask("caption", "long_caption", None, "A boat.")


def test_a_label_answers_the_entrys_question() -> None:
    assert piece_of("labelled_clips").branches == (ask("label", "video_label", "What is done?", "waving"),)
    assert piece_of("labelled_clips", question="Which sign?").branches == (ask("label", "video_label", "Which sign?", "waving"),)


def test_a_narration_becomes_subtitles() -> None:
    piece = piece_of("narrated_videos")
    line = Subtitle(start=0.0, end=2.5, text="A boat.")
    assert piece.media == (msgspec.structs.replace(film(), subtitles=(line,)),)
    assert piece.branches == (
        ask("caption", "video_long_caption", None, "A boat leaves."),
        ask("What leaves?", "video_qa", "What leaves?", "A boat"),
    )


BOAT = {"label": "boat", "count": 2, "all_pointed": True}


@pytest.mark.parametrize(
    ("name", "changes", "reason", "field"),
    [
        ("annotated_images", {"path": None}, "missing_field", "path"),
        ("annotated_images", {"width": 201}, "size_mismatch", "width"),
        ("annotated_images", {"height": None}, "missing_field", "height"),
        ("annotated_images", {"width": "200"}, "wrong_type", "width"),
        ("annotated_images", {"qa": {"question": "a?"}}, "wrong_type", "qa"),
        ("annotated_images", {"qa": [{"question": "a?"}]}, "missing_field", "answer"),
        ("annotated_images", {"counts": [{**BOAT, "count": 3}]}, "count_mismatch", "counts"),
        ("annotated_images", {"counts": [BOAT, BOAT]}, "id_conflict", "counts"),
        ("annotated_images", {"counts": [{**BOAT, "count": "2"}]}, "wrong_type", "count"),
        ("annotated_images", {"points": [{"label": "boat", "x": 0.1}]}, "missing_field", "y"),
        ("annotated_images", {"points": [{"label": "boat", "x": "0.1", "y": 0.1}]}, "wrong_type", "x"),
        ("annotated_images", {"points": ["boat"]}, "wrong_type", "label"),
        ("labelled_clips", {"label": " "}, "empty_text", "label"),
        ("narrated_videos", {"narration": None}, "missing_field", "narration"),
        ("narrated_videos", {"narration": [{"start": 2.0, "end": 2.0, "text": "a"}]}, "time_outside", "narration"),
        ("narrated_videos", {"narration": [{"start": 11.0, "end": 12.0, "text": "a"}]}, "time_outside", "narration"),
        ("narrated_videos", {"narration": [{"start": -1.0, "end": 2.0, "text": "a"}]}, "time_outside", "narration"),
        ("narrated_videos", {"narration": [{"start": 0.0, "end": 2.0, "text": ""}]}, "empty_text", "text"),
        ("narrated_videos", {"narration": [{"start": "0", "end": 2.0, "text": "a"}]}, "wrong_type", "start"),
    ],
)
def test_what_is_not_as_agreed_is_refused_by_its_own_reason(name: str, changes: dict[str, Any], reason: str, field: str) -> None:
    assert refusal_of(name, changes) == (reason, field)
