"""Pictures: how many crops, which pixels, which tokens, which patches each visual token pools.

Belongs here: tiling, resizing, cropping, pooling tables of one image. Does not belong here: videos (`video.py`), token ids, what
fits into a sequence (`preprocessor.py`).

The released scheme "overlap-and-resize" (allenai/molmo2, olmo/hf_model/image_processing_molmo2.py): a low-resolution crop of the
whole picture first, then a tiling of h×w crops whose neighbours share a margin. Each crop contributes its window, border crops
their margin too, so the windows join to one grid of patches that covers the picture once; the grid is pooled 2×2.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from training_backend.config import EncodeConfig

MISSING = -1
"""Entry of a pooling window that holds no patch."""
BLOCK = 96
"""Rows that a resize works on at a time."""


@dataclass(frozen=True, slots=True)
class Geometry:
    """Sizes of a crop in patches, except `patch` in pixels. `margins` are shared with the neighbour before and after."""

    side: int
    patch: int
    margins: tuple[int, int]
    low_resolution: bool
    column_tokens: bool

    @classmethod
    def of(cls, config: EncodeConfig) -> Geometry:
        """Raises ValueError where margins leave no window or the crop is no whole number of patches."""
        side, rest = divmod(config.image_size, config.patch_size)
        if rest or side - sum(config.overlap) < 1 or min(config.overlap) < 0:
            raise ValueError(
                f"image_size {config.image_size}, patch_size {config.patch_size}, overlap {config.overlap} make no crops: "
                "the size must be a whole number of patches, and the overlap must leave at least one"
            )
        return cls(side, config.patch_size, config.overlap, config.low_resolution, config.column_tokens)

    @property
    def window(self) -> int:
        """Patches that an inner crop contributes to each side of the grid."""
        return self.side - sum(self.margins)

    @property
    def pixels(self) -> int:
        """Side of a crop in pixels."""
        return self.side * self.patch


@dataclass(frozen=True, slots=True)
class Layout:
    """One image (or frame) in a sequence: names of its special tokens in order, and for each visual token its place among them and
    its window of patches (into the crops of this image)."""

    names: tuple[str, ...]
    slot: NDArray[np.int32]  # [V] place of each visual token in `names`
    pool: NDArray[np.int32]  # [V, K] into crops*P, MISSING where there is none
    crops: int


@lru_cache(maxsize=1 << 12)
def choose_tiling(height: int, width: int, max_crops: int, geometry: Geometry) -> tuple[int, int]:
    """Rows and columns of crops for a picture, at most `max_crops` in all.

    The tiling that enlarges the picture least; where every tiling would shrink it, the one that shrinks it least; the smaller of
    equals. Margins count neither in the picture nor in the tiling. Small sides fall as the release's arithmetic has it:
    a side of exactly the margins puts no demand, and a picture with a side below the margins gets one crop.
    """
    tilings = [(rows, columns) for rows in range(1, max_crops + 1) for columns in range(1, max_crops // rows + 1)]
    tilings.sort(key=lambda tiling: (tiling[0] * tiling[1], tiling[0]))
    margin = sum(geometry.margins) * geometry.patch
    # Single precision, as in the release: ties must fall the same way.
    sizes = np.array([height - margin, width - margin], dtype=np.float32)
    with np.errstate(divide="ignore"):
        scales = np.array(tilings, dtype=np.float32) * np.float32(geometry.window * geometry.patch) / sizes
    scale = scales.min(axis=1)
    best = int(np.argmax(scale)) if (scale < 1).all() else int(np.argmin(np.where(scale < 1, np.float32(np.inf), scale)))
    return tilings[best]


@lru_cache(maxsize=1 << 10)
def image_layout(tiling: tuple[int, int] | None, window: int, geometry: Geometry) -> Layout:
    """Tokens and pooling of one image: its low-resolution crop, if the recipe has one, then the tiling (None: no high
    resolution)."""
    patches = geometry.side**2
    names: list[str] = []
    slots: list[NDArray[np.int32]] = []
    pools: list[NDArray[np.int32]] = []
    crops = 0
    if geometry.low_resolution:
        table = pooling_windows(np.arange(patches).reshape(geometry.side, geometry.side), window)
        _append(names, slots, pools, table, "<low_res_im_start>", columns=False)
        crops = 1
    if tiling is not None:
        grid = patch_grid(tiling, geometry) + crops * patches
        _append(names, slots, pools, pooling_windows(grid, window), "<im_start>", columns=geometry.column_tokens)
        crops += tiling[0] * tiling[1]
    return Layout(tuple(names), np.concatenate(slots), np.concatenate(pools), crops)


def _append(
    names: list[str],
    slots: list[NDArray[np.int32]],
    pools: list[NDArray[np.int32]],
    table: NDArray[np.int32],
    start: str,
    *,
    columns: bool,
) -> None:
    rows, width = table.shape[:2]
    first = len(names) + 1
    names.append(start)
    names += [*["<im_patch>"] * width, *["<im_col>"] * columns] * rows
    names.append("<im_end>")
    slots.append((first + np.arange(rows)[:, None] * (width + columns) + np.arange(width)).astype(np.int32).ravel())
    pools.append(table.reshape(rows * width, -1))


def patch_grid(tiling: tuple[int, int], geometry: Geometry) -> NDArray[np.int32]:
    """[rows, columns] of the whole resized picture: number of the patch (crop*P + place in the crop) that shows each place."""
    before, _ = geometry.margins

    def axis(crops: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        # Places of the joined grid: all patches of a lone crop; else the first crop begins at 0, the last ends at its side.
        length = crops * geometry.window + sum(geometry.margins)
        place = np.arange(length)
        crop = np.clip((place - before) // geometry.window, 0, crops - 1)
        return crop, place - crop * geometry.window

    (row_crop, row), (column_crop, column) = axis(tiling[0]), axis(tiling[1])
    crop = row_crop[:, None] * tiling[1] + column_crop[None, :]
    return (crop * geometry.side**2 + row[:, None] * geometry.side + column[None, :]).astype(np.int32)


def pooling_windows(grid: NDArray[np.integer], window: int) -> NDArray[np.int32]:
    """[ceil(H/w), ceil(W/w), w*w] of a grid [H, W]; odd edges are filled up with MISSING, the larger half behind."""
    padding = [(-size) % window for size in grid.shape]
    padded = np.pad(grid, [(size // 2, size - size // 2) for size in padding], constant_values=MISSING)
    rows, columns = padded.shape[0] // window, padded.shape[1] // window
    return padded.reshape(rows, window, columns, window).transpose(0, 2, 1, 3).reshape(rows, columns, window**2).astype(np.int32)


def crop_image(image: NDArray[np.uint8], tiling: tuple[int, int] | None, geometry: Geometry) -> NDArray[np.uint8]:
    """Crops [N, side, side, 3] of a picture [H, W, 3], in the order of `image_layout`."""
    side, step = geometry.pixels, geometry.window * geometry.patch
    margin = sum(geometry.margins) * geometry.patch
    crops = [resize(image, side, side)] if geometry.low_resolution else []
    if tiling == (1, 1) and crops:
        crops.append(crops[0])
    elif tiling is not None:
        large = resize(image, tiling[0] * step + margin, tiling[1] * step + margin)
        for row in range(tiling[0]):
            for column in range(tiling[1]):
                crops.append(large[row * step : row * step + side, column * step : column * step + side])
    return np.stack(crops)


def resize(pixels: NDArray[np.uint8], height: int, width: int) -> NDArray[np.uint8]:
    """Bilinear resize of [..., H, W, 3] without antialiasing, corners not aligned, rounded half to even: what
    `torch.nn.functional.interpolate(mode="bilinear")` computes, which the release uses."""
    return Resizer(height, width)(pixels)


class Resizer:
    """`resize` to one size, again and again: it keeps the memory that it works in, since memory that is new to the process costs
    more than the arithmetic in it. One for each thread."""

    def __init__(self, height: int, width: int) -> None:
        self._size = (height, width)
        # A block of rows needs two rows of the picture for each of its own at most.
        shape = (2, 2 * min(BLOCK, height), width * 3)
        self._work = (*np.empty(shape, dtype=np.uint8), *np.empty(shape, dtype=np.float32))

    def __call__(self, pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """[..., height, width, 3] of [..., H, W, 3]."""
        if pixels.shape[-3:-1] == self._size:
            return pixels
        height, width = self._size
        flat = pixels.reshape(-1, pixels.shape[-3], pixels.shape[-2] * 3)
        out = np.empty((len(flat), height, width * 3), dtype=np.uint8)
        for picture, target in zip(flat, out, strict=True):
            self._one(picture, target)
        return out.reshape(*pixels.shape[:-3], height, width, 3)

    def _one(self, picture: NDArray[np.uint8], target: NDArray[np.uint8]) -> None:
        """[H, W*3] into [h, w*3], a block of rows at a time: what is between the passes then stays in the processor's cache."""
        left, right, part = _column_taps(picture.shape[1] // 3, target.shape[1] // 3)
        rest = 1 - part
        for block in _row_blocks(len(picture), len(target)):
            # Columns first, on the rows that are needed alone: large pictures shrink, and most of their rows are never read.
            rows = picture[block.needed]
            near, far, across, other = (space[: len(rows)] for space in self._work)
            np.take(rows, left, axis=1, out=near, mode="clip")
            np.take(rows, right, axis=1, out=far, mode="clip")
            np.multiply(near, rest, out=across)
            across += np.multiply(far, part, out=other)
            mixed = block.mix @ across
            target[block.made] = np.rint(mixed, out=mixed)


@dataclass(frozen=True, slots=True)
class _Rows:
    """Some rows of a resized picture: which they are, the rows of the picture that they mix, and how, as a sparse matrix. Two
    entries a row: its product reads and writes every pixel once, where whole-array arithmetic passes over them five times."""

    made: slice
    needed: slice | NDArray[np.int64]
    mix: Any  # scipy.sparse.csr_array [made, needed] of float32


@lru_cache(maxsize=1 << 10)
def _row_blocks(size: int, wanted: int) -> list[_Rows]:
    """Blocks of at most BLOCK wanted rows."""
    from scipy.sparse import csr_array

    low, high, share = _taps(size, wanted)
    blocks = []
    for start in range(0, wanted, BLOCK):
        made = slice(start, min(start + BLOCK, wanted))
        count = made.stop - start
        needed = np.unique(np.concatenate([low[made], high[made]]))
        # The nearer row first: sums keep the order in which they are written down.
        places = np.stack([np.searchsorted(needed, low[made]), np.searchsorted(needed, high[made])], axis=1)
        shares = np.stack([1 - share[made], share[made]], axis=1)
        mix = csr_array((shares.ravel(), places.ravel(), np.arange(0, 2 * count + 1, 2)), shape=(count, len(needed)))
        together = len(needed) == needed[-1] - needed[0] + 1
        blocks.append(_Rows(made, slice(int(needed[0]), int(needed[-1]) + 1) if together else needed, mix))
    return blocks


@lru_cache(maxsize=1 << 10)
def _column_taps(size: int, wanted: int) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float32]]:
    """`_taps` for rows of interleaved colours."""
    left, right, part = _taps(size, wanted)
    colours = np.arange(3)
    return (left[:, None] * 3 + colours).ravel(), (right[:, None] * 3 + colours).ravel(), np.repeat(part, 3)


@lru_cache(maxsize=1 << 10)
def _taps(size: int, wanted: int) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float32]]:
    """For each wanted pixel the two source pixels and the second one's share."""
    ratio = np.float32(size) / np.float32(wanted)
    source = np.maximum((np.arange(wanted, dtype=np.float32) + np.float32(0.5)) * ratio - np.float32(0.5), 0)
    low = np.minimum(source.astype(np.int64), size - 1)
    high = np.minimum(low + 1, size - 1)
    return low, high, (source - low).astype(np.float32)
