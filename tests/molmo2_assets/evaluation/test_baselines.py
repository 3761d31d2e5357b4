from itertools import combinations

import msgspec
import numpy as np
import pytest

from molmo2_assets.evaluation import baselines
from molmo2_assets.evaluation.pointing import maximum_matching
from molmo2_assets.evaluation.registry import METRICS
from tests.support.evaluation_sets import answer, asked, chosen, counted, pointed, row, tracked, video_pointed
from training_backend.data.example import Tracks


def mean(metric, records, prediction):
    rows = [METRICS[metric].score(record, prediction(record)) for record in records]
    return {name: float(np.mean([row[name] for row in rows])) for name in rows[0]}


def test_no_constant_count_is_better():
    records = [answer(counted(str(n), n)) for n in (1, 1, 2, 4, 4, 6, 6, 30, 33)]
    best = METRICS["count"].baseline(records)
    for number in range(40):
        constant = mean("count", records, lambda record, number=number: number)
        assert best["count_accuracy"] >= constant["count_accuracy"]
        assert best["count_close"] >= constant["count_close"]
    # 5 is nobody's truth and close to four of them.
    assert best["count_close"] == pytest.approx(4 / 9)


def test_words_of_the_question_are_no_pixels():
    """The best constant is right half the time; who has only read the question is always right."""
    records = [
        answer(asked(f"{kind}{n}", f"{kind} is it, number {n}?", say))
        for n in range(4)
        for kind, say in (("What", "red"), ("Where", "left"))
    ]
    best = METRICS["exact_match"].baseline(records)
    assert best["exact_match"] == 1.0
    for text in ("red", "left", "x"):
        assert mean("exact_match", records, lambda record, text=text: text)["exact_match"] <= 0.5


def test_a_question_asked_once_tells_nothing_of_its_own_answer():
    records = [answer(asked(str(n), f"Question{n} of its own?", f"answer{n}")) for n in range(5)]
    assert METRICS["exact_match"].baseline(records)["exact_match"] == pytest.approx(1 / 5)


def test_no_letter_text_or_length_is_better_than_the_blind_option():
    options = [["cat", "a long dog"], ["cat", "bird"], ["a very long fish", "cat"], ["cow", "a long cat"]]
    records = [answer(chosen(str(n), texts, 1 if n != 2 else 0)) for n, texts in enumerate(options)]
    best = METRICS["multiple_choice"].baseline(records)["multiple_choice"]
    assert best == 1.0  # the longest is always right
    for number in (0, 1):
        assert best >= mean("multiple_choice", records, lambda record, number=number: number)["multiple_choice"]


def cells():
    return baselines.grid()


def test_no_set_of_one_or_two_cells_is_better_than_the_blind_points():
    rng = np.random.default_rng(1)
    spots = [(0.1, 0.1), (0.1, 0.9), (0.5, 0.5), (0.9, 0.9)]
    records = []
    for number in range(12):
        chosen_spots = [
            spots[place] for place in sorted(rng.choice(4, size=int(rng.integers(0, 4)), replace=False, p=[0.5, 0.2, 0.2, 0.1]))
        ]
        records.append(answer(pointed(str(number), chosen_spots)))
    for metric in ("pointing", "pointing_distance"):
        best = METRICS[metric].baseline(records)[f"{metric}_f1"]
        inside = [[(x, y, 0)] for x, y in cells()]
        singles = [mean(metric, records, lambda record, place=place: place)[f"{metric}_f1"] for place in inside]
        assert best >= max(singles) - 1e-12
        assert best >= mean(metric, records, lambda record: [])[f"{metric}_f1"]
        assert 0 < best < 1
    # All pairs of the cells that stand in a spot.
    near = [place for place in cells() if min(abs(place[0] - x) + abs(place[1] - y) for x, y in spots) < 0.06]
    pairs = [
        mean("pointing", records, lambda record, pair=pair: [(*place, 0) for place in pair])["pointing_f1"]
        for pair in combinations(near, 2)
    ]
    assert METRICS["pointing"].baseline(records)["pointing_f1"] >= max(pairs) - 1e-12


def test_a_set_without_objects_is_best_answered_with_nothing():
    records = [answer(pointed(str(n), [])) for n in range(3)] + [answer(pointed("x", [(0.5, 0.5)]))]
    assert METRICS["pointing"].baseline(records)["pointing_f1"] == 0.75


def test_gain_says_exactly_which_place_enlarges_the_matching():
    rng = np.random.default_rng(2)
    for _ in range(200):
        inside = rng.random((int(rng.integers(0, 5)), 6)) < 0.4
        picked = rng.integers(0, 6, size=int(rng.integers(0, 4))).tolist()
        target = baselines.Target(inside, 1.0)
        target.match(picked)
        gain = target.gain(picked)
        for place in range(6):
            larger = sum(owner >= 0 for owner in maximum_matching(inside[:, [*picked, place]].T))
            assert gain[place] == (larger > target.hits)


def test_no_single_moment_and_cell_is_better_than_the_blind_video_points():
    records = [
        answer(video_pointed("a", [(0.5, 0.2, 0.2), (1.0, 0.8, 0.8)])),
        answer(video_pointed("b", [(0.5, 0.2, 0.2)])),
        answer(video_pointed("c", [(2.0, 0.5, 0.5)])),
    ]
    best = METRICS["video_pointing"].baseline(records)["video_pointing_f1"]
    for time in (0.5, 1.0, 1.5, 2.0, 2.5):
        for x, y in cells():
            single = mean("video_pointing", records, lambda record, place=(time, x, y): [place])
            assert best >= single["video_pointing_f1"] - 1e-12
    # One object of a and the whole of b at one place, c at another: 2 of 4, 2 of 3, 2 of 3.
    assert best == pytest.approx((1 / 2 + 2 / 3 + 2 / 3) / 3)


def test_where_no_video_has_an_object_the_blind_answer_is_nothing():
    assert METRICS["video_pointing"].baseline([answer(video_pointed("a", []))])["video_pointing_f1"] == 1.0


def test_no_single_still_point_is_better_than_the_blind_track():
    still = [(float(t), 0.3, 0.3) for t in range(4)]
    moving = [(0.0, 0.3, 0.3), (1.0, 0.5, 0.5), (2.0, 0.7, 0.7), (3.0, 0.9, 0.9)]
    records = [answer(tracked("a", [still])), answer(tracked("b", [moving])), answer(tracked("c", [moving, still]))]
    frames = [0, 8, 16, 24]
    for metric, value in (("track", "track_f1"), ("hota", "hota")):
        best = METRICS[metric].baseline(records)[value]
        for place in cells():
            single = mean(metric, records, lambda record, place=place: {frame: {0: place} for frame in frames})
            assert best >= single[value] - 1e-12
        assert best < 1


def test_a_first_point_in_the_question_is_no_pixel():
    paths = [[(float(t), x, 0.5) for t in range(4)] for x in (0.1, 0.4, 0.7, 0.9)]
    records = []
    for number, path in enumerate(paths):
        example = tracked(str(number), [path])
        part = example.branches[0].turns[1].parts[0]
        assert isinstance(part, Tracks)
        single = msgspec.structs.replace(part, mode="single_point")
        records.append(answer(row(str(number), "video_tracking", [single], seconds=3.0, **example.meta)))
    assert METRICS["track"].baseline(records)["track_f1"] == 1.0
