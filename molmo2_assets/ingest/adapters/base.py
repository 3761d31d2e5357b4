"""What an adapter is, and the small conversions that adapters share.

Belongs here: the protocol, pieces of examples, units of coordinates, checks that only the published layout can state. Does not
belong here: any layout (its own module), rules about examples (`contracts.py`).

An adapter reads one row at a time and gives a *piece*: the media that the row is about, and its branches. Pieces with the same
`group` become one example with all their branches, a message tree; that is the validator's work.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from molmo2_assets.ingest.reasons import RowFault
from molmo2_assets.ingest.rows import RawRow
from training_backend.data.example import Branch, Choices, Count, Media, Part, Point, Points, Task, Text, Turn

_ROUNDED = 0.1
"""Seconds by which a published end may pass the file's, because it was written with one decimal."""


@dataclass(frozen=True, slots=True)
class Reference:
    """A medium that a row names: `uri` identifies it in the set, `data` are its bytes where they stand in the row itself."""

    uri: str
    kind: Literal["image", "video"]
    sha256: str | None = None
    data: bytes | None = None


@dataclass(frozen=True, slots=True)
class Piece:
    """What one row says. `key` is the group's name inside the set; equal keys must have equal media."""

    key: str
    media: tuple[Media, ...]
    branches: tuple[Branch, ...]
    meta: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Context:
    """What an adapter may know besides its row: the entry's parameters, style and task."""

    style: str
    task: Task
    params: dict[str, Any]


@dataclass(frozen=True)
class Adapter:
    """One published layout. `media` names what a row is about; `read` gets the same media with their facts, in that order.

    `code_version` is bumped by hand when the examples of unchanged rows change.
    """

    name: str
    columns: tuple[str, ...]
    media: Callable[[RawRow, Context], list[Reference]]
    read: Callable[[RawRow, Sequence[Media], Context], Piece]
    code_version: int = 1


# -- fields -----------------------------------------------------------------------------------------------------------------


def need(data: dict[str, Any], name: str, kind: type | tuple[type, ...] = object) -> Any:
    """A field that must be there and of a type. Raises RowFault."""
    value = data.get(name)
    if value is None:
        raise RowFault("missing_field", name, "absent or null")
    if not isinstance(value, kind) or (isinstance(value, bool) and kind in (int, float)):
        raise RowFault("wrong_type", name, f"{type(value).__name__}")
    return value


def words(data: dict[str, Any], name: str) -> str:
    """A text field with something in it, stripped."""
    text = str(need(data, name, str)).strip()
    if not text:
        raise RowFault("empty_text", name, "no words")
    return text


def paired(name: str, *lists: Sequence[Any]) -> None:
    """Lists that belong together must be equally long."""
    if len({len(item) for item in lists}) > 1:
        raise RowFault("length_mismatch", name, f"lengths {[len(item) for item in lists]}")


# -- parts ------------------------------------------------------------------------------------------------------------------


def xy_list(points: Any, name: str) -> list[tuple[float, float]]:
    """Points as published: a list of {x, y}, or {x: [...], y: [...]}. Raises RowFault."""
    if isinstance(points, dict):
        xs, ys = points.get("x"), points.get("y")
        if not isinstance(xs, list) or not isinstance(ys, list):
            raise RowFault("wrong_type", name, "x and y are not lists")
        paired(name, xs, ys)
        pairs = list(zip(xs, ys, strict=True))
    elif isinstance(points, list):
        try:
            pairs = [(point["x"], point["y"]) for point in points]
        except (TypeError, KeyError):
            raise RowFault("wrong_type", name, "a point without x and y") from None
    else:
        raise RowFault("missing_field", name, "no points")
    try:
        return [(float(x), float(y)) for x, y in pairs]
    except (TypeError, ValueError):
        raise RowFault("wrong_type", name, "a coordinate is not a number") from None


def fraction(value: float, whole: float) -> float:
    """`value` as a share of `whole`, to five decimals; never clipped: what is outside is the contract's to find."""
    return round(value / whole, 5)


def image_points(
    label: str, pairs: Sequence[tuple[float, float]], scale: tuple[float, float], image: int = 0, first: int = 0
) -> Points:
    """Points of one image from published coordinates whose full width and height are `scale`, ids in reading order of x, y."""
    ordered = sorted((fraction(x, scale[0]), fraction(y, scale[1])) for x, y in pairs)
    found = tuple(Point(x=x, y=y, id=first + number, image=image) for number, (x, y) in enumerate(ordered))
    return Points(label=label, points=found)


def ask(branch: str, style: str, question: str | None, *answer: Part | str) -> Branch:
    """A branch of one question (None: the recipe words it) and one answer."""
    parts = tuple(Text(text=part) if isinstance(part, str) else part for part in answer)
    asked = (Turn(role="user", parts=(Text(text=question),)),) if question is not None else ()
    return Branch(id=branch, style=style, turns=(*asked, Turn(role="assistant", parts=parts)))


def choice(branch: str, style: str, question: str, right: str, wrong: Sequence[str]) -> Branch:
    """A branch of multiple choice; the right answer is stored first, the encoder draws the order."""
    options = (right, *wrong)
    if len(options) < 2:
        raise RowFault("no_options", "options", f"{len(options)} options")
    if len({option.strip().lower() for option in options}) < len(options):
        raise RowFault("answer_ambiguous", "options", "options repeat")
    return ask(branch, style, question, Choices(options=options, answer=0))


def counted(points: Points, count: int) -> tuple[Part, ...]:
    """Points and their count. Raises RowFault where they disagree."""
    if len(points.points) != count:
        raise RowFault("count_mismatch", "count", f"count {count}, {len(points.points)} points")
    return points, Count(label=points.label, count=count)


def clip_of(media: Media, start: float | None, end: float | None) -> Media:
    """The medium cut to [start, end); unchanged where both are None or it is the whole file. Raises RowFault."""
    import msgspec

    if start is None and end is None:
        return media
    duration = media.duration or 0.0
    first, last = float(start or 0.0), float(duration if end is None else end)
    if not first < last:
        raise RowFault("clip_invalid", "clip", f"from {first} to {last}")
    if first < 0 or last > duration + _ROUNDED:
        raise RowFault("clip_invalid", "clip", f"from {first} to {last} of {duration} s")
    last = min(last, duration)
    if first == 0 and last == duration:
        return media
    return msgspec.structs.replace(media, clip=(first, last))
