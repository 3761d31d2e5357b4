"""Coloured shapes: what there is, how it looks on a pixel grid, and the words for it.

Belongs here: palette, shape tiles with exact masks, labels and their predicate. Does not belong here: where things stand
(`scenes.py`) or move (`clips.py`).

Things sit on whole pixels, so that a mask is exact and a tile is drawn once. A ring's middle is white and belongs to the ring: a
point at its centre is a point on it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

COLOURS: dict[str, tuple[int, int, int]] = {
    "red": (214, 39, 40),
    "green": (35, 150, 60),
    "blue": (35, 85, 225),
    "yellow": (250, 205, 20),
    "pink": (240, 95, 200),
    "black": (28, 28, 28),
}
SHAPES: tuple[str, ...] = ("circle", "square", "triangle", "star", "cross", "ring")
RADII: dict[str, tuple[int, int]] = {"small": (8, 9), "large": (12, 13)}
"""Radius in pixels of a picture whose side is `REFERENCE_SIDE`."""
REFERENCE_SIDE = 84
_FINE = 8


@dataclass(frozen=True)
class Look:
    """Colour, shape and size word of a thing."""

    colour: str
    shape: str
    size: str = "large"

    @property
    def words(self) -> str:
        """`red circle`."""
        return f"{self.colour} {self.shape}"


@dataclass(frozen=True)
class Label:
    """What a question is about: a colour, a shape, or both."""

    colour: str | None = None
    shape: str | None = None

    def matches(self, look: Look) -> bool:
        """Whether a thing that looks so is meant."""
        return (self.colour is None or look.colour == self.colour) and (self.shape is None or look.shape == self.shape)

    @property
    def plural(self) -> str:
        """`red circles`, `circles`, `red shapes`."""
        noun = plural(self.shape or "shape")
        return f"{self.colour} {noun}" if self.colour else noun

    @property
    def singular(self) -> str:
        """`red circle`, `circle`, `red shape`."""
        noun = self.shape or "shape"
        return f"{self.colour} {noun}" if self.colour else noun


def plural(noun: str) -> str:
    """`crosses` for `cross`, `stars` for `star`."""
    return f"{noun}es" if noun.endswith("s") else f"{noun}s"


def article(words: str) -> str:
    """`a red circle`, `an orange circle`."""
    return f"{'an' if words[0] in 'aeiou' else 'a'} {words}"


def _corners(shape: str) -> list[tuple[float, float]] | None:
    """Corners in units of the radius, y downwards; None for round shapes."""
    if shape == "square":
        return [(-0.84, -0.84), (0.84, -0.84), (0.84, 0.84), (-0.84, 0.84)]
    if shape == "triangle":
        # the centroid is at the origin, so that the centre is well inside
        return [(0.0, -1.0), (1.0, 0.72), (-1.0, 0.72)]
    if shape == "star":
        turns = [(math.pi * step / 5 - math.pi / 2, 1.0 if step % 2 == 0 else 0.46) for step in range(10)]
        return [(length * math.cos(angle), length * math.sin(angle)) for angle, length in turns]
    if shape == "cross":
        arm, end = 0.36, 0.98
        return [
            (-arm, -end), (arm, -end), (arm, -arm), (end, -arm), (end, arm), (arm, arm),
            (arm, end), (-arm, end), (-arm, arm), (-end, arm), (-end, -arm), (-arm, -arm),
        ]  # fmt: skip
    return None


@lru_cache(maxsize=256)
def tile(shape: str, radius: int) -> tuple[NDArray[np.float32], NDArray[np.bool_], NDArray[np.float32]]:
    """(coverage, mask, white): how much of each pixel the shape covers, which pixels are its own, how much of it is white.

    All [2r+1, 2r+1], the thing's centre pixel in the middle. `mask` is coverage of at least a half.
    """
    from PIL import Image, ImageDraw

    side = 2 * radius + 1
    middle = side * _FINE / 2
    fine = Image.new("L", (side * _FINE, side * _FINE), 0)
    hole = Image.new("L", fine.size, 0)
    reach = (radius + 0.5) * _FINE
    corners = _corners(shape)
    if corners is None:
        ImageDraw.Draw(fine).ellipse((middle - reach, middle - reach, middle + reach - 1, middle + reach - 1), fill=255)
        if shape == "ring":
            inner = reach * 0.52
            ImageDraw.Draw(hole).ellipse((middle - inner, middle - inner, middle + inner - 1, middle + inner - 1), fill=255)
    else:
        ImageDraw.Draw(fine).polygon([(middle + reach * x, middle + reach * y) for x, y in corners], fill=255)
    coverage, white = (
        np.asarray(picture, dtype=np.float32).reshape(side, _FINE, side, _FINE).mean(axis=(1, 3)) / 255.0
        for picture in (fine, hole)
    )
    mask = coverage >= 0.5
    for array in (coverage, mask, white):
        array.setflags(write=False)
    return coverage, mask, white
