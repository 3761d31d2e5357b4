"""COCO run-length masks: column-major runs, first run counts zeros; as counts, or as the compressed string of the COCO tools.

Belongs here: both codings and their inverse. Does not belong here: where a set stores them. The string form is the variable-length
code of the COCO API's maskApi: 5 bits a character plus a continuation bit, offset 48, counts after the second stored as difference
to the count two places before.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray


def counts_of(mask: NDArray[np.bool_]) -> list[int]:
    """Runs of a bool mask [H, W] read column by column, beginning with a run of zeros (possibly empty)."""
    flat = mask.ravel(order="F")
    if flat.size == 0:
        return []
    edges = np.flatnonzero(flat[1:] != flat[:-1]) + 1
    runs = np.diff(np.concatenate([[0], edges, [flat.size]]))
    return [0, *runs.tolist()] if flat[0] else runs.tolist()


def encode(mask: NDArray[np.bool_], *, compressed: bool = False) -> dict[str, Any]:
    """{"size": [H, W], "counts": list of runs, or the compressed string} of a bool mask [H, W]."""
    counts = counts_of(mask)
    return {"size": [int(mask.shape[0]), int(mask.shape[1])], "counts": compress(counts) if compressed else counts}


def decode(rle: dict[str, Any]) -> NDArray[np.bool_]:
    """The bool mask [H, W] of either coding. Raises ValueError where the runs do not fill the size."""
    height, width = (int(side) for side in rle["size"])
    counts = rle["counts"]
    runs = decompress(counts) if isinstance(counts, str) else [int(count) for count in counts]
    if sum(runs) != height * width or any(run < 0 for run in runs):
        raise ValueError(f"the runs of a mask cover {sum(runs)} pixels, its size {height}×{width} has {height * width}")
    flat = np.repeat(np.arange(len(runs)) % 2 == 1, runs)
    return flat.reshape((height, width), order="F")


def compress(counts: list[int]) -> str:
    """The COCO string of a list of runs."""
    letters = []
    for place, count in enumerate(counts):
        value = count - counts[place - 2] if place > 2 else count
        more = True
        while more:
            bits = value & 0x1F
            value >>= 5
            more = value != -1 if bits & 0x10 else value != 0
            letters.append(chr(48 + (bits | 0x20 if more else bits)))
    return "".join(letters)


def decompress(text: str) -> list[int]:
    """Inverse of `compress`. Raises ValueError for a string that ends inside a number."""
    counts: list[int] = []
    place = 0
    while place < len(text):
        value, shift, more = 0, 0, True
        while more:
            if place >= len(text):
                raise ValueError("a compressed mask ends inside a number")
            letter = ord(text[place]) - 48
            value |= (letter & 0x1F) << shift
            more = bool(letter & 0x20)
            place += 1
            shift += 5
            if not more and letter & 0x10:
                value |= -1 << shift
        if len(counts) > 2:
            value += counts[-2]
        counts.append(value)
    return counts
