"""Pictures: the released tiling, token counts and pooling; every patch of the grid once; resizing as torch does it."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support.examples import recipe
from training_backend.encode.images import (
    MISSING,
    Geometry,
    choose_tiling,
    crop_image,
    image_layout,
    patch_grid,
    pooling_windows,
    resize,
)

RELEASE = Geometry(side=27, patch=14, margins=(4, 4), low_resolution=True, column_tokens=True)
DEMO = Geometry(side=6, patch=14, margins=(1, 1), low_resolution=True, column_tokens=True)
geometries = st.sampled_from([RELEASE, DEMO, Geometry(6, 14, (0, 0), False, False), Geometry(5, 2, (1, 0), True, True)])
tilings = st.tuples(st.integers(1, 4), st.integers(1, 4))


@pytest.mark.parametrize(
    ("tiling", "tokens"),
    [
        ((1, 1), 410),
        ((1, 2), 536),
        ((2, 2), 752),
        ((2, 3), 982),
        ((2, 4), 1189),
        ((4, 2), 1208),
        ((1, 8), 1334),
        ((8, 1), 1400),
        ((4, 6), 2804),
    ],
)
def test_token_counts_of_the_release(tiling: tuple[int, int], tokens: int) -> None:
    layout = image_layout(tiling, 2, RELEASE)
    assert len(layout.names) == tokens
    assert layout.crops == tiling[0] * tiling[1] + 1
    assert layout.names[:2] == ("<low_res_im_start>", "<im_patch>")
    assert layout.names.count("<im_start>") == 1
    assert layout.names[-2:] == ("<im_col>", "<im_end>")


@settings(max_examples=40, deadline=None)
@given(tilings, geometries)
def test_the_grid_shows_every_place_once(tiling: tuple[int, int], geometry: Geometry) -> None:
    grid = patch_grid(tiling, geometry)
    margin = sum(geometry.margins)
    assert grid.shape == (tiling[0] * geometry.window + margin, tiling[1] * geometry.window + margin)
    assert len(np.unique(grid)) == grid.size
    crop, place = np.divmod(grid, geometry.side**2)
    row, column = np.divmod(place, geometry.side)
    # The patch shown at a place of the grid is the patch at that place of the resized picture.
    step = geometry.window
    assert ((crop // tiling[1]) * step + row == np.arange(grid.shape[0])[:, None]).all()
    assert ((crop % tiling[1]) * step + column == np.arange(grid.shape[1])[None, :]).all()


@settings(max_examples=40, deadline=None)
@given(tilings, geometries, st.integers(1, 3))
def test_pooling_covers_every_patch_of_the_grid_once(tiling: tuple[int, int], geometry: Geometry, window: int) -> None:
    layout = image_layout(tiling, window, geometry)
    shown = Counter(layout.pool[layout.pool != MISSING].tolist())
    assert set(shown.values()) == {1}
    low = geometry.side**2 if geometry.low_resolution else 0
    assert set(shown) == set(range(low)) | set((patch_grid(tiling, geometry) + low).ravel().tolist())
    assert (layout.pool != MISSING).any(axis=1).all(), "a visual token needs a patch"
    assert layout.pool.max() < layout.crops * geometry.side**2
    assert [layout.names[place] for place in layout.slot] == ["<im_patch>"] * len(layout.slot)
    assert layout.names.count("<im_patch>") == len(layout.slot)
    assert (np.diff(layout.slot) > 0).all()


def test_odd_edges_pool_fewer_patches() -> None:
    table = pooling_windows(np.arange(15).reshape(3, 5), 2)
    assert table.shape == (2, 3, 4)
    assert table[0, 0].tolist() == [0, 1, 5, 6]
    assert table[1, 2].tolist() == [14, MISSING, MISSING, MISSING]
    # Two missing in a direction are shared between both ends.
    assert pooling_windows(np.arange(4).reshape(2, 2), 4)[0, 0].tolist()[5:7] == [0, 1]


@pytest.mark.parametrize(
    ("size", "crops", "tiling"),
    [
        ((378, 378), 8, (1, 1)), ((100, 100), 8, (1, 1)), ((112, 2000), 8, (1, 8)),
        ((111, 2000), 8, (1, 1)), ((2000, 1), 8, (1, 1)), ((4000, 4000), 8, (2, 2)),
        ((640, 480), 8, (2, 2)),
        ((1080, 1920), 24, (4, 6)), ((60, 60), 1, (1, 1)), ((3000, 300), 1, (1, 1)),
    ],
)  # fmt: skip
def test_tiling_enlarges_least(size: tuple[int, int], crops: int, tiling: tuple[int, int]) -> None:
    assert choose_tiling(*size, crops, RELEASE) == tiling


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 3000), st.integers(1, 3000), st.integers(1, 12))
def test_tiling_rule(height: int, width: int, most: int) -> None:
    """Against the rule in exact arithmetic: never more crops than allowed, and no other tiling enlarges (or shrinks) less."""
    rows, columns = choose_tiling(height, width, most, RELEASE)
    assert rows * columns <= most
    inner = (height - 112, width - 112)
    if min(inner) < 0:
        assert (rows, columns) == (1, 1)
        return

    def scale(r: int, c: int) -> float:
        return min((n * 266 / size if size else float("inf")) for n, size in zip((r, c), inner, strict=True))

    every = [scale(r, c) for r in range(1, most + 1) for c in range(1, most // r + 1)]
    enlarging = [value for value in every if value >= 1]
    best = min(enlarging) if enlarging else max(every)
    assert scale(rows, columns) == pytest.approx(best, rel=1e-6)


@settings(max_examples=25, deadline=None)
@given(st.integers(1, 60), st.integers(1, 60), st.integers(1, 40), st.integers(1, 40))
def test_resize_is_torch_bilinear(height: int, width: int, new_height: int, new_width: int) -> None:
    pixels = np.random.default_rng(height * 61 + width).integers(0, 256, (height, width, 3), dtype=np.uint8)
    ours = resize(pixels, new_height, new_width)
    channels = torch.from_numpy(pixels).permute(2, 0, 1)[None].float()
    theirs = torch.nn.functional.interpolate(
        channels, (new_height, new_width), mode="bilinear", align_corners=False, antialias=False
    )
    difference = np.abs(ours.astype(int) - theirs[0].permute(1, 2, 0).round().byte().numpy().astype(int))
    # Sums in another order may round a half the other way, and nothing else.
    exact = torch.nn.functional.interpolate(channels.double(), (new_height, new_width), mode="bilinear", align_corners=False)
    from_half = np.abs(exact[0].permute(1, 2, 0).numpy() % 1 - 0.5)
    assert difference.max(initial=0) <= 1
    assert (from_half[difference > 0] < 1e-3).all()
    assert (resize(np.stack([pixels, pixels]), new_height, new_width)[1] == ours).all()


def test_crops_are_the_windows_of_the_resized_picture() -> None:
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (140, 200, 3), dtype=np.uint8)
    crops = crop_image(pixels, (2, 3), DEMO)
    assert crops.shape == (7, 84, 84, 3)
    assert (crops[0] == resize(pixels, 84, 84)).all()
    large = resize(pixels, 2 * 56 + 28, 3 * 56 + 28)
    grid = patch_grid((2, 3), DEMO)
    patches = crops[1:].reshape(6, 6, 14, 6, 14, 3).transpose(0, 1, 3, 2, 4, 5).reshape(-1, 14, 14, 3)
    joined = patches[grid].transpose(0, 2, 1, 3, 4).reshape(large.shape)
    assert (joined == large).all()


def test_a_picture_of_one_crop_is_cheap_at_demo_size() -> None:
    geometry = Geometry.of(recipe(overlap=(0, 0), low_resolution=False))
    assert choose_tiling(84, 84, 4, geometry) == (1, 1)
    assert len(image_layout((1, 1), 2, geometry).names) == 1 + 3 * 4 + 1
    assert choose_tiling(84, 84, 4, Geometry.of(recipe())) == (1, 1)


def test_impossible_crops_are_refused() -> None:
    for wrong in ({"image_size": 85}, {"overlap": (3, 3)}, {"overlap": (-1, 1)}):
        with pytest.raises(ValueError, match="make no crops"):
            Geometry.of(recipe(**wrong))
