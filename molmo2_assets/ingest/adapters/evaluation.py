"""Layouts that only evaluation sets have: captions with their statements, points judged by a mask that is a file of its own.

Belongs here: those. Does not belong here: evaluation sets in the layout of a training set (the module of that layout), scoring.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from molmo2_assets.ingest.adapters.base import (
    Adapter,
    Context,
    Parameters,
    Piece,
    Reference,
    ask,
    image_points,
    mask_of,
    need,
    paired,
    word_list,
    words,
)
from molmo2_assets.ingest.adapters.named import clipped, fill, key_of
from molmo2_assets.ingest.reasons import RowFault
from molmo2_assets.ingest.rows import RawRow
from training_backend.data.example import Media


class StatementLayout(Parameters, frozen=True, kw_only=True):
    """`bounded`: the source whose films are kept as clips cut beforehand, named by their two times (allenai/molmo2,
    olmo/data/molmo2_datasets.py); films of other sources are cut to the times when they are read."""

    bounded: str = "ego4d"


def _film(row: RawRow, context: Context) -> list[Reference]:
    return [Reference(_name(row.data, context), "video")]


def _name(data: dict[str, Any], context: Context) -> str:
    video = words(data, "video_id")
    if not _is_bounded(data, context):
        return video
    return f"{video}_bounded_decimal_2_{_two(data, 'video_start')}_{_two(data, 'video_end')}"


def _is_bounded(data: dict[str, Any], context: Context) -> bool:
    cut = data.get("video_start") is not None and data.get("video_end") is not None
    return cut and data.get("source") == context.of(StatementLayout).bounded


def _two(data: dict[str, Any], name: str) -> str:
    """A time with two decimals, without the zeros that end it but one."""
    text = f"{need(data, name, (int, float)):.2f}".rstrip("0")
    return f"{text}0" if text.endswith(".") else text


def _statements(row: RawRow, media: Sequence[Media], context: Context) -> Piece:
    data = row.data
    statements, kinds = word_list(data, "atomic_statements"), word_list(data, "statement_categories")
    paired("statement_categories", statements, kinds)
    if not statements:
        raise RowFault("missing_field", "atomic_statements", "no statements")
    film = media[0] if _is_bounded(data, context) else clipped(media[0], data, ("video_start", "video_end"), whole=True)
    branch = ask(context.style, context.style, None, words(data, "aggregated_caption"))
    meta = {"statements": [{"text": text, "category": kind} for text, kind in zip(statements, kinds, strict=True)]}
    return Piece(key_of([film]), (film,), (branch,), meta)


class MaskedLayout(Parameters, frozen=True, kw_only=True):
    """`image`: a template of the picture's name. `question`: what is pointed at. `mask`: a column joined from the mask's own file.
    `category`: kept for the score of each kind."""

    image: str
    question: str
    mask: str = "mask"
    category: str = "category"

    def needed(self) -> tuple[str, ...]:
        return (self.question, self.mask)


def _picture(row: RawRow, context: Context) -> list[Reference]:
    return [Reference(fill(context.of(MaskedLayout).image, row.data), "image")]


def _masked(row: RawRow, media: Sequence[Media], context: Context) -> Piece:
    layout = context.of(MaskedLayout)
    question = words(row.data, layout.question)
    mask = mask_of(need(row.data, layout.mask, dict), media[0], layout.mask)
    x, y = _inside(mask)
    points = image_points(question, [(x, y)], (float(media[0].width), float(media[0].height)))
    meta = {"masks": {"0": {"0": mask}}, "category": str(row.data.get(layout.category) or "unknown")}
    return Piece(f"{key_of(media)}#{question}", tuple(media), (ask(question, context.style, question, points),), meta)


def _inside(mask: dict[str, Any]) -> tuple[float, float]:
    """A pixel of a mask, the one in the middle of its runs: sets that judge by masks publish no point. Raises RowFault."""
    import numpy as np

    from molmo2_assets.ingest.rle import decode_rle

    rows, columns = np.nonzero(decode_rle(mask))
    if not len(rows):
        raise RowFault("never_seen", "mask", "an empty mask")
    middle = len(rows) // 2
    return float(columns[middle]) + 0.5, float(rows[middle]) + 0.5


ADAPTERS = (
    Adapter(
        "molmo2_cap_eval", ("video_id", "video_start", "video_end", "atomic_statements", "statement_categories"),
        _film,
        _statements,
        optional=("video_start", "video_end"),
        parameters=StatementLayout,
    ),
    Adapter("masked_pointing", (), _picture, _masked, parameters=MaskedLayout),
)  # fmt: skip
