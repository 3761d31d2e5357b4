import msgspec
import pytest

from molmo2_assets.evaluation.registry import METRICS, headline_value
from tests.support.evaluation_sets import answer, asked, chosen, counted, pointed, row, tracked, video_pointed
from training_backend.data.example import Count, Point, Points, Tracks

PLACES = [(0.25, 0.25), (0.75, 0.75)]


def values(metric: str, *records):
    assert all(METRICS[metric].applies(record) for record in records)
    return METRICS[metric](list(records))


def test_every_metric_gives_its_main_value_and_names_are_unique():
    examples = {
        "pointing": pointed("a", PLACES),
        "pointing_distance": pointed("a", PLACES),
        "video_pointing": video_pointed("a", [(0.5, 0.5, 0.5)]),
        "track": tracked("a", [[(0, 0.5, 0.5)]]),
        "hota": tracked("a", [[(0, 0.5, 0.5)]]),
        "count": counted("a", 3),
        "count_points": pointed("a", PLACES),
        "multiple_choice": chosen("a", ["x", "y"], 0),
        "multiple_choice_nearest": chosen("a", ["x", "y"], 0),
        "vqa_score": asked("a", "q", *["yes"] * 10),
    }
    seen: list[str] = []
    for name, metric in METRICS.items():
        found = values(name, answer(examples.get(name, asked("a", "q", "yes"))))
        assert headline_value(name) == metric.main
        assert metric.main in found
        assert all(0 <= value <= 1 for value in found.values())
        seen += found
    assert len(set(seen)) == len(seen)


def test_pointing_reads_the_answers_text():
    text = "<point 0.250, 0.250, 0> <point 0.100, 0.900, 1>"
    assert values("pointing", answer(pointed("a", PLACES), text))["pointing_f1"] == 0.5
    assert values("pointing_distance", answer(pointed("a", PLACES), text))["pointing_distance_f1"] == 0.5
    none = answer(pointed("a", []), "There are none.")
    assert values("pointing", none)["pointing_f1"] == 1.0
    assert METRICS["pointing"].row(none)[1]
    # Gibberish points at nothing and so is right where there is nothing, but it is counted as unreadable.
    assert METRICS["pointing"].row(answer(pointed("a", []), "disc disc"))[1] is False


def test_a_question_that_could_not_be_asked_scores_nothing_even_where_there_was_nothing():
    assert values("pointing", answer(pointed("a", []), "", failure="broken"))["pointing_f1"] == 0.0


def test_the_mean_is_over_examples_not_over_points():
    many, one = [(0.2, 0.2), (0.5, 0.5), (0.8, 0.8)], [(0.5, 0.5)]
    found = values("pointing", answer(pointed("a", many)), answer(pointed("b", one), "<point 0.5, 0.5, 0>"))
    assert found["pointing_f1"] == 0.5


def test_points_in_several_images():
    points = (Point(x=0.5, y=0.5, id=0, image=0), Point(x=0.5, y=0.5, id=1, image=1))
    masks = pointed("a", [(0.5, 0.5)]).meta["masks"]["0"]["0"]
    example = row(
        "a", "multi_image_pointing", [Points(label="d", points=points)], media=2, masks={"0": {"0": masks}, "1": {"1": masks}}
    )
    assert values("pointing", answer(example, "<point 0, 0.5, 0.5, 0> <point 1, 0.5, 0.5, 1>"))["pointing_f1"] == 1.0
    assert values("pointing", answer(example, "<point 0, 0.5, 0.5, 0> <point 0, 0.5, 0.5, 1>"))["pointing_f1"] == 0.5
    assert not METRICS["pointing_distance"].applies(answer(example))


def test_a_missing_mask_names_the_row():
    bare = msgspec.structs.replace(pointed("a", PLACES), meta={})
    with pytest.raises(ValueError, match=r"a, branch 0: object 0 has no mask in meta\.masks"):
        METRICS["pointing"].row(answer(bare))


def test_video_pointing_and_tracks_read_times():
    example = video_pointed("a", [(0.5, 0.25, 0.25), (2.0, 0.75, 0.75)])
    assert values("video_pointing", answer(example, "<point 0.5, 0.25, 0.25, 0> <point 2.5, 0.75, 0.75, 1>")) == {
        "video_pointing_precision": 1.0,
        "video_pointing_recall": 1.0,
        "video_pointing_f1": 1.0,
    }
    assert values("video_pointing", answer(example, "<point 0.3, 0.25, 0.25, 0>"))["video_pointing_f1"] == 0.0

    moving = tracked("b", [[(0, 0.2, 0.5), (1, 0.5, 0.5), (2, 0.8, 0.5)]])
    perfect = "<point 0.0, 0.2, 0.5, 0> <point 1.0, 0.5, 0.5, 0> <point 2.0, 0.8, 0.5, 0>"
    assert values("track", answer(moving, perfect))["track_f1"] == 1.0
    assert values("hota", answer(moving, perfect))["hota"] == 1.0
    # One more moment is a frame of the union, a zero: 3 of 4.
    assert values("track", answer(moving, perfect + " <point 1.5, 0.5, 0.5, 0>"))["track_f1"] == 0.75
    # A moment without a mask cannot be hit.
    blind = msgspec.structs.replace(moving, meta={"masks": {"0": {"0.0": moving.meta["masks"]["0"]["0.0"]}}})
    assert values("track", answer(blind, perfect))["track_f1"] == pytest.approx(1 / 3)
    # A repeated id within a frame is ignored.
    assert values("track", answer(moving, perfect + " <point 0.0, 0.9, 0.9, 0>"))["track_f1"] == 1.0


def test_tracks_of_first_and_last_sight_are_no_tracks():
    example = tracked("a", [[(0, 0.2, 0.5), (1, 0.5, 0.5)]])
    part = example.branches[0].turns[1].parts[0]
    assert isinstance(part, Tracks)
    ground = row("a", "video_tracking", [msgspec.structs.replace(part, mode="ground")], seconds=3.0, **example.meta)
    assert not METRICS["track"].applies(answer(ground))


def test_the_release_counts_points_and_we_also_read_the_number():
    number = counted("a", 3)
    assert values("count", answer(number, "3")) == {"count_accuracy": 1.0, "count_close": 1.0}
    assert METRICS["count"].row(answer(number, "many"))[1] is False
    points = Points(label="d", points=tuple(Point(x=0.1 * n, y=0.1, id=n) for n in range(3)))
    both = row("b", "counting", [points, Count(label="d", count=3)])
    two = "<point 0.1, 0.1, 0> <point 0.2, 0.1, 1> Counting the d shows a total of 3."
    assert values("count", answer(both, two))["count_accuracy"] == 1.0
    assert values("count_points", answer(both, two)) == {"count_points_accuracy": 0.0, "count_points_close": 1.0}


def test_a_number_is_asked_for_in_words_or_in_points():
    """A set that asks both ways is not scored by points where a bare number is the right answer, nor the other way round."""
    assert not METRICS["count_points"].applies(answer(counted("a", 3)))
    assert not METRICS["count"].applies(answer(pointed("a", PLACES)))


def test_choices_and_short_answers():
    example = chosen("a", ["red", "green", "blue"], 1)
    assert values("multiple_choice", answer(example, "B. green"))["multiple_choice"] == 1.0
    assert values("multiple_choice", answer(example, "grean"))["multiple_choice"] == 0.0
    assert METRICS["multiple_choice"].row(answer(example, "grean"))[1] is False
    assert values("multiple_choice_nearest", answer(example, "grean"))["multiple_choice_nearest"] == 1.0
    several = asked("b", "q", "two dogs", "2 dogs")
    assert values("exact_match", answer(several, "2 dogs"))["exact_match"] == 1.0
    assert values("exact_match", answer(several, ""))["exact_match"] == 0.0
