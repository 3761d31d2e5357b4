"""Packing a window of examples into sequences by two budgets: tokens, and crops or frames.

Belongs here: the algorithms, as pure functions of lengths. Does not belong here: where lengths come from (`lengths.py`), windows,
positions, logs (`loader.py`).

In two dimensions the classical largest-first order loses: examples heavy in crops meet each other, examples heavy in text are left
among themselves. Four ways win on different data:

*sums*: begin with the largest example left, then add a subset whose sum comes close to the room in the budget that binds. Large
examples are tried first and the first sum within 1/128 of the budget is taken: waiting for a perfect one would spend the small
examples that later packs are completed with. Best where one budget alone binds and some examples fill half of it.
*in turn*: begin with the example left that came first, then add the subset of those that follow whose sum comes closest. Sizes are
used up as they come, so that the last packs find the same mix as the first. Best for windows of thousands, where the few packs
that are left at the end count for little.
*aligned fill*: begin a pack with the largest example left, then add the one whose direction (tokens, crops) best matches the
direction of the room that is left, size as tie-break; one run for each weight of direction against size.
*seeded knapsack*: begin with the largest example left, fill the room exactly by a two-constraint 0/1 knapsack over the next
examples in window order. The seed is what keeps long videos from starving, which an unseeded knapsack leaves behind for ever.

Everything is packed, in every one. Method `portfolio`, for windows of hundreds, keeps the best of sums, aligned fills and the
knapsack; `cheap`, for windows of thousands, takes them in turn, or where that is not enough the better of it and sums (an
aligned fill where both budgets bind).
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Iterable
from typing import Literal

import numpy as np
from numpy.typing import NDArray

Method = Literal["portfolio", "cheap"]
PLANNER_VERSIONS: dict[Method, str] = {"portfolio": "sums-aligned-seeded/1", "cheap": "sums-aligned-in-turn/2"}
"""Changes when equal lengths may give other packs: sequences made with another planner are other sequences."""
WEIGHTS = (15.0, 30.0, 60.0, 100.0)
POOL = 64
"""Examples that one knapsack, or one sum in turn, chooses from."""
_STEPS = 256
"""Token steps of the knapsack's table."""
_NEAR = 7
"""A sum that leaves less than 2**-_NEAR of the budget is near enough."""
_NEARER = 10
"""As _NEAR, of sums in turn, which spare nothing for later."""
_REACH = 4 * POOL
"""Examples that room left by a sum in turn is offered to."""
_GOOD = 256
"""`cheap` looks no further where it is within 1/_GOOD of what no plan exceeds."""


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
    whole_t, whole_v = np.asarray(tokens, dtype=np.int64), np.asarray(visual, dtype=np.int64)
    plan = _cheap if method == "cheap" else _portfolio
    return plan(whole_t, whole_v, max_tokens, max_visual)


def _portfolio(tokens: NDArray[np.int64], visual: NDArray[np.int64], max_tokens: int, max_visual: int) -> list[list[int]]:
    least = lower_bound(tokens, visual, max_tokens, max_visual)
    best = _sums(tokens, visual, max_tokens, max_visual)
    for weight in WEIGHTS:
        if len(best) == least:
            return best
        packs = _aligned(tokens, visual, max_tokens, max_visual, weight)
        best = packs if len(packs) < len(best) else best
    if len(best) == least:
        return best
    packs = _seeded(tokens, visual, max_tokens, max_visual)
    return packs if len(packs) < len(best) else best


def _cheap(tokens: NDArray[np.int64], visual: NDArray[np.int64], max_tokens: int, max_visual: int) -> list[list[int]]:
    least = lower_bound(tokens, visual, max_tokens, max_visual)
    best = _in_turn(tokens, visual, max_tokens, max_visual)
    if (len(best) - least) * _GOOD <= least:
        return best
    demand_t, demand_v = int(tokens.sum()) * max_visual, int(visual.sum()) * max_tokens
    if min(demand_t, demand_v) * 5 > max(demand_t, demand_v) * 4:
        packs = _aligned(tokens, visual, max_tokens, max_visual, WEIGHTS[1])
    else:
        packs = _sums(tokens, visual, max_tokens, max_visual)
    return packs if len(packs) < len(best) else best


def lower_bound(tokens: NDArray[np.integer], visual: NDArray[np.integer], max_tokens: int, max_visual: int) -> int:
    """No plan has fewer packs than either budget demands."""
    return max(_least(np.asarray(tokens), max_tokens), _least(np.asarray(visual), max_visual), 1)


def _least(sizes: NDArray[np.integer], budget: int) -> int:
    """Martello and Toth's L2 bound of one budget: the volume, sharpened by pairs that cannot share a pack.

    For every size a up to half of the budget: examples above half of it need a pack each, and those above budget - a leave no room
    for any example of size a or more, so what does not fit beside the others needs packs of its own.
    """
    ordered = np.sort(np.asarray(sizes, dtype=np.int64))
    sums = np.concatenate([[0], np.cumsum(ordered)])
    starts = np.unique(np.concatenate([[0], ordered[ordered * 2 <= budget]]))
    low = np.searchsorted(ordered, starts, side="left")
    half = int(np.searchsorted(ordered * 2, budget, side="right"))
    full = np.searchsorted(ordered, budget - starts, side="right")
    full = np.maximum(full, half)
    alone, shared = len(ordered) - full, full - half
    beside = shared * budget - (sums[full] - sums[half])
    rest = np.maximum(sums[half] - sums[np.minimum(low, half)] - beside, 0)
    return int((alone + shared + -(-rest // budget)).max())


def _binding_first(
    tokens: NDArray[np.int64], visual: NDArray[np.int64], max_tokens: int, max_visual: int
) -> tuple[list[int], list[int], int, int]:
    """Sizes in the budget that binds and in the other one, and the two budgets."""
    if int(tokens.sum()) * max_visual >= int(visual.sum()) * max_tokens:
        return tokens.tolist(), visual.tolist(), max_tokens, max_visual
    return visual.tolist(), tokens.tolist(), max_visual, max_tokens


def _sums(tokens: NDArray[np.int64], visual: NDArray[np.int64], max_tokens: int, max_visual: int) -> list[list[int]]:
    first, second, budget, other = _binding_first(tokens, visual, max_tokens, max_visual)
    size = np.maximum(tokens * max_visual, visual * max_tokens)
    # Examples that are left, largest in the binding budget first; their negative sizes are sorted, for bisection.
    order = np.argsort(-np.array(first), kind="stable").tolist()
    keys = [-first[index] for index in order]
    alive = [True] * len(order)
    packs: list[list[int]] = []

    def take(index: int) -> None:
        alive[index] = False
        place = bisect_left(keys, -first[index])
        while order[place] != index:
            place += 1
        del order[place], keys[place]

    for seed in np.argsort(-size, kind="stable").tolist():
        if not alive[seed]:
            continue
        take(seed)
        pack, room, space = [seed], budget - first[seed], other - second[seed]
        chosen = _nearest_sum(first, second, order[bisect_left(keys, -room) :], room, space, budget >> _NEAR)
        for index in chosen:
            take(index)
            room, space = room - first[index], space - second[index]
        for index in order[bisect_left(keys, -room) :]:
            if first[index] <= room and second[index] <= space:
                chosen.append(index)
                take(index)
                room, space = room - first[index], space - second[index]
        packs.append(sorted(pack + chosen))
    return packs


def _nearest_sum(first: list[int], second: list[int], order: list[int], room: int, space: int, near: int) -> list[int]:
    """Examples of `order` whose sum in `first` is at most `room` and either the largest there is or within `near` of it, and that
    need at most `space` in `second`."""
    chosen = _near_sum(first, (index for index in order if second[index] <= space), room, near)
    if sum(second[index] for index in chosen) <= space:
        return chosen
    return _nearest_sum_that_fits(first, second, [index for index in order if second[index] <= space], room, space)


def _near_sum(first: list[int], order: Iterable[int], room: int, near: int) -> list[int]:
    """As `_nearest_sum`, by one budget alone. Early examples are preferred."""
    goal, mask = max(room - near, 1), (1 << room + 1) - 1
    reached, used, sums = [1], [], 1  # bit s of `sums`: some of the examples so far add up to s
    for index in order:
        if not first[index]:
            continue
        more = (sums | sums << first[index]) & mask
        if more == sums:
            continue
        sums = more
        reached.append(sums)
        used.append(index)
        if sums >> goal:
            break
    total = sums.bit_length() - 1
    chosen = []
    for place in range(len(used) - 1, -1, -1):
        # Left out where the earlier ones reach this sum without it.
        if not reached[place] >> total & 1:
            chosen.append(used[place])
            total -= first[used[place]]
    return chosen


def _nearest_sum_that_fits(first: list[int], second: list[int], order: list[int], room: int, space: int) -> list[int]:
    """As `_nearest_sum`, of the first POOL examples, by the least that each sum needs in `second`."""
    order = [index for index in order if first[index]][:POOL]
    need = np.full(room + 1, space + 1, dtype=np.int64)
    need[0] = 0
    taken = np.zeros((len(order), room + 1), dtype=bool)
    for place, index in enumerate(order):
        size = first[index]
        offered = need[:-size] + second[index]
        better = offered < need[size:]
        taken[place, size:] = better
        np.copyto(need[size:], offered, where=better)
    total = int(np.flatnonzero(need <= space)[-1])
    chosen = []
    for place in range(len(order) - 1, -1, -1):
        if taken[place, total]:
            chosen.append(order[place])
            total -= first[order[place]]
    return chosen


def _in_turn(tokens: NDArray[np.int64], visual: NDArray[np.int64], max_tokens: int, max_visual: int) -> list[list[int]]:
    first, second, budget, other = _binding_first(tokens, visual, max_tokens, max_visual)
    near = budget >> _NEARER
    left = list(range(len(first)))
    packs: list[list[int]] = []
    while left:
        seed = left[0]
        room, space = budget - first[seed], other - second[seed]
        pool = [index for index in left[1 : POOL + 1] if first[index] <= room and second[index] <= space]
        chosen = _near_sum(first, pool, room, near)
        if sum(second[index] for index in chosen) > space:
            # None of these needs more than its share of the other room, so no sum of them does.
            chosen = _near_sum(first, [i for i in pool if second[i] * room <= first[i] * space], room, near)
        room -= sum(first[index] for index in chosen)
        space -= sum(second[index] for index in chosen)
        gone = {seed, *chosen}
        if room > near:
            for index in sorted((i for i in left[1:_REACH] if i not in gone), key=lambda i: (-first[i], i)):
                if first[index] <= room and second[index] <= space:
                    gone.add(index)
                    room, space = room - first[index], space - second[index]
        left[:_REACH] = [index for index in left[:_REACH] if index not in gone]
        packs.append(sorted(gone))
    return packs


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
