"""Counting: right, nearly right, and by size of the true count.

Belongs here: the two margins in use and the bins. Does not belong here: how a number is read from text (`points.parse_count`).
"""

from __future__ import annotations

from typing import Literal, NamedTuple

Margin = Literal["fixed", "relative"]


class CountScore(NamedTuple):
    """1.0 or 0.0 each."""

    exact: float
    close: float


def count_score(predicted: int | None, true: int, margin: Margin) -> CountScore:
    """`fixed`: close within 1 (images: CountBenchQA, PixMo-Count). `relative`: within 1 + floor(0.05 x true) (Molmo2-VideoCount:
    20 → 2, 40 → 3). An answer without a number (None) is wrong in both.
    """
    if predicted is None:
        return CountScore(0.0, 0.0)
    # Whole-number arithmetic: 0.05 * 20 is exactly 1.0 only by luck of rounding.
    allowed = 1 if margin == "fixed" else 1 + true // 20
    difference = abs(predicted - true)
    return CountScore(float(difference == 0), float(difference <= allowed))


def count_bin(true: int) -> str:
    """Half-open bins of the released report: 0-5, 5-10, … 20-25, 25+."""
    low = true // 5 * 5
    return "25+" if low >= 25 else f"{low}-{low + 5}"
