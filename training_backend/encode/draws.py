"""Random choices as pure functions: of (seed, position), and then of a row and one of its few variants.

Belongs here: where random bits come from. Does not belong here: what is chosen with them.

A position of the mixture draws a 64-bit key. The key picks one of VARIANTS *realisations* of the row (questions, order of options
and branches), and everything chosen inside a row follows from (row id, variant) alone. So a row has a handful of lengths, which
a table holds exactly, and plans are made without tokenising. Bits are Philox and blake2b words, reduced by our own arithmetic:
the methods of
`numpy.random.Generator` may change between versions.
"""

from __future__ import annotations

from hashlib import blake2b

import numpy as np
from numpy.typing import NDArray

VARIANTS = 8


def position_keys(seed: int, start: int, count: int) -> NDArray[np.uint64]:
    """Keys of positions [start, start+count): a Philox stream with key `seed`, four words a counter."""
    skip = start % 4
    stream = np.random.Philox(key=seed % (1 << 128), counter=start // 4)
    words = np.asarray(stream.random_raw(count + skip), dtype=np.uint64)
    return words[skip:]


def variant_of(key: int) -> int:
    """Which realisation of its row a position shows."""
    return int(key) % VARIANTS


class Draws:
    """The choices inside one row. `used` says whether any was made, so that a row without choices is not realised eight times."""

    __slots__ = ("_root", "used")

    def __init__(self, row_id: str, variant: int) -> None:
        self._root = blake2b(row_id.encode(), digest_size=16, salt=variant.to_bytes(4, "little")).digest()
        self.used = False

    def word(self, *place: int | str) -> int:
        """64 bits for a named place; places do not shift each other."""
        self.used = True
        text = "/".join(map(str, place)).encode()
        return int.from_bytes(blake2b(text, digest_size=8, key=self._root).digest(), "little")

    def below(self, limit: int, *place: int | str) -> int:
        """A whole number in [0, limit)."""
        return self.word(*place) * limit >> 64

    def chance(self, *place: int | str) -> float:
        """A number in [0, 1)."""
        return (self.word(*place) >> 11) / (1 << 53)

    def permutation(self, size: int, *place: int | str) -> list[int]:
        """An order of range(size)."""
        return sorted(range(size), key=lambda number: (self.word(*place, number), number))
