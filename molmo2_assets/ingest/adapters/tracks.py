"""Tracks of named things through a film: one layout for Molmo2-VideoTrack and the academic sets, one for its evaluation set.

Units: pixels of the frame that the row states, seconds of the clip. The three tasks publish the same columns: every sampled
moment (`track`), first and last sight (`ground`), one object from a given first point (`single_point`); `mode` says which a row's
answer is.

Column names and the rule on objects (only those in `mask_id` belong to the query) are those that the released loaders use
(allenai/molmo2: olmo/data/academic_video_track_datasets.py, olmo/data/molmo2_video_track_datasets.py).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

from molmo2_assets.ingest.adapters.base import (
    Adapter,
    Context,
    Parameters,
    Piece,
    Reference,
    ask,
    fraction,
    mask_of,
    need,
    number,
    paired,
    words,
)
from molmo2_assets.ingest.adapters.named import columns_of, fill, key_of
from molmo2_assets.ingest.reasons import RowFault
from molmo2_assets.ingest.rows import RawRow
from training_backend.data.example import Media, Track, Tracks, TrackSample


class TrackLayout(Parameters, frozen=True, kw_only=True):
    """`video`: the column of the film, or a template. `mode`: what is asked. `masks`: a column (joined from the masks' own files)
    with the masks of every object, a list over frames, by its id or its place in `mask_id`; they are kept for scoring."""

    video: str = "video"
    mode: Literal["track", "ground", "single_point"] = "track"
    masks: str | None = None
    masks_by: Literal["id", "place"] = "id"

    def needed(self) -> tuple[str, ...]:
        return columns_of(self.video)


def _film(row: RawRow, context: Context) -> list[Reference]:
    return _named(row, context.of(TrackLayout))


def _eval_film(row: RawRow, context: Context) -> list[Reference]:
    return _named(row, context.of(EvalParams))


def _named(row: RawRow, layout: TrackLayout) -> list[Reference]:
    name = layout.video
    return [Reference(fill(name, row.data) if "{" in name else words(row.data, name), "video")]


def _tracks(row: RawRow, media: Sequence[Media], context: Context) -> Piece:
    data, layout = row.data, context.of(TrackLayout)
    query = words(data, "expression")
    width, height = need(data, "width", int), need(data, "height", int)
    fps, rate = need(data, "fps", int), need(data, "sampling_fps", int)
    if rate <= 0 or fps <= 0 or fps % rate:
        raise RowFault("rate_mismatch", "sampling_fps", f"{rate} does not divide {fps}")
    same_size(media[0], width, height)
    wanted = _wanted(data)
    samples: dict[str, list[TrackSample]] = {}
    for moment in need(data, "frame_trajectories", list):
        time = number(moment, "time")
        seen: set[str] = set()
        for point in need(moment, "points", list):
            name = str(need(point, "id", (int, str)))
            if name in seen:
                raise RowFault("object_twice", "frame_trajectories", f"object {name} at {time} s")
            seen.add(name)
            if (wanted is not None and name not in wanted) or point.get("point") is None:
                continue
            x, y = _xy(need(point, "point", list), "frame_trajectories")
            occluded = need(point, "occluded", bool)
            sample = TrackSample(t=round(time, 3), x=fraction(x, width), y=fraction(y, height), occluded=occluded)
            samples.setdefault(name, []).append(sample)
    if layout.mode == "single_point" and len(samples) > 1:
        raise RowFault("id_conflict", "frame_trajectories", f"{len(samples)} objects where one is followed")
    for each in samples.values():
        each.sort(key=lambda sample: sample.t)  # frames are published in any order
    ordered = sorted(samples, key=lambda name: (samples[name][0].t, samples[name][0].x, samples[name][0].y))
    tracks = tuple(Track(id=place, samples=tuple(samples[name])) for place, name in enumerate(ordered))
    branch = ask(f"{query}/{rate}", context.style, None, Tracks(query=query, tracks=tracks, fps=float(rate), mode=layout.mode))
    if layout.masks is None:
        return Piece(key_of(media), tuple(media), (branch,))
    meta = {"masks": _object_masks(data, layout, ordered, fps, rate, media[0])}
    return Piece(f"{key_of(media)}#{query}", tuple(media), (branch,), meta)


def _wanted(data: dict[str, Any]) -> list[str] | None:
    """Objects that the query names; all where the row does not say."""
    if data.get("mask_id") is None:
        return None
    names = data["mask_id"]
    return [str(name) for name in names] if isinstance(names, list) else [str(names)]


def _object_masks(
    data: dict[str, Any], layout: TrackLayout, ordered: Sequence[str], fps: int, rate: int, media: Media
) -> dict[str, dict[str, Any]]:
    """Masks at the sampled moments by track and second."""
    column = str(layout.masks)
    published = need(data, column, dict)
    places = {name: str(place) for place, name in enumerate(_wanted(data) or ordered)}
    kept: dict[str, dict[str, Any]] = {}
    for track, name in enumerate(ordered):
        frames = need(published, places[name] if layout.masks_by == "place" else name, list)
        found = {}
        for place, mask in enumerate(frames):
            frame = int(mask["frame"]) if isinstance(mask, dict) and isinstance(mask.get("frame"), int) else place
            if frame % (fps // rate) == 0 and _shows(mask):
                found[f"{frame / fps:.1f}"] = mask_of(mask, media, column)
        kept[str(track)] = found
    return kept


def same_size(media: Media, width: int, height: int) -> None:
    if (media.width, media.height) != (width, height):
        raise RowFault("size_mismatch", "width", f"stated {width}×{height}, the file shows {media.width}×{media.height}")


def _xy(place: list[Any], name: str) -> tuple[float, float]:
    """A point published as [x, y]."""
    if len(place) != 2:
        raise RowFault("length_mismatch", name, f"a point of {len(place)} numbers")
    x, y = (number({name: value}, name) for value in place)
    return x, y


class EvalParams(TrackLayout, frozen=True, kw_only=True):
    """`sampling_fps`: moments a second that are asked for."""

    sampling_fps: int = 1


def _tracks_eval(row: RawRow, media: Sequence[Media], context: Context) -> Piece:
    data = row.data
    query = words(data, "exp")
    width, height, fps = need(data, "w", int), need(data, "h", int), need(data, "fps", int)
    rate = context.of(EvalParams).sampling_fps
    if fps <= 0 or fps % rate:
        raise RowFault("rate_mismatch", "fps", f"{rate} does not divide {fps}")
    same_size(media[0], width, height)
    points, masks = _by_object(data, "points"), _by_object(data, "masks")
    if points.keys() != masks.keys():
        raise RowFault("length_mismatch", "masks", "points and masks name different objects")
    step = fps // rate
    found: list[tuple[list[TrackSample], dict[str, Any]]] = []
    for name, frames in points.items():
        paired("masks", frames, masks[name])
        places = {frame: _place(frames[frame]) for frame in range(0, len(frames), step)}
        samples = [
            TrackSample(t=round(frame / fps, 3), x=fraction(place[0], width), y=fraction(place[1], height))
            for frame, place in places.items()
            if place is not None
        ]
        if not samples:
            raise RowFault("never_seen", "points", f"object {name} has no visible moment at {rate} fps")
        kept = {
            f"{frame / fps:.1f}": mask_of(masks[name][frame], media[0], "masks") for frame in places if _shows(masks[name][frame])
        }
        found.append((samples, kept))
    found.sort(key=lambda item: (item[0][0].t, item[0][0].x, item[0][0].y))
    tracks = tuple(Track(id=number, samples=tuple(samples)) for number, (samples, _) in enumerate(found))
    branch = ask(query, context.style, None, Tracks(query=query, tracks=tracks, fps=float(rate)))
    meta = {"masks": {str(number): kept for number, (_, kept) in enumerate(found)}}
    return Piece(f"{key_of(media)}#{query}", tuple(media), (branch,), meta)


def _by_object(data: dict[str, Any], name: str) -> dict[str, list[Any]]:
    """What a list of {object_id, <name>: one entry a frame} says of each object."""
    found: dict[str, list[Any]] = {}
    for item in need(data, name, list):
        key = str(need(item, "object_id", (str, int)))
        if key in found:
            raise RowFault("object_twice", name, f"object {key}")
        found[key] = need(item, name, list)
    return found


def _place(value: Any) -> tuple[float, float] | None:
    """A point of one frame; null or empty where the object is hidden."""
    if not value and isinstance(value, list | None):
        return None
    return _xy(need({"points": value}, "points", list), "points")


def _shows(mask: Any) -> bool:
    """Whether a frame has a mask with at least one pixel; the size of an empty one does not matter."""
    if not mask:
        return False
    counts = need(mask, "counts", (list, str))
    return bool(counts) if isinstance(counts, str) else any(counts[1::2])


ADAPTERS = (
    Adapter(
        "molmo2_track_instruction", ("expression", "fps", "sampling_fps", "frame_trajectories"), _film, _tracks,
        parameters=TrackLayout,
    ),
    Adapter("molmo2_video_track_eval", ("video", "exp", "points", "masks", "fps"), _eval_film, _tracks_eval, parameters=EvalParams),
)  # fmt: skip
