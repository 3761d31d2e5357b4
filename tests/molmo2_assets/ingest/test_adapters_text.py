"""Layouts without media."""

from __future__ import annotations

from typing import Any

import pytest

from molmo2_assets.ingest.adapters import ADAPTERS, Context
from molmo2_assets.ingest.adapters.base import ask
from molmo2_assets.ingest.rows import RawRow
from tests.support.published_rows import LAYOUTS, piece_of, refusal_of
from training_backend.data.example import Branch, Text, Turn


def test_messages_become_turns() -> None:
    piece = piece_of("molmo2_tulu4")
    said = (("system", "Be brief."), ("user", "2 + 2?"), ("assistant", "4"))
    turns = tuple(Turn(role=role, parts=(Text(text=text),)) for role, text in said)  # type: ignore[arg-type]
    assert (piece.key, piece.media, piece.branches) == ("tulu/1", (), (Branch(id="0", style="text_sft", turns=turns),))


def test_a_problem_is_named_by_its_words_wherever_it_stands() -> None:
    piece = piece_of("question_answer_lines")
    assert piece.branches == (ask("0", "text_sft", "What is 2 + 2?", "2 + 2 = 4\n#### 4"),)
    moved = RawRow("elsewhere.jsonl", 99, LAYOUTS["question_answer_lines"].row)
    assert ADAPTERS["question_answer_lines"].read(moved, (), Context("text_sft", "text", {})) == piece
    assert piece_of("question_answer_lines", {"question": "What is 2 + 3?"}).key != piece.key


@pytest.mark.parametrize("name", ["molmo2_tulu4", "question_answer_lines"])
def test_text_names_no_media(name: str) -> None:
    assert ADAPTERS[name].media(RawRow("data.jsonl", 0, LAYOUTS[name].row), Context("text_sft", "text", {})) == []


@pytest.mark.parametrize(
    ("name", "changes", "reason", "field"),
    [
        ("molmo2_tulu4", {"id": None}, "missing_field", "id"),
        ("molmo2_tulu4", {"messages": "hello"}, "wrong_type", "messages"),
        ("molmo2_tulu4", {"messages": ["hello"]}, "wrong_type", "role"),
        ("molmo2_tulu4", {"messages": [{"role": "tool", "content": "4"}]}, "roles", "messages"),
        ("molmo2_tulu4", {"messages": [{"role": "user"}]}, "missing_field", "content"),
        ("molmo2_tulu4", {"messages": [{"role": "user", "content": " "}]}, "empty_text", "content"),
        ("question_answer_lines", {"question": ""}, "empty_text", "question"),
        ("question_answer_lines", {"answer": 4}, "wrong_type", "answer"),
    ],
)
def test_what_is_not_as_published_is_refused_by_its_own_reason(name: str, changes: dict[str, Any], reason: str, field: str) -> None:
    assert refusal_of(name, changes) == (reason, field)
