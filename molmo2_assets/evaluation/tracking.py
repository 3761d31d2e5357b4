"""Point tracking: Track F1 and HOTA of predicted points against object masks, frame by frame.

Belongs here: both metrics on parsed frames. Does not belong here: text syntax, masks from points (J&F needs SAM 2), reading rows.

Frames are keyed by frame number; a dataset's number is the mean over videos. Departures of the released evaluation that are *not*
repeated here: it lists the masks of all objects of the query beside the points of only those objects visible in the frame, so
that the two slip against each other when an earlier object is absent; here a mask belongs to its object. It also divides recall
by all objects of the query even in frames where some are absent, so that a perfect tracker scores below 1; here a frame's recall
counts the objects visible in it, and the number under the release's divisor is reported beside it (`f1_all_objects`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

from molmo2_assets.evaluation.pointing import assign, contains, score_of

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

THRESHOLDS = tuple(number / 20 for number in range(1, 20))
"""0.05 to 0.95, as TrackEval averages over; with similarities of 0 and 1 all agree."""


class Seen(NamedTuple):
    """A true object in one frame: its point in fractions and its mask, bool [H, W]."""

    x: float
    y: float
    mask: NDArray[np.bool_]


Truth = Mapping[int, Mapping[int, Seen]]
"""frame → object id → Seen; only frames in which something is visible."""
Predicted = Mapping[int, Mapping[int, tuple[float, float]]]
"""frame → id → (x, y) in fractions; only frames with at least one point."""


class TrackScore(NamedTuple):
    """Means over the frames of one video."""

    precision: float
    recall: float
    f1: float
    f1_all_objects: float


def track_score(truth: Truth, predicted: Predicted, n_objects: int) -> TrackScore:
    """Per frame: Hungarian on pixel distance between predicted and true points, a hit if the rounded point lies in the matched
    object's mask; ids play no part. Averaged over the *union* of frames with truth or prediction: a predicted frame without truth
    is a zero, as is a frame missed. A video with neither scores 1. `n_objects` of the whole query, for `f1_all_objects`.
    """
    import numpy as np

    frames = sorted({frame for frame, seen in truth.items() if seen} | {frame for frame, points in predicted.items() if points})
    if not frames:
        return TrackScore(1.0, 1.0, 1.0, 1.0)
    rows = []
    for frame in frames:
        seen = list(truth.get(frame, {}).values())
        points = list(predicted.get(frame, {}).values())
        hits = 0
        if seen and points:
            size = seen[0].mask.shape[::-1]
            given = np.array(points, dtype=np.float64)
            for row, column in assign(given * size, np.array([item[:2] for item in seen], dtype=np.float64) * size):
                hits += bool(contains(given[row : row + 1], seen[column].mask, "miss")[0])
        rows.append((*score_of(hits, len(points), len(seen)), score_of(hits, len(points), max(n_objects, len(seen))).f1))
    means = np.array(rows).mean(axis=0)
    return TrackScore(*(float(value) for value in means))


class HotaFrame(NamedTuple):
    """Ids present in one frame and their similarity, [true, predicted] in [0, 1]."""

    true: Sequence[int]
    predicted: Sequence[int]
    similarity: NDArray[np.float64]


class HotaScore(NamedTuple):
    """Means over the thresholds."""

    hota: float
    detection: float
    association: float


def hota_frames(truth: Truth, predicted: Predicted) -> list[HotaFrame]:
    """Frames for `hota_score` with similarity 1 where the rounded point lies in the object's mask, else 0."""
    import numpy as np

    frames = []
    for frame in sorted(set(truth) | set(predicted)):
        seen, points = truth.get(frame, {}), predicted.get(frame, {})
        similarity = np.zeros((len(seen), len(points)))
        if points:
            given = np.array(list(points.values()), dtype=np.float64)
            for row, item in enumerate(seen.values()):
                similarity[row] = contains(given, item.mask, "miss")
        frames.append(HotaFrame(list(seen), list(points), similarity))
    return frames


def hota_score(frames: Sequence[HotaFrame], thresholds: Sequence[float] = (0.5,)) -> HotaScore:
    """HOTA (Luiten et al. 2021) as TrackEval computes it, for one video.

    First pass: similarities, each divided by (row sum + column sum - itself), are summed over frames for each pair of ids; the
    global alignment of a pair is that sum over its intersection-over-union of frames. Second pass: Hungarian per frame on
    alignment x similarity; a pair counts where its similarity reaches the threshold less one machine epsilon. DetA = TP/(TP+FN+FP);
    AssA = mean over TPs of matched frames over the union of both ids' frames; HOTA = sqrt(DetA x AssA). Nothing true or nothing
    predicted gives zeros, as there.
    """
    import numpy as np
    from scipy.optimize import linear_sum_assignment

    eps = np.finfo(float).eps
    true_ids = {name: number for number, name in enumerate(sorted({name for frame in frames for name in frame.true}))}
    given_ids = {name: number for number, name in enumerate(sorted({name for frame in frames for name in frame.predicted}))}
    n_true = sum(len(frame.true) for frame in frames)
    n_given = sum(len(frame.predicted) for frame in frames)
    if not n_true or not n_given:
        return HotaScore(0.0, 0.0, 0.0)
    potential = np.zeros((len(true_ids), len(given_ids)))
    true_count, given_count = np.zeros(len(true_ids)), np.zeros(len(given_ids))
    indexes = []
    for frame in frames:
        rows = np.array([true_ids[name] for name in frame.true], dtype=np.int64)
        columns = np.array([given_ids[name] for name in frame.predicted], dtype=np.int64)
        indexes.append((rows, columns))
        true_count[rows] += 1
        given_count[columns] += 1
        total = frame.similarity.sum(axis=1, keepdims=True) + frame.similarity.sum(axis=0, keepdims=True) - frame.similarity
        share = np.divide(frame.similarity, total, out=np.zeros_like(total), where=total > eps)
        potential[np.ix_(rows, columns)] += share
    alignment = potential / (true_count[:, None] + given_count[None, :] - potential)

    matches = np.zeros((len(thresholds), len(true_ids), len(given_ids)))
    for frame, (rows, columns) in zip(frames, indexes, strict=True):
        if not len(rows) or not len(columns):
            continue
        left, right = linear_sum_assignment(-alignment[np.ix_(rows, columns)] * frame.similarity)
        found = frame.similarity[left, right]
        for number, threshold in enumerate(thresholds):
            kept = found >= threshold - eps
            matches[number, rows[left[kept]], columns[right[kept]]] += 1
    scores = []
    for counts in matches:
        hits = counts.sum()
        detection = hits / (n_true + n_given - hits)
        union = np.maximum(true_count[:, None] + given_count[None, :] - counts, 1)
        association = float((counts * counts / union).sum()) / max(hits, 1)
        scores.append((float(np.sqrt(detection * association)), float(detection), association))
    means = np.array(scores).mean(axis=0)
    return HotaScore(*(float(value) for value in means))
