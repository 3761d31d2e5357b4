"""A film of drawn frames as an H.264 file.

Belongs here: encoding. Does not belong here: what is filmed.
"""

from __future__ import annotations

from collections.abc import Iterable
from fractions import Fraction
from pathlib import Path

import numpy as np
from numpy.typing import NDArray


def write_h264(path: Path, frames: Iterable[NDArray[np.uint8]], fps: int) -> None:
    """Write an mp4 file of RGB frames [H, W, 3] with even sides; frame k is shown at k / fps seconds.

    One thread and no B-frames, so that equal frames give equal bytes and every decoder agrees on times. The index stands before
    the pictures, as in files made for the web.
    """
    import av

    with av.open(str(path), "w", format="mp4", options={"movflags": "faststart", "fflags": "+bitexact"}) as container:
        stream = container.add_stream("libx264", rate=fps)
        stream.pix_fmt = "yuv420p"
        stream.thread_count = 1
        stream.time_base = Fraction(1, fps)
        stream.options = {"crf": "14", "preset": "superfast", "bf": "0", "threads": "1", "g": "8"}
        size = None
        for number, pixels in enumerate(frames):
            if size is None:
                size = pixels.shape[:2]
                stream.height, stream.width = size
            frame = av.VideoFrame.from_ndarray(pixels, format="rgb24")
            frame.pts = number
            frame.time_base = Fraction(1, fps)
            for packet in stream.encode(frame):
                container.mux(packet)
        for packet in stream.encode(None):
            container.mux(packet)
