"""The shape of a validated set: how often each style is asked, how long and how full its examples are.

Belongs here: counting over `data.jsonl` for a person who looks. Does not belong here: tokens, which depend on a recipe (`pack`),
drawing (`graph/pictures.py`).
"""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import msgspec

from training_backend.data.store import DATA_FILE

SHAPE_FILE = "shape.json"
QUANTITIES = {
    "words": "words of questions and answers in an example",
    "branches": "conversations about the same media",
    "points": "points in an example, those of tracks at every sampled moment",
    "seconds": "length of what is shown",
    "media": "pictures or videos in an example",
}
_EDGES = (0, 1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096, 8192)
"""Lower edges of the bins, doubling: lengths of text and films differ by powers."""


class _Track(msgspec.Struct):
    samples: list[msgspec.Raw]


class _Part(msgspec.Struct):
    text: str = ""
    label: str = ""
    options: list[str] = []
    points: list[msgspec.Raw] = []
    tracks: list[_Track] = []


class _Turn(msgspec.Struct):
    parts: list[_Part]


class _Branch(msgspec.Struct):
    style: str
    turns: list[_Turn]


class _Medium(msgspec.Struct):
    duration: float | None = None
    clip: tuple[float, float] | None = None


class _Row(msgspec.Struct):
    """The fields of a row that are counted; everything else is skipped while parsing."""

    branches: list[_Branch]
    media: list[_Medium]


_DECODER = msgspec.json.Decoder(_Row)


class Shape(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`styles`: branches by style, most frequent first. `lengths`: quantity → number of examples in each bin of `edges`; the last
    bin has no upper edge. Quantities that no example has are left out."""

    examples: int
    styles: dict[str, int]
    lengths: dict[str, list[int]]
    edges: tuple[int, ...] = _EDGES


def shape_of(folder: Path) -> Shape:
    """The shape of the set in `folder`, in one pass over its rows."""
    styles: Counter[str] = Counter()
    lengths = {name: [0] * len(_EDGES) for name in QUANTITIES}
    most = dict.fromkeys(QUANTITIES, 0.0)
    examples = 0
    with (folder / DATA_FILE).open("rb") as stream:
        for line in stream:
            row = _DECODER.decode(line)
            examples += 1
            styles.update(branch.style for branch in row.branches)
            for name, value in _measured(row).items():
                lengths[name][_bin(value)] += 1
                most[name] = max(most[name], value)
    return Shape(
        examples=examples,
        styles=dict(sorted(styles.items(), key=lambda item: (-item[1], item[0]))),
        lengths={name: counts for name, counts in lengths.items() if most[name] > 0},
    )


def _measured(row: _Row) -> dict[str, float]:
    parts = [part for branch in row.branches for turn in branch.turns for part in turn.parts]
    spans = [(medium.clip[1] - medium.clip[0]) if medium.clip else (medium.duration or 0.0) for medium in row.media]
    return {
        "words": float(sum(len(text.split()) for part in parts for text in (part.text, part.label, *part.options))),
        "branches": float(len(row.branches)),
        "points": float(sum(len(part.points) + sum(len(track.samples) for track in part.tracks) for part in parts)),
        "seconds": max(spans, default=0.0),
        "media": float(len(row.media)),
    }


def _bin(value: float) -> int:
    place = 0
    while place + 1 < len(_EDGES) and value >= _EDGES[place + 1]:
        place += 1
    return place


def write_shape(folder: Path) -> Shape:
    """Count, and keep the result beside the rows."""
    shape = shape_of(folder)
    (folder / SHAPE_FILE).write_bytes(msgspec.json.encode(shape))
    return shape


def read_shape(folder: Path) -> Shape | None:
    """What `write_shape` kept; None in folders that were made without it."""
    path = folder / SHAPE_FILE
    return msgspec.json.decode(path.read_bytes(), type=Shape) if path.is_file() else None


def table_of(shape: Shape) -> list[dict[str, Any]]:
    """Styles with their branches and share, a row each."""
    total = sum(shape.styles.values())
    return [{"style": style, "branches": count, "share": count / total} for style, count in shape.styles.items()]
