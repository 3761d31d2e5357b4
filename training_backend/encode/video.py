"""Videos: which moments are shown, how a frame and its time look in a sequence, which subtitles come along.

Belongs here: sampling times, the layout of one frame, words of times and subtitles. Does not belong here: decoding
(`data/media.py`), how many frames fit (`preprocessor.py`), tiling of pictures (`images.py`). Times are seconds from the clip's
start.

Rules of the release (allenai/molmo2, olmo/data/video_loader.py, olmo/preprocessing/video_preprocessor.py).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache

import numpy as np

from training_backend.data.example import Subtitle
from training_backend.data.points import Special
from training_backend.encode.images import Geometry, Layout, pooling_windows

SUBTITLE_REACH = 1.0
"""A subtitle comes along if a shown frame is at most this many seconds from it."""
_TINY = 1e-6


@lru_cache(maxsize=1 << 12)
def uniform_times(duration: float, max_frames: int, frame_rate: float) -> tuple[float, ...]:
    """Moments to show, the last one always included ("uniform_last_frame").

    At `frame_rate` from 0 plus the exact end, where that many frames are allowed; else `max_frames` evenly spaced moments from 0 to
    the end. One allowed frame shows the beginning.
    """
    if max_frames == 1 or duration <= 0:
        return (0.0,)
    if (max_frames - 1) / frame_rate >= duration - _TINY:
        steps = math.ceil(duration * frame_rate - _TINY)
        return (*(step / frame_rate for step in range(steps)), duration)
    return tuple(step * duration / (max_frames - 1) for step in range(max_frames))


@lru_cache(maxsize=1 << 12)
def transformers_times(frames: int, film_rate: float, max_frames: int, frame_rate: float) -> tuple[float, ...]:
    """Moments of the frames that transformers' `Molmo2VideoProcessor.sample_frames` takes of a film of `frames` frames: evenly
    spaced from the first one, `frame_rate` to the most, the last frame not among them.

    Its arithmetic is repeated, rounding included; but where that gives one frame too many, at a number that the film does not have
    (15 frames, 13 wanted), it is left out.
    """
    most = min(max_frames, int(frames / film_rate * frame_rate)) if film_rate > frame_rate else max_frames
    count = max(min(most, frames), 1)
    places = (np.arange(count) * (frames / count)).astype(np.float32).astype(np.int64)
    return tuple((places / film_rate).tolist())


@lru_cache(maxsize=1 << 12)
def tracking_times(duration: float, max_frames: int, frame_rate: float, annotation_rate: float) -> tuple[float, ...]:
    """Moments on the grid of a track's annotation, so that every answered moment is a shown frame.

    The largest whole multiple of `annotation_rate` up to `frame_rate` (at least the annotation itself) at which `max_frames` reach
    the end; where even the annotation's own rate does not reach it, its first `max_frames` moments.
    """
    for multiple in range(max(1, int(frame_rate / annotation_rate + _TINY)), 0, -1):
        rate = annotation_rate * multiple
        count = int(duration * rate + _TINY) + 1
        if count <= max_frames or multiple == 1:
            return tuple(step / rate for step in range(min(count, max_frames)))
    raise AssertionError("a multiple of one always returns")


@lru_cache(maxsize=64)
def frame_layout(window: int, geometry: Geometry) -> Layout:
    """Tokens and pooling of one frame: one crop between frame marks, no column tokens."""
    table = pooling_windows(np.arange(geometry.side**2).reshape(geometry.side, geometry.side), window)
    count = table.shape[0] * table.shape[1]
    names = ("<frame_start>", *["<im_patch>"] * count, "<frame_end>")
    return Layout(names, np.arange(1, count + 1, dtype=np.int32), table.reshape(count, -1), 1)


def time_pieces(time: float, first: bool, as_token: bool) -> list[str]:
    """What stands before a frame: its second with one decimal between spaces, or the timestamp token and the second."""
    if as_token:
        return [Special("<timestamp>"), f"{time:.1f}"]
    return [f"{'' if first else ' '}{time:.1f} "]


def subtitle_text(subtitles: Sequence[Subtitle], times: Sequence[float]) -> str:
    """Words of the subtitles near shown frames, a line each behind the word "subtitle"; empty where none is near."""
    near = [line for line in subtitles if any(line.start - SUBTITLE_REACH <= time <= line.end + SUBTITLE_REACH for time in times)]
    if not near:
        return ""
    return "subtitle\n" + "".join(f"{line.start:.1f} - {line.end:.1f} {line.text}\n" for line in near)
