"""Pictures and videos: limits, facts, decoding, and the content-addressed cache that holds their bytes.

Belongs here: pictures to pixels as a person would see them, facts of any file, and saying in one word why that failed. Does not
belong here: decoding videos (`video.py`), tiling, downloads. Decoders are imported inside functions: importing this module costs
nothing.
"""

from __future__ import annotations

import hashlib
import io
import os
import re
import shutil
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from training_backend.data.fingerprint import file_sha256
from training_backend.data.manifest import storage_error

MediaKind = Literal["image", "video"]
FaultReason = Literal[
    "missing", "truncated", "not_an_image", "not_a_video", "too_large", "zero_duration", "checksum", "decode", "escapes"
]


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
_FORMATS = ("PNG", "JPEG", "MPO", "GIF", "WEBP", "AVIF", "TIFF", "BMP", "DIB", "PPM", "ICO", "JPEG2000")
"""What Pillow may take bytes for. It also knows formats that are programs, such as PostScript, which it hands to an interpreter."""


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
    size = len(source) if isinstance(source, bytes) else check_file(source, limits)
    if size > most:
        raise MediaFault("too_large", f"{size} bytes, the limit of a picture is {most}")
    return source if isinstance(source, bytes) else source.read_bytes()


def check_file(path: Path, limits: Limits) -> int:
    """Bytes of a file. Raises MediaFault where it is missing or has more than the limit."""
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

    Image.init()  # all plugins, once: a name that none of them has is an error
    data = _read_bytes(source, limits)
    if not data:
        raise MediaFault("truncated", "the file is empty")
    # Our own limit, read from the header, replaces Pillow's global one.
    Image.MAX_IMAGE_PIXELS = None
    try:
        image = Image.open(io.BytesIO(data), formats=[name for name in _FORMATS if name in Image.OPEN])
    except UnidentifiedImageError:
        head = data[:60].lstrip().lower()
        what = "an HTML page" if head.startswith((b"<!doctype html", b"<html")) else "no format of pictures that is read here"
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
        # In place: a picture that lies right, as almost all do, is not copied.
        ImageOps.exif_transpose(image, in_place=True)
        if image.mode.startswith("I") or image.mode == "F":
            wide = np.asarray(image, dtype=np.float64)
            scale = 257.0 if image.mode.startswith("I;16") or wide.max(initial=0) > 255 else 1.0
            grey = np.clip(np.rint(wide / scale), 0, 255).astype(np.uint8)
            return np.repeat(grey[..., None], 3, axis=2)
        if image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info:
            image = image.convert("RGBA")
            white = Image.new("RGBA", image.size, (255, 255, 255, 255))
            image = Image.alpha_composite(white, image)
        return np.asarray(image if image.mode == "RGB" else image.convert("RGB"))
    except OSError as error:
        reason: FaultReason = "truncated" if re.search("truncated|broken data", str(error), re.I) else "decode"
        raise MediaFault(reason, str(error)) from None
    except (ValueError, SyntaxError, EOFError, MemoryError) as error:
        raise MediaFault("decode", f"{type(error).__name__}: {error}") from None


def probe(path: Path, limits: Limits = DEFAULT_LIMITS, kind: MediaKind | None = None) -> MediaFacts:
    """Facts of a file, after decoding an image whole, or counting a video's packets and decoding its first frame.

    Raises MediaFault.
    """
    size = check_file(path, limits)
    if kind == "video":
        from training_backend.data.video import VideoReader

        return VideoReader(path, limits=limits).facts
    image = _open_image(path, limits)
    name = str(image.format)
    pixels = _pixels(image)
    return MediaFacts(kind="image", width=pixels.shape[1], height=pixels.shape[0], bytes=size, codec=name.lower())
