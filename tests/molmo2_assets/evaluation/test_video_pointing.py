import numpy as np
import pytest

from molmo2_assets.evaluation.video_pointing import video_point_score

WHOLE = np.ones((10, 20), dtype=bool)
LEFT = WHOLE & (np.arange(20) < 10)


def test_a_hit_needs_the_very_time_and_the_mask():
    tube = [{1.0: LEFT, 1.5: WHOLE}]
    true = [(1.0, 0.25, 0.5)]
    assert video_point_score([(1.0, 0.2, 0.5)], true, tube, 10.0).f1 == 1.0
    assert video_point_score([(1.0, 0.8, 0.5)], true, tube, 10.0).f1 == 0.0
    assert video_point_score([(1.5, 0.8, 0.5)], true, tube, 10.0).f1 == 1.0
    assert video_point_score([(1.2, 0.2, 0.5)], true, tube, 10.0).f1 == 0.0
    assert video_point_score([(2.0, 0.2, 0.5)], true, tube, 10.0).f1 == 0.0


def test_empty_cases():
    assert video_point_score([], [], [], 10.0) == (1.0, 1.0, 1.0)
    assert video_point_score([(0.0, 0.5, 0.5)], [], [], 10.0) == (0.0, 0.0, 0.0)
    assert video_point_score([], [(0.0, 0.5, 0.5)], [{0.0: WHOLE}], 10.0) == (0.0, 0.0, 0.0)


def test_recall_counts_tubes_and_precision_points():
    tubes = [{0.0: WHOLE}, {5.0: WHOLE}]
    true = [(0.0, 0.1, 0.5), (5.0, 0.9, 0.5)]
    score = video_point_score([(0.0, 0.1, 0.5), (9.0, 0.1, 0.1), (9.0, 0.2, 0.1), (9.0, 0.3, 0.1)], true, tubes, 10.0)
    assert (score.precision, score.recall) == (0.25, 0.5)
    assert score.f1 == pytest.approx(1 / 3)


def test_time_counts_relative_to_the_duration_in_the_assignment():
    # Two objects and one point: in a video of 100 s the second object is nearer in time and space, in one of 1 s the first is.
    tubes = [{0.0: WHOLE}, {0.5: WHOLE}]
    true = [(0.0, 0.1, 0.5), (0.5, 0.5, 0.5)]
    point = [(0.0, 0.5, 0.5)]
    assert video_point_score(point, true, tubes, 1.0).f1 == pytest.approx(2 / 3)
    assert video_point_score(point, true, tubes, 100.0).f1 == 0.0


def test_normalised_places_are_rounded_to_one_decimal_before_matching():
    # 5.04 and 4.99 both become 5.0: the point is equally far from both objects, the first one is taken, and its mask misses it.
    tubes = [{0.0: ~WHOLE}, {0.0: WHOLE}]
    assert video_point_score([(0.0, 0.05, 0.0)], [(0.0, 0.0504, 0.0), (0.0, 0.0499, 0.0)], tubes, 1.0).f1 == 0.0
    assert video_point_score([(0.0, 0.05, 0.0)], [(0.0, 0.06, 0.0), (0.0, 0.0499, 0.0)], tubes, 1.0).f1 == pytest.approx(2 / 3)
