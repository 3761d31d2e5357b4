from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from molmo2_assets.sources.generated import rle


@st.composite
def masks(draw: st.DrawFn) -> np.ndarray:
    height, width = draw(st.integers(1, 12)), draw(st.integers(1, 12))
    flat = draw(st.lists(st.booleans(), min_size=height * width, max_size=height * width))
    return np.array(flat, dtype=bool).reshape(height, width)


@settings(max_examples=60, deadline=None)
@given(masks(), st.booleans())
def test_a_mask_comes_back(mask: np.ndarray, compressed: bool) -> None:
    code = rle.encode(mask, compressed=compressed)
    assert isinstance(code["counts"], str) is compressed
    assert np.array_equal(rle.decode(code), mask)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(0, 1 << 20), max_size=30))
def test_any_runs_come_back(counts: list[int]) -> None:
    assert rle.decompress(rle.compress(counts)) == counts


def test_runs_go_down_the_columns_and_begin_with_zeros() -> None:
    mask = np.array([[True, False], [True, True], [False, True]])
    assert rle.counts_of(mask) == [0, 2, 2, 2]
    assert rle.counts_of(~mask) == [2, 2, 2]


def test_the_string_is_that_of_the_coco_tools() -> None:
    # 100 = 3·32 + 4: "T" (4 with the continuation bit), "3"; the fourth run is stored as the difference to the second, 2 - 5 = -3
    assert rle.compress([100]) == "T3"
    assert rle.compress([6, 5, 7, 2]) == "657M"


def test_runs_that_do_not_fill_the_size_are_refused() -> None:
    with pytest.raises(ValueError, match="cover 5 pixels, its size 2×3 has 6"):
        rle.decode({"size": [2, 3], "counts": [2, 3]})
    with pytest.raises(ValueError, match="ends inside a number"):
        rle.decompress("T")
