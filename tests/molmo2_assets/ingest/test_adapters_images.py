"""Layouts about pictures: one row of each, the example it means written out by hand, and what is refused."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from molmo2_assets.ingest.adapters import ADAPTERS, Context, Reference
from molmo2_assets.ingest.adapters.base import ask
from molmo2_assets.ingest.rle import decode_rle
from molmo2_assets.ingest.rows import RawRow
from tests.support.published_rows import LAYOUTS, picture, piece_of, rectangle, refusal_of
from training_backend.data.example import Count, Point, Points

A, B = "https://pictures.invalid/a.png", "https://pictures.invalid/b.png"


def references(name: str, **changes: Any) -> list[Reference]:
    layout = LAYOUTS[name]
    row = RawRow("data.parquet", 0, {**layout.row, **changes})
    return ADAPTERS[name].media(row, Context(layout.style, layout.task, layout.params))


# -- pictures ---------------------------------------------------------------------------------------------------------------


def test_which_pictures_a_row_names() -> None:
    assert references("pixmo_cap") == [Reference(A, "image")]
    assert references("pixmo_points") == [Reference(A, "image", sha256="1" * 64)]
    assert references("pixmo_points", image_sha256="AB" * 32) == [Reference(A, "image", sha256="ab" * 32)]
    assert references("pixmo_points", image_sha256=None) == [Reference(A, "image")]
    assert references("molmo2_multi_image_qa") == [Reference(A, "image"), Reference(B, "image")]
    assert references("captioned_images") == [Reference("a.png", "image")]


def test_a_checksum_is_not_asked_for_where_the_entry_says_so() -> None:
    row = RawRow("data.parquet", 0, LAYOUTS["pixmo_points"].row)
    context = Context("pointing", "image_pointing", {"check_sha256": False})
    assert ADAPTERS["pixmo_points"].media(row, context) == [Reference(A, "image")]


def test_pictures_inside_rows_are_named_by_content() -> None:
    (one,) = references("chart_qa")
    (same,) = references("chart_qa", query="Another question?")
    (other,) = references("chart_qa", image={"bytes": b"other", "path": "chart.png"})
    assert one == same
    assert one.data == b"png"
    assert one.uri.startswith("embedded:chart.png#")
    assert other.uri != one.uri
    assert references("chart_qa", image={"bytes": None, "path": None}) == [Reference("embedded:data.parquet#no-bytes", "image")]


# -- rows -------------------------------------------------------------------------------------------------------------------


def test_a_caption_and_what_was_said_about_it() -> None:
    piece = piece_of("pixmo_cap")
    assert piece.key == A
    assert piece.media == (picture(),)
    assert piece.branches == (
        ask("caption", "long_caption", None, "A red boat."),
        ask("transcript-0", "transcript", None, "there is a boat"),
        ask("transcript-3", "transcript", None, "a boat that is red"),
    )
    assert len(piece_of("pixmo_cap", {"transcripts": None}).branches) == 1


def test_points_in_percent_become_fractions_in_reading_order() -> None:
    points = Points(label="boats", points=(Point(x=0.25, y=0.5, id=0), Point(x=0.75, y=0.1, id=1)))
    assert piece_of("pixmo_points").branches == (
        ask("boats/point", "pointing", None, points),
        ask("boats/count", "point_count", None, points, Count(label="boats", count=2)),
    )
    (counting,) = piece_of("pixmo_points", {"collection_method": "counting"}).branches
    assert counting == ask("boats/count", "point_count", None, points, Count(label="boats", count=2))


def test_no_points_mean_that_there_are_none() -> None:
    pointing, _ = piece_of("pixmo_points", {"points": [], "count": 0}).branches
    assert pointing.turns[-1].parts == (Points(label="boats", points=()),)


def test_points_outside_are_not_moved_and_zero_has_one_sign() -> None:
    pointing, _ = piece_of("pixmo_points", {"points": [{"x": 100.4, "y": -0.4}, {"x": -1e-9, "y": 3.00000449}]}).branches
    (points,) = pointing.turns[-1].parts
    assert isinstance(points, Points)
    assert [(point.x, point.y) for point in points.points] == [(0.0, 0.03), (1.004, -0.004)]
    assert str(points.points[0].x) == "0.0"


def test_masks_are_numbered_as_the_points_that_they_belong_to() -> None:
    piece = piece_of("pixmo_points_eval")
    assert piece.key == f"{A}#boats"
    points = Points(label="boats", points=(Point(x=0.25, y=0.5, id=0), Point(x=0.75, y=0.1, id=1)))
    assert piece.branches == (ask("boats", "pointing", None, points),)
    assert set(piece.meta) == {"masks"}
    assert np.array_equal(decode_rle(piece.meta["masks"]["0"]["0"]), np.array(rectangle(40, 40, 60, 60)))
    assert np.array_equal(decode_rle(piece.meta["masks"]["1"]["0"]), np.array(rectangle(140, 0, 160, 20)))


def test_masks_follow_points_that_only_rounding_makes_equal() -> None:
    upper, lower = rectangle(0, 0, 9, 9), rectangle(0, 90, 9, 99)
    changes = {"points": [{"x": 1.0000001, "y": 95.0}, {"x": 1.0000002, "y": 5.0}], "masks": [lower, upper]}
    piece = piece_of("pixmo_points_eval", changes)
    (points,) = piece.branches[0].turns[-1].parts
    assert isinstance(points, Points)
    for point in points.points:
        mask = decode_rle(piece.meta["masks"][str(point.id)]["0"])
        assert mask[int(point.y * 100), int(point.x * 200)]


def test_counts_with_points_in_pixels_and_without() -> None:
    points = Points(label="boats", points=(Point(x=0.25, y=0.5, id=0), Point(x=0.75, y=0.1, id=1)))
    count = Count(label="boats", count=2)
    assert piece_of("pixmo_count").branches == (
        ask("boats/count", "count", None, count),
        ask("boats/point_count", "point_count", None, points, count),
    )
    assert piece_of("pixmo_count", {"points": None}).branches == (ask("boats/count", "count", None, count),)


def test_questions() -> None:
    assert piece_of("pixmo_ask_model_anything").branches == (ask("What floats?", "user_qa", "What floats?", "A boat."),)
    chart = piece_of("chart_qa")
    assert chart.branches == (ask("How high?", "chart_qa", "How high?", "14"),), "the answer that most annotators gave"
    assert chart.meta == {"answers": {"How high?": ["12", "14", "14"]}}, "all of them count when it is scored"


def test_questions_about_several_pictures_in_both_published_forms() -> None:
    piece = piece_of("molmo2_multi_image_qa")
    assert piece.key == f"{A} {B}"
    assert piece.branches == (
        ask("Which is red?", "correction_qa", "Which is red?", "The first."),
        ask("Which is blue?", "correction_qa", "Which is blue?", "The second."),
    )
    pairs = [{"question": "Which is red?", "answer": "The first."}, {"question": "Which is blue?", "answer": "The second."}]
    assert piece_of("molmo2_multi_image_qa", {"qa_pairs": pairs}) == piece


def test_points_across_pictures_have_one_row_of_ids() -> None:
    points = Points(
        label="boats",
        points=(Point(x=0.25, y=0.5, id=0), Point(x=0.75, y=0.1, id=1), Point(x=1.0, y=0.0, id=2, image=1)),
    )
    assert piece_of("molmo2_multi_image_point").branches == (ask("boats", "multi_image_pointing", None, points),)


def test_a_captioned_picture() -> None:
    assert piece_of("captioned_images").branches == (ask("caption", "long_caption", None, "A boat."),)


# -- refusals ---------------------------------------------------------------------------------------------------------------

POINT = {"x": 1.0, "y": 1.0}


@pytest.mark.parametrize(
    ("name", "changes", "reason", "field"),
    [
        ("pixmo_cap", {"image_url": None}, "missing_field", "image_url"),
        ("pixmo_cap", {"image_url": " "}, "empty_text", "image_url"),
        ("pixmo_cap", {"image_url": 7}, "wrong_type", "image_url"),
        ("pixmo_cap", {"caption": "\n"}, "empty_text", "caption"),
        ("pixmo_cap", {"caption": ["A boat."]}, "wrong_type", "caption"),
        ("pixmo_cap", {"transcripts": "a boat"}, "wrong_type", "transcripts"),
        ("pixmo_cap", {"transcripts": [7]}, "wrong_type", "transcripts"),
        ("pixmo_points", {"image_sha256": 7}, "wrong_type", "image_sha256"),
        ("pixmo_points", {"label": None}, "missing_field", "label"),
        ("pixmo_points", {"points": None}, "missing_field", "points"),
        ("pixmo_points", {"points": "1 2"}, "wrong_type", "points"),
        ("pixmo_points", {"points": [[1.0, 2.0]]}, "wrong_type", "x"),
        ("pixmo_points", {"points": [{"x": 1.0}]}, "missing_field", "y"),
        ("pixmo_points", {"points": [{"x": "1.0", "y": 1.0}]}, "wrong_type", "x"),
        ("pixmo_points", {"points": [{"x": True, "y": 1.0}]}, "wrong_type", "x"),
        ("pixmo_points", {"points": [{"x": 10**400, "y": 1.0}]}, "wrong_type", "x"),
        ("pixmo_points", {"points": {"x": [1.0], "y": [1.0, 2.0]}}, "length_mismatch", "points"),
        ("pixmo_points", {"points": {"x": [1.0]}}, "missing_field", "y"),
        ("pixmo_points", {"count": 3}, "count_mismatch", "count"),
        ("pixmo_points", {"count": 2.0}, "wrong_type", "count"),
        ("pixmo_points", {"count": True}, "wrong_type", "count"),
        ("pixmo_points_eval", {"masks": []}, "length_mismatch", "masks"),
        ("pixmo_points_eval", {"masks": [rectangle(0, 0, 9, 9, 100, 100)] * 2}, "size_mismatch", "masks"),
        ("pixmo_points_eval", {"masks": [[[True], [True, False]]] * 2}, "length_mismatch", "masks"),
        ("pixmo_points_eval", {"masks": [None, None]}, "size_mismatch", "masks"),
        ("pixmo_count", {"count": 3}, "count_mismatch", "count"),
        ("pixmo_count", {"points": {"x": None, "y": [1.0]}}, "missing_field", "x"),
        ("pixmo_ask_model_anything", {"answer": ""}, "empty_text", "answer"),
        ("chart_qa", {"image": None}, "missing_field", "image"),
        ("chart_qa", {"image": {"bytes": "png"}}, "wrong_type", "image.bytes"),
        ("chart_qa", {"label": []}, "empty_text", "label"),
        ("chart_qa", {"label": ["12", " "]}, "empty_text", "label"),
        ("chart_qa", {"label": ["12", None]}, "missing_field", "label"),
        ("chart_qa", {"label": "12"}, "wrong_type", "label"),
        ("molmo2_multi_image_qa", {"image_urls": []}, "no_media", "image_urls"),
        ("molmo2_multi_image_qa", {"image_urls": [A, None]}, "missing_field", "image_urls"),
        ("molmo2_multi_image_qa", {"image_urls": A}, "wrong_type", "image_urls"),
        ("molmo2_multi_image_qa", {"qa_pairs": {"question": ["a?"], "answer": []}}, "length_mismatch", "qa_pairs"),
        ("molmo2_multi_image_qa", {"qa_pairs": {"question": [], "answer": []}}, "missing_field", "qa_pairs"),
        ("molmo2_multi_image_qa", {"qa_pairs": ["a?"]}, "wrong_type", "question"),
        ("molmo2_multi_image_qa", {"qa_pairs": [{"question": "a?"}]}, "missing_field", "answer"),
        ("molmo2_multi_image_point", {"labels": ["boats"]}, "length_mismatch", "labels"),
        ("molmo2_multi_image_point", {"labels": ["boats", "cars"]}, "id_conflict", "labels"),
        ("molmo2_multi_image_point", {"labels": ["boats", ""]}, "empty_text", "labels"),
        ("molmo2_multi_image_point", {"counts": [2, 2]}, "count_mismatch", "count"),
        ("molmo2_multi_image_point", {"counts": [2, None]}, "missing_field", "counts"),
        ("molmo2_multi_image_point", {"points": [[POINT, POINT], None]}, "missing_field", "points"),
        ("captioned_images", {"caption": " "}, "empty_text", "caption"),
    ],
)
def test_what_is_not_as_published_is_refused_by_its_own_reason(name: str, changes: dict[str, Any], reason: str, field: str) -> None:
    assert refusal_of(name, changes) == (reason, field)
