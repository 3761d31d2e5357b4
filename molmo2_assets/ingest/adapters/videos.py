"""Layouts about one video: captions, multiple choice with and without subtitles, points.

Units: VideoPoint publishes percent of the frame and seconds of the file on a grid of half seconds; its evaluation set publishes
pixels. Times of an example count from its clip's start.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Sequence
from typing import Any

import msgspec

from molmo2_assets.ingest.adapters.base import (
    Adapter,
    Context,
    Parameters,
    Piece,
    Reference,
    Unit,
    ask,
    choice,
    clip_of,
    fraction,
    mask_of,
    maybe_number,
    need,
    number,
    paired,
    scale_of,
    word_list,
    words,
    xy_list,
)
from molmo2_assets.ingest.adapters.named import key_of
from molmo2_assets.ingest.adapters.tracks import same_size
from molmo2_assets.ingest.reasons import RowFault
from molmo2_assets.ingest.rows import RawRow
from training_backend.data.example import Choices, Count, Media, Subtitle, TimedPoint, TimedPoints

GRID = 0.5
"""Seconds between the moments at which Molmo2 annotates videos."""
LOWEST_SCORE = 3
"""Molmo2-Cap keeps annotations with this score or a better one."""


def _by_id(row: RawRow, context: Context) -> list[Reference]:
    return [Reference(words(row.data, "video_id"), "video")]


class CaptionParams(Parameters, frozen=True, kw_only=True):
    """`lowest_score`: annotations below it are left out."""

    lowest_score: float = LOWEST_SCORE


def _cap(row: RawRow, media: Sequence[Media], context: Context) -> Piece:
    data = row.data
    video = clip_of(media[0], maybe_number(data, "video_start"), maybe_number(data, "video_end"))
    score = maybe_number(data, "annotation_score")
    if score is not None and score < context.of(CaptionParams).lowest_score:
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
    return Piece(key_of([video]), (video,), tuple(branches))


def _choices(row: RawRow, media: Sequence[Media], context: Context) -> Piece:
    question = words(row.data, "Question")
    wrong = word_list(row.data, "NegativeAnswers")
    branch = choice(question, context.style, question, words(row.data, "Answer"), wrong, key_of(media[:1]))
    return Piece(key_of(media[:1]), tuple(media), (branch,))


_GIVEN = re.compile(r"The Question is:(.*)\n\s*The Options are:(.*)", re.DOTALL)
_OPTION = re.compile(r"Options? \d+:\s*")


def _by_input(row: RawRow, context: Context) -> list[Reference]:
    return [Reference(words(row.data, "visual_input"), "video")]


def _fun(row: RawRow, media: Sequence[Media], context: Context) -> Piece:
    """FunQA: open answers, and multiple choice whose options stand in the instruction, the right one counted from 1 in `gt`."""
    asked = words(row.data, "instruction")
    if row.data.get("gt") is None:
        return Piece(key_of(media), tuple(media), (ask(asked, context.style, asked, words(row.data, "output")),))
    given = _GIVEN.search(asked)
    if given is None:
        raise RowFault("no_options", "instruction", "it names no options")
    try:
        options = [_OPTION.sub("", str(option)).strip() for option in ast.literal_eval(given[2].strip())]
        place = int(row.data["gt"]) - 1
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError) as error:
        raise RowFault("wrong_type", "instruction", str(error)[:80]) from None
    if not 0 <= place < len(options):
        raise RowFault("answer_outside", "gt", f"option {place + 1} of {len(options)}")
    question = given[1].strip()
    branch = ask(question, "video_multiple_choice", question, Choices(options=tuple(options), answer=place))
    return Piece(key_of(media), tuple(media), (branch,))


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


class PointLayout(Parameters, frozen=True, kw_only=True):
    """Where a row of points in a film says what; defaults are those of Molmo2-VideoPoint. `clip`: columns of from and to."""

    video: str = "video_id"
    label: str = "label"
    times: str = "two_fps_timestamps"
    clip: tuple[str, str] = ("clip_start", "clip_end")
    unit: Unit = "percent"
    lower: bool = False
    count_only: bool = False

    def needed(self) -> tuple[str, ...]:
        return (self.video, self.label, self.times)


def _pointed(row: RawRow, context: Context) -> list[Reference]:
    return [Reference(words(row.data, context.of(PointLayout).video), "video")]


def _points(row: RawRow, media: Sequence[Media], context: Context) -> Piece:
    data, layout = row.data, context.of(PointLayout)
    if data.get("annotator_unsure"):
        raise RowFault("unsure", "annotator_unsure", "true")
    label = words(data, layout.label)
    label = label.lower() if layout.lower else label
    video = clip_of(media[0], *(maybe_number(data, name) for name in layout.clip))
    start = video.clip[0] if video.clip else 0.0
    times, frames = _times(data, layout.times), need(data, "points", list)
    paired(layout.times, times, frames)
    width, height = scale_of(layout.unit, video)
    found = [
        (round(time - start, 3), fraction(x, width), fraction(y, height))
        for time, pairs in zip(times, frames, strict=True)
        for x, y in xy_list(pairs, "points")
    ]
    points = timed_points(label, found)
    count = need(data, "count", int)
    if len(found) != count:
        raise RowFault("count_mismatch", "count", f"count {count}, {len(found)} points")
    counted = ask(f"{label}/point_count", context.style if layout.count_only else "video_point_count", None, points,
                  Count(label=label, count=count))  # fmt: skip
    if layout.count_only:
        return Piece(f"{key_of([video])}#{label}", (video,), (counted,))
    return Piece(key_of([video]), (video,), (ask(f"{label}/point", "video_point", None, points), counted))


def _times(data: dict[str, Any], name: str = "two_fps_timestamps") -> list[float]:
    return [number({name: time}, name) for time in need(data, name, list)]


def timed_points(label: str, found: Sequence[tuple[float, float, float]]) -> TimedPoints:
    """Points of (t, x, y), ids in order of time, then x, then y."""
    ordered = sorted(found)
    return TimedPoints(label=label, points=tuple(TimedPoint(t=t, x=x, y=y, id=n) for n, (t, x, y) in enumerate(ordered)))


def _points_eval(row: RawRow, media: Sequence[Media], context: Context) -> Piece:
    data = row.data
    label = words(data, "label")
    width, height = need(data, "width", int), need(data, "height", int)
    same_size(media[0], width, height)
    times, pairs, masks = _times(data), xy_list(data.get("points"), "points"), need(data, "masks", list)
    paired("masks", times, pairs, masks)
    count = len(pairs) if data.get("count") is None else need(data, "count", int)
    if count != len(pairs):
        raise RowFault("count_mismatch", "count", f"count {count}, {len(pairs)} points")
    found = [(t, fraction(x, width), fraction(y, height)) for t, (x, y) in zip(times, pairs, strict=True)]
    order = sorted(range(len(found)), key=lambda place: found[place])
    kept = {str(new): _moments({"masks": masks[place]}, media[0]) for new, place in enumerate(order)}
    branch = ask(label, context.style, None, timed_points(label, found), Count(label=label, count=len(found)))
    return Piece(f"{key_of(media[:1])}#{label}", tuple(media), (branch,), {"masks": kept})


def _moments(data: dict[str, Any], media: Media) -> dict[str, Any]:
    """Masks of one object by second, from [{frame_id on the half-second grid, rle}]."""
    masks = need(data, "masks", list)
    return {f"{need(mask, 'frame_id', int) * GRID:.1f}": mask_of(need(mask, "rle", dict), media, "masks") for mask in masks}


ADAPTERS = (
    Adapter("fun_qa", ("visual_input", "instruction"), _by_input, _fun),
    Adapter(
        "molmo2_cap",
        ("video_id", "video_start", "video_end", "video_caption", "merged_caption"),
        _by_id,
        _cap,
        optional=("video_start", "video_end", "video_caption", "merged_caption"),
        parameters=CaptionParams,
    ),
    Adapter("molmo2_video_cap_qa", ("video_id", "Question", "Answer", "NegativeAnswers"), _by_id, _choices, code_version=2),
    Adapter(
        "molmo2_video_subtitle_qa",
        ("video_id", "Question", "Answer", "NegativeAnswers", "subtitle"),
        _by_id,
        _subtitle_choices,
        code_version=2,
    ),
    Adapter("molmo2_video_point", ("count", "points"), _pointed, _points, parameters=PointLayout),
    Adapter("molmo2_video_point_eval", ("video_id", "label", "points", "masks", "two_fps_timestamps"), _by_id, _points_eval),
)
