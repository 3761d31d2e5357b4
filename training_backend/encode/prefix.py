"""The visual prefix: what stands before the branches, from pictures of known tilings or frames of known times.

Belongs here: ids, image numbers, places and pooling windows of all pictures of an example. Does not belong here: one picture
(`images.py`, `video.py`), which tilings, times and windows fit (`preprocessor.py`), pixels.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from training_backend.config import EncodeConfig
from training_backend.encode import images, video
from training_backend.encode.tokens import Tokenizer

Tiling = tuple[int, int] | None


@dataclass(frozen=True, slots=True)
class Prefix:
    """Beginning token, pictures, times, subtitles: [P] ids and image numbers, visual tokens as in `Encoded`."""

    ids: NDArray[np.int32]
    image: NDArray[np.int32]
    pool: NDArray[np.int32]
    slot: NDArray[np.int32]
    crops: int


class Prefixes:
    """Prefixes of a recipe, the latest ones kept. Safe to share between threads.

    `start` has no pictures; `still(tilings, window)` has those of images, `moving(times, subtitles, window)` those of a video, in
    pooling windows of `window`×`window` patches.
    """

    def __init__(self, config: EncodeConfig, geometry: images.Geometry, tokenizer: Tokenizer) -> None:
        self._config, self._geometry, self._tokenizer = config, geometry, tokenizer
        # A prefix of 128 frames is half a megabyte.
        self.still = lru_cache(maxsize=256)(self._still)
        self.moving = lru_cache(maxsize=256)(self._moving)
        self.start = Prefix(
            np.array([tokenizer.bos], dtype=np.int32),
            np.full(1, -1, dtype=np.int32),
            np.empty((0, config.image_window**2), dtype=np.int32),
            np.empty(0, dtype=np.int32),
            0,
        )

    def _still(self, tilings: tuple[Tiling, ...], window: int) -> Prefix:
        # Image numbers in words follow the numbers in points: from 0 in the report's syntax, from 1 in the release's.
        first = 1 if self._config.point_syntax == "release" else 0
        parts = []
        for number, tiling in enumerate(tilings):
            name = [f"Image {number + first}"] if len(tilings) > 1 else []
            parts.append((name, images.image_layout(tiling, window, self._geometry)))
        return self._join(parts, "")

    def _moving(self, times: tuple[float, ...], subtitles: str, window: int) -> Prefix:
        layout = video.frame_layout(window, self._geometry)
        as_token = self._config.time == "token"
        return self._join([(video.time_pieces(time, place == 0, as_token), layout) for place, time in enumerate(times)], subtitles)

    def _join(self, parts: list[tuple[list[str], images.Layout]], behind: str) -> Prefix:
        special, patches = self._tokenizer.special, self._geometry.side**2
        ids, image = [self._tokenizer.bos], [-1]
        pools, slots, crops = [], [], 0
        for number, (words, layout) in enumerate(parts):
            said = self._tokenizer.encode_pieces(words)
            ids += said
            image += [-1] * len(said)
            slots.append(layout.slot + len(ids))
            pools.append(np.where(layout.pool < 0, images.MISSING, layout.pool + crops * patches))
            ids += [special[name] for name in layout.names]
            image += [number] * len(layout.names)
            crops += layout.crops
        said = self._tokenizer.encode(behind) if behind else []
        ids += said
        image += [-1] * len(said)
        return Prefix(
            np.array(ids, dtype=np.int32),
            np.array(image, dtype=np.int32),
            np.concatenate(pools).astype(np.int32),
            np.concatenate(slots).astype(np.int32),
            crops,
        )
