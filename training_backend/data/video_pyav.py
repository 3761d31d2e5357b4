"""PyAV: FFmpeg inside the wheel, one thread, forward passes with seeks over long gaps. Also the time stamps of every file.

Belongs here: what PyAV does. Does not belong here: the choice of frames (`video.py`).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from training_backend.data.media import FaultReason, Limits, MediaFault
from training_backend.data.video import EPSILON, Frames

_SEEK_SECONDS = 4.0
"""A jump further than this is worth a seek to the key frame before it."""
_CONTAINERS = ("mov", "matroska", "avi", "mpegts", "mpeg", "mpegvideo", "flv", "asf", "ogg", "gif", "h264", "hevc", "m4v", "ivf")
"""What FFmpeg may take a file for. It also knows playlists, whose few bytes name other files, and would play those."""
_CUT_SECONDS = 0.5
"""A stream that ends this much before its own header says was cut off; headers round."""


@dataclass(frozen=True)
class Stamps:
    """Time stamps of all frames in order of display, in the file's own seconds; codec, frames a second, seconds shown."""

    stamps: list[float]
    codec: str
    rate: float
    duration: float


def _open(path: Path) -> Any:
    import av

    try:
        container = av.open(str(path), options={"format_whitelist": ",".join(_CONTAINERS)})
    except (av.FFmpegError, ValueError) as error:
        head = path.open("rb").read(8)
        known = head[4:8] == b"ftyp" or head[:4] == b"\x1a\x45\xdf\xa3"  # MP4, Matroska: it began as a video
        reason: FaultReason = "truncated" if known else "not_a_video"
        said = "no container of films" if isinstance(error, av.error.ArgumentError) else _first_line(error)
        raise MediaFault(reason, f"{path.name}: {said}") from None
    if not container.streams.video:
        container.close()
        raise MediaFault("not_a_video", f"{path.name} has no video stream")
    stream = container.streams.best("video")
    assert isinstance(stream, av.VideoStream)
    stream.thread_count = 1
    return container


def read_stamps(path: Path, limits: Limits) -> Stamps:
    """Read every packet, decode none. Raises MediaFault for what is no video, cut off, or beyond the limits."""
    import av

    with _open(path) as container:
        stream = container.streams.best("video")
        if stream.width * stream.height > limits.max_pixels:
            raise MediaFault("too_large", f"{stream.width}×{stream.height} pixels, the limit is {limits.max_pixels}")
        if container.duration is not None and container.duration / 1e6 > limits.max_seconds:
            raise MediaFault("too_large", f"{container.duration / 1e6:.0f} s, the limit is {limits.max_seconds:.0f} s")
        stamps = []
        try:
            for packet in container.demux(stream):
                if packet.pts is not None and packet.size:
                    stamps.append(float(packet.pts * packet.time_base))
                if len(stamps) > limits.max_frames:
                    raise MediaFault("too_large", f"more than {limits.max_frames} frames")
        except av.FFmpegError as error:
            raise MediaFault("truncated", f"{path.name}: {_first_line(error)}") from None
        if not stamps or (stream.frames and len(stamps) < stream.frames - 1):
            raise MediaFault("truncated", f"{path.name} holds {len(stamps)} of {stream.frames} frames")
        rate = float(stream.average_rate or 0) or (len(stamps) - 1) / max(max(stamps) - min(stamps), 1e-9)
        codec = stream.codec_context.name
        promised = _seconds(stream.metadata.get("DURATION", ""))  # Matroska counts no frames, but says how long
    last = 1 / rate if rate else 0.0  # seconds of the last frame: none where one frame comes without a rate
    if promised is not None and promised - (max(stamps) + last) > _CUT_SECONDS:
        raise MediaFault("truncated", f"{path.name} ends after {max(stamps):.2f} of {promised:.2f} s")
    stamps.sort()
    duration = stamps[-1] - stamps[0] + last
    if duration <= 0:
        raise MediaFault("zero_duration", f"{path.name} lasts {duration} s")
    if duration > limits.max_seconds:
        raise MediaFault("too_large", f"{duration:.0f} s, the limit is {limits.max_seconds:.0f} s")
    return Stamps(stamps, codec, rate, duration)


class PyAv:
    """The decoder."""

    def __init__(self, path: Path, stamps: list[float]) -> None:
        self.path, self._start = path, stamps[0]

    def decode(self, wanted: list[float]) -> Frames:
        """See `Decoder`."""
        import av

        found: Frames = {}
        try:
            with _open(self.path) as container:
                for stamp, pixels in self._pass(container, container.streams.best("video"), wanted):
                    found[stamp] = pixels
        except av.FFmpegError as error:
            if not found:
                raise MediaFault("truncated", f"{self.path.name}: {_first_line(error)}") from None
        return found

    def _pass(self, container: Any, stream: Any, wanted: list[float]) -> Iterator[tuple[float, NDArray[np.uint8]]]:
        """(time stamp, pixels) of each wanted frame, in order, decoding forward and seeking over long gaps.

        On the way to a wanted frame those that no other frame refers to are skipped, about half of the frames of an H.264 film.
        """
        queue = list(wanted)
        position = self._start
        while queue:
            if queue[0] - position > _SEEK_SECONDS:
                container.seek(int(queue[0] / stream.time_base), stream=stream, backward=True)
            jumped = False
            for frame in _decoded(container, stream, lambda: queue[0]):
                stamp = float(frame.pts * frame.time_base)
                position = stamp
                if stamp + EPSILON >= queue[0]:
                    yield queue[0], _turned(frame)
                    while queue and stamp + EPSILON >= queue[0]:
                        queue.pop(0)
                    if not queue:
                        return
                    if queue[0] - position > _SEEK_SECONDS:
                        jumped = True
                        break
            if not jumped:
                return


def _decoded(container: Any, stream: Any, wanted: Callable[[], float]) -> Iterator[Any]:
    """Frames from here on, all from `wanted()` on and those before it that others refer to."""
    for packet in container.demux(stream):
        early = packet.pts is not None and float(packet.pts * packet.time_base) + EPSILON < wanted()
        stream.codec_context.skip_frame = "NONREF" if early else "DEFAULT"
        yield from packet.decode()


def _seconds(text: str) -> float | None:
    """`00:01:02.500000000` in seconds; None where it is no such text."""
    found = re.fullmatch(r"(\d+):(\d\d):(\d\d(?:\.\d+)?)", text.strip())
    return int(found[1]) * 3600 + int(found[2]) * 60 + float(found[3]) if found else None


def _turned(frame: Any) -> NDArray[np.uint8]:
    pixels = frame.to_ndarray(format="rgb24")
    turns = round((frame.rotation or 0) / 90) % 4
    return np.ascontiguousarray(np.rot90(pixels, turns)) if turns else pixels


def _first_line(error: BaseException) -> str:
    return str(error).splitlines()[0] if str(error) else type(error).__name__
