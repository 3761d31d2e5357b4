"""The released packer as a baseline: a pool of 48 examples and a knapsack over both budgets.

Belongs here: that packer alone, written from its description. Does not belong here: ours (`training_backend/pack/plan.py`),
measuring (`packing.py`).

When a 49th example arrives, the most valuable subset of the 48 that fits leaves as a sequence: tokens in steps of 1/512 of the
budget, crops exact, value = tokens + `crop_value` × crops. An example that fills the token budget alone leaves at once
(allenai/molmo2, olmo/data/dynamic_packer.py). Unlike the release, which never stops, the pool is emptied at the end.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

POOL = 48


def pool_knapsack(
    tokens: NDArray[np.int64], visual: NDArray[np.int64], max_tokens: int, max_visual: int, crop_value: float = 30.0
) -> list[list[int]]:
    """Sequences of indices, everything packed."""
    pool: list[int] = []
    packs: list[list[int]] = []

    def send() -> None:
        chosen = _best(tokens[pool], visual[pool], max_tokens, max_visual, crop_value)
        packs.append([pool[place] for place in chosen])
        left = set(packs[-1])
        pool[:] = [index for index in pool if index not in left]

    for index in range(len(tokens)):
        if tokens[index] >= max_tokens:
            packs.append([index])
            continue
        if len(pool) == POOL:
            send()
        pool.append(index)
    while pool:
        send()
    return packs


def _best(tokens: NDArray[np.int64], visual: NDArray[np.int64], max_tokens: int, max_visual: int, crop_value: float) -> list[int]:
    step = max(1, max_tokens // 512)
    slots = max_tokens // step
    heavy = -(-tokens // step)
    value = (tokens + crop_value * visual).astype(np.float32)
    table = np.zeros((slots + 1, max_visual + 1), dtype=np.float32)
    taken = np.zeros((len(tokens), slots + 1, max_visual + 1), dtype=bool)
    for number, (size, crops) in enumerate(zip(heavy.tolist(), visual.tolist(), strict=True)):
        if size > slots or crops > max_visual:
            continue
        offered = table[: slots + 1 - size, : max_visual + 1 - crops] + value[number]
        better = offered > table[size:, crops:]
        taken[number, size:, crops:] = better
        np.copyto(table[size:, crops:], offered, where=better)
    room, space = slots, max_visual
    chosen = []
    for number in range(len(tokens) - 1, -1, -1):
        if taken[number, room, space]:
            chosen.append(number)
            room -= int(heavy[number])
            space -= int(visual[number])
    # Rounding up may hide an example that only just fits alone.
    return sorted(chosen) or [int(np.argmax(tokens))]
