"""Tracks in films, and the held-out twin with masks.

Belongs here: rows in the layouts of molmo2-track-instruction and Molmo2-VideoTrackEval. Does not belong here: motion and visibility
(`clips.py`), run-length coding (`rle.py`). `track_clip` gives the truth of one film again.
"""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from molmo2_assets.sources.generated import faults, rle
from molmo2_assets.sources.generated.clips import FPS, GRID, OCCLUDED, SEEN, Clip, Mover, Path, clip_with
from molmo2_assets.sources.generated.content import MediaFolder, Params, Row, film_rows
from molmo2_assets.sources.generated.scenes import draw_pair
from molmo2_assets.sources.generated.seeds import balanced
from molmo2_assets.sources.generated.shapes import COLOURS, Label, Look
from molmo2_assets.sources.generated.videos import film

GROUPS = ((1,), (1, 1), (2,), (1, 2), (1,), (2, 1))
LABELS_PER_CLIP = 2


def track_clip(params: Params, number: int) -> tuple[Clip, list[Label]]:
    """One or two groups of one or two things that move slowly, two labels; everything that is asked for is seen most of the time.

    In every fourth film one of them passes behind a square that stands still.
    """
    rng = params.rng("clip", number)
    groups = balanced(GROUPS, number, params.name, params.seed)
    hidden = balanced((True, False, False, False), number, params.name, params.seed, "hidden")

    def draw() -> tuple[list[Look], list[str], list[Label]]:
        looks, labels = draw_pair(rng, groups, 0, kinds=("both", "both", "both", "shape", "colour"))
        kinds = rng.choices(("bounce", "bounce", "slide", "slide", "still", "enter", "leave"), k=len(looks))
        if hidden:
            kinds[0], looks[0] = "slide", replace(looks[0], size="small")
        return looks, kinds, labels

    def clear(clip: Clip, labels: list[Label]) -> bool:
        moments = range(0, clip.frames, round(GRID * FPS))
        asked = [index for label in labels for index in clip.matching(label)]
        least = (0.4 if hidden else 0.6) * len(moments)
        well = [[clip.seen(index, frame) >= SEEN for frame in moments] for index in asked]
        return all(sum(seen) >= least and any(seen[::2]) for seen in well)  # every second moment: what one sample a second shows

    while True:
        clip, labels = clip_with(rng, params.size, draw, clear)
        if not hidden:
            return clip, labels
        clip = _with_square(clip, rng)
        if clear(clip, labels) and tuple(len(clip.matching(label)) for label in labels) == (
            groups if len(groups) == 2 else 2 * groups
        ):
            return clip, labels


def _with_square(clip: Clip, rng: random.Random) -> Clip:
    """The same film with a square in front, halfway of the first small thing that slides, just large enough to cover it."""
    actor = next(mover for mover in clip.movers if mover.path.kind == "slide" and mover.look.size == "small")
    x, y = actor.path.at(clip.seconds / 2, 0, clip.side)
    square = Mover(Look(rng.choice(tuple(COLOURS)), "square"), actor.radius + 2, Path("still", x, y))
    return replace(clip, movers=(*clip.movers, square))


def expression(label: Label, count: int) -> str:
    """`the red circle`, `the red circles`."""
    return f"the {label.singular if count == 1 else label.plural}"


def sample(clip: Clip, index: int, frame: int) -> tuple[tuple[float, float], bool] | None:
    """(point in pixels, occluded) of a mover in a frame; None while its centre is outside the picture."""
    thing = clip.things(frame)[index]
    if not (0 <= thing.x < clip.side and 0 <= thing.y < clip.side):
        return None
    point = clip.point(index, frame)
    if point is None or clip.seen(index, frame) < OCCLUDED:
        return (thing.x + 0.5, thing.y + 0.5), True
    return point, False


def build_tracks(params: Params, media: MediaFolder) -> list[Row]:
    """Rows like molmo2-track-instruction (task track), two expressions a film, in pixels, three of four sampled once a
    second and the fourth twice.

    Beside the table `masks/<clip>.json` holds, as the released loaders cache them, {object id: [mask or null per frame]},
    with masks on the half-second grid only.
    """
    return film_rows(_tracks_of, params, media, -(-params.n // LABELS_PER_CLIP))[: params.n]


def _tracks_of(params: Params, media: MediaFolder, number: int) -> list[Row]:
    rows: list[Row] = []
    clip, labels = track_clip(params, number)
    video = film(media, number, clip)
    _write_masks(media, video, clip)
    for turn, label in enumerate(labels):
        rate = 1 if (2 * number + turn) % 4 else 2  # another film teaches more than twice as many points of this one
        objects = clip.matching(label)
        moments = []
        for frame in range(0, clip.frames, FPS // rate):
            samples = [(index, sample(clip, index, frame)) for index in objects]
            points = [{"id": index, "point": list(found[0]), "occluded": found[1]} for index, found in samples if found is not None]
            moments.append({"frame": frame, "time": frame / FPS, "points": points})
        rows.append(
            {
                "id": f"{video}_{turn}",
                "video": video,
                "clip": video,
                "video_dataset": "shapes",
                "expression": expression(label, len(objects)),
                "fps": FPS,
                "sampling_fps": rate,
                "width": clip.side,
                "height": clip.side,
                "mask_id": [str(index) for index in objects],
                "start_frame": 0,
                "end_frame": clip.frames - 1,
                "frame_trajectories": moments,
            }
        )
    return rows


def _write_masks(media: MediaFolder, video: str, clip: Clip) -> None:
    masks = {str(index): [_mask_or_none(clip, index, frame) for frame in range(clip.frames)] for index in range(len(clip.movers))}
    path = media.folder.parent / "masks" / f"{video}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(masks, separators=(",", ":")))


def _mask_or_none(clip: Clip, index: int, frame: int) -> dict[str, Any] | None:
    if frame % round(GRID * FPS):
        return None
    mask = clip.mask(index, frame)
    return rle.encode(mask, compressed=True) if mask.any() else None


def build_tracks_eval(params: Params, media: MediaFolder) -> list[Row]:
    """Rows like Molmo2-VideoTrackEval: per object a point and a mask for every frame of the film; no point where it is hidden."""
    rows: list[Row] = []
    for number in range(-(-params.n // LABELS_PER_CLIP)):
        clip, labels = track_clip(params, number)
        video = film(media, number, clip)
        for turn, label in enumerate(labels):
            objects = clip.matching(label)
            points, masks = [], []
            for index in objects:
                samples = [sample(clip, index, frame) for frame in range(clip.frames)]
                points.append(
                    {
                        "object_id": str(index),
                        "points": [list(found[0]) if found is not None and not found[1] else [] for found in samples],
                    }
                )
                frames = [rle.encode(clip.mask(index, frame)) for frame in range(clip.frames)]
                masks.append({"object_id": str(index), "masks": frames})
            rows.append(
                {
                    "id": f"{video}_{turn}",
                    "video": video,
                    "clip": video,
                    "video_dataset": "shapes",
                    "video_source": "generated",
                    "exp": expression(label, len(objects)),
                    "obj_id": list(objects),
                    "mask_id": [str(index) for index in objects],
                    "points": points,
                    "masks": masks,
                    "start_frame": 0,
                    "end_frame": clip.frames - 1,
                    "w": clip.side,
                    "h": clip.side,
                    "n_frames": clip.frames,
                    "fps": FPS,
                }
            )
    return rows[: params.n]


def _first_sample(row: Row, change: dict[str, Any]) -> list[dict[str, Any]]:
    """The trajectories with the first point changed."""
    moments: list[dict[str, Any]] = row["frame_trajectories"]
    place = next(place for place, moment in enumerate(moments) if moment["points"])
    changed = {**moments[place], "points": [{**moments[place]["points"][0], **change}, *moments[place]["points"][1:]]}
    return [*moments[:place], changed, *moments[place + 1 :]]


def _twice(row: Row) -> list[dict[str, Any]]:
    """The trajectories with the first point given twice in its frame."""
    return [{**moment, "points": [*moment["points"], *moment["points"][:1]]} for moment in row["frame_trajectories"]]


TRACK_FAULTS: Sequence[faults.FaultKind] = (
    *faults.video_faults("clip", "video"),
    faults.set_to("point_outside", "frame_trajectories", lambda row: _first_sample(row, {"point": [row["width"] + 40.0, 10.0]})),
    faults.set_to("point_not_a_number", "frame_trajectories", lambda row: _first_sample(row, {"point": [float("nan"), 10.0]})),
    faults.set_to("object_twice", "frame_trajectories", _twice),
    faults.set_to(
        "time_outside",
        "frame_trajectories",
        lambda row: [{**m, "frame": m["frame"] + 900, "time": m["time"] + 900 / FPS} for m in row["frame_trajectories"]],
    ),
    faults.set_to("rate_does_not_divide", "sampling_fps", lambda row: 3),
    faults.set_to("size_mismatch", "width", lambda row: row["width"] * 4),
    faults.blank("expression"),
    faults.DUPLICATE,
)
