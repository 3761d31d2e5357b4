"""Layouts of small sets that somebody keeps in a folder: annotated photographs, labelled clips, a narrated video.

The layouts are simple on purpose, so that own data can join without a conversion script:

* `annotated_images`: JSONL {path, caption?, qa?: [{question, answer}], counts?: [{label, count, all_pointed}],
  points?: [{label, x, y}]}, coordinates as fractions.
* `labelled_clips`: JSONL {path, label}; the question is the entry's parameter `question`.
* `narrated_videos`: JSONL {path, narration: [{start, end, text}], caption?, qa?}; the narration becomes subtitles.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from molmo2_assets.ingest.adapters.base import (
    Adapter,
    Context,
    Parameters,
    Piece,
    Reference,
    ask,
    image_points,
    maybe_list,
    need,
    number,
    words,
)
from molmo2_assets.ingest.reasons import RowFault
from molmo2_assets.ingest.rows import RawRow
from training_backend.data.example import Branch, Count, Media, Subtitle

FRACTION = (1.0, 1.0)


class LabelParams(Parameters, frozen=True, kw_only=True):
    """`question`: what the label answers."""

    question: str = "What is shown?"


def _image(row: RawRow, context: Context) -> list[Reference]:
    return [Reference(words(row.data, "path"), "image")]


def _video(row: RawRow, context: Context) -> list[Reference]:
    return [Reference(words(row.data, "path"), "video")]


def _questions(data: dict[str, Any], style: str) -> list[Branch]:
    return [ask(words(pair, "question"), style, words(pair, "question"), words(pair, "answer")) for pair in maybe_list(data, "qa")]


def _annotated(row: RawRow, media: Sequence[Media], context: Context) -> Piece:
    data, picture = row.data, media[0]
    if data.get("width") is not None:
        stated = (need(data, "width", int), need(data, "height", int))
        if stated != (picture.width, picture.height):
            raise RowFault("size_mismatch", "width", f"stated {stated[0]}×{stated[1]}, shown {picture.width}×{picture.height}")
    branches = [ask("caption", "long_caption", None, words(data, "caption"))] if data.get("caption") else []
    branches += _questions(data, "user_qa")
    pairs: dict[str, list[tuple[float, float]]] = {}
    for point in maybe_list(data, "points"):
        pairs.setdefault(words(point, "label"), []).append((number(point, "x"), number(point, "y")))
    counted: set[str] = set()
    partial: dict[str, int] = {}
    for item in maybe_list(data, "counts"):
        label = words(item, "label")
        if label in counted:
            raise RowFault("id_conflict", "counts", f"{label!r} is counted twice")
        counted.add(label)
        count = Count(label=label, count=need(item, "count", int))
        if not item.get("all_pointed"):
            # Points on some of the things would teach to stop early: only the count is asked for.
            if label in pairs:
                partial[label] = len(pairs[label])
            branches.append(ask(f"{label}/count", "count", None, count))
            continue
        points = image_points(label, pairs.get(label, []), FRACTION)
        if len(points.points) != count.count:
            raise RowFault("count_mismatch", "counts", f"{label}: count {count.count}, {len(points.points)} points")
        branches.append(ask(f"{label}/point_count", "point_count", None, points, count))
    for label in pairs:
        if label not in counted:
            branches.append(ask(f"{label}/point", "pointing", None, image_points(label, pairs[label], FRACTION)))
    return Piece(picture.uri, tuple(media), tuple(branches), {"partial_points": partial} if partial else {})


def _labelled(row: RawRow, media: Sequence[Media], context: Context) -> Piece:
    question = context.of(LabelParams).question
    return Piece(media[0].uri, tuple(media), (ask("label", context.style, question, words(row.data, "label")),))


def _narrated(row: RawRow, media: Sequence[Media], context: Context) -> Piece:
    seconds = media[0].seconds or 0.0
    lines = []
    for line in need(row.data, "narration", list):
        start, end = number(line, "start"), number(line, "end")
        if not 0 <= start < end or start > seconds:
            raise RowFault("time_outside", "narration", f"from {start} to {end} of {seconds} s")
        lines.append(Subtitle(start=start, end=end, text=words(line, "text")))
    video = msgspec.structs.replace(media[0], subtitles=tuple(lines))
    branches = [ask("caption", "video_long_caption", None, words(row.data, "caption"))] if row.data.get("caption") else []
    branches += _questions(row.data, context.style)
    return Piece(video.uri, (video,), tuple(branches))


ADAPTERS = (
    Adapter("annotated_images", ("path",), _image, _annotated),
    Adapter("labelled_clips", ("path", "label"), _video, _labelled, parameters=LabelParams),
    Adapter("narrated_videos", ("path", "narration"), _video, _narrated),
)
