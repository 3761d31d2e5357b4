"""Random choices: golden values, because a run that is continued elsewhere must draw what it would have drawn here."""

from __future__ import annotations

import numpy as np

from training_backend.encode.draws import VARIANTS, Draws, position_keys, variant_of


def test_golden_values() -> None:
    assert position_keys(7, 1_000_000_001, 3).tolist() == [13138854914963344948, 8167739575543497458, 8085087222222266438]
    draws = Draws("set/17", 3)
    assert [draws.below(1000, n, "template") for n in range(4)] == [815, 253, 786, 247]
    assert draws.permutation(6, "branches") == [2, 4, 0, 5, 3, 1]
    assert round(draws.chance("x"), 6) == 0.168112


def test_large_and_negative_seeds_are_keys_too() -> None:
    keys = {tuple(position_keys(seed, 0, 2).tolist()) for seed in (0, -1, 1 << 64, (1 << 64) + 1, 2**127)}
    assert len(keys) == 5


def test_draws_are_fair_and_independent_of_order() -> None:
    first = [Draws(f"row{n}", 0).below(5, "a") for n in range(2000)]
    assert np.bincount(first, minlength=5).min() > 330
    draws = Draws("row", 1)
    late = [draws.word("b"), draws.word("a")]
    assert [Draws("row", 1).word("a"), Draws("row", 1).word("b")] == late[::-1]
    orders = {tuple(Draws(f"row{n}", 0).permutation(3, "o")) for n in range(200)}
    assert len(orders) == 6
    chances = [Draws(f"row{n}", 0).chance("c") for n in range(500)]
    assert 0 <= min(chances) < 0.02 < 0.98 < max(chances) < 1


def test_variants_cover_all_realisations() -> None:
    assert {variant_of(key) for key in position_keys(1, 0, 200).tolist()} == set(range(VARIANTS))


def test_used_tells_whether_anything_was_chosen() -> None:
    draws = Draws("row", 0)
    assert not draws.used
    draws.below(3, "x")
    assert draws.used
