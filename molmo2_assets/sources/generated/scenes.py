"""Still scenes: things on a background, drawn with exact masks and a point inside each thing.

Belongs here: placing, drawing, visibility, points. Does not belong here: motion (`clips.py`), words (`describe.py`), columns.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from molmo2_assets.sources.generated.seeds import noise_seed
from molmo2_assets.sources.generated.shapes import COLOURS, RADII, REFERENCE_SIDE, SHAPES, Label, Look, tile

T = TypeVar("T")

BACKGROUNDS: dict[str, tuple[int, int, int]] = {
    "grey": (128, 128, 128),
    "slate": (112, 124, 142),
    "brown": (146, 128, 108),
    "olive": (124, 136, 106),
    "mauve": (140, 118, 138),
}
"""Middle tones: normalised pixels of the background are near zero, so that a small model trained from nothing first sees the things
(docs/lab-notes.md)."""
LEAST_VISIBLE = 0.7
"""Share of a thing that must be seen in a still picture."""
_MARGIN = 2  # pixels around a point that must belong to the same thing: survives rounding in either direction


@dataclass(frozen=True)
class Thing:
    """A shape whose centre is pixel (column `x`, row `y`)."""

    look: Look
    radius: int
    x: int
    y: int


@dataclass(frozen=True)
class Drawing:
    """A drawn picture [side, side, 3] and `owner` [side, side]: index of the thing seen at each pixel, -1 for the background."""

    pixels: NDArray[np.uint8]
    owner: NDArray[np.int8]

    def mask(self, index: int) -> NDArray[np.bool_]:
        """Visible pixels of one thing."""
        visible: NDArray[np.bool_] = self.owner == index
        return visible


@dataclass(frozen=True)
class Scene:
    """A still picture: things from back to front on a named background."""

    side: int
    background: str
    texture: int | None
    things: tuple[Thing, ...]

    def draw(self) -> Drawing:
        """The picture with the owner of every pixel; not to be written to."""
        return _drawn(self)

    def count(self, label: Label) -> int:
        """How many things the label means."""
        return sum(label.matches(thing.look) for thing in self.things)


@lru_cache(maxsize=16)
def _drawn(scene: Scene) -> Drawing:
    return draw_things(backdrop(scene.side, scene.background, scene.texture), scene.things)


def backdrop(side: int, background: str, texture: int | None) -> NDArray[np.uint8]:
    """An empty picture; `texture` seeds soft low-frequency noise, None is plain."""
    picture = np.empty((side, side, 3), dtype=np.float32)
    picture[:] = BACKGROUNDS[background]
    if texture is not None:
        coarse = np.random.default_rng(texture).uniform(-9, 9, (6, 6)).astype(np.float32)
        grid = np.linspace(0, 5, side)
        left = np.minimum(grid.astype(int), 4)
        share = (grid - left).astype(np.float32)
        rows = coarse[left] * (1 - share)[:, None] + coarse[left + 1] * share[:, None]
        picture += (rows[:, left] * (1 - share)[None, :] + rows[:, left + 1] * share[None, :])[..., None]
    return np.clip(np.rint(picture), 0, 255).astype(np.uint8)


def draw_things(empty: NDArray[np.uint8], things: Sequence[Thing]) -> Drawing:
    """Draw things from back to front; parts outside the picture are cut off."""
    pixels = empty.copy()
    height, width = pixels.shape[:2]
    owner = np.full((height, width), -1, dtype=np.int8)
    for index, thing in enumerate(things):
        coverage, mask, white = tile(thing.look.shape, thing.radius)
        top, left = thing.y - thing.radius, thing.x - thing.radius
        rows = slice(max(top, 0), min(top + len(mask), height))
        columns = slice(max(left, 0), min(left + len(mask), width))
        if rows.start >= rows.stop or columns.start >= columns.stop:
            continue
        inside = (slice(rows.start - top, rows.stop - top), slice(columns.start - left, columns.stop - left))
        colour = np.asarray(COLOURS[thing.look.colour], dtype=np.float32)
        paint = colour + (250.0 - colour) * white[inside][..., None]
        under = pixels[rows, columns]
        pixels[rows, columns] = np.rint(under + (paint - under) * coverage[inside][..., None]).astype(np.uint8)
        owner[rows, columns][mask[inside]] = index
    return Drawing(pixels=pixels, owner=owner)


def visible_share(drawing: Drawing, index: int, thing: Thing) -> float:
    """Share of the whole thing that is seen: 1 when nothing covers it and none of it is outside."""
    return float(np.count_nonzero(drawing.mask(index)) / np.count_nonzero(tile(thing.look.shape, thing.radius)[1]))


def anchor(drawing: Drawing, index: int, thing: Thing) -> tuple[float, float] | None:
    """A point (x, y) in pixels, well inside what is seen of a thing; None where nothing is seen.

    The centre where it and its neighbours are seen, else the visible pixel farthest from any other. Coordinates are those of the
    pixel's middle, so that both truncating and rounding land on the thing.
    """
    height, width = drawing.owner.shape
    x, y = thing.x, thing.y
    if _MARGIN <= x < width - _MARGIN and _MARGIN <= y < height - _MARGIN:
        near = drawing.owner[y - _MARGIN : y + _MARGIN + 1, x - _MARGIN : x + _MARGIN + 1]
        if (near == index).all():
            return x + 0.5, y + 0.5
    mask = drawing.mask(index)
    if not mask.any():
        return None
    from scipy.ndimage import distance_transform_edt

    depth = distance_transform_edt(np.pad(mask, 1))[1:-1, 1:-1]
    row, column = np.unravel_index(int(np.argmax(depth)), depth.shape)
    return float(column) + 0.5, float(row) + 0.5


def make_scene(rng: random.Random, side: int, looks: Sequence[Look]) -> Scene | None:
    """Place things so that each is at least `LEAST_VISIBLE` seen; None where they do not fit (draw other looks then).

    Larger things are placed first; in a quarter of the scenes things may overlap a little.
    """
    sized = [(look, radius_of(rng, look.size, side)) for look in looks]
    order = sorted(range(len(sized)), key=lambda place: -sized[place][1])
    closeness = 0.78 if rng.random() < 0.25 else 1.08
    placed: dict[int, Thing] = {}
    for place in order:
        look, radius = sized[place]
        thing = _find_room(rng, side, look, radius, list(placed.values()), closeness)
        if thing is None:
            return None
        placed[place] = thing
    things = list(placed.values())
    rng.shuffle(things)
    scene = Scene(side=side, background=rng.choice(tuple(BACKGROUNDS)), texture=_texture(rng), things=tuple(things))
    drawing = scene.draw()
    if any(visible_share(drawing, index, thing) < LEAST_VISIBLE for index, thing in enumerate(things)):
        return None
    return scene


def scene_with(rng: random.Random, side: int, draw: Callable[[], tuple[Sequence[Look], T]]) -> tuple[Scene, T]:
    """Draw looks (with whatever belongs to them) until they fit into a picture."""
    while True:
        looks, extra = draw()
        scene = make_scene(rng, side, looks)
        if scene is not None:
            return scene, extra


def radius_of(rng: random.Random, size: str, side: int) -> int:
    """A radius of a size word in pixels of a picture of this side."""
    return max(4, round(rng.choice(RADII[size]) * side / REFERENCE_SIDE))


def _texture(rng: random.Random) -> int | None:
    return noise_seed("texture", rng.randrange(1 << 30)) if rng.random() < 0.5 else None


def _find_room(rng: random.Random, side: int, look: Look, radius: int, others: Sequence[Thing], closeness: float) -> Thing | None:
    for _ in range(60):
        x, y = rng.randrange(radius, side - radius), rng.randrange(radius, side - radius)
        if all((x - o.x) ** 2 + (y - o.y) ** 2 >= (closeness * (radius + o.radius)) ** 2 for o in others):
            return Thing(look=look, radius=radius, x=x, y=y)
    return None


def draw_looks(
    rng: random.Random,
    counts: Sequence[int],
    distractors: int,
    labels: Sequence[Label] | None = None,
    kinds: Sequence[str] = ("both", "both", "shape", "colour"),
) -> tuple[list[Look], list[Label]]:
    """Looks of one group of things per count, and of distractors, so that label k means exactly counts[k] of all of them.

    Labels are drawn where none are given; `kinds` are what a drawn label may name. Half of the distractors share a colour or a
    shape with the first group: telling them apart is the task.
    """
    while True:
        meant = list(labels) if labels is not None else [draw_label(rng, rng.choice(kinds)) for _ in counts]
        looks = [
            Look(label.colour or rng.choice(tuple(COLOURS)), label.shape or rng.choice(SHAPES))
            for label, count in zip(meant, counts, strict=True)
            for _ in range(count)
        ]
        for _ in range(distractors):
            colour, shape = rng.choice(tuple(COLOURS)), rng.choice(SHAPES)
            if counts[0] and rng.random() < 0.5:
                shared = rng.choice(looks[: counts[0]])
                colour, shape = (shared.colour, shape) if rng.random() < 0.5 else (colour, shared.shape)
            looks.append(Look(colour, shape))
        if all(sum(label.matches(look) for look in looks) == count for label, count in zip(meant, counts, strict=True)):
            return with_sizes(rng, looks), meant


def draw_pair(
    rng: random.Random, groups: Sequence[int], distractors: int, kinds: Sequence[str] = ("both", "both", "shape", "colour")
) -> tuple[list[Look], list[Label]]:
    """Looks of one or two groups of things, and always two labels: a lone group, which has no distractors, is also asked for by its
    colour or its shape alone."""
    if len(groups) == 2:
        return draw_looks(rng, groups, distractors, kinds=kinds)
    looks, (label,) = draw_looks(rng, groups, 0, kinds=("both",))
    return looks, [label, Label(label.colour, None) if rng.random() < 0.5 else Label(None, label.shape)]


def draw_label(rng: random.Random, kind: str) -> Label:
    """A label that names a colour, a shape, or both."""
    colour, shape = rng.choice(tuple(COLOURS)), rng.choice(SHAPES)
    return Label(colour if kind != "shape" else None, shape if kind != "colour" else None)


def with_sizes(rng: random.Random, looks: Sequence[Look]) -> list[Look]:
    """The looks with sizes drawn: mostly large while there is room."""
    large = 0.6 if len(looks) <= 4 else 0.3
    return [Look(look.colour, look.shape, "large" if rng.random() < large else "small") for look in looks]


def distinct_looks(rng: random.Random, count: int) -> tuple[list[Look], list[Label]]:
    """Looks of which no two share a colour or a shape, so that either word names one thing; and a label for each."""
    colours, shapes = rng.sample(tuple(COLOURS), count), rng.sample(SHAPES, count)
    looks = with_sizes(rng, [Look(colour, shape) for colour, shape in zip(colours, shapes, strict=True)])
    return looks, [Label(look.colour, look.shape) for look in looks]
