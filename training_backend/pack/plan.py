"""Packing a window of examples into sequences by two budgets: tokens, and crops or frames.

Belongs here: the algorithms, as pure functions of lengths. Does not belong here: where lengths come from (`lengths.py`), windows,
positions, logs (`loader.py`).

In two dimensions the classical largest-first order loses: examples heavy in crops meet each other, examples heavy in text are left
among themselves. Two methods win on different data, so `portfolio` runs both and keeps the plan with the fewest packs:

*aligned fill*: begin a pack with the largest example left, then add the one whose direction (tokens, crops) best matches the
direction of the room that is left, size as tie-break; one run for each weight of direction against size.
*seeded knapsack*: begin with the largest example left, fill the room exactly by a two-constraint 0/1 knapsack over the next
examples in window order. The seed is what keeps long videos from starving, which an unseeded knapsack leaves behind for ever.

Everything is packed, in every method; `cheap` is one aligned fill.
"""

from __future__ import annotations

import math
from typing import Literal

import numpy as np
from numpy.typing import NDArray

PLANNER_VERSION = "aligned-seeded/1"
"""Changes when equal lengths may give other packs: sequences made with another planner are other sequences."""
WEIGHTS = (15.0, 30.0, 60.0, 100.0)
POOL = 64
"""Examples that one knapsack chooses from."""
_STEPS = 256
"""Token steps of the knapsack's table."""

Method = Literal["portfolio", "cheap"]


def plan_window(
    tokens: NDArray[np.integer], visual: NDArray[np.integer], max_tokens: int, max_visual: int, method: Method
) -> list[list[int]]:
    """Packs of a window: indices, ascending in each pack, every example in exactly one.

    A pure function: equal lengths give equal packs on every machine. Raises ValueError for an example that no pack can hold.
    """
    size = len(tokens)
    if size == 0:
        return []
    over = np.flatnonzero((np.asarray(tokens) > max_tokens) | (np.asarray(visual) > max_visual))
    if len(over):
        worst = int(over[0])
        raise ValueError(
            f"example {worst} of the window has {int(tokens[worst])} tokens and {int(visual[worst])} crops; a sequence holds "
            f"{max_tokens} and {max_visual}. The length table was made for other budgets: materialise the sequences again."
        )
    if method == "cheap":
        return _aligned(tokens, visual, max_tokens, max_visual, WEIGHTS[1])
    least = lower_bound(tokens, visual, max_tokens, max_visual)
    best: list[list[int]] | None = None
    for weight in WEIGHTS:
        packs = _aligned(tokens, visual, max_tokens, max_visual, weight)
        if best is None or len(packs) < len(best):
            best = packs
        if len(best) == least:
            return best
    assert best is not None
    packs = _seeded(tokens, visual, max_tokens, max_visual)
    return packs if len(packs) < len(best) else best


def lower_bound(tokens: NDArray[np.integer], visual: NDArray[np.integer], max_tokens: int, max_visual: int) -> int:
    """No plan has fewer packs than the tighter budget demands."""
    return max(math.ceil(int(tokens.sum()) / max_tokens), math.ceil(int(visual.sum()) / max_visual), 1)


def binding_fill(tokens: int, visual: int, packs: int, max_tokens: int, max_visual: int) -> float:
    """Share of the tighter budget that `packs` sequences use, given their totals; 1 is perfect."""
    return max(tokens / max_tokens, visual / max_visual) / packs if packs else 1.0


def _sizes(lengths: NDArray[np.integer], budget: int) -> NDArray[np.float64]:
    return np.asarray(lengths, dtype=np.float64) / budget


def _aligned(
    tokens: NDArray[np.integer], visual: NDArray[np.integer], max_tokens: int, max_visual: int, weight: float
) -> list[list[int]]:
    x, y = _sizes(tokens, max_tokens), _sizes(visual, max_visual)
    # Sorted by size once, largest first; index order breaks ties. Arrays shrink as examples are packed.
    order = np.argsort(-np.maximum(x, y), kind="stable")
    x, y = x[order], y[order]
    norm = np.sqrt(x * x + y * y)
    unit_x = np.divide(x, norm, out=np.zeros_like(x), where=norm > 0)
    unit_y = np.divide(y, norm, out=np.zeros_like(y), where=norm > 0)
    whole_t, whole_v = np.asarray(tokens, dtype=np.int64)[order], np.asarray(visual, dtype=np.int64)[order]
    alive = np.ones(len(order), dtype=bool)
    packs: list[list[int]] = []
    first = 0
    while first < len(order):
        pack = [first]
        alive[first] = False
        room_t, room_v = max_tokens - int(whole_t[first]), max_visual - int(whole_v[first])
        # What does not fit now fits never again in this pack: candidates only shrink.
        near = np.flatnonzero(alive[first + 1 :]) + first + 1
        near = near[(whole_t[near] <= room_t) & (whole_v[near] <= room_v)]
        while len(near):
            ahead_x, ahead_y = room_t / max_tokens, room_v / max_visual
            length = math.sqrt(ahead_x * ahead_x + ahead_y * ahead_y)
            if length == 0:
                pack += near.tolist()
                alive[near] = False
                break
            score = (unit_x[near] * ahead_x + unit_y[near] * ahead_y) * (weight / length) + norm[near] * (1 / length)
            place = int(np.argmax(score))
            chosen = int(near[place])
            pack.append(chosen)
            alive[chosen] = False
            room_t -= int(whole_t[chosen])
            room_v -= int(whole_v[chosen])
            near = near[(whole_t[near] <= room_t) & (whole_v[near] <= room_v) & alive[near]]
        packs.append(sorted(order[pack].tolist()))
        while first < len(order) and not alive[first]:
            first += 1
    return packs


def _seeded(tokens: NDArray[np.integer], visual: NDArray[np.integer], max_tokens: int, max_visual: int) -> list[list[int]]:
    whole_t, whole_v = np.asarray(tokens, dtype=np.int64), np.asarray(visual, dtype=np.int64)
    by_size = np.argsort(-np.maximum(_sizes(tokens, max_tokens), _sizes(visual, max_visual)), kind="stable").tolist()
    alive = np.ones(len(whole_t), dtype=bool)
    packs: list[list[int]] = []
    for seed in by_size:
        if not alive[seed]:
            continue
        alive[seed] = False
        room_t, room_v = max_tokens - int(whole_t[seed]), max_visual - int(whole_v[seed])
        near = np.flatnonzero(alive)
        near = near[(whole_t[near] <= room_t) & (whole_v[near] <= room_v)][:POOL]
        chosen = near[knapsack(whole_t[near], whole_v[near], room_t, room_v, max_tokens, max_visual)]
        alive[chosen] = False
        packs.append(sorted([seed, *chosen.tolist()]))
    return packs


def knapsack(
    tokens: NDArray[np.integer], visual: NDArray[np.integer], room_t: int, room_v: int, max_tokens: int, max_visual: int
) -> NDArray[np.int64]:
    """Indices of the subset with the largest value that fits both rooms.

    The value of an example is its share of both budgets in whole numbers. Tokens are rounded up to steps of 1/256 of the room,
    crops are exact; the remainder that rounding leaves is filled greedily.
    """
    if not len(tokens):
        return np.empty(0, dtype=np.int64)
    step = max(1, -(-room_t // _STEPS))
    heavy = -(-np.asarray(tokens, dtype=np.int64) // step)
    slots, crops = room_t // step, int(room_v)
    value = np.asarray(tokens, dtype=np.int64) * max_visual + np.asarray(visual, dtype=np.int64) * max_tokens
    table = np.zeros((slots + 1, crops + 1), dtype=np.int64)
    taken = np.zeros((len(heavy), slots + 1, crops + 1), dtype=bool)
    for number, (t, v) in enumerate(zip(heavy.tolist(), np.asarray(visual).tolist(), strict=True)):
        if t > slots or v > crops:
            continue
        offered = table[: slots + 1 - t, : crops + 1 - v] + value[number]
        better = offered > table[t:, v:]
        taken[number, t:, v:] = better
        np.copyto(table[t:, v:], offered, where=better)
    place_t, place_v = slots, crops
    chosen: list[int] = []
    left_t, left_v = room_t, room_v
    for number in range(len(heavy) - 1, -1, -1):
        if taken[number, place_t, place_v]:
            chosen.append(number)
            place_t -= int(heavy[number])
            place_v -= int(visual[number])
            left_t -= int(tokens[number])
            left_v -= int(visual[number])
    rest = set(range(len(heavy))) - set(chosen)
    for number in sorted(rest, key=lambda number: (-int(value[number]), number)):
        if tokens[number] <= left_t and visual[number] <= left_v:
            chosen.append(number)
            left_t -= int(tokens[number])
            left_v -= int(visual[number])
    return np.array(sorted(chosen), dtype=np.int64)
