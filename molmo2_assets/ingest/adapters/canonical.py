"""Rows that already are examples: this project's own `data.jsonl`, or files that somebody wrote in its schema.

Belongs here: what such a row names and says. Does not belong here: the fast way through a file of them (`ingest/canonical.py`).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from molmo2_assets.ingest.adapters.base import Adapter, Context, Piece, Reference, need, words
from molmo2_assets.ingest.reasons import RowFault
from molmo2_assets.ingest.rows import RawRow
from training_backend.data.example import SCHEMA, Example, Media

NAME = "molmo2_examples"


def _media(row: RawRow, context: Context) -> list[Reference]:
    found = []
    for item in need(row.data, "media", list):
        kind: Any = need(item, "kind", str)
        if kind not in ("image", "video"):
            raise RowFault("wrong_type", "media.kind", f"{kind!r} is no image and no video")
        found.append(Reference(words(item, "uri"), kind, words(item, "sha256")))
    return found


def _read(row: RawRow, media: Sequence[Media], context: Context) -> Piece:
    try:
        example = msgspec.convert(row.data, Example)
    except msgspec.ValidationError as error:
        raise schema_fault(error) from None
    check_media(example.media, media)
    check_row(example, context.task)
    return Piece(example.id, example.media, example.branches, example.meta)


def check_row(example: Example, task: str) -> None:
    """What a row says of itself must be so. Raises RowFault."""
    if example.schema != SCHEMA:
        raise RowFault("wrong_type", "schema", f"{example.schema!r}, this version reads {SCHEMA}")
    if example.task != task:
        raise RowFault("wrong_type", "task", f"{example.task}, the set is one of {task}")
    if not example.id:
        raise RowFault("missing_field", "id", "empty")
    if len(example.branches) > 1 and len({branch.id for branch in example.branches}) < len(example.branches):
        raise RowFault("duplicate", "branches", "two branches have the same id")


def check_media(stated: Sequence[Media], found: Sequence[Media]) -> None:
    """What a row says of its media must be what was found. Raises RowFault."""
    for said, known in zip(stated, found, strict=True):
        if (said.width, said.height) != (known.width, known.height):
            raise RowFault("size_mismatch", said.uri, f"stated {said.width}×{said.height}, shown {known.width}×{known.height}")
        if (said.duration, said.fps, said.n_frames) != (known.duration, known.fps, known.n_frames):
            raise RowFault("size_mismatch", said.uri, "its duration, rate or frames are not those of the file")
        if said.clip is not None and not 0 <= said.clip[0] < said.clip[1] <= (said.duration or 0.0):
            raise RowFault("clip_invalid", said.uri, f"from {said.clip[0]} to {said.clip[1]} of {said.duration} s")


def schema_fault(error: msgspec.ValidationError) -> RowFault:
    """msgspec's words as a reason."""
    text = str(error)
    message, _, place = text.partition(" - at `")
    reason = "missing_field" if "missing required field" in message else "wrong_type"
    return RowFault(reason, place.rstrip("`").removeprefix("$."), message)


ADAPTERS = (Adapter(NAME, ("id", "schema", "task", "media", "branches"), _media, _read),)
