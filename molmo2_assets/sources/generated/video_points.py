"""Points in films, and the held-out twin with masks.

Belongs here: rows in the layouts of Molmo2-VideoPoint and Molmo2-VideoPointEval. Does not belong here: motion and visibility
(`clips.py`), run-length coding (`rle.py`). `points_clip` gives the truth of one film again.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from molmo2_assets.sources.generated import faults, rle
from molmo2_assets.sources.generated.clips import FPS, GRID, Clip, clip_with
from molmo2_assets.sources.generated.content import MediaFolder, Params, Row, film_rows
from molmo2_assets.sources.generated.images import percent
from molmo2_assets.sources.generated.scenes import draw_pair
from molmo2_assets.sources.generated.seeds import balanced
from molmo2_assets.sources.generated.shapes import Label, Look
from molmo2_assets.sources.generated.videos import film

GROUPS = ((1,), (1, 1), (2,), (1, 2), (1,), (2, 1))
LABELS_PER_CLIP = 2
MASK_REACH = 1.5
"""Seconds before and after a point for which the held-out set has masks: a window of three seconds, as published."""


def points_clip(params: Params, number: int) -> tuple[Clip, list[Label], tuple[float, float] | None]:
    """One or two groups of one or two things, two labels, and in a quarter of the films a shorter clip within the film."""
    rng = params.rng("clip", number)
    groups = balanced(GROUPS, number, params.name, params.seed)
    cut = balanced((True, False, False, False), number, params.name, params.seed, "cut")

    def draw() -> tuple[list[Look], list[str], list[Label]]:
        looks, labels = draw_pair(rng, groups, 0)
        kinds = rng.choices(("still", "slide", "bounce", "enter", "enter", "leave"), k=len(looks))
        return looks, kinds, labels

    window: tuple[float, float] | None = None

    def clear(clip: Clip, labels: list[Label]) -> bool:
        nonlocal window
        window = (GRID * rng.randint(1, 2), clip.seconds - GRID * rng.randint(0, 1)) if cut else None
        start, end = window or (0.0, clip.seconds)
        return all(clip.first_seen(index, start, end) is not None for index in range(len(clip.movers)))

    clip, labels = clip_with(rng, params.size, draw, clear)
    return clip, labels, window


def timed_points(clip: Clip, label: Label, start: float, end: float) -> list[tuple[float, int, tuple[float, float]]]:
    """(second of the film, mover, point in pixels) of each thing that a label means, at the first grid moment when it is seen
    well; sorted by time, then from left to right."""
    found = []
    for index in clip.matching(label):
        time = clip.first_seen(index, start, end)
        assert time is not None, "the film was drawn so that everything is seen"
        point = clip.point(index, round(time * FPS))
        assert point is not None, "something of a thing that is seen well is seen"
        found.append((time, index, point))
    return sorted(found, key=lambda item: (item[0], item[2]))


def build_points(params: Params, media: MediaFolder) -> list[Row]:
    """Rows like Molmo2-VideoPoint, two labels a film: per moment of the half-second grid a list of points in percent.

    Times are those of the file, also where the row names a clip in it.
    """
    return film_rows(_points_of, params, media, -(-params.n // LABELS_PER_CLIP))[: params.n]


def _points_of(params: Params, media: MediaFolder, number: int) -> list[Row]:
    rows: list[Row] = []
    clip, labels, window = points_clip(params, number)
    video = film(media, number, clip)
    start, end = window or (0.0, clip.seconds)
    for label in labels:
        found = timed_points(clip, label, start, end)
        times = sorted({time for time, _, _ in found})
        rows.append(
            {
                "video_id": video,
                "video_source": "generated",
                "video_duration": clip.seconds,
                "label": label.plural,
                "question": f"How many {label.plural} are there in the video?",
                "category": "object",
                "count": len(found),
                "points": [[percent(point, clip.side) for when, _, point in found if when == time] for time in times],
                "raw_timestamps": times,
                "raw_frames": [round(time * FPS) for time in times],
                "two_fps_timestamps": times,
                "clip_start": window[0] if window else None,
                "clip_end": window[1] if window else None,
                "annotator_unsure": False,
            }
        )
    return rows


def build_points_eval(params: Params, media: MediaFolder) -> list[Row]:
    """Rows like Molmo2-VideoPointEval: points in pixels, one moment each, and for each point the masks of its thing on the
    half-second grid around that moment."""
    rows: list[Row] = []
    for number in range(-(-params.n // LABELS_PER_CLIP)):
        clip, labels, _ = points_clip(params, number)
        video = film(media, number, clip)
        for label in labels:
            found = timed_points(clip, label, 0.0, clip.seconds)
            rows.append(
                {
                    "video_id": video,
                    "video_source": "generated",
                    "video_duration": clip.seconds,
                    "label": label.plural,
                    "count": len(found),
                    "points": [{"x": point[0], "y": point[1]} for _, _, point in found],
                    "masks": [_masks_around(clip, index, time) for time, index, _ in found],
                    "two_fps_timestamps": [time for time, _, _ in found],
                    "width": clip.side,
                    "height": clip.side,
                }
            )
    return rows[: params.n]


def _masks_around(clip: Clip, index: int, time: float) -> list[dict[str, Any]]:
    masks = []
    for step in range(round(clip.seconds / GRID)):
        if abs(step * GRID - time) <= MASK_REACH and clip.seen(index, round(step * GRID * FPS)) > 0:
            masks.append({"frame_id": step, "rle": rle.encode(clip.mask(index, round(step * GRID * FPS)))})
    return masks


POINT_FAULTS: Sequence[faults.FaultKind] = (
    *faults.video_faults("video_id"),
    *faults.point_faults(),
    faults.count_off(),
    faults.set_to("time_outside", "two_fps_timestamps", lambda row: [time + 60.0 for time in row["two_fps_timestamps"]]),
    faults.set_to("length_mismatch", "two_fps_timestamps", lambda row: [*row["two_fps_timestamps"], row["video_duration"] - GRID]),
    faults.FaultKind("clip_start_after_end", "clip_start", lambda row, number, media: row.update(clip_start=3.0, clip_end=1.0)),
    faults.blank("label"),
    faults.DUPLICATE,
)
