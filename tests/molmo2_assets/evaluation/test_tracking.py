from itertools import permutations, product
from math import sqrt

import numpy as np
import pytest

from molmo2_assets.evaluation.tracking import THRESHOLDS, HotaFrame, Seen, hota_frames, hota_score, track_score

WHOLE = np.ones((8, 8), dtype=bool)
LEFT, RIGHT = WHOLE & (np.arange(8) < 4), WHOLE & (np.arange(8) >= 4)
A, B = Seen(0.2, 0.5, LEFT), Seen(0.8, 0.5, RIGHT)
AT_A, AT_B = (0.2, 0.5), (0.8, 0.5)


def test_perfect_and_empty_videos():
    assert track_score({0: {0: A}, 6: {0: A, 1: B}}, {0: {4: AT_A}, 6: {4: AT_A, 9: AT_B}}, 2)[:3] == (1.0, 1.0, 1.0)
    assert track_score({}, {}, 0) == (1.0, 1.0, 1.0, 1.0)
    assert track_score({0: {0: A}}, {}, 1) == (0.0, 0.0, 0.0, 0.0)
    assert track_score({}, {3: {0: AT_A}}, 1) == (0.0, 0.0, 0.0, 0.0)


def test_frames_are_the_union_of_truth_and_prediction():
    truth = {0: {0: A}, 6: {0: A}}
    assert track_score(truth, {0: {0: AT_A}, 6: {0: AT_A}, 3: {0: AT_A}, 9: {0: AT_A}}, 1).f1 == 0.5
    assert track_score(truth, {0: {0: AT_A}}, 1).f1 == 0.5
    # A frame that neither has is skipped: the video is as long as it is, and the score still 1.
    assert track_score({0: {0: A}}, {0: {0: AT_A}, 6: {}}, 1).f1 == 1.0


def test_ids_play_no_part_in_f1_but_in_hota():
    truth = {0: {0: A, 1: B}, 6: {0: A, 1: B}}
    swapped = {0: {0: AT_A, 1: AT_B}, 6: {0: AT_B, 1: AT_A}}
    assert track_score(truth, swapped, 2).f1 == 1.0
    score = hota_score(hota_frames(truth, swapped))
    assert score.detection == 1.0
    # Every pair of ids meets in one frame, and the union of their frames is three.
    assert score.association == pytest.approx(1 / 3)


def test_a_mask_belongs_to_its_object_also_where_an_earlier_one_is_absent():
    # Only object 1 is visible; with masks listed for all objects its point would be held against the mask of object 0.
    score = track_score({0: {1: B}}, {0: {1: AT_B}}, 2)
    assert score.f1 == 1.0
    assert score.recall == 1.0
    assert score.f1_all_objects == pytest.approx(2 / 3)


def test_hota_by_hand():
    # One object in four frames, found in three, its id changes in the third: TPA of id 0 is 2 of 4 frames, of id 1 it is 1 of 4.
    frames = [HotaFrame([7], [given], np.ones((1, 1))) for given in (0, 0, 1)] + [HotaFrame([7], [], np.zeros((1, 0)))]
    score = hota_score(frames)
    association = (2 * (2 / 4) + 1 * (1 / 4)) / 3
    assert score == pytest.approx((sqrt(0.75 * association), 0.75, association))


def test_hota_of_nothing_is_zero():
    assert hota_score([]) == (0.0, 0.0, 0.0)
    assert hota_score(hota_frames({0: {0: A}}, {})) == (0.0, 0.0, 0.0)
    assert hota_score(hota_frames({}, {0: {0: AT_A}})) == (0.0, 0.0, 0.0)


def test_a_similarity_equal_to_the_threshold_matches():
    frames = [HotaFrame([0], [0], np.array([[0.15]]))]
    # 3/20 and 0.15 agree; 0.1 + 0.05 is one unit above 0.15 and must still be reached by it.
    assert hota_score(frames, (0.15,)).hota == 1.0
    assert hota_score(frames, (0.1 + 0.05,)).hota == 1.0
    assert hota_score(frames, (0.2,)).hota == 0.0
    assert hota_score(frames, THRESHOLDS).hota == pytest.approx(3 / 19)


def slow_hota(frames: list[HotaFrame]) -> set[float]:
    """All values that HOTA at 0.5 can take over equally good assignments of each frame, straight from the definition."""
    true_frames: dict[int, int] = {}
    given_frames: dict[int, int] = {}
    overlap: dict[tuple[int, int], float] = {}
    for frame in frames:
        for name in frame.true:
            true_frames[name] = true_frames.get(name, 0) + 1
        for name in frame.predicted:
            given_frames[name] = given_frames.get(name, 0) + 1
        for row, left in enumerate(frame.true):
            for column, right in enumerate(frame.predicted):
                value = frame.similarity[row, column]
                total = frame.similarity[row].sum() + frame.similarity[:, column].sum() - value
                if total > 0:
                    overlap[left, right] = overlap.get((left, right), 0.0) + value / total
    options = []
    for frame in frames:
        few, many = sorted((len(frame.true), len(frame.predicted)))
        weighed: dict[float, set] = {}
        for order in permutations(range(many), few):
            pairs = [
                (row, column) if len(frame.true) <= len(frame.predicted) else (column, row) for row, column in enumerate(order)
            ]
            named = [(frame.true[row], frame.predicted[column]) for row, column in pairs if frame.similarity[row, column] >= 0.5]
            weight = 0.0
            for left, right in named:
                union = true_frames[left] + given_frames[right] - overlap.get((left, right), 0.0)
                weight += overlap.get((left, right), 0.0) / union
            weighed.setdefault(round(weight, 9), set()).add(tuple(sorted(named)))
        options.append(weighed[max(weighed)])
    n_true, n_given = sum(true_frames.values()), sum(given_frames.values())
    values = set()
    for choice in product(*options):
        matched = [pair for frame in choice for pair in frame]
        if not matched:
            values.add(0.0)
            continue
        association = 0.0
        for left, right in matched:
            both = matched.count((left, right))
            association += both / (true_frames[left] + given_frames[right] - both)
        detection = len(matched) / (n_true + n_given - len(matched))
        values.add(round(sqrt(detection * association / len(matched)), 9))
    return values


def test_hota_against_the_definition():
    rng = np.random.default_rng(0)
    tried = 0
    for _ in range(150):
        frames = []
        for _ in range(int(rng.integers(1, 5))):
            true = sorted(rng.choice(3, size=int(rng.integers(0, 3)), replace=False).tolist())
            given = sorted(rng.choice(3, size=int(rng.integers(0, 4)), replace=False).tolist())
            frames.append(HotaFrame(true, given, (rng.random((len(true), len(given))) < 0.6).astype(float)))
        if not any(frame.true for frame in frames) or not any(frame.predicted for frame in frames):
            continue
        tried += 1
        assert round(hota_score(frames).hota, 9) in slow_hota(frames)
    assert tried > 100
