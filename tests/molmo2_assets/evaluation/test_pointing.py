from itertools import permutations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from molmo2_assets.evaluation.pointing import PointScore, contains, distance_score, maximum_matching, membership_score, score_of


def box(height: int, width: int, rows: slice, columns: slice) -> np.ndarray:
    mask = np.zeros((height, width), dtype=bool)
    mask[rows, columns] = True
    return mask


@pytest.mark.parametrize(
    ("hits", "predicted", "true", "expected"),
    [
        (0, 0, 0, (1, 1, 1)),
        (0, 3, 0, (0, 0, 0)),
        (0, 0, 2, (0, 0, 0)),
        (1, 2, 4, (0.5, 0.25, 1 / 3)),
        (2, 2, 2, (1, 1, 1)),
        (0, 2, 2, (0, 0, 0)),
    ],
)
def test_ratios_and_empty_cases(hits, predicted, true, expected):
    assert score_of(hits, predicted, true) == pytest.approx(expected)


def test_a_point_rounds_half_to_even_to_its_pixel():
    mask = box(10, 10, slice(0, 10), slice(2, 3))
    columns = np.array([[1.5, 0], [2.5, 0], [2.51, 0], [1.49, 0], [2.0, 0]]) / 10
    assert contains(columns, mask, "miss").tolist() == [True, True, False, False, True]


def test_beyond_the_picture_is_a_miss_or_clamped():
    mask = np.ones((10, 10), dtype=bool)
    edge = np.array([[0.94, 0.5], [0.95, 0.5], [1.0, 1.0], [-0.04, 0.5], [-0.06, 0.5]])
    # 9.5 rounds to 10, the column after the last.
    assert contains(edge, mask, "miss").tolist() == [True, False, False, True, False]
    assert contains(edge, mask, "clamp").tolist() == [True] * 5


def brute_force_matching(inside: np.ndarray) -> int:
    points, objects = inside.shape
    padded = np.zeros((max(points, objects),) * 2, dtype=bool)
    padded[:points, :objects] = inside
    size = len(padded)
    return max(sum(padded[row, column] for row, column in enumerate(order)) for order in permutations(range(size)))


@given(st.integers(0, 5), st.integers(0, 5), st.integers(0, 2**25 - 1))
@settings(max_examples=60, deadline=None)
def test_matching_is_as_large_as_any_permutation(points, objects, bits):
    inside = np.array([bits >> shift & 1 for shift in range(points * objects)], dtype=bool).reshape(points, objects)
    owner = maximum_matching(inside)
    used = [point for point in owner if point >= 0]
    assert len(set(used)) == len(used)
    assert all(inside[point, target] for target, point in enumerate(owner) if point >= 0)
    assert len(used) == brute_force_matching(inside)


def test_one_point_in_two_masks_hits_one():
    whole = np.ones((10, 10), dtype=bool)
    assert membership_score([(0.5, 0.5, 0)], [(whole, 0), (whole, 0)]) == PointScore(1.0, 0.5, pytest.approx(2 / 3))
    # Greedy order would spend the left point on the large mask and leave the right one without.
    left = box(10, 10, slice(0, 10), slice(0, 5))
    assert membership_score([(0.2, 0.2, 0), (0.8, 0.8, 0)], [(left, 0), (whole, 0)]).f1 == 1.0
    assert membership_score([(0.2, 0.2, 0), (0.8, 0.8, 0)], [(whole, 0), (left, 0)]).f1 == 1.0


def test_a_point_hits_only_masks_of_its_own_image():
    whole = np.ones((10, 10), dtype=bool)
    assert membership_score([(0.5, 0.5, 0)], [(whole, 1)]).f1 == 0.0
    assert membership_score([(0.5, 0.5, 1)], [(whole, 1)]).f1 == 1.0


def test_the_two_rules_differ_where_a_point_is_inside_one_object_but_nearer_to_anothers_point():
    left, right = box(10, 10, slice(0, 10), slice(0, 6)), box(10, 10, slice(0, 10), slice(6, 10))
    true = [(0.0, 0.5), (0.7, 0.5)]
    points = [(0.5, 0.5)]
    assert distance_score(points, true, [left, right]).f1 == 0.0
    assert membership_score([(0.5, 0.5, 0)], [(left, 0), (right, 0)]).f1 == pytest.approx(2 / 3)


def test_distance_is_measured_in_pixels():
    # 100 wide, 10 high: in fractions the first object is nearer, in pixels the second.
    wide = [box(10, 100, slice(0, 10), slice(0, 20)), box(10, 100, slice(0, 10), slice(20, 60))]
    true = [(0.1, 0.5), (0.3, 0.0)]
    assert distance_score([(0.25, 0.6)], true, wide).precision == 1.0


@given(st.lists(st.tuples(st.floats(0, 1), st.floats(0, 1)), max_size=4), st.integers(0, 3), st.integers(0, 10**6))
@settings(max_examples=40, deadline=None)
def test_distance_rule_against_all_assignments(points, objects, seed):
    rng = np.random.default_rng(seed)
    true = [tuple(pair) for pair in rng.random((objects, 2))]
    masks = [rng.random((7, 9)) < 0.5 for _ in range(objects)]
    score = distance_score(points, true, masks)
    if not points or not objects:
        assert score == score_of(0, len(points), objects)
        return
    size = np.array([9, 7])
    cost = np.linalg.norm(np.array(points)[:, None] * size - np.array(true)[None] * size, axis=-1)
    best, hits = np.inf, set()
    few, many = sorted((len(points), objects))
    for order in permutations(range(many), few):
        pairs = [(row, column) if len(points) <= objects else (column, row) for row, column in enumerate(order)]
        total = sum(cost[pair] for pair in pairs)
        found = sum(bool(contains(np.array([points[row]]), masks[column], "miss")[0]) for row, column in pairs)
        if total < best - 1e-9:
            best, hits = total, {found}
        elif total < best + 1e-9:
            hits.add(found)
    assert round(score.precision * len(points)) in hits
    assert score.recall == pytest.approx(score.precision * len(points) / objects)
