"""Pointing in images: precision, recall and F1 of points against object masks, under the two rules in use.

Belongs here: the membership rule, the distance rule, rounding of a point to a pixel, maximum matching. Does not belong here: text
syntax, files, points in videos (`video_pointing.py`), tracks (`tracking.py`).

A point is (x, y) in fractions of the picture; a mask is bool [H, W]. A dataset's number is the plain mean over examples, so its F1
is not the F1 of its precision and recall.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal, NamedTuple

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

Outside = Literal["miss", "clamp"]


class PointScore(NamedTuple):
    """Of one example, each in [0, 1]."""

    precision: float
    recall: float
    f1: float


def score_of(hits: int, predicted: int, true: int) -> PointScore:
    """The three ratios. Nothing to find: all 1 if nothing was predicted, else all 0. Nothing predicted of something: all 0."""
    if not true:
        right = float(predicted == 0)
        return PointScore(right, right, right)
    if not predicted:
        return PointScore(0.0, 0.0, 0.0)
    return PointScore(hits / predicted, hits / true, 2 * hits / (predicted + true))


def contains(points: NDArray[np.float64], mask: NDArray[np.bool_], outside: Outside) -> NDArray[np.bool_]:
    """Which of `points` [N, 2] lie in `mask`: [N].

    A point is rounded half-to-even to a pixel (x = 1 rounds to the column after the last). Beyond the picture it is a miss in the
    released evaluation and clamped to the last row or column in the membership rule: name the one you mean.
    """
    import numpy as np

    height, width = mask.shape
    pixels = np.rint(np.asarray(points, dtype=np.float64).reshape(-1, 2) * (width, height)).astype(np.int64)
    columns, rows = pixels[:, 0], pixels[:, 1]
    within = (columns >= 0) & (columns < width) & (rows >= 0) & (rows < height)
    found = mask[np.clip(rows, 0, height - 1), np.clip(columns, 0, width - 1)].astype(bool)
    return found if outside == "clamp" else found & within


def maximum_matching(inside: NDArray[np.bool_]) -> list[int]:
    """A largest matching of points to objects where `inside` [points, objects]: for each object its point, or -1."""
    from scipy.sparse import csr_array
    from scipy.sparse.csgraph import maximum_bipartite_matching

    if 0 in inside.shape:
        return [-1] * inside.shape[1]
    return [int(point) for point in maximum_bipartite_matching(csr_array(inside), perm_type="row")]


def membership_score(points: Sequence[tuple[float, float, int]], masks: Sequence[tuple[NDArray[np.bool_], int]]) -> PointScore:
    """Membership rule (olmo-eval, PixMo-Points-Eval v3): hits are a maximum matching of points to the masks they lie in.

    Points are (x, y, image), masks (mask, image); a point can only hit a mask of its own image. Points beyond the picture clamp.
    """
    import numpy as np

    inside = np.zeros((len(points), len(masks)), dtype=bool)
    xy = np.array([point[:2] for point in points], dtype=np.float64).reshape(-1, 2)
    image = np.array([point[2] for point in points], dtype=np.int64)
    for column, (mask, its_image) in enumerate(masks):
        inside[:, column] = contains(xy, mask, "clamp") & (image == its_image)
    hits = sum(owner >= 0 for owner in maximum_matching(inside))
    return score_of(hits, len(points), len(masks))


def assign(predicted: NDArray[np.float64], true: NDArray[np.float64]) -> list[tuple[int, int]]:
    """Hungarian assignment of rows to rows by Euclidean distance, the shorter side complete: [(predicted, true)]."""
    import numpy as np
    from scipy.optimize import linear_sum_assignment

    cost = np.sqrt(((predicted[:, None, :] - true[None, :, :]) ** 2).sum(axis=-1))
    rows, columns = linear_sum_assignment(cost)
    return list(zip(rows.tolist(), columns.tolist(), strict=True))


def distance_score(
    points: Sequence[tuple[float, float]], true: Sequence[tuple[float, float]], masks: Sequence[NDArray[np.bool_]]
) -> PointScore:
    """Distance rule (released PointingEval): Hungarian on pixel distance to the true points, then a hit if the point lies in the
    mask of the very object it was assigned to. `true[i]` and `masks[i]` are object i of one image.

    A point inside object A but nearer to B's true point fails here and hits under the membership rule.
    """
    import numpy as np

    assert len(true) == len(masks)
    if not points or not true:
        return score_of(0, len(points), len(true))
    height, width = masks[0].shape
    given = np.array(points, dtype=np.float64)
    pairs = assign(given * (width, height), np.array(true, dtype=np.float64) * (width, height))
    hits = sum(bool(contains(given[row : row + 1], masks[column], "miss")[0]) for row, column in pairs)
    return score_of(hits, len(points), len(true))
