"""Layouts about one video: captions, multiple choice with and without subtitles, points, tracks.

Units: VideoPoint publishes percent of the frame and seconds of the file on a grid of half seconds; its evaluation set and all
track sets publish pixels. Times of an example count from its clip's start.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from molmo2_assets.ingest.adapters.base import (
    Adapter,
    Context,
    Piece,
    Reference,
    ask,
    choice,
    clip_of,
    fraction,
    mask_of,
    maybe_number,
    need,
    number,
    paired,
    word_list,
    words,
    xy_list,
)
from molmo2_assets.ingest.reasons import RowFault
from molmo2_assets.ingest.rows import RawRow
from training_backend.data.example import Count, Media, Subtitle, TimedPoint, TimedPoints, Track, Tracks, TrackSample

GRID = 0.5
"""Seconds between the moments at which Molmo2 annotates videos."""
LOWEST_SCORE = 3
"""Molmo2-Cap keeps annotations with this score or a better one."""


def _by_id(row: RawRow, context: Context) -> list[Reference]:
    return [Reference(words(row.data, "video_id"), "video")]


def _by_video(row: RawRow, context: Context) -> list[Reference]:
    return [Reference(words(row.data, "video"), "video")]


def _key(media: Media) -> str:
    return media.uri if media.clip is None else f"{media.uri}@{media.clip[0]:g}-{media.clip[1]:g}"


def _cap(row: RawRow, media: Sequence[Media], context: Context) -> Piece:
    data = row.data
    video = clip_of(media[0], maybe_number(data, "video_start"), maybe_number(data, "video_end"))
    score = maybe_number(data, "annotation_score")
    if score is not None and score < context.params.get("lowest_score", LOWEST_SCORE):
        raise RowFault("low_score", "annotation_score", f"{score:g}")
    styles = (
        ("video_caption", "video_short_caption"),
        ("merged_caption", "video_merged_caption"),
        ("video_frame_merged_caption", "video_long_caption"),
    )
    captions = [(style, need(data, column, str).strip()) for column, style in styles if data.get(column) is not None]
    branches = [ask(style, style, None, caption) for style, caption in captions if caption]
    if not branches:
        raise RowFault("empty_text", "merged_caption", "no caption has words")
    return Piece(_key(video), (video,), tuple(branches))


def _choices(row: RawRow, media: Sequence[Media], context: Context) -> Piece:
    question = words(row.data, "Question")
    wrong = word_list(row.data, "NegativeAnswers")
    branch = choice(question, context.style, question, words(row.data, "Answer"), wrong, _key(media[0]))
    return Piece(_key(media[0]), tuple(media), (branch,))


def _subtitle_choices(row: RawRow, media: Sequence[Media], context: Context) -> Piece:
    lines = []
    duration = media[0].seconds or 0.0
    for line in need(row.data, "subtitle", list):
        start, end = number(line, "start"), number(line, "end")
        if not 0 <= start < end:
            raise RowFault("time_order", "subtitle", f"from {start} to {end}")
        if start > duration:
            raise RowFault("time_outside", "subtitle", f"starts at {start} of {duration} s")
        lines.append(Subtitle(start=start, end=end, text=words(line, "text")))
    piece = _choices(row, media, context)
    video = msgspec.structs.replace(media[0], subtitles=tuple(lines))
    return _about(piece, video)


def _about(piece: Piece, video: Media) -> Piece:
    """The piece about another view of its video."""
    return Piece(piece.key, (video,), piece.branches, piece.meta)


def _points(row: RawRow, media: Sequence[Media], context: Context) -> Piece:
    data = row.data
    if data.get("annotator_unsure"):
        raise RowFault("unsure", "annotator_unsure", "true")
    label = words(data, "label")
    video = clip_of(media[0], maybe_number(data, "clip_start"), maybe_number(data, "clip_end"))
    start = video.clip[0] if video.clip else 0.0
    times, frames = _times(data), need(data, "points", list)
    paired("two_fps_timestamps", times, frames)
    found = [
        (round(time - start, 3), fraction(x, 100.0), fraction(y, 100.0))
        for time, pairs in zip(times, frames, strict=True)
        for x, y in xy_list(pairs, "points")
    ]
    points = timed_points(label, found)
    count = need(data, "count", int)
    if len(found) != count:
        raise RowFault("count_mismatch", "count", f"count {count}, {len(found)} points")
    branches = (
        ask(f"{label}/point", "video_point", None, points),
        ask(f"{label}/point_count", "video_point_count", None, points, Count(label=label, count=count)),
    )
    return Piece(_key(video), (video,), branches)


def _times(data: dict[str, Any]) -> list[float]:
    name = "two_fps_timestamps"
    return [number({name: time}, name) for time in need(data, name, list)]


def timed_points(label: str, found: Sequence[tuple[float, float, float]]) -> TimedPoints:
    """Points of (t, x, y), ids in order of time, then x, then y."""
    ordered = sorted(found)
    return TimedPoints(label=label, points=tuple(TimedPoint(t=t, x=x, y=y, id=n) for n, (t, x, y) in enumerate(ordered)))


def _points_eval(row: RawRow, media: Sequence[Media], context: Context) -> Piece:
    data = row.data
    label = words(data, "label")
    width, height = need(data, "width", int), need(data, "height", int)
    _same_size(media[0], width, height)
    times, pairs, masks = _times(data), xy_list(data.get("points"), "points"), need(data, "masks", list)
    paired("masks", times, pairs, masks)
    count = len(pairs) if data.get("count") is None else need(data, "count", int)
    if count != len(pairs):
        raise RowFault("count_mismatch", "count", f"count {count}, {len(pairs)} points")
    found = [(t, fraction(x, width), fraction(y, height)) for t, (x, y) in zip(times, pairs, strict=True)]
    order = sorted(range(len(found)), key=lambda place: found[place])
    kept = {str(new): _moments({"masks": masks[place]}, media[0]) for new, place in enumerate(order)}
    branch = ask(label, context.style, None, timed_points(label, found), Count(label=label, count=len(found)))
    return Piece(f"{_key(media[0])}#{label}", tuple(media), (branch,), {"masks": kept})


def _moments(data: dict[str, Any], media: Media) -> dict[str, Any]:
    """Masks of one object by second, from [{frame_id on the half-second grid, rle}]."""
    masks = need(data, "masks", list)
    return {f"{need(mask, 'frame_id', int) * GRID:.1f}": mask_of(need(mask, "rle", dict), media, "masks") for mask in masks}


def _same_size(media: Media, width: int, height: int) -> None:
    if (media.width, media.height) != (width, height):
        raise RowFault("size_mismatch", "width", f"stated {width}×{height}, the file shows {media.width}×{media.height}")


def _tracks(row: RawRow, media: Sequence[Media], context: Context) -> Piece:
    data = row.data
    query = words(data, "expression")
    width, height = need(data, "width", int), need(data, "height", int)
    fps, rate = need(data, "fps", int), need(data, "sampling_fps", int)
    if rate <= 0 or fps <= 0 or fps % rate:
        raise RowFault("rate_mismatch", "sampling_fps", f"{rate} does not divide {fps}")
    _same_size(media[0], width, height)
    samples: dict[int, list[TrackSample]] = {}
    for moment in need(data, "frame_trajectories", list):
        time = number(moment, "time")
        seen: set[int] = set()
        for point in need(moment, "points", list):
            name, place = need(point, "id", int), need(point, "point", list)
            if name in seen:
                raise RowFault("object_twice", "frame_trajectories", f"object {name} at {time} s")
            seen.add(name)
            x, y = _xy(place, "frame_trajectories")
            occluded = need(point, "occluded", bool)
            sample = TrackSample(t=round(time, 3), x=fraction(x, width), y=fraction(y, height), occluded=occluded)
            samples.setdefault(name, []).append(sample)
    tracks = number_tracks(samples)
    branch = ask(f"{query}/{rate}", context.style, None, Tracks(query=query, tracks=tracks, fps=float(rate)))
    return Piece(_key(media[0]), tuple(media), (branch,))


def _xy(place: list[Any], name: str) -> tuple[float, float]:
    """A point published as [x, y]."""
    if len(place) != 2:
        raise RowFault("length_mismatch", name, f"a point of {len(place)} numbers")
    x, y = (number({name: value}, name) for value in place)
    return x, y


def number_tracks(samples: dict[int, list[TrackSample]]) -> tuple[Track, ...]:
    """Tracks numbered from 0 by first sample, ties by x then y; ids of the source mean nothing outside it."""
    ordered = sorted(samples.values(), key=lambda each: (each[0].t, each[0].x, each[0].y))
    return tuple(Track(id=number, samples=tuple(each)) for number, each in enumerate(ordered))


def _tracks_eval(row: RawRow, media: Sequence[Media], context: Context) -> Piece:
    data = row.data
    query = words(data, "exp")
    width, height, fps = need(data, "w", int), need(data, "h", int), need(data, "fps", int)
    rate = int(context.params.get("sampling_fps", 1))
    if fps <= 0 or fps % rate:
        raise RowFault("rate_mismatch", "fps", f"{rate} does not divide {fps}")
    _same_size(media[0], width, height)
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
    return Piece(f"{_key(media[0])}#{query}", tuple(media), (branch,), meta)


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
    Adapter("molmo2_cap", ("video_id", "video_start", "video_end", "video_caption", "merged_caption"), _by_id, _cap),
    Adapter("molmo2_video_cap_qa", ("video_id", "Question", "Answer", "NegativeAnswers"), _by_id, _choices, code_version=2),
    Adapter(
        "molmo2_video_subtitle_qa",
        ("video_id", "Question", "Answer", "NegativeAnswers", "subtitle"),
        _by_id,
        _subtitle_choices,
        code_version=2,
    ),
    Adapter("molmo2_video_point", ("video_id", "label", "count", "points", "two_fps_timestamps"), _by_id, _points),
    Adapter("molmo2_video_point_eval", ("video_id", "label", "points", "masks", "two_fps_timestamps"), _by_id, _points_eval),
    Adapter("molmo2_track_instruction", ("video", "expression", "fps", "sampling_fps", "frame_trajectories"), _by_video, _tracks),
    Adapter("molmo2_video_track_eval", ("video", "exp", "points", "masks", "fps"), _by_video, _tracks_eval),
)
