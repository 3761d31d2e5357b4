"""Crops and frames of an encoded example as pictures with its points and tracks over them.

Belongs here: which mark falls where on which crop, pictures as data URIs. Does not belong here: the page around them (`page.py`).
Marks are drawn where the row's coordinates land on the crop that the model is given, through the same tiling, so a slip in either
shows as a mark beside its object.
"""

from __future__ import annotations

import base64
import html
import io
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from training_backend.data.example import Example, Points, TimedPoints, Tracks
from training_backend.data.points import shown_samples
from training_backend.encode.images import Geometry
from training_backend.encode.preprocessor import Plan, Tiling

COLOURS = ("#e6194b", "#3cb44b", "#4363d8", "#f58231", "#911eb4", "#008080", "#9a6324", "#f032e6")
SMALL = 128
"""Crops up to this many pixels a side are kept lossless; larger ones become JPEG."""
MANY = 24
"""Beyond this many crops of an example their pictures are halved, and the page says so."""
_NEAR = 0.051
"""Seconds by which a mark may miss a frame: times are written with one decimal."""


@dataclass(frozen=True, slots=True)
class Mark:
    """A point at fractions of picture `image`, or at second `time` of a video; `trail` are the places of its track before it.

    It has the colour of the first branch that names it, `column` of the page, and shows its id in the row."""

    column: int
    number: int
    x: float
    y: float
    image: int = 0
    time: float | None = None
    trail: tuple[tuple[float, float], ...] = ()


def marks_of(example: Example, branches: Iterable[int]) -> list[Mark]:
    """Everything that these branches point at, without what is drawn twice."""
    found: dict[tuple[object, ...], Mark] = {}
    for column, number in enumerate(branches):
        for part in (part for turn in example.branches[number].turns for part in turn.parts):
            for mark in _marks(part, column):
                found.setdefault((mark.image, mark.time, mark.x, mark.y), mark)
    return list(found.values())


def _marks(part: object, column: int) -> Iterable[Mark]:
    if isinstance(part, Points):
        yield from (Mark(column, point.id, point.x, point.y, image=point.image) for point in part.points)
    elif isinstance(part, TimedPoints):
        yield from (Mark(column, timed.id, timed.x, timed.y, time=timed.t) for timed in part.points)
    elif isinstance(part, Tracks):
        for track in part.tracks:
            trail: list[tuple[float, float]] = []
            for sample in shown_samples(track, part.mode):
                yield Mark(column, track.id, sample.x, sample.y, time=sample.t, trail=tuple(trail[-8:]))
                trail.append((sample.x, sample.y))


def draw_media(example: Example, plan: Plan, crops: NDArray[np.uint8], marks: Sequence[Mark], geometry: Geometry) -> str:
    """HTML of all crops [N, H, W, 3] of an example."""
    halved = len(crops) > MANY and crops.shape[1] > SMALL
    note = f'<p class="note">{len(crops)} crops, drawn at half their size.</p>' if halved else ""
    if plan.times:
        frames = [
            _figure(crops[place], _overlay([mark for mark in marks if _on(mark, time)], geometry.pixels), f"{time:.1f} s", halved)
            for place, time in enumerate(plan.times)
        ]
        lost = sum(not any(_on(mark, time) for time in plan.times) for mark in marks)
        note += f'<p class="note">{lost} of {len(marks)} marks fall between the shown frames.</p>' if lost else ""
        return f'<div class="strip">{"".join(frames)}</div>{note}'
    out, done = [], 0
    for number, tiling in enumerate(plan.tilings):
        mine = [mark for mark in marks if mark.image == number]
        size = int(geometry.low_resolution) + (tiling[0] * tiling[1] if tiling else 0)
        out.append(_image(crops[done : done + size], tiling, mine, geometry, halved, number if len(plan.tilings) > 1 else None))
        done += size
    return f'<div class="strip">{"".join(out)}</div>{note}'


def _on(mark: Mark, time: float) -> bool:
    return mark.time is not None and abs(mark.time - time) < _NEAR


def _image(
    crops: NDArray[np.uint8], tiling: Tiling, marks: Sequence[Mark], geometry: Geometry, halved: bool, number: int | None
) -> str:
    side, name = geometry.pixels, "" if number is None else f"image {number}, "
    cells, rest = [], list(crops)
    if geometry.low_resolution:
        cells.append(_figure(rest.pop(0), _overlay(marks, side), f"{name}whole", halved))
    if tiling is None:
        return "".join(cells)
    step, margin = geometry.window * geometry.patch, sum(geometry.margins) * geometry.patch
    height, width = tiling[0] * step + margin, tiling[1] * step + margin
    tiles = []
    for place, crop in enumerate(rest):
        top, left = place // tiling[1] * step, place % tiling[1] * step
        # From the large picture's pixels to this crop's fractions.
        moved = [
            Mark(mark.column, mark.number, (mark.x * width - left) / side, (mark.y * height - top) / side)
            for mark in marks
            if 0 <= mark.x * width - left <= side and 0 <= mark.y * height - top <= side
        ]
        tiles.append(_figure(crop, _overlay(moved, side), "", halved))
    label = f"{name}{tiling[0]}×{tiling[1]} crops"
    if margin and len(rest) > 1:
        label += f", {margin // geometry.patch} patches shared"
    cells.append(
        f'<figure><div class="tiles" style="grid-template-columns:repeat({tiling[1]},max-content)">{"".join(tiles)}</div>'
        f"<figcaption>{label}</figcaption></figure>"
    )
    return "".join(cells)


def _figure(crop: NDArray[np.uint8], overlay: str, caption: str, halved: bool) -> str:
    side = crop.shape[0]
    shown = side // 2 if halved else side * max(1, 168 // side)
    words = f"<figcaption>{html.escape(caption)}</figcaption>" if caption else ""
    return (
        f'<figure><div class="crop" style="width:{shown}px;height:{shown}px"><img src="{_data_uri(crop, halved)}" alt="" '
        f'width="{shown}" height="{shown}">{overlay}</div>{words}</figure>'
    )


def _overlay(marks: Sequence[Mark], side: int) -> str:
    """An SVG of the same size as the picture, in the crop's own pixels."""
    if not marks:
        return ""
    radius, out = max(2.0, side / 42), []
    for mark in marks:
        colour, x, y = COLOURS[mark.column % len(COLOURS)], mark.x * side, mark.y * side
        if mark.trail:
            line = " ".join(f"{a * side:.1f},{b * side:.1f}" for a, b in (*mark.trail, (mark.x, mark.y)))
            out.append(f'<polyline points="{line}" fill="none" stroke="{colour}" stroke-width="{radius / 2.5:.1f}"/>')
        out.append(
            f'<circle cx="{x:.1f}" cy="{y:.1f}" r="{radius:.1f}" fill="none" stroke="#fff" stroke-width="{radius * 0.9:.1f}"/>'
            f'<circle cx="{x:.1f}" cy="{y:.1f}" r="{radius:.1f}" fill="none" stroke="{colour}" stroke-width="{radius / 2:.1f}"/>'
            f'<text x="{min(x + 1.4 * radius, side - 2 * radius):.1f}" y="{max(y - radius, 3 * radius):.1f}" '
            f'font-size="{3 * radius:.1f}" fill="{colour}">{mark.number}</text>'
        )
    return f'<svg viewBox="0 0 {side} {side}">{"".join(out)}</svg>'


def _data_uri(crop: NDArray[np.uint8], halved: bool) -> str:
    from PIL import Image

    picture, stream = Image.fromarray(crop), io.BytesIO()
    if halved:
        picture = picture.reduce(2)
    kind = "png" if crop.shape[0] <= SMALL else "jpeg"
    picture.save(stream, kind.upper(), **({} if kind == "png" else {"quality": 85}))
    return f"data:image/{kind};base64,{base64.b64encode(stream.getvalue()).decode()}"
