"""Random choices of the generated sets: every choice hangs on a key, never on what was drawn before it.

Belongs here: keyed generators and balanced draws. Does not belong here: what is drawn.

Python's own generator is used for decisions because its streams are stable across versions; numpy's only for noise in pictures.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Sequence
from typing import TypeVar

T = TypeVar("T")


def keyed(*key: str | int) -> random.Random:
    """A generator that depends on `key` alone."""
    return random.Random("\x1f".join(str(part) for part in key))


def noise_seed(*key: str | int) -> int:
    """A 64-bit seed for numpy, from the same kind of key."""
    text = "\x1f".join(str(part) for part in key)
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "little")


def balanced(choices: Sequence[T], index: int, *key: str | int) -> T:
    """Choice number `index` of an endless sequence in which every block of len(choices) draws holds each choice once.

    Any prefix is balanced within one, and neighbours tell nothing about each other beyond their block.
    """
    block, place = divmod(index, len(choices))
    order = list(range(len(choices)))
    keyed(*key, "block", block).shuffle(order)
    return choices[order[place]]
