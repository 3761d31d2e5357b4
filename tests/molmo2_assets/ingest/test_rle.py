"""Run-length masks as sets publish them: either coding in, runs out."""

from __future__ import annotations

import numpy as np
import pytest

from molmo2_assets.ingest.rle import decode_rle, encode_rle

BY_HAND = [[False, True, True], [False, False, True]]
"""Read column by column: two zeros, one one, one zero, two ones."""
RUNS = {"size": [2, 3], "counts": [2, 1, 1, 2]}


def test_runs_go_down_the_columns() -> None:
    assert encode_rle(BY_HAND) == RUNS
    assert encode_rle(np.array(BY_HAND, dtype=np.uint8)) == RUNS
    assert decode_rle(RUNS).tolist() == BY_HAND
    assert decode_rle({"size": [2, 3], "counts": "2111"}).tolist() == BY_HAND


def test_a_mask_that_begins_with_ones_has_an_empty_run_of_zeros() -> None:
    assert encode_rle([[True], [False]]) == {"size": [2, 1], "counts": [0, 1, 1]}
    assert decode_rle({"size": [2, 1], "counts": [0, 1, 1]}).tolist() == [[True], [False]]


@pytest.mark.parametrize("counts", [[5], [2, 1, 1, 3], [7, -1], [], "o"])
def test_runs_that_do_not_fill_the_size_are_no_mask(counts: object) -> None:
    with pytest.raises(ValueError, match="mask"):
        decode_rle({"size": [2, 3], "counts": counts})
