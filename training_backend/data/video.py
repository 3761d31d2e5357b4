"""Videos: which frame is shown when, and its pixels, by whichever decoder is asked for by name.

Belongs here: facts and time stamps of a file, the choice of frames, the decoder in use. Does not belong here: which moments are
wanted (`encode/video.py`), any one decoder (`video_pyav.py`, `video_torchcodec.py`, `video_decord.py`).

Time stamps come from the packets of the file, read by PyAV whatever the decoder: no decoder's own count or length of a file is
believed, and every one is asked for the same frames.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import numpy as np
from numpy.typing import NDArray

from training_backend.data.media import DEFAULT_LIMITS, Limits, MediaFacts, MediaFault, check_file

if TYPE_CHECKING:
    from training_backend.data.video_pyav import Stamps

EPSILON = 1e-4
"""Seconds by which a wanted time may miss a frame's time stamp for rounding."""
_NEAR = 0.5
"""Seconds by which the frame that a decoder gives may precede the wanted one, where that cannot be decoded."""

Frame = tuple[float, NDArray[np.uint8]]
"""Time stamp and pixels [H, W, 3] as displayed."""


Fit = Callable[[NDArray[np.uint8]], NDArray[np.uint8]]
"""What is kept of a frame."""


class Decoder(Protocol):
    """What a back end is: made of a path and what was read of the file, which has all time stamps in order of display."""

    def decode(self, wanted: list[float]) -> Iterator[Frame]:
        """What can be decoded of `wanted` (time stamps, ascending, without repeats), each once. Raises MediaFault where nothing
        can."""


class VideoReader:
    """A video file, read by a named back end. Open one per file and thread."""

    def __init__(self, path: Path, backend: str = "pyav", limits: Limits = DEFAULT_LIMITS) -> None:
        if backend not in VIDEO_BACKENDS:
            raise ValueError(f"There is no video back end {backend!r}; known: {', '.join(sorted(VIDEO_BACKENDS))}")
        if check_file(path, limits) == 0:
            raise MediaFault("truncated", f"{path.name} is empty")
        from training_backend.data.video_pyav import read_stamps

        self._path = path
        self._found = read_stamps(path, limits, keep=backend == "pyav")
        self._stamps = np.asarray(self._found.stamps)
        self._decoder = VIDEO_BACKENDS[backend](path, self._found)

    @cached_property
    def facts(self) -> MediaFacts:
        """What the file is; the size is that of its first frame as displayed, which is decoded for it. Raises MediaFault."""
        found = self._found
        first, _ = self.frames_at([0.0])
        height, width = first.shape[1:3]
        return MediaFacts(
            kind="video", width=width, height=height, bytes=self._path.stat().st_size, codec=found.codec,
            duration=round(found.duration, 6), fps=round(found.rate, 6), n_frames=len(found.stamps),
        )  # fmt: skip

    def frames_at(self, times: Sequence[float], fit: Fit | None = None) -> tuple[NDArray[np.uint8], NDArray[np.float64]]:
        """Frames shown at `times` (seconds from the first frame, ascending): uint8 [N, H, W, 3] and the times of those frames.

        The frame shown at t is the last one that begins at or before t; before the first and after the last frame, those. `fit`
        is given each frame as soon as it is decoded and says what is kept of it, so that the frames of a large film never lie in
        memory together. Raises MediaFault.
        """
        if list(times) != sorted(times):
            raise ValueError("times must ascend")
        stamps = self._stamps
        index = np.searchsorted(stamps, np.asarray(times) + stamps[0] + EPSILON, side="right") - 1
        wanted = stamps[np.clip(index, 0, len(stamps) - 1)]
        asked = sorted(set(wanted.tolist()))
        found: list[float] = []
        kept = np.empty(0, dtype=np.uint8)
        for stamp, pixels in self._decoder.decode(asked):
            shown = pixels if fit is None else fit(pixels)
            if not found:
                kept = np.empty((len(asked), *shown.shape), dtype=np.uint8)
            if shown.shape != kept.shape[1:]:
                raise MediaFault("decode", f"{self._path.name}: its frames change their size at {stamp - stamps[0]:.2f} s")
            kept[len(found)] = shown
            found.append(stamp)
        if not found:
            raise MediaFault("decode", f"{self._path.name}: no frame could be decoded")
        order = np.argsort(found, kind="stable")
        seen = np.asarray(found)[order]
        place = np.clip(np.searchsorted(seen, wanted + EPSILON, side="right") - 1, 0, len(seen) - 1)
        nearest = seen[place]
        if float(np.abs(nearest - wanted).max()) > _NEAR:
            late = float(wanted[np.abs(nearest - wanted).argmax()] - stamps[0])
            raise MediaFault("truncated", f"{self._path.name}: the frame at {late:.2f} s cannot be decoded")
        chosen = order[place]
        whole = len(chosen) == len(kept) and bool((chosen == np.arange(len(kept))).all())
        return kept if whole else kept[chosen], nearest - stamps[0]


def _pyav(path: Path, film: Stamps) -> Decoder:
    from training_backend.data.video_pyav import PyAv

    return PyAv(path, film)


def _torchcodec(path: Path, film: Stamps) -> Decoder:
    from training_backend.data.video_torchcodec import TorchCodec

    return TorchCodec(path)


def _decord(path: Path, film: Stamps) -> Decoder:
    from training_backend.data.video_decord import Decord

    return Decord(path, film.stamps)


VIDEO_BACKENDS: dict[str, Callable[[Path, Stamps], Decoder]] = {
    "pyav": _pyav,
    "torchcodec": _torchcodec,
    "decord": _decord,
}
