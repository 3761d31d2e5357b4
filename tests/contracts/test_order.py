"""Golden order: which row a position means."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from training_backend.data.fingerprint import fingerprint
from training_backend.data.order import PERIOD, Mixture, MixtureEntry, MixtureError, integer_weights, permute, schedule


def _mixture(seed: int = 7) -> Mixture:
    weights = integer_weights([0.6, 0.3, 0.1])
    sizes = {"captions": 1000, "points": 37, "text": 3}
    return Mixture.build(
        seed,
        [
            MixtureEntry(dataset=name, rows=rows, data_version="v1", weight=weight)
            for (name, rows), weight in zip(sizes.items(), weights, strict=True)
        ],
    )


def _digest(mixture: Mixture, start: int, count: int) -> str:
    return fingerprint([column.tolist() for column in mixture.window(start, count)])[:16]


def test_golden_weights() -> None:
    assert integer_weights([0.6, 0.3, 0.1]) == [629145, 314573, 104858]
    assert integer_weights([1.0]) == [PERIOD]
    assert integer_weights([1 - 1e-9, 1e-9]) == [PERIOD - 1, 1], "a dataset in the mixture is seen"


def test_golden_order() -> None:
    mixture = _mixture()
    assert [mixture.locate(position) for position in range(6)] == [
        (0, 0, 824),
        (0, 0, 127),
        (1, 0, 31),
        (0, 0, 848),
        (1, 0, 1),
        (0, 0, 475),
    ]
    assert _digest(mixture, 0, 10_000) == "38dcdfd740a6e3df"
    assert _digest(mixture, PERIOD - 100, 5000) == "09ebc4f2456c6b68"
    assert _digest(mixture, 10**12, 5000) == "79b74977880b15e9"
    assert _digest(_mixture(8), 0, 10_000) == "f540eb9c0d8c091f"


def test_golden_permutation_of_a_large_set() -> None:
    assert permute(np.arange(5), 5_000_000, 123).tolist() == [2811229, 3274435, 3123606, 3683515, 4997099]


def test_a_segment_changes_only_what_comes_after_it() -> None:
    before = _mixture()
    entries = [MixtureEntry(dataset="points", rows=40, data_version="v2", weight=PERIOD)]
    after = before.continued(5000, entries)
    assert _digest(after, 0, 5000) == _digest(before, 0, 5000)
    dataset, epoch, row = after.window(4990, 60)
    assert (dataset[10:] == before.datasets.index("points")).all()
    assert sorted(row[10:50]) == list(range(40)), "the new segment starts a whole epoch"
    assert (epoch[10:50] == 0).all()
    assert _digest(after, 5000, 50) == "5f766d843d8408d3"


def test_saved_and_loaded_is_the_same(tmp_path) -> None:
    _mixture().save(tmp_path)
    loaded = Mixture.load(tmp_path)
    assert _digest(loaded, 0, 10_000) == "38dcdfd740a6e3df"
    assert loaded.fingerprint == _mixture().fingerprint


@settings(max_examples=40, deadline=None)
@given(st.lists(st.integers(1, 400), min_size=1, max_size=12))
def test_counts_stay_within_one_of_the_ideal_at_every_position(weights: list[int]) -> None:
    table = schedule(weights)
    positions = np.arange(1, len(table) + 1)
    for number, weight in enumerate(weights):
        assert np.abs(np.cumsum(table == number) - weight * positions / len(table)).max() < 1


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 3000), st.integers(0, 2**64 - 1))
def test_permutations_are_permutations(rows: int, key: int) -> None:
    assert sorted(permute(np.arange(rows), rows, key)) == list(range(rows))


def test_every_row_comes_to_every_place_equally_often() -> None:
    """Over many keys: chi-squared over its degrees of freedom is near 1 for places and for distances between neighbours."""
    rows, keys = 60, 3000
    places, distances = np.zeros((rows, rows)), np.zeros(rows)
    for key in range(keys):
        order = permute(np.arange(rows), rows, key * 0x9E3779B97F4A7C15 % 2**64)
        places[np.arange(rows), order] += 1
        distances[(order[1] - order[0]) % rows] += 1
    expected = keys / rows
    assert 0.9 < ((places - expected) ** 2 / expected).sum() / (rows - 1) ** 2 < 1.1
    expected = keys / (rows - 1)
    assert ((distances[1:] - expected) ** 2 / expected).sum() / (rows - 2) < 1.5


def test_small_sets_come_in_every_order() -> None:
    orders = {tuple(permute(np.arange(4), 4, key).tolist()) for key in range(500)}
    assert len(orders) == 24


@settings(max_examples=40, deadline=None)
@given(st.lists(st.floats(1e-6, 1.0), min_size=1, max_size=30))
def test_integer_weights_sum_to_the_period(weights: list[float]) -> None:
    total = sum(weights)
    shares = [weight / total for weight in weights]
    whole = integer_weights(shares)
    assert sum(whole) == PERIOD
    assert min(whole) >= 1
    assert max(abs(w - s * PERIOD) for w, s in zip(whole, shares, strict=True)) <= len(weights)


def test_every_row_once_an_epoch() -> None:
    mixture = _mixture()
    dataset, epoch, row = mixture.window(0, 20_000)
    chosen = (dataset == 1) & (epoch == 2)
    assert sorted(row[chosen]) == list(range(37))
    assert row[chosen].tolist() != row[(dataset == 1) & (epoch == 3)].tolist()


@pytest.mark.parametrize(
    ("entries", "words"),
    [
        ([("points", 0, PERIOD)], "points has no rows: leave it out of the mixture, or look at its quarantine"),
        ([("points", 9, PERIOD), ("text", 9, 0)], "text has weight 0"),
        ([("points", 9, PERIOD - 1)], f"the weights sum to {PERIOD - 1}, not to {PERIOD}"),
        ([("points", 9, PERIOD // 2), ("points", 9, PERIOD // 2)], r"twice in one mixture: \['points'\]"),
    ],
)
def test_mixtures_that_cannot_be_are_refused(entries: list[tuple[str, int, int]], words: str) -> None:
    made = [MixtureEntry(dataset=name, rows=rows, data_version="v", weight=weight) for name, rows, weight in entries]
    with pytest.raises(MixtureError, match=words):
        Mixture.build(0, made)
    with pytest.raises(MixtureError, match=words):
        _mixture().continued(5000, made)
