"""A packer of the token dimension alone, beside ours: a greedy knapsack over a buffer, in the way of Megatron-Energon.

Belongs here: that packer, written from its description. Does not belong here: the release's (`pool.py`), TRL's, which is installed
(`peers.py`), measuring (`packing.py`).

Energon 7.4 brings no packing algorithm (its package holds none): users give one as a hook that sorts a buffer of samples into
packs. What users of it commonly give is the greedy knapsack: the longest sample first, then whatever still fits, longest first.
"""

from __future__ import annotations

from bisect import bisect_right

import numpy as np
from numpy.typing import NDArray

BUFFER = 1024
"""Samples that one call of the hook sorts: as many as a window of ours."""


def greedy_knapsack(tokens: NDArray[np.int64], max_tokens: int, buffer: int = BUFFER) -> list[list[int]]:
    """Sequences of indices, everything packed, buffer by buffer."""
    packs: list[list[int]] = []
    for start in range(0, len(tokens), buffer):
        part = tokens[start : start + buffer]
        left = np.argsort(part, kind="stable").tolist()
        sizes = part[left].tolist()
        while left:
            room, pack = max_tokens, []
            while (place := bisect_right(sizes, room) - 1) >= 0:
                room -= sizes.pop(place)
                pack.append(start + left.pop(place))
            packs.append(sorted(pack))
    return packs
