"""Small films with what real ones have: variable rates, B-frames, HEVC, rotation, a late start, wrong counts, cut tails.

Frame n is told by its grey level, `level(n)`. Belongs here: writing such files. Does not belong here: reading them.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

import av
import numpy as np

WIDTH, HEIGHT = 128, 64


def level(number: int) -> int:
    """Grey of frame `number`, far enough from its neighbours' to be told apart after coding."""
    return 20 + (number * 9) % 200


def write(
    path: Path, begins: Sequence[int], *, codec: str = "libx264", base: int = 1000, options: dict[str, str] | None = None
) -> Path:
    """A film whose frames begin at `begins` (in units of 1/base s). The left half of the top row of blocks is white: a film that is
    turned shows it."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=8)
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        stream.time_base = stream.codec_context.time_base = Fraction(1, base)
        quiet = {"x265-params": "log-level=none:pools=1:frame-threads=1"} if codec == "libx265" else {"threads": "1"}
        stream.options = {"crf": "8", "g": "6", **quiet, **(options or {})}
        for number, begin in enumerate(begins):
            pixels = np.full((HEIGHT, WIDTH, 3), level(number), np.uint8)
            pixels[:16, : WIDTH // 2] = 255
            frame = av.VideoFrame.from_ndarray(pixels, format="rgb24")
            frame.pts, frame.time_base = begin, Fraction(1, base)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


def moving(path: Path, codec: str, options: dict[str, str]) -> Path:
    """Four seconds, 24 frames each, of a window that moves over blocks of noise: every frame is made of those before it, and one
    that is decoded without them shows it. Key frames as `options` have them."""
    field = np.kron(np.random.default_rng(0).integers(0, 255, (40, 60, 3), np.uint8), np.ones((4, 4, 1), np.uint8))
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=24)
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        stream.options = options
        for number in range(96):
            top, left = number % 30, 2 * number % 100
            window = np.ascontiguousarray(field[top : top + HEIGHT, left : left + WIDTH])
            container.mux(stream.encode(av.VideoFrame.from_ndarray(window, format="rgb24")))
        container.mux(stream.encode())
    return path


def turned(path: Path) -> Path:
    """An MP4 with a quarter turn in its track header: shown 64 wide and 128 high."""
    data = bytearray(path.read_bytes())
    place = data.index(b"tkhd") + 4 + 40
    data[place : place + 36] = struct.pack(">9i", 0, 1 << 16, 0, -(1 << 16), 0, 0, HEIGHT << 16, 0, 1 << 30)
    path.write_bytes(data)
    return path


def without_rate(path: Path) -> Path:
    """A Matroska film that says nowhere how long a frame is shown: the element is made a void one."""
    data = path.read_bytes()
    place = data.index(b"\x23\xe3\x83")
    size = 4 + (data[place + 3] & 0x7F)
    path.write_bytes(data[:place] + bytes([0xEC, 0x80 | size - 2]) + bytes(size - 2) + data[place + size :])
    return path


def counted_wrong(path: Path, more: int) -> Path:
    """An AVI whose headers count `more` frames than it holds."""
    data = bytearray(path.read_bytes())
    main, stream = data.index(b"avih") + 8, data.index(b"strh") + 8
    for place in (main + 16, stream + 32):
        (count,) = struct.unpack_from("<I", data, place)
        struct.pack_into("<I", data, place, count + more)
    path.write_bytes(data)
    return path
