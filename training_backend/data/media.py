"""Pictures and videos: limits, facts, decoding, and the content-addressed cache that holds their bytes.

Belongs here: turning bytes into pixels as a person would see them, and saying in one word why that failed. Does not belong here:
which frames are wanted (`encode/video.py`), tiling, downloads. Decoders are imported inside functions: importing this module costs
nothing.
"""

from __future__ import annotations

import hashlib
import io
import os
import re
import shutil
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from training_backend.data.fingerprint import file_sha256
from training_backend.data.manifest import storage_error

MediaKind = Literal["image", "video"]
FaultReason = Literal[
    "missing", "truncated", "not_an_image", "not_a_video", "too_large", "zero_duration", "checksum", "decode", "escapes"
]
_SEEK_SECONDS = 4.0
"""A jump further than this is worth a seek to the key frame before it."""
_CUT_SECONDS = 0.5
"""A stream that ends this much before its own header says was cut off; headers round."""
_EPSILON = 1e-4
"""Seconds by which a wanted time may miss a frame's time stamp for rounding."""


class MediaFault(ValueError):
    """A medium that cannot be used; `reason` is one of FaultReason, the message says what was seen."""

    def __init__(self, reason: FaultReason, message: str) -> None:
        super().__init__(message)
        self.reason: FaultReason = reason


@dataclass(frozen=True)
class Limits:
    """What a decoder may be asked to do: pixels of a picture or frame, frames and seconds of a video, bytes of a file (fewer of a
    picture's, which is read whole)."""

    max_pixels: int = 64_000_000
    max_frames: int = 500_000
    max_seconds: float = 6 * 3600.0
    max_bytes: int = 8 << 30
    max_image_bytes: int = 256 << 20


DEFAULT_LIMITS = Limits()


@dataclass(frozen=True)
class MediaFacts:
    """What a file is. `width`, `height` as displayed (after rotation); the rest None for images."""

    kind: MediaKind
    width: int
    height: int
    bytes: int
    codec: str
    duration: float | None = None
    fps: float | None = None
    n_frames: int | None = None


class MediaCache:
    """Bytes by their sha256 below `root/media/<first two digits>/`. Writing is atomic, so processes may share it."""

    def __init__(self, root: Path) -> None:
        self.root = Path(root)

    def path(self, sha256: str) -> Path:
        """Where bytes with this hash lie, or would lie."""
        return self.root / "media" / sha256[:2] / sha256

    def add_bytes(self, data: bytes) -> str:
        """Store bytes; returns their sha256."""
        digest = hashlib.sha256(data).hexdigest()
        self._publish(digest, lambda temporary: temporary.write_bytes(data))
        return digest

    def add_file(self, path: Path) -> str:
        """Store a file (hard-linked where the disk allows); returns its sha256."""
        digest = file_sha256(path)

        def bring(temporary: Path) -> None:
            try:
                os.link(path, temporary)
            except OSError:
                shutil.copyfile(path, temporary)

        self._publish(digest, bring)
        return digest

    def _publish(self, digest: str, bring: Callable[[Path], Any]) -> None:
        final = self.path(digest)
        if final.exists():
            return
        temporary = final.with_name(f".{digest}.{os.getpid()}.{uuid.uuid4().hex[:8]}")
        try:
            final.parent.mkdir(parents=True, exist_ok=True)
            bring(temporary)
            with temporary.open("rb") as stream:
                os.fsync(stream.fileno())
            os.replace(temporary, final)
        except OSError as error:
            temporary.unlink(missing_ok=True)
            raise storage_error(error, final) from error


def _read_bytes(source: Path | bytes, limits: Limits) -> bytes:
    most = min(limits.max_bytes, limits.max_image_bytes)
    size = len(source) if isinstance(source, bytes) else _check_file(source, limits)
    if size > most:
        raise MediaFault("too_large", f"{size} bytes, the limit of a picture is {most}")
    return source if isinstance(source, bytes) else source.read_bytes()


def _check_file(path: Path, limits: Limits) -> int:
    try:
        size = path.stat().st_size
    except FileNotFoundError:
        raise MediaFault("missing", f"{path.name} is not there") from None
    if size > limits.max_bytes:
        raise MediaFault("too_large", f"{path.name} has {size} bytes, the limit is {limits.max_bytes}")
    return size


def read_image(source: Path | bytes, limits: Limits = DEFAULT_LIMITS) -> NDArray[np.uint8]:
    """uint8 [H, W, 3] as displayed: orientation applied, transparency on white, 16 bits scaled, the first of several frames.

    Raises MediaFault; pixels are counted from the header, before anything is decoded.
    """
    image = _open_image(source, limits)
    return _pixels(image)


def _open_image(source: Path | bytes, limits: Limits) -> Any:
    from PIL import Image, UnidentifiedImageError

    data = _read_bytes(source, limits)
    if not data:
        raise MediaFault("truncated", "the file is empty")
    # Our own limit, read from the header, replaces Pillow's global one.
    Image.MAX_IMAGE_PIXELS = None
    try:
        image = Image.open(io.BytesIO(data))
    except UnidentifiedImageError:
        head = data[:60].lstrip().lower()
        what = "an HTML page" if head.startswith((b"<!doctype html", b"<html")) else "no image format that Pillow knows"
        raise MediaFault("not_an_image", f"the bytes are {what}") from None
    except Exception as error:
        raise MediaFault("decode", f"{type(error).__name__}: {error}") from None
    width, height = image.size
    if width * height > limits.max_pixels:
        raise MediaFault("too_large", f"{width}×{height} pixels, the limit is {limits.max_pixels}")
    if width < 1 or height < 1:
        raise MediaFault("decode", f"{width}×{height} pixels")
    return image


def _pixels(image: Any) -> NDArray[np.uint8]:
    from PIL import Image, ImageOps

    try:
        image.seek(0)
        image = ImageOps.exif_transpose(image)
        if image.mode.startswith("I") or image.mode == "F":
            wide = np.asarray(image, dtype=np.float64)
            scale = 257.0 if image.mode.startswith("I;16") or wide.max(initial=0) > 255 else 1.0
            grey = np.clip(np.rint(wide / scale), 0, 255).astype(np.uint8)
            return np.repeat(grey[..., None], 3, axis=2)
        if image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info:
            image = image.convert("RGBA")
            white = Image.new("RGBA", image.size, (255, 255, 255, 255))
            image = Image.alpha_composite(white, image)
        return np.asarray(image.convert("RGB"))
    except OSError as error:
        reason: FaultReason = "truncated" if re.search("truncated|broken data", str(error), re.I) else "decode"
        raise MediaFault(reason, str(error)) from None
    except (ValueError, SyntaxError, EOFError, MemoryError) as error:
        raise MediaFault("decode", f"{type(error).__name__}: {error}") from None


def probe(path: Path, limits: Limits = DEFAULT_LIMITS, kind: MediaKind | None = None) -> MediaFacts:
    """Facts of a file, after decoding an image whole, or counting a video's packets and decoding its first frame.

    Raises MediaFault.
    """
    size = _check_file(path, limits)
    if kind == "video":
        return VideoReader(path, limits=limits).facts
    image = _open_image(path, limits)
    name = str(image.format)
    pixels = _pixels(image)
    return MediaFacts(kind="image", width=pixels.shape[1], height=pixels.shape[0], bytes=size, codec=name.lower())


class _Backend(Protocol):
    def probe(self) -> MediaFacts: ...

    def frames_at(self, times: Sequence[float]) -> tuple[NDArray[np.uint8], NDArray[np.float64]]: ...


class VideoReader:
    """A video file, read by a named back end. Open one per file and thread."""

    def __init__(self, path: Path, backend: str = "pyav", limits: Limits = DEFAULT_LIMITS) -> None:
        if backend not in VIDEO_BACKENDS:
            raise ValueError(f"There is no video back end {backend!r}; known: {', '.join(sorted(VIDEO_BACKENDS))}")
        size = _check_file(path, limits)
        if size == 0:
            raise MediaFault("truncated", f"{path.name} is empty")
        self._reader = VIDEO_BACKENDS[backend](path, limits)
        self.facts = self._reader.probe()

    def frames_at(self, times: Sequence[float]) -> tuple[NDArray[np.uint8], NDArray[np.float64]]:
        """Frames shown at `times` (seconds from the first frame, ascending): uint8 [N, H, W, 3] and the times of those frames.

        The frame shown at t is the last one that begins at or before t; before the first and after the last frame, those.
        """
        if list(times) != sorted(times):
            raise ValueError("times must ascend")
        return self._reader.frames_at(times)


class _PyAv:
    """PyAV: FFmpeg inside the wheel, one thread, forward passes with seeks over long gaps."""

    def __init__(self, path: Path, limits: Limits) -> None:
        self.path, self.limits = path, limits
        self._stamps: list[float] = []
        self._start = 0.0

    def _open(self) -> Any:
        import av

        try:
            container = av.open(str(self.path))
        except (av.FFmpegError, ValueError) as error:
            head = self.path.open("rb").read(8)
            known = head[4:8] == b"ftyp" or head[:4] == b"\x1a\x45\xdf\xa3"  # MP4, Matroska: it began as a video
            reason: FaultReason = "truncated" if known else "not_a_video"
            raise MediaFault(reason, f"{self.path.name}: {_first_line(error)}") from None
        if not container.streams.video or container.format.name.endswith(("_pipe", "image2")):
            container.close()  # FFmpeg plays a still picture as a film of one frame, whatever the file's name says
            raise MediaFault("not_a_video", f"{self.path.name} has no video stream")
        stream = container.streams.best("video")
        assert isinstance(stream, av.VideoStream)
        stream.thread_count = 1
        return container

    def probe(self) -> MediaFacts:
        import av

        with self._open() as container:
            stream = container.streams.best("video")
            if stream.width * stream.height > self.limits.max_pixels:
                raise MediaFault("too_large", f"{stream.width}×{stream.height} pixels, the limit is {self.limits.max_pixels}")
            if container.duration is not None and container.duration / 1e6 > self.limits.max_seconds:
                raise MediaFault("too_large", f"{container.duration / 1e6:.0f} s, the limit is {self.limits.max_seconds:.0f} s")
            stamps = []
            try:
                for packet in container.demux(stream):
                    if packet.pts is not None and packet.size:
                        stamps.append(float(packet.pts * packet.time_base))
                    if len(stamps) > self.limits.max_frames:
                        raise MediaFault("too_large", f"more than {self.limits.max_frames} frames")
            except av.FFmpegError as error:
                raise MediaFault("truncated", f"{self.path.name}: {_first_line(error)}") from None
            if not stamps or (stream.frames and len(stamps) < stream.frames - 1):
                raise MediaFault("truncated", f"{self.path.name} holds {len(stamps)} of {stream.frames} frames")
            rate = float(stream.average_rate or 0) or (len(stamps) - 1) / max(max(stamps) - min(stamps), 1e-9)
            codec = stream.codec_context.name
            promised = _seconds(stream.metadata.get("DURATION", ""))  # Matroska counts no frames, but says how long
        if promised is not None and promised - (max(stamps) + 1 / rate) > _CUT_SECONDS:
            raise MediaFault("truncated", f"{self.path.name} ends after {max(stamps):.2f} of {promised:.2f} s")
        self._stamps = sorted(stamps)
        self._start = self._stamps[0]
        duration = self._stamps[-1] - self._start + 1 / rate if rate else 0.0
        if duration <= 0:
            raise MediaFault("zero_duration", f"{self.path.name} lasts {duration} s")
        first, _ = self.frames_at([0.0])
        height, width = first.shape[1:3]
        return MediaFacts(
            kind="video", width=width, height=height, bytes=self.path.stat().st_size, codec=codec,
            duration=round(duration, 6), fps=round(rate, 6), n_frames=len(self._stamps),
        )  # fmt: skip

    def frames_at(self, times: Sequence[float]) -> tuple[NDArray[np.uint8], NDArray[np.float64]]:
        import av

        stamps = np.asarray(self._stamps)
        index = np.clip(np.searchsorted(stamps, np.asarray(times) + self._start + _EPSILON, side="right") - 1, 0, len(stamps) - 1)
        wanted = stamps[index]
        found: dict[float, NDArray[np.uint8]] = {}
        try:
            with self._open() as container:
                stream = container.streams.best("video")
                for frame in self._pass(container, stream, sorted(set(wanted.tolist()))):
                    found[frame[0]] = frame[1]
        except av.FFmpegError as error:
            raise MediaFault("truncated", f"{self.path.name}: {_first_line(error)}") from None
        if not found:
            raise MediaFault("decode", f"{self.path.name}: no frame could be decoded")
        seen = np.array(sorted(found))
        nearest = seen[np.clip(np.searchsorted(seen, wanted + _EPSILON, side="right") - 1, 0, len(seen) - 1)]
        if float(np.abs(nearest - wanted).max()) > 0.5:
            raise MediaFault(
                "truncated", f"{self.path.name}: the frame at {float(wanted[-1] - self._start):.2f} s cannot be decoded"
            )
        return np.stack([found[stamp] for stamp in nearest.tolist()]), nearest - self._start

    def _pass(self, container: Any, stream: Any, wanted: list[float]) -> Any:
        """(time stamp, pixels) of each wanted frame, in order, decoding forward and seeking over long gaps."""
        queue = list(wanted)
        position = self._start
        while queue:
            if queue[0] - position > _SEEK_SECONDS:
                container.seek(int(queue[0] / stream.time_base), stream=stream, backward=True)
            jumped = False
            for frame in container.decode(stream):
                stamp = float(frame.pts * frame.time_base)
                position = stamp
                if stamp + _EPSILON >= queue[0]:
                    yield queue[0], _turned(frame)
                    while queue and stamp + _EPSILON >= queue[0]:
                        queue.pop(0)
                    if not queue:
                        return
                    if queue[0] - position > _SEEK_SECONDS:
                        jumped = True
                        break
            if not jumped:
                return


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


def _needs(name: str, way_out: str) -> Callable[[Path, Limits], _Backend]:
    def missing(path: Path, limits: Limits) -> _Backend:
        raise ValueError(f"The video back end {name!r} is not part of this version: {way_out}")

    return missing


VIDEO_BACKENDS: dict[str, Callable[[Path, Limits], _Backend]] = {
    "pyav": _PyAv,
    "torchcodec": _needs("torchcodec", "use 'pyav', which every installation has."),
    "decord": _needs("decord", "use 'pyav', which every installation has."),
}
