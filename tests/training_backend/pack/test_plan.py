"""Plans of windows: everything packed once, budgets kept, the same everywhere, full on realistic lengths, nothing starved."""

from __future__ import annotations

import itertools
from typing import Literal

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from training_backend.data.fingerprint import fingerprint
from training_backend.pack.plan import PLANNER_VERSIONS, WEIGHTS, _aligned, _sums, binding_fill, knapsack, lower_bound, plan_window

lengths = st.lists(st.tuples(st.integers(1, 100), st.integers(0, 12)), max_size=60)


@settings(max_examples=80, deadline=None)
@given(lengths, st.sampled_from(["portfolio", "cheap"]))
def test_everything_is_packed_once_within_both_budgets(items: list[tuple[int, int]], method: str) -> None:
    tokens, visual = np.array(items, dtype=np.int64).reshape(-1, 2).T
    packs = plan_window(tokens, visual, 100, 12, method)  # type: ignore[arg-type]
    assert sorted(itertools.chain(*packs)) == list(range(len(items)))
    for pack in packs:
        assert pack == sorted(pack)
        assert tokens[pack].sum() <= 100
        assert visual[pack].sum() <= 12
    assert len(packs) >= (lower_bound(tokens, visual, 100, 12) if items else 0)


def test_what_no_pack_holds_is_an_error() -> None:
    with pytest.raises(ValueError, match="example 1 of the window has 101 tokens"):
        plan_window(np.array([3, 101]), np.array([0, 0]), 100, 12, "cheap")
    with pytest.raises(ValueError, match="materialise the sequences again"):
        plan_window(np.array([3]), np.array([13]), 100, 12, "portfolio")


def demo_lengths(count: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Half pictures of 25 tokens, a third short videos of 12 tokens a frame, the rest text; a few branches each."""
    rng = np.random.default_rng(seed)
    kind = rng.random(count)
    text = rng.integers(30, 150, count)
    frames = rng.integers(3, 13, count)
    tokens = np.where(kind < 0.5, 25 + text, np.where(kind < 0.85, 12 * frames + text, text))
    return tokens, np.where(kind < 0.5, 2, np.where(kind < 0.85, frames, 0))


@pytest.mark.parametrize(("budget", "crops"), [(512, 24), (1024, 32), (1536, 72)])
def test_demo_like_windows_are_full(budget: int, crops: int) -> None:
    tokens, visual = demo_lengths(1024, budget)
    packs = plan_window(tokens, visual, budget, crops, "portfolio")
    assert binding_fill(int(tokens.sum()), int(visual.sum()), len(packs), budget, crops) >= 0.98


@pytest.mark.parametrize("method", ["portfolio", "cheap"])
def test_one_budget_alone_is_filled_to_what_no_plan_exceeds(method: Literal["portfolio", "cheap"]) -> None:
    """About three examples a pack, where packing largest with largest leaves a twentieth of every pack empty."""
    rng = np.random.default_rng(5)
    for number in range(8):
        tokens = np.clip(rng.normal(1300, 300, 1024), 150, 4096).astype(np.int64)
        tokens[rng.random(1024) < 0.1] //= 4
        visual = tokens // 300
        budgets = (4096, 128) if number % 2 else (128, 4096)
        lengths = (tokens, visual) if number % 2 else (visual, tokens)
        packs, least = plan_window(*lengths, *budgets, method), lower_bound(*lengths, *budgets)
        assert len(packs) <= 1.02 * least, (len(packs), least)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(1, 20), max_size=9))
def test_no_plan_has_fewer_packs_than_the_bound(sizes: list[int]) -> None:
    """Against the best plan, found by trying all."""

    def best(left: tuple[int, ...], open_packs: tuple[int, ...]) -> int:
        if not left:
            return len(open_packs)
        found = best(left[1:], (*open_packs, 20 - left[0]))
        for place in {room: place for place, room in enumerate(open_packs) if room >= left[0]}.values():
            rest = (*open_packs[:place], open_packs[place] - left[0], *open_packs[place + 1 :])
            found = min(found, best(left[1:], rest))
        return found

    tokens = np.array(sizes, dtype=np.int64)
    optimum = best(tuple(sorted(sizes, reverse=True)), ())
    assert lower_bound(tokens, np.zeros_like(tokens), 20, 4) <= max(optimum, 1)
    assert lower_bound(np.array([11] * 5 + [9] * 5), np.zeros(10, dtype=int), 20, 4) == 5
    assert lower_bound(np.array([12] * 5 + [9] * 5), np.zeros(10, dtype=int), 20, 4) == 8


def test_long_videos_find_their_place() -> None:
    """Items that fill a budget alone, which an unseeded knapsack leaves behind for ever."""
    rng = np.random.default_rng(3)
    whole = rng.random(1024) < 0.06
    tokens = np.where(whole, 128 * 89, rng.integers(300, 2200, 1024))
    visual = np.where(whole, 128, rng.integers(1, 10, 1024))
    packs = plan_window(tokens, visual, 16384, 128, "portfolio")
    rest = plan_window(tokens[~whole], visual[~whole], 16384, 128, "portfolio")
    assert len(packs) <= whole.sum() + len(rest)
    assert binding_fill(int(tokens[~whole].sum()), int(visual[~whole].sum()), len(rest), 16384, 128) > 0.98
    # A full-length video's pack still takes text that has room beside it.
    alone = plan_window(np.array([128 * 89, 4000]), np.array([128, 0]), 16384, 128, "cheap")
    assert alone == [[0, 1]]


def test_portfolio_is_never_worse_than_its_members() -> None:
    for seed in range(4):
        tokens, visual = demo_lengths(300, seed)
        best = len(plan_window(tokens, visual, 700, 20, "portfolio"))
        for weight in WEIGHTS:
            assert best <= len(_aligned(tokens, visual, 700, 20, weight))
        assert best <= len(_sums(tokens, visual, 700, 20))
    assert len(WEIGHTS) > 1


def threes(count: int, crops: bool) -> tuple[np.ndarray, np.ndarray]:
    """Three examples a pack of 4,096 tokens; with `crops`, packs by tokens alone would often exceed 128 of those."""
    rng = np.random.default_rng(11)
    tokens = np.clip(rng.normal(1360, 420, count), 700, 4096).astype(np.int64)
    return tokens, (tokens * rng.uniform(0.5, 1.3, count) / 32).astype(np.int64) * crops


@pytest.mark.parametrize(("crops", "most"), [(False, 1.004), (True, 1.03)])
def test_wide_windows_of_few_examples_a_pack_are_full(crops: bool, most: float) -> None:
    """Where largest first, the way that `cheap` compares with, uses the middle sizes up and leaves a fiftieth empty."""
    tokens, visual = threes(4096, crops)
    packs = plan_window(tokens, visual, 4096, 128, "cheap")
    assert sorted(itertools.chain(*packs)) == list(range(4096))
    assert all(tokens[pack].sum() <= 4096 and visual[pack].sum() <= 128 for pack in packs)
    assert len(packs) <= most * lower_bound(tokens, visual, 4096, 128)
    largest_first = _aligned(tokens, visual, 4096, 128, WEIGHTS[1]) if crops else _sums(tokens, visual, 4096, 128)
    assert len(packs) < 0.99 * len(largest_first)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.integers(1, 30), st.integers(0, 5)), max_size=9), st.integers(0, 60), st.integers(0, 8))
def test_the_knapsack_is_optimal(items: list[tuple[int, int]], room_t: int, room_v: int) -> None:
    """Against all subsets, where the room is small enough for steps of one token."""
    tokens, visual = np.array(items, dtype=np.int64).reshape(-1, 2).T
    chosen = knapsack(tokens, visual, room_t, room_v, 60, 8)
    assert len(set(chosen.tolist())) == len(chosen)
    assert tokens[chosen].sum() <= room_t
    assert visual[chosen].sum() <= room_v
    value = tokens * 8 + visual * 60
    best = 0
    for mask in range(1 << len(items)):
        pick = [n for n in range(len(items)) if mask >> n & 1]
        if tokens[pick].sum() <= room_t and visual[pick].sum() <= room_v:
            best = max(best, int(value[pick].sum()))
    assert value[chosen].sum() == best


def test_the_knapsack_fills_what_rounding_leaves() -> None:
    chosen = knapsack(np.array([5000, 4998, 3]), np.array([0, 0, 0]), 10000, 4, 10000, 4)
    assert chosen.tolist() == [0, 1]
    tight = knapsack(np.array([9000, 1000]), np.array([0, 0]), 10000, 4, 10000, 4)
    assert tight.tolist() == [0, 1]


def test_golden_plan() -> None:
    """A change of packs without a new version of its planner would make sequences that lie about themselves."""
    cases = {"portfolio": (*demo_lengths(400, 1), 700, 20), "cheap": (*threes(400, True), 4096, 128)}
    found = {method: fingerprint(plan_window(*case, method))[:12] for method, case in cases.items()}  # type: ignore[arg-type]
    assert PLANNER_VERSIONS == {"portfolio": "sums-aligned-seeded/1", "cheap": "sums-aligned-in-turn/2"}
    assert found == {"portfolio": "4ffa43ce42e6", "cheap": "9ba6d539e767"}
