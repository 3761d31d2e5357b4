"""Does training see what evaluation asks? Media and questions that stand in both.

Belongs here: the comparison of stores. Does not belong here: what a leak leads to (the graph's check).

A medium leaks when the same published bytes (sha256) are in both sets, whatever is asked about them, also if they are read from
proxies. A question leaks when its words are the same and nothing else tells the rows apart: a text-only row whose words an
evaluation set asks without media, or the same words about the same medium. The same words about other media ("How many circles are
there?") are no leak; they are counted as shared wording.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from hashlib import blake2b
from pathlib import Path

import msgspec

from molmo2_assets.ingest.media_table import read_published

_SHOWN = 5


class Leak(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Rows of a training set that meet an evaluation set.

    `media_rows` show a medium of it, `question_rows` ask one of its questions (about the same medium, or both without media); `ids`
    are the first few of either.
    """

    dataset: str
    evaluation: str
    media_rows: int
    question_rows: int
    ids: list[str]


class LeakReport(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`shared_wordings`: training set → evaluation set → rows whose words are asked there about other media. No leak."""

    leaks: tuple[Leak, ...]
    shared_wordings: dict[str, dict[str, int]]


class _Medium(msgspec.Struct):
    sha256: str


class _Part(msgspec.Struct):
    type: str
    text: str = ""


class _Turn(msgspec.Struct):
    role: str
    parts: list[_Part]


class _Branch(msgspec.Struct):
    turns: list[_Turn]


class _Row(msgspec.Struct):
    """The fields of a row that matter here; everything else is skipped while parsing."""

    id: str
    media: list[_Medium]
    branches: list[_Branch]


_DECODER = msgspec.json.Decoder(_Row)


class _Asked:
    """What an evaluation set shows and asks."""

    def __init__(self, folder: Path) -> None:
        self.media: set[str] = set()
        self.wordings: set[bytes] = set()
        self.pairs: set[tuple[bytes, str]] = set()
        published = read_published(folder)
        for row in _rows(folder):
            shown = {published.get(medium.sha256, medium.sha256) for medium in row.media}
            words = _questions(row)
            self.media |= shown
            self.wordings |= words
            self.pairs |= {(question, sha256) for question in words for sha256 in shown or {""}}


def find_leaks(training: Mapping[str, Path], evaluation: Mapping[str, Path]) -> LeakReport:
    """Compare every training store with every evaluation store (folders with `data.jsonl`), by name. One pass over each."""
    asked = {name: _Asked(folder) for name, folder in evaluation.items()}
    leaks: list[Leak] = []
    shared: dict[str, dict[str, int]] = {}
    for name, folder in training.items():
        media = dict.fromkeys(asked, 0)
        questions = dict.fromkeys(asked, 0)
        wordings = dict.fromkeys(asked, 0)
        ids: dict[str, list[str]] = {key: [] for key in asked}
        published = read_published(folder)
        for row in _rows(folder):
            shown = {published.get(medium.sha256, medium.sha256) for medium in row.media}
            words = _questions(row)
            pairs = {(question, sha256) for question in words for sha256 in shown or {""}}
            for key, there in asked.items():
                same_media = not shown.isdisjoint(there.media)
                same_question = not pairs.isdisjoint(there.pairs)
                media[key] += same_media
                questions[key] += same_question
                wordings[key] += not same_question and not words.isdisjoint(there.wordings)
                if (same_media or same_question) and len(ids[key]) < _SHOWN:
                    ids[key].append(row.id)
        leaks += [
            Leak(dataset=name, evaluation=key, media_rows=media[key], question_rows=questions[key], ids=ids[key])
            for key in asked
            if media[key] or questions[key]
        ]
        found = {key: count for key, count in wordings.items() if count}
        if found:
            shared[name] = found
    return LeakReport(leaks=tuple(leaks), shared_wordings=shared)


def _rows(folder: Path) -> Iterator[_Row]:
    with (folder / "data.jsonl").open("rb") as stream:
        for line in stream:
            yield _DECODER.decode(line)


def _questions(row: _Row) -> set[bytes]:
    """Hashes of the user's words, turn by turn; case and spaces play no part."""
    found = set()
    for branch in row.branches:
        for turn in branch.turns:
            if turn.role == "user":
                words = " ".join(" ".join(part.text for part in turn.parts if part.type == "text").lower().split())
                if words:
                    found.add(blake2b(words.encode(), digest_size=8).digest())
    return found
