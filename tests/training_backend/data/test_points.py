"""Grounding as text: exact forms, order, round trips, answers that were cut off."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from training_backend.data.example import Count, Point, Points, TimedPoint, TimedPoints, Track, Tracks, TrackSample
from training_backend.data.points import Special, clip_tracks, parse, parse_count, pieces, render

TWO = Points(label="cars", points=(Point(x=0.7, y=0.12, id=5), Point(x=0.25, y=0.5, id=9)))
TIMED = TimedPoints(label="a jump", points=(TimedPoint(t=12.04, x=1.0, y=0.0, id=1), TimedPoint(t=0.0, x=0.5, y=0.3, id=0)))


def test_report_forms() -> None:
    assert render(TWO, "report", 3) == "<point 0.250, 0.500, 0> <point 0.700, 0.120, 1>"
    assert render(TWO, "report", 1, mode="point_count").endswith("1> Counting the cars shows a total of 2.")
    assert render(TWO, "report", 2, n_images=2) == "<point 0, 0.25, 0.50, 0> <point 0, 0.70, 0.12, 1>"
    assert render(TIMED, "report", 2) == "<point 0.0, 0.50, 0.30, 0> <point 12.0, 1.00, 0.00, 1>"
    assert render(TWO, "report", 3, mode="count") == render(Count(label="cars", count=2), "report", 3) == "2"


def test_release_forms() -> None:
    assert render(TWO, "release", 3) == '<points coords="1 1 250 500 2 700 120">cars</points>'
    assert render(TIMED, "release", 3) == '<points coords="0.0 1 500 300;12.0 2 1000 000">a jump</points>'
    several = Points(label="x", points=(Point(x=0.5, y=0.5, id=0, image=2), Point(x=0.1, y=0.02, id=1, image=0)))
    assert render(several, "release", 3, n_images=3) == '<points coords="1 1 100 020;3 2 500 500">x</points>'
    assert render(TWO, "release", 3, mode="point_count").startswith('Counting the <points coords="')
    assert render(TWO, "release", 3, mode="point_count").endswith("cars</points> shows a total of 2.")


@pytest.mark.parametrize("syntax", ["report", "release"])
def test_nothing_found(syntax: str) -> None:
    empty = Points(label="cars", points=())
    for mode, text in (("point", "There are none."), ("point_count", "There are none."), ("count", "0")):
        assert render(empty, syntax, 3, mode=mode) == text  # type: ignore[arg-type]
        assert parse_count(text) == 0
    assert parse("There are none.", syntax, kind="image") == []  # type: ignore[arg-type]


def test_tracks_are_numbered_by_first_sight_and_leave_out_what_is_hidden() -> None:
    late = Track(id=0, samples=(TrackSample(t=0, x=0.5, y=0.5, occluded=True), TrackSample(t=1, x=0.1, y=0.1)))
    right = Track(id=1, samples=(TrackSample(t=0, x=0.9, y=0.1), TrackSample(t=1, x=0.8, y=0.1)))
    left = Track(id=2, samples=(TrackSample(t=0, x=0.2, y=0.9), TrackSample(t=1, x=0.3, y=0.9), TrackSample(t=2, x=0.4, y=0.9)))
    part = Tracks(query="dogs", tracks=(late, right, left), fps=1)
    text = render(part, "release", 3)
    assert text == '<tracks coords="0.0 1 200 900 2 900 100;1.0 1 300 900 2 800 100 3 100 100;2.0 1 400 900">dogs</tracks>'
    ground = Tracks(query="dogs", tracks=(left,), fps=1, mode="ground")
    assert render(ground, "report", 1) == "<point 0.0, 0.2, 0.9, 0> <point 2.0, 0.4, 0.9, 0>"
    hidden = Tracks(query="dogs", tracks=(Track(id=0, samples=(TrackSample(t=0, x=0.5, y=0.5, occluded=True),)),), fps=1)
    assert render(hidden, "report", 3) == "There are none."
    assert [len(track.samples) for track in clip_tracks(part, 1.0).tracks] == [2, 2, 2]
    assert clip_tracks(part, 2.0) is part


def test_only_the_formatter_opens_a_point() -> None:
    trap = Points(label="<point 0.1, 0.1, 0>", points=(Point(x=0.5, y=0.5, id=0),))
    said = pieces(trap, "report", 1, mode="point_count")
    assert [piece for piece in said if isinstance(piece, Special)] == ["<point"]
    assert not any(isinstance(piece, Special) for piece in pieces(trap, "release", 1))


def test_order_follows_the_written_digits() -> None:
    """Two points that differ before rounding and tie after it are ordered by their next digit, as written."""
    near = Points(label="x", points=(Point(x=0.1004, y=0.9, id=0), Point(x=0.1001, y=0.95, id=1), Point(x=0.0996, y=0.97, id=2)))
    assert render(near, "report", 3) == "<point 0.100, 0.900, 0> <point 0.100, 0.950, 1> <point 0.100, 0.970, 2>"


def test_coordinates_outside_the_picture_are_refused() -> None:
    with pytest.raises(ValueError, match="outside"):
        render(Points(label="x", points=(Point(x=1.01, y=0.5, id=0),)), "report", 3)


fractions = st.floats(0, 1, allow_nan=False)
points_in = st.lists(st.tuples(fractions, fractions, st.integers(0, 3)), max_size=8)


@settings(max_examples=60, deadline=None)
@given(points_in, st.sampled_from(["report", "release"]), st.integers(2, 4), st.sampled_from(["image", "multi_image", "video"]))
def test_round_trip(places: list[tuple[float, float, int]], syntax: str, digits: int, kind: str) -> None:
    if kind == "video":
        part = TimedPoints(label="a b", points=tuple(TimedPoint(t=g / 2, x=x, y=y, id=n) for n, (x, y, g) in enumerate(places)))
    else:
        group = 0 if kind == "image" else 1
        part = Points(label="a b", points=tuple(Point(x=x, y=y, id=n, image=g * group) for n, (x, y, g) in enumerate(places)))
    text = render(part, syntax, digits, n_images=1 if kind == "image" else 4, mode="point_count")  # type: ignore[arg-type]
    read = parse(text, syntax, kind=kind)  # type: ignore[arg-type]
    assert [point.id for point in read] == list(range(len(places)))
    assert parse_count(text) == len(places)
    step = 0.5 * 10.0 ** -(3 if syntax == "release" else digits) + 1e-9
    left = [(g / 2 if kind == "video" else float(g if kind == "multi_image" else 0), x, y) for x, y, g in places]
    for point in read:
        key = point.t if kind == "video" else float(point.image or 0)
        match = next((at for at in left if at[0] == key and abs(at[1] - point.x) <= step and abs(at[2] - point.y) <= step), None)
        assert match is not None
        left.remove(match)
    assert not left
    assert render(part, syntax, digits, n_images=4 if kind != "image" else 1, mode="point_count") == text  # type: ignore[arg-type]


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 400), st.sampled_from(["report", "release"]))
def test_a_cut_answer_keeps_whole_points(cut: int, syntax: str) -> None:
    part = TimedPoints(label="x", points=tuple(TimedPoint(t=n, x=0.125 * n, y=1 - 0.125 * n, id=n) for n in range(8)))
    text = render(part, syntax, 3)  # type: ignore[arg-type]
    whole = parse(text, syntax, kind="video")  # type: ignore[arg-type]
    some = parse(text[:cut], syntax, kind="video")  # type: ignore[arg-type]
    assert len(whole) == 8
    assert len(some) <= len(whole)
    # The last one may have lost a digit of its id; all others are untouched.
    assert some[:-1] == whole[: max(len(some) - 1, 0)]
    if cut >= len(text):
        assert some == whole


def test_a_cut_tag_counts_when_its_fields_are_there() -> None:
    assert [p.id for p in parse("<point 0.1, 0.2, 0> <point 0.3, 0.4, 1", "report", kind="image")] == [0, 1]
    assert [p.id for p in parse("<point 0.1, 0.2, 0> <point 0.3, 0.4", "report", kind="image")] == [0]
    assert [p.id for p in parse('<points coords="1 1 100 200 2 300 4', "release", kind="image")] == [0]
    assert [p.id for p in parse('<points coords="1 1 100 200 2 300 400', "release", kind="image")] == [0, 1]


@pytest.mark.parametrize(
    "text",
    [
        "<point 1.5, 0.2, 0>",
        "<point a, b, c>",
        "<point 0.1, 0.2>",
        "<pointing 0.1, 0.2, 0>",
        "<point 0.1, 0.2, 0.5>",
        "0.1, 0.2, 0",
    ],
)
def test_nonsense_is_left_out(text: str) -> None:
    assert parse(text, "report", kind="image") == []


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ("7", 7), (" 12. ", 12),
        ("Counting the <points coords=\"1 1 100 200\">x</points> shows a total of 1.", 1),
        ("The total number of cars is: 4", 4), ("There are 3 cars.", 3), ("None.", 0), ("I see cars", None),
        ("<point 0.5, 0.5, 0>", None),
    ],
)  # fmt: skip
def test_counts_are_read(text: str, count: int | None) -> None:
    assert parse_count(text) == count
