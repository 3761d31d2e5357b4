"""Moving scenes: things that slide, bounce, enter, leave or stand still, with exact masks and points at every frame.

Belongs here: paths, frames, when a thing is seen, points and tracks. Does not belong here: the file (`video.py`), words
(`describe.py`), columns.

Positions are closed forms of time, rounded to whole pixels, so that any frame can be drawn alone.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from molmo2_assets.sources.generated.scenes import (
    BACKGROUNDS,
    Drawing,
    Thing,
    anchor,
    backdrop,
    draw_things,
    radius_of,
    visible_share,
)
from molmo2_assets.sources.generated.seeds import noise_seed
from molmo2_assets.sources.generated.shapes import Label, Look

T = TypeVar("T")

FPS = 8
GRID = 0.5  # seconds between annotated moments of the published sets
DIRECTIONS: dict[str, tuple[int, int]] = {"left": (-1, 0), "right": (1, 0), "up": (0, -1), "down": (0, 1)}
SEEN = 0.6
"""Share of a thing that must be seen for a point on it to be asked for."""
OCCLUDED = 0.25
"""A tracked thing of which less is seen counts as occluded."""


@dataclass(frozen=True)
class Path:
    """Where a thing's centre is: from (x, y) at second `start` with speed (vx, vy) pixels a second, until second `stop`.

    `bounce` reflects it at the borders; a path without speed stands still.
    """

    kind: str
    x: float
    y: float
    vx: float = 0.0
    vy: float = 0.0
    start: float = 0.0
    stop: float = 1e9
    direction: str = ""

    def at(self, time: float, low: float, high: float) -> tuple[int, int]:
        """Centre pixel at a time; `low` and `high` are the borders of a bouncing centre."""
        moved = min(max(time, self.start), self.stop) - self.start
        x, y = self.x + self.vx * moved, self.y + self.vy * moved
        if self.kind == "bounce":
            x, y = _reflect(x, low, high), _reflect(y, low, high)
        return round(x), round(y)


@dataclass(frozen=True)
class Mover:
    """A thing of some look and radius on a path."""

    look: Look
    radius: int
    path: Path


@dataclass(frozen=True)
class Clip:
    """A moving scene at `FPS`; `movers` from back to front."""

    side: int
    frames: int
    background: str
    texture: int | None
    movers: tuple[Mover, ...]

    @property
    def seconds(self) -> float:
        """Length of the film."""
        return self.frames / FPS

    @cached_property
    def empty(self) -> NDArray[np.uint8]:
        """The background alone."""
        return backdrop(self.side, self.background, self.texture)

    @cached_property
    def _drawn(self) -> dict[int, Drawing]:
        return {}

    def drawing(self, frame: int) -> Drawing:
        """One frame; drawn when it is first asked for, because most candidates are turned down after a few."""
        if frame not in self._drawn:
            assert 0 <= frame < self.frames
            self._drawn[frame] = draw_things(self.empty, self.things(frame))
        return self._drawn[frame]

    def film(self) -> Iterator[NDArray[np.uint8]]:
        """The pictures of every frame."""
        return (self.drawing(frame).pixels for frame in range(self.frames))

    @cached_property
    def _placed(self) -> dict[int, tuple[Thing, ...]]:
        return {}

    def things(self, frame: int) -> tuple[Thing, ...]:
        """Where everything is in a frame, also what is outside the picture."""
        if frame not in self._placed:
            places = []
            for mover in self.movers:
                x, y = mover.path.at(frame / FPS, mover.radius, self.side - 1 - mover.radius)
                places.append(Thing(look=mover.look, radius=mover.radius, x=x, y=y))
            self._placed[frame] = tuple(places)
        return self._placed[frame]

    def seen(self, index: int, frame: int) -> float:
        """Visible share of mover `index` in a frame."""
        return visible_share(self.drawing(frame), index, self.things(frame)[index])

    def point(self, index: int, frame: int) -> tuple[float, float] | None:
        """A point in pixels on mover `index` in a frame, None where nothing of it is seen."""
        return anchor(self.drawing(frame), index, self.things(frame)[index])

    def mask(self, index: int, frame: int) -> NDArray[np.bool_]:
        """Visible pixels of mover `index` in a frame."""
        return self.drawing(frame).mask(index)

    def matching(self, label: Label) -> tuple[int, ...]:
        """Movers that a label means."""
        return tuple(index for index, mover in enumerate(self.movers) if label.matches(mover.look))

    def first_seen(self, index: int, start: float = 0.0, end: float | None = None) -> float | None:
        """The first moment of the half-second grid in [start, end) when a mover is seen well; None where there is none."""
        last = self.seconds if end is None else min(end, self.seconds)
        for step in range(round(start / GRID), int(np.ceil(last / GRID))):
            if self.seen(index, round(step * GRID * FPS)) >= SEEN:
                return step * GRID
        return None


def _reflect(value: float, low: float, high: float) -> float:
    span = high - low
    place = (value - low) % (2 * span)
    return low + (place if place <= span else 2 * span - place)


def make_clip(
    rng: random.Random, side: int, looks: Sequence[Look], kinds: Sequence[str], seconds: tuple[float, float] = (3.0, 6.0)
) -> Clip | None:
    """A clip with one mover per look, whose path kind is kinds[i]; None where the start leaves no room.

    Lengths are whole half seconds between `seconds`.
    """
    steps = rng.randint(round(seconds[0] / GRID), round(seconds[1] / GRID))
    length = steps * GRID
    movers: list[Mover] = []
    for look, kind in zip(looks, kinds, strict=True):
        radius = radius_of(rng, look.size, side)
        mover = _find_path(rng, side, length, look, radius, kind, movers)
        if mover is None:
            return None
        movers.append(mover)
    order = list(range(len(movers)))
    rng.shuffle(order)
    texture = noise_seed("texture", rng.randrange(1 << 30)) if rng.random() < 0.5 else None
    return Clip(
        side=side,
        frames=round(length * FPS),
        background=rng.choice(tuple(BACKGROUNDS)),
        texture=texture,
        movers=tuple(movers[place] for place in order),
    )


def clip_with(
    rng: random.Random,
    side: int,
    draw: Callable[[], tuple[Sequence[Look], Sequence[str], T]],
    good: Callable[[Clip, T], bool] = lambda clip, extra: True,
) -> tuple[Clip, T]:
    """Draw looks, path kinds and whatever belongs to them until they fit and the clip is `good`."""
    while True:
        looks, kinds, extra = draw()
        clip = make_clip(rng, side, looks, kinds)
        if clip is not None and good(clip, extra):
            return clip, extra


def _find_path(
    rng: random.Random, side: int, length: float, look: Look, radius: int, kind: str, others: Sequence[Mover]
) -> Mover | None:
    """A path that keeps clear of the others at most annotated moments."""
    for attempt in range(40):
        mover = Mover(look=look, radius=radius, path=_path(rng, side, length, radius, kind))
        allowed = 0 if attempt < 25 else 1
        if all(_meetings(mover, other, side, length) <= allowed for other in others):
            return mover
    return None


def _meetings(one: Mover, other: Mover, side: int, length: float) -> int:
    """Annotated moments at which two movers overlap."""
    near = (0.95 * (one.radius + other.radius)) ** 2
    met = 0
    for step in range(round(length / GRID)):
        ax, ay = one.path.at(step * GRID, one.radius, side - 1 - one.radius)
        bx, by = other.path.at(step * GRID, other.radius, side - 1 - other.radius)
        met += (ax - bx) ** 2 + (ay - by) ** 2 < near
    return met


def _path(rng: random.Random, side: int, length: float, radius: int, kind: str) -> Path:
    low, high = radius + 1, side - 2 - radius
    x, y = float(rng.randint(low, high)), float(rng.randint(low, high))
    if kind == "still":
        return Path(kind, x, y)
    if kind == "bounce":
        speed = rng.uniform(8, 14) * side / 84
        angle = rng.uniform(0, 2 * np.pi)
        return Path(kind, x, y, speed * float(np.cos(angle)), speed * float(np.sin(angle)))
    direction = rng.choice(tuple(DIRECTIONS))
    dx, dy = DIRECTIONS[direction]
    if kind == "slide":
        way = rng.uniform(0.45, 0.6) * side
        speed = way / length
        if dx:
            x = rng.uniform(low, high - way) if dx > 0 else rng.uniform(low + way, high)
        else:
            y = rng.uniform(low, high - way) if dy > 0 else rng.uniform(low + way, high)
        return Path(kind, x, y, dx * speed, dy * speed, direction=direction)
    speed = 22.0 * side / 84
    if kind == "enter":
        # it waits outside the border opposite to its direction, then comes in far enough to be seen whole
        inside = rng.uniform(2.4, 3.2) * radius
        start = rng.uniform(0.5, max(0.6, length - inside / speed - 0.75))
        if dx:
            x = -radius - 1.0 if dx > 0 else side + radius + 0.0
        else:
            y = -radius - 1.0 if dy > 0 else side + radius + 0.0
        return Path(kind, x, y, dx * speed, dy * speed, start, start + inside / speed, direction)
    if kind == "leave":
        # it stands near the border that it leaves through
        if dx:
            x = float(high if dx > 0 else low)
        else:
            y = float(high if dy > 0 else low)
        away = (2 * radius + 4) / speed
        start = rng.uniform(1.0, max(1.1, length - away - 0.25))
        return Path(kind, x, y, dx * speed, dy * speed, start, start + away, direction)
    raise ValueError(f"there is no path of kind {kind!r}")
