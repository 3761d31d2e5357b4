"""Pixels of media for the encoder: from the content-addressed cache on disk, through a small memory of what was decoded last.

Belongs here: finding, decoding, remembering. Does not belong here: decoders and their limits (`training_backend.data.media`), which
frames are wanted (`training_backend.encode.video`).
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from training_backend.data.example import Media
from training_backend.data.media import DEFAULT_LIMITS, Limits, MediaCache, read_image
from training_backend.data.video import VideoReader
from training_backend.encode.images import Resizer

MEMORY = 768 << 20
"""Bytes of decoded pixels that are kept."""


class CachedMedia:
    """A `MediaSource` over a media cache. Safe to share between threads. Raises MediaFault where pixels cannot be had."""

    def __init__(self, cache: MediaCache, limits: Limits = DEFAULT_LIMITS, memory: int = MEMORY) -> None:
        self._cache, self._limits, self._room = cache, limits, memory
        self._kept: OrderedDict[tuple[Any, ...], NDArray[np.uint8]] = OrderedDict()
        self._lock = threading.Lock()

    def image(self, media: Media) -> NDArray[np.uint8]:
        """[H, W, 3] as displayed."""
        return self._remember((media.sha256,), lambda: read_image(self._cache.path(media.sha256), self._limits))

    def frames(self, media: Media, times: Sequence[float], size: tuple[int, int] | None = None) -> NDArray[np.uint8]:
        """[N, H, W, 3] at seconds from the clip's start, ascending; of the given height and width, if they are given."""
        offset = media.clip[0] if media.clip is not None else 0.0
        wanted = tuple(offset + time for time in times)

        def decode() -> NDArray[np.uint8]:
            fit = None if size is None else Resizer(*size)
            return VideoReader(self._cache.path(media.sha256), limits=self._limits).frames_at(wanted, fit)[0]

        return self._remember((media.sha256, wanted, size), decode)

    def _remember(self, name: tuple[Any, ...], decode: Callable[[], NDArray[np.uint8]]) -> NDArray[np.uint8]:
        with self._lock:
            if name in self._kept:
                self._kept.move_to_end(name)
                return self._kept[name]
        pixels = decode()
        pixels.flags.writeable = False
        with self._lock:
            if name not in self._kept and pixels.nbytes <= self._room:
                self._kept[name] = pixels
                self._room -= pixels.nbytes
            while self._room < 0:
                self._room += self._kept.popitem(last=False)[1].nbytes
        return pixels
