"""Pointing in videos: the rule of Molmo2-VideoPointEval (Molmo2-VP).

Belongs here: the assignment in time and space, the test of time and mask. Does not belong here: ratios, rounding (`pointing.py`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from molmo2_assets.evaluation.pointing import PointScore, assign, contains, score_of

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


def video_point_score(
    points: Sequence[tuple[float, float, float]],
    true: Sequence[tuple[float, float, float]],
    masks: Sequence[Mapping[float, NDArray[np.bool_]]],
    duration: float,
) -> PointScore:
    """Points are (t seconds, x, y); `masks[i]` holds the masks of true object i by second on the annotation's 0.5 s grid.

    Hungarian on (t, x, y) normalised by duration, width and height to 0-100 and rounded to one decimal. An assigned point hits
    if its time *equals* a time at which that object has a mask (as floats: 1.2 is not 1.0) and its rounded pixel lies in that
    mask. Recall counts mask tubes, that is objects.
    """
    import numpy as np

    assert len(true) == len(masks)
    if not points or not true:
        return score_of(0, len(points), len(true))
    scale = np.array([1 / duration if duration > 0 else 0.0, 1.0, 1.0]) * 100
    pairs = assign(np.round(np.array(points) * scale, 1), np.round(np.array(true) * scale, 1))
    hits = 0
    for row, column in pairs:
        time, x, y = points[row]
        mask = masks[column].get(time)
        hits += mask is not None and bool(contains(np.array([[x, y]]), mask, "miss")[0])
    return score_of(hits, len(points), len(true))
