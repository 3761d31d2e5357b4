"""Layouts without media: chat messages, and problems with worked answers.

Belongs here: sets whose rows name no picture or video. Does not belong here: subtitles and transcripts (beside their media).
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

from molmo2_assets.ingest.adapters.base import Adapter, Context, Piece, Reference, ask, need, words
from molmo2_assets.ingest.reasons import RowFault
from molmo2_assets.ingest.rows import RawRow
from training_backend.data.example import Branch, Media, Text, Turn

ROLES = ("system", "user", "assistant")


def _nothing(row: RawRow, context: Context) -> list[Reference]:
    return []


def _messages(row: RawRow, media: Sequence[Media], context: Context) -> Piece:
    turns = []
    for message in need(row.data, "messages", list):
        role = need(message, "role", str)
        if role not in ROLES:
            raise RowFault("roles", "messages", f"role {role!r}")
        turns.append(Turn(role=role, parts=(Text(text=words(message, "content")),)))
    return Piece(words(row.data, "id"), (), (Branch(id="0", style=context.style, turns=tuple(turns)),))


def _problem(row: RawRow, media: Sequence[Media], context: Context) -> Piece:
    question = words(row.data, "question")
    # Named by its words: a row's place would give every problem another name when the source is reordered.
    return Piece(
        hashlib.blake2b(question.encode(), digest_size=16).hexdigest(),
        (),
        (ask("0", context.style, question, words(row.data, "answer")),),
    )


ADAPTERS = (
    Adapter("molmo2_tulu4", ("id", "messages"), _nothing, _messages),
    Adapter("question_answer_lines", ("question", "answer"), _nothing, _problem, code_version=2),
)
