"""Layouts about films: one row of each, the example it means written out by hand, and what is refused."""

from __future__ import annotations

import copy
from typing import Any

import msgspec
import pytest

from molmo2_assets.ingest.adapters import ADAPTERS, Context, Reference
from molmo2_assets.ingest.adapters.base import ask, clip_of
from molmo2_assets.ingest.reasons import RowFault
from molmo2_assets.ingest.rows import RawRow
from tests.support.published_rows import FIRST_COLUMN, LAST_COLUMN, LAYOUTS, film, piece_of, refusal_of
from training_backend.data.example import (
    Choices,
    Count,
    Subtitle,
    TimedPoint,
    TimedPoints,
    Track,
    Tracks,
    TrackSample,
)


def changed(name: str, *path: Any, to: Any) -> dict[str, Any]:
    """The fields of a layout's row with one place deep inside of them changed."""
    row = copy.deepcopy(LAYOUTS[name].row)
    inside: Any = row
    for step in path[:-1]:
        inside = inside[step]
    inside[path[-1]] = to
    return row


@pytest.mark.parametrize("name", [name for name in LAYOUTS if name.startswith("molmo2_") and "video" in LAYOUTS[name].task])
def test_which_film_a_row_names(name: str) -> None:
    row = RawRow("data.parquet", 0, LAYOUTS[name].row)
    assert ADAPTERS[name].media(row, Context("", LAYOUTS[name].task, {})) == [Reference("film", "video")]


# -- captions and clips -----------------------------------------------------------------------------------------------------


def test_three_captions_of_growing_length() -> None:
    piece = piece_of("molmo2_cap")
    assert (piece.key, piece.media) == ("film", (film(),))
    assert piece.branches == (
        ask("video_short_caption", "video_short_caption", None, "A boat."),
        ask("video_merged_caption", "video_merged_caption", None, "A boat leaves."),
        ask("video_long_caption", "video_long_caption", None, "A boat leaves a harbour."),
    )
    (one,) = piece_of("molmo2_cap", {"video_caption": " ", "merged_caption": None}).branches
    assert one.id == "video_long_caption"


def test_a_clip_of_a_film_is_another_medium() -> None:
    piece = piece_of("molmo2_cap", {"video_start": 2.5, "video_end": 6.0})
    assert piece.key == "film@2.5-6"
    assert piece.media == (msgspec.structs.replace(film(), clip=(2.5, 6.0)),)
    assert piece.media[0].seconds == 3.5


@pytest.mark.parametrize(
    ("start", "end", "clip"),
    [
        (None, None, None),
        (0.0, 10.0, None),
        (None, 10.1, None),
        (0.0, 4.0, (0.0, 4.0)),
        (4.0, None, (4.0, 10.0)),
        (4.0, 10.05, (4.0, 10.0)),
    ],
)
def test_an_end_may_pass_the_films_by_rounding(start: float | None, end: float | None, clip: tuple[float, float] | None) -> None:
    assert clip_of(film(), start, end) == msgspec.structs.replace(film(), clip=clip)


@pytest.mark.parametrize(
    ("start", "end"),
    [
        (4.0, 4.0),
        (5.0, 4.0),
        (-0.1, 4.0),
        (0.0, 10.2),
        (10.05, 10.1),
        (10.0, 10.1),
        (float("nan"), 4.0),
        (0.0, float("nan")),
        (0.0, -1.0),
    ],
)
def test_a_clip_that_is_none_is_refused(start: float, end: float) -> None:
    with pytest.raises(RowFault) as caught:
        clip_of(film(), start, end)
    assert caught.value.reason == "clip_invalid"


# -- multiple choice --------------------------------------------------------------------------------------------------------


def choices_of(name: str, changes: dict[str, Any] | None = None) -> Choices:
    (branch,) = piece_of(name, changes).branches
    (part,) = branch.turns[-1].parts
    assert isinstance(part, Choices)
    return part


def test_the_right_option_is_known_by_its_number() -> None:
    (branch,) = piece_of("molmo2_video_cap_qa").branches
    part = choices_of("molmo2_video_cap_qa")
    assert branch == ask("What leaves?", "video_multiple_choice", "What leaves?", part)
    assert sorted(part.options) == ["a boat", "a car", "a plane", "a train"]
    assert part.options[part.answer] == "a boat"


def test_where_the_right_option_stands_tells_nothing() -> None:
    """Stored first it would be "A" in every evaluation prompt: a model could score 1 without looking."""
    places = [choices_of("molmo2_video_cap_qa", {"Question": f"What leaves at {second} s?"}).answer for second in range(400)]
    assert all(70 <= places.count(place) <= 130 for place in range(4)), "expected 100, standard deviation 8.7"


def test_the_order_of_options_is_a_function_of_what_is_asked() -> None:
    shuffled = {"NegativeAnswers": ["a plane", "a car", "a train"]}
    assert choices_of("molmo2_video_cap_qa", shuffled) == choices_of("molmo2_video_cap_qa")


def test_subtitles_belong_to_the_film() -> None:
    piece = piece_of("molmo2_video_subtitle_qa")
    line = Subtitle(start=0.5, end=2.0, text="The boat leaves.")
    assert piece.media == (msgspec.structs.replace(film(), subtitles=(line,)),)
    part = choices_of("molmo2_video_subtitle_qa")
    assert (sorted(part.options), part.options[part.answer]) == (["boat", "car", "train"], "boat")


# -- points -----------------------------------------------------------------------------------------------------------------


def test_points_in_percent_count_from_the_clips_start() -> None:
    piece = piece_of("molmo2_video_point")
    assert piece.key == "film@1-6"
    assert piece.media == (msgspec.structs.replace(film(), clip=(1.0, 6.0)),)
    points = TimedPoints(
        label="boats",
        points=(
            TimedPoint(t=1.0, x=0.25, y=0.5, id=0),
            TimedPoint(t=1.0, x=0.5, y=0.5, id=1),
            TimedPoint(t=3.5, x=0.75, y=0.1, id=2),
        ),
    )
    assert piece.branches == (
        ask("boats/point", "video_point", None, points),
        ask("boats/point_count", "video_point_count", None, points, Count(label="boats", count=3)),
    )


def test_evaluation_points_in_pixels_with_masks_on_the_half_second_grid() -> None:
    piece = piece_of("molmo2_video_point_eval")
    assert piece.key == "film#boats"
    points = TimedPoints(label="boats", points=(TimedPoint(t=2.0, x=0.0, y=0.5, id=0), TimedPoint(t=4.5, x=0.75, y=0.1, id=1)))
    assert piece.branches == (ask("boats", "video_point", None, points, Count(label="boats", count=2)),)
    assert piece.meta == {"masks": {"0": {"2.0": FIRST_COLUMN, "2.5": FIRST_COLUMN}, "1": {"4.5": LAST_COLUMN}}}


# -- tracks -----------------------------------------------------------------------------------------------------------------


def test_tracks_in_pixels_are_numbered_by_first_sight() -> None:
    first = (TrackSample(t=0.0, x=0.75, y=0.1), TrackSample(t=1.0, x=0.8, y=0.1, occluded=True))
    second = (TrackSample(t=1.0, x=0.25, y=0.25),)
    tracks = Tracks(query="the boats", tracks=(Track(id=0, samples=first), Track(id=1, samples=second)), fps=1.0)
    (branch,) = piece_of("molmo2_track_instruction").branches
    assert branch == ask("the boats/1", "video_point_track_per_frame", None, tracks)


def test_evaluation_tracks_are_sampled_once_a_second() -> None:
    """At 2 frames a second every second frame counts: frame 1, where only the second boat is seen, is not asked for."""
    piece = piece_of("molmo2_video_track_eval")
    assert piece.key == "film#the boats"
    first = (TrackSample(t=0.0, x=0.75, y=0.1), TrackSample(t=1.0, x=0.8, y=0.1))
    tracks = (Track(id=0, samples=first), Track(id=1, samples=(TrackSample(t=1.0, x=0.01, y=0.5),)))
    expected = Tracks(query="the boats", tracks=tracks, fps=1.0)
    assert piece.branches == (ask("the boats", "video_point_track_per_frame", None, expected),)
    assert piece.meta == {"masks": {"0": {"0.0": LAST_COLUMN, "1.0": LAST_COLUMN}, "1": {"1.0": FIRST_COLUMN}}}
    (every,) = piece_of("molmo2_video_track_eval", sampling_fps=2).branches
    (part,) = every.turns[-1].parts
    assert isinstance(part, Tracks)
    assert [[sample.t for sample in track.samples] for track in part.tracks] == [[0.0, 1.0], [0.5, 1.0]]


# -- refusals ---------------------------------------------------------------------------------------------------------------

TRACKS, TRACKS_EVAL, POINTS, POINTS_EVAL = (
    "molmo2_track_instruction", "molmo2_video_track_eval", "molmo2_video_point", "molmo2_video_point_eval",
)  # fmt: skip
SQUARE = {"size": [2, 2], "counts": [0, 4]}
TURNED = {"size": [400, 200], "counts": [80_000]}
SHORT = {"size": [200, 400], "counts": [7]}
NO_RUNS = {"size": [200, 400], "counts": "~~"}
LINE = {"start": 0.5, "end": 2.0, "text": "words"}
MOMENTS = ("frame_trajectories", 1, "points", 0)


@pytest.mark.parametrize(
    ("name", "changes", "reason", "field"),
    [
        ("molmo2_cap", {"video_id": None}, "missing_field", "video_id"),
        ("molmo2_cap", {"video_start": "0"}, "wrong_type", "video_start"),
        ("molmo2_cap", {"video_start": 11.0, "video_end": 12.0}, "clip_invalid", "clip"),
        ("molmo2_cap", {"annotation_score": 2}, "low_score", "annotation_score"),
        ("molmo2_cap", {"annotation_score": "good"}, "wrong_type", "annotation_score"),
        ("molmo2_cap", {"merged_caption": ["a"]}, "wrong_type", "merged_caption"),
        (
            "molmo2_cap",
            {"video_caption": "", "merged_caption": " ", "video_frame_merged_caption": None},
            "empty_text",
            "merged_caption",
        ),
        ("molmo2_video_cap_qa", {"Question": " "}, "empty_text", "Question"),
        ("molmo2_video_cap_qa", {"Answer": None}, "missing_field", "Answer"),
        ("molmo2_video_cap_qa", {"NegativeAnswers": []}, "no_options", "options"),
        ("molmo2_video_cap_qa", {"NegativeAnswers": "a car"}, "wrong_type", "NegativeAnswers"),
        ("molmo2_video_cap_qa", {"NegativeAnswers": ["a car", None]}, "missing_field", "NegativeAnswers"),
        ("molmo2_video_cap_qa", {"NegativeAnswers": ["a car", ""]}, "empty_text", "NegativeAnswers"),
        ("molmo2_video_cap_qa", {"NegativeAnswers": ["a car", "A Boat "]}, "answer_ambiguous", "options"),
        ("molmo2_video_subtitle_qa", {"subtitle": None}, "missing_field", "subtitle"),
        ("molmo2_video_subtitle_qa", {"subtitle": ["words"]}, "wrong_type", "start"),
        ("molmo2_video_subtitle_qa", {"subtitle": [{**LINE, "end": "2"}]}, "wrong_type", "end"),
        ("molmo2_video_subtitle_qa", {"subtitle": [{**LINE, "end": 0.5}]}, "time_order", "subtitle"),
        ("molmo2_video_subtitle_qa", {"subtitle": [{**LINE, "start": float("nan")}]}, "time_order", "subtitle"),
        ("molmo2_video_subtitle_qa", {"subtitle": [{**LINE, "start": 60.0, "end": 61.0}]}, "time_outside", "subtitle"),
        ("molmo2_video_subtitle_qa", {"subtitle": [{**LINE, "text": " "}]}, "empty_text", "text"),
        (POINTS, {"annotator_unsure": True}, "unsure", "annotator_unsure"),
        (POINTS, {"label": ""}, "empty_text", "label"),
        (POINTS, {"count": 2}, "count_mismatch", "count"),
        (POINTS, {"count": None}, "missing_field", "count"),
        (POINTS, {"two_fps_timestamps": [4.5]}, "length_mismatch", "two_fps_timestamps"),
        (POINTS, {"two_fps_timestamps": ["4.5", 2.0]}, "wrong_type", "two_fps_timestamps"),
        (POINTS, {"two_fps_timestamps": [None, 2.0]}, "missing_field", "two_fps_timestamps"),
        (POINTS, {"points": [None, []]}, "missing_field", "points"),
        (POINTS, {"clip_start": 7.0}, "clip_invalid", "clip"),
        (POINTS, {"clip_end": "6"}, "wrong_type", "clip_end"),
        (POINTS_EVAL, {"width": 200}, "size_mismatch", "width"),
        (POINTS_EVAL, {"count": 3}, "count_mismatch", "count"),
        (POINTS_EVAL, {"masks": [[]]}, "length_mismatch", "masks"),
        (POINTS_EVAL, {"masks": [None, []]}, "missing_field", "masks"),
        (POINTS_EVAL, changed(POINTS_EVAL, "masks", 0, 0, to=FIRST_COLUMN), "missing_field", "frame_id"),
        (POINTS_EVAL, changed(POINTS_EVAL, "masks", 0, 0, "rle", to=[0, 1]), "wrong_type", "rle"),
        (POINTS_EVAL, changed(POINTS_EVAL, "masks", 0, 0, "rle", to=SHORT), "wrong_type", "masks"),
        (POINTS_EVAL, changed(POINTS_EVAL, "masks", 0, 0, "rle", to=TURNED), "size_mismatch", "masks"),
        (TRACKS, {"expression": " "}, "empty_text", "expression"),
        (TRACKS, {"fps": 7, "sampling_fps": 2}, "rate_mismatch", "sampling_fps"),
        (TRACKS, {"sampling_fps": 0}, "rate_mismatch", "sampling_fps"),
        (TRACKS, {"fps": -8}, "rate_mismatch", "sampling_fps"),
        (TRACKS, {"width": 800}, "size_mismatch", "width"),
        (TRACKS, {"height": None}, "missing_field", "height"),
        (TRACKS, {"frame_trajectories": {}}, "wrong_type", "frame_trajectories"),
        (TRACKS, changed(TRACKS, "frame_trajectories", 0, "time", to="0"), "wrong_type", "time"),
        (TRACKS, changed(TRACKS, "frame_trajectories", 0, "points", to=None), "missing_field", "points"),
        (TRACKS, changed(TRACKS, *MOMENTS, "id", to=3), "object_twice", "frame_trajectories"),
        (TRACKS, changed(TRACKS, *MOMENTS, "id", to=7.5), "wrong_type", "id"),
        (TRACKS, changed(TRACKS, *MOMENTS, "point", to=[1.0]), "length_mismatch", "frame_trajectories"),
        (TRACKS, changed(TRACKS, *MOMENTS, "point", to=[1.0, None]), "missing_field", "frame_trajectories"),
        (TRACKS, changed(TRACKS, *MOMENTS, "occluded", to=None), "missing_field", "occluded"),
        (TRACKS, changed(TRACKS, *MOMENTS, "occluded", to=1), "wrong_type", "occluded"),
        (TRACKS_EVAL, {"exp": None}, "missing_field", "exp"),
        (TRACKS_EVAL, {"fps": 0}, "rate_mismatch", "fps"),
        (TRACKS_EVAL, {"w": 200}, "size_mismatch", "width"),
        (TRACKS_EVAL, changed(TRACKS_EVAL, "points", 0, "object_id", to="5"), "length_mismatch", "masks"),
        (TRACKS_EVAL, changed(TRACKS_EVAL, "points", 0, "object_id", to="4"), "object_twice", "points"),
        (TRACKS_EVAL, changed(TRACKS_EVAL, "masks", 0, "masks", to=[LAST_COLUMN]), "length_mismatch", "masks"),
        (TRACKS_EVAL, changed(TRACKS_EVAL, "points", 0, "points", to=[[], [3.0, 3.0], []]), "never_seen", "points"),
        (TRACKS_EVAL, changed(TRACKS_EVAL, "points", 0, "points", 0, to=[3.0]), "length_mismatch", "points"),
        (TRACKS_EVAL, changed(TRACKS_EVAL, "points", 0, "points", 0, to="3 3"), "wrong_type", "points"),
        (TRACKS_EVAL, changed(TRACKS_EVAL, "masks", 0, "masks", 0, to=SQUARE), "size_mismatch", "masks"),
        (TRACKS_EVAL, changed(TRACKS_EVAL, "masks", 0, "masks", 0, to=NO_RUNS), "wrong_type", "masks"),
    ],
)
def test_what_is_not_as_published_is_refused_by_its_own_reason(name: str, changes: dict[str, Any], reason: str, field: str) -> None:
    assert refusal_of(name, changes) == (reason, field)


def test_the_lowest_score_is_the_entrys() -> None:
    assert piece_of("molmo2_cap", {"annotation_score": 2}, lowest_score=2).branches
    assert refusal_of("molmo2_cap", {}, lowest_score=5) == ("low_score", "annotation_score")
