"""Proxies of films: the frames that a recipe can ask for and no others, every one a key frame.

Belongs here: which frames are kept and how they are written. Does not belong here: when a set wants proxies (`ProxySpec` of its
catalogue entry), the record of a medium (`media.py`).

A film at 24 frames a second of which two are shown is decoded from key frame to key frame, 48 frames for 4. Its proxy holds the
frame of every moment 0, 1/fps, 2/fps, … and the last frame, at the times that they have in the film, so that a reader shows of both
files the same frame at each of these moments; at any other moment the proxy shows the kept frame before it. Pictures keep their
size. They are compressed once more (H.264 at `crf`), so that a proxy is other content than its film and says so in every version.
"""

from __future__ import annotations

import math
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from training_backend.data.media import Limits
from training_backend.data.video import VideoReader

if TYPE_CHECKING:
    from molmo2_assets.profile import ProxySpec

_TICKS = 90_000  # a second, as MPEG counts; a time stamp is then rounded by less than `video.EPSILON`
_AT_ONCE = 32  # frames in memory


def recipe(proxy: ProxySpec) -> str:
    """What stands in the record of a proxied medium."""
    return f"{proxy.fps:g} fps, crf {proxy.crf}"


def write_proxy(film: Path, dest: Path, proxy: ProxySpec, limits: Limits) -> None:
    """Write the proxy of `film` to `dest` (MP4). Equal films give equal bytes as long as the encoder is the same. Raises MediaFault
    for a film that cannot be decoded."""
    import av

    reader = VideoReader(film, limits=limits)
    duration = reader.facts.duration or 0.0
    moments = [*(step / proxy.fps for step in range(math.ceil(duration * proxy.fps))), duration]
    before = -1
    with av.open(str(dest), "w", format="mp4") as container:
        stream = None
        for start in range(0, len(moments), _AT_ONCE):
            pictures, seconds = reader.frames_at(moments[start : start + _AT_ONCE])
            for picture, second in zip(pictures, seconds.tolist(), strict=True):
                tick = round(second * _TICKS)
                if tick == before:
                    continue  # a slow film shows one frame at several moments
                before = tick
                if stream is None:
                    stream = container.add_stream("libx264", rate=Fraction(proxy.fps).limit_denominator(1000))
                    stream.height, stream.width = picture.shape[:2]
                    # Half the colours would need even sides.
                    stream.pix_fmt = "yuv444p" if picture.shape[0] % 2 or picture.shape[1] % 2 else "yuv420p"
                    stream.gop_size = 1
                    stream.options = {"crf": str(proxy.crf), "preset": "veryfast", "threads": "1"}
                    stream.codec_context.time_base = Fraction(1, _TICKS)
                frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(picture), format="rgb24")
                frame.pts, frame.time_base = tick, Fraction(1, _TICKS)
                container.mux(stream.encode(frame))
        assert stream is not None, "a film that can be read has a frame"
        container.mux(stream.encode())
