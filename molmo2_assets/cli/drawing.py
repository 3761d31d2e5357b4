"""Points and tracks of an answer, drawn into the pictures or the clip that was asked about.

Belongs here: pixels. Does not belong here: reading points out of words (`training_backend.data.points`).
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from training_backend.data.media import read_image
from training_backend.data.points import Grounded
from training_backend.data.video import VideoReader

_COLOURS = ((230, 40, 120), (20, 120, 230), (20, 160, 60), (240, 150, 0), (140, 60, 200), (0, 170, 180))
CLIP_RATE = 8
"""Frames a second of a drawn clip."""
LONGEST = 120.0
"""Seconds of a film that are drawn; frames are held in memory, about a gigabyte at 720p."""
_SHOWN = 0.25
"""A point is shown from so many seconds before its moment to as many after it: half the finest grid of the answers."""


def mark(pixels: NDArray[np.uint8], points: Sequence[Grounded]) -> NDArray[np.uint8]:
    """A copy of a picture [H, W, 3] with a numbered dot for each point."""
    from PIL import Image, ImageDraw

    image = Image.fromarray(pixels)
    pen = ImageDraw.Draw(image)
    radius = max(3, round(0.012 * max(image.size)))
    for point in points:
        x, y = point.x * image.width, point.y * image.height
        colour = _COLOURS[point.id % len(_COLOURS)]
        box = (x - radius, y - radius, x + radius, y + radius)
        pen.ellipse(box, fill=colour, outline=(255, 255, 255), width=max(1, radius // 3))
        pen.text((x + radius, y - 2 * radius), str(point.id), fill=colour)
    return np.asarray(image)


def draw_images(paths: Sequence[Path], points: Sequence[Grounded], folder: Path) -> list[Path]:
    """A picture `<name>-answer.png` in `folder` for each image that has a point; returns them."""
    from PIL import Image

    written = []
    for number, path in enumerate(paths):
        here = [point for point in points if point.image == number]
        if here:
            several = f"-{number}" if len(paths) > 1 else ""
            out = folder / f"{path.stem}{several}-answer.png"
            Image.fromarray(mark(read_image(path), here)).save(out)
            written.append(out)
    return written


def draw_video(path: Path, points: Sequence[Grounded], folder: Path) -> list[Path]:
    """A clip `<name>-answer.mp4` in `folder` in which points show around their moments; nothing where there are none."""
    from molmo2_assets.sources.generated.video import write_h264

    if not points:
        return []
    reader = VideoReader(path)
    count = max(1, round(min(reader.facts.duration or 0.0, LONGEST) * CLIP_RATE))
    times = [step / CLIP_RATE for step in range(count)]
    frames, _ = reader.frames_at(times)
    high, wide = frames.shape[1] // 2 * 2, frames.shape[2] // 2 * 2  # H.264 takes even sides
    out = folder / f"{path.stem}-answer.mp4"
    shown = (
        mark(frame, [point for point in points if point.t is not None and abs(point.t - time) <= _SHOWN])[:high, :wide]
        for time, frame in zip(times, frames, strict=True)
    )
    write_h264(out, shown, CLIP_RATE)
    return [out]
