"""PyAV: FFmpeg inside the wheel, one thread. Also the time stamps of every file.

Belongs here: what PyAV does. Does not belong here: the choice of frames (`video.py`).

Reading time stamps reads every packet, so the packets of a film of usual size are kept and decoded from memory, beginning at any
key frame: a file is opened and read once. Films that are larger, and frames that did not come out under their own time stamp, are
read from the file in forward passes with seeks over long gaps.
"""

from __future__ import annotations

import re
import weakref
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from training_backend.data.media import FaultReason, Limits, MediaFault
from training_backend.data.video import EPSILON, Frame

_SEEK_SECONDS = 4.0
"""A jump further than this is worth a seek to the key frame before it."""
_CONTAINERS = ("mov", "matroska", "avi", "mpegts", "mpeg", "mpegvideo", "flv", "asf", "ogg", "gif", "h264", "hevc", "m4v", "ivf")
"""What FFmpeg may take a file for. It also knows playlists, whose few bytes name other files, and would play those."""
_KEPT_BYTES = 64 << 20
"""Packets of a film that are kept in memory."""
_CUT_SECONDS = 0.5
"""A stream that ends this much before its own header says was cut off; headers round."""


@dataclass(frozen=True)
class Stamps:
    """Time stamps of all frames in order of display, in the file's own seconds; codec, frames a second, seconds shown."""

    stamps: list[float]
    codec: str
    rate: float
    duration: float
    packets: Packets | None = None


@dataclass(frozen=True)
class Packets:
    """Everything that a decoder is given for a film, in order of decoding, the empty packet that asks for the last frames at the
    end; the time stamp of each, None where it has none. `container` is what they are of: they die with it."""

    container: Any
    packets: list[Any]
    stamps: list[float | None]


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


def read_stamps(path: Path, limits: Limits, *, keep: bool = False) -> Stamps:
    """Read every packet, decode none; `keep` them, if they are not too large. Raises MediaFault for what is no video, cut off, or
    beyond the limits."""
    import av

    container = _open(path)
    try:
        stream = container.streams.best("video")
        if stream.width * stream.height > limits.max_pixels:
            raise MediaFault("too_large", f"{stream.width}×{stream.height} pixels, the limit is {limits.max_pixels}")
        if container.duration is not None and container.duration / 1e6 > limits.max_seconds:
            raise MediaFault("too_large", f"{container.duration / 1e6:.0f} s, the limit is {limits.max_seconds:.0f} s")
        stamps: list[float] = []
        packets, moments, room = [], [], _KEPT_BYTES if keep else -1
        try:
            for packet in container.demux(stream):
                moment = _moment(packet)
                if moment is not None and packet.size:
                    stamps.append(moment)
                if len(stamps) > limits.max_frames:
                    raise MediaFault("too_large", f"more than {limits.max_frames} frames")
                room -= packet.size
                if room >= 0:
                    packets.append(packet)
                    moments.append(moment)
                elif packets:
                    packets, moments = [], []
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
        kept = Packets(container, packets, moments) if packets else None
    except BaseException:
        container.close()
        raise
    if kept is None:
        container.close()
    return Stamps(stamps, codec, rate, duration, kept)


class PyAv:
    """The decoder."""

    def __init__(self, path: Path, film: Stamps) -> None:
        self.path, self._start, self._packets = path, film.stamps[0], film.packets
        if film.packets is not None:
            # A container and its streams hold each other: left alone, the file would stay open until they are collected.
            weakref.finalize(self, film.packets.container.close)

    def decode(self, wanted: list[float]) -> Iterator[Frame]:
        """See `Decoder`."""
        import av

        found = set()
        if self._packets is not None:
            for stamp, pixels in self._from_memory(self._packets, wanted):
                found.add(stamp)
                yield stamp, pixels
        left = [stamp for stamp in wanted if stamp not in found]
        if not left:
            return
        try:
            with _open(self.path) as container:
                for stamp, pixels in self._pass(container, container.streams.best("video"), left):
                    found.add(stamp)
                    yield stamp, pixels
        except av.FFmpegError as error:
            if not found:
                raise MediaFault("truncated", f"{self.path.name}: {_first_line(error)}") from None

    def _from_memory(self, film: Packets, wanted: list[float]) -> Iterator[Frame]:
        """The wanted frames that come out under exactly their own time stamp, up to the first that does not.

        What lies between a wanted frame and the key frame before the next one is left out, and of the rest those frames that no
        other refers to, about half of an H.264 film, unless they are wanted themselves.
        """
        import av

        context = film.container.streams.best("video").codec_context
        keys = sorted(
            (stamp, place)
            for place, (packet, stamp) in enumerate(zip(film.packets, film.stamps, strict=True))
            if packet.is_keyframe and stamp is not None
        )
        missing, place, skipping = set(wanted), 0, ""
        passed = start = 0
        context.flush_buffers()  # of what an earlier call left
        for target in wanted:
            while passed < len(keys) and keys[passed][0] <= target:
                start = max(start, keys[passed][1])
                passed += 1
            if start > place and target in missing:
                context.flush_buffers()
                place = start
            while target in missing:
                if place == len(film.packets):
                    return
                stamp = film.stamps[place]
                skip = "DEFAULT" if stamp is None or stamp in missing else "NONREF"
                if skip != skipping:
                    context.skip_frame = skipping = skip
                try:
                    frames = context.decode(film.packets[place])
                except av.FFmpegError:
                    return  # the passes over the file say what can be had and what is wrong
                for frame in frames:
                    stamp = _moment(frame)
                    if stamp is not None and stamp in missing:
                        missing.remove(stamp)
                        yield stamp, _turned(frame)
                    elif stamp is None or (stamp > target and target in missing):
                        return
                place += 1

    def _pass(self, container: Any, stream: Any, wanted: list[float]) -> Iterator[Frame]:
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


def _moment(timed: Any) -> float | None:
    """Time stamp of a packet or frame in seconds; None where it has none."""
    if timed.pts is None:
        return None
    base = timed.time_base
    return float(timed.pts * base.numerator / base.denominator)


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
