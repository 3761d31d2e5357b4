"""What an adapter is, and the small conversions that adapters share.

Belongs here: the protocol, pieces of examples, units of coordinates, checks that only the published layout can state. Does not
belong here: any layout (its own module), rules about examples (`contracts.py`).

An adapter reads one row at a time and gives a *piece*: the media that the row is about, and its branches. Pieces with the same
`group` become one example with all their branches, a message tree; that is the validator's work.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, TypeVar

import msgspec

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


class Parameters(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What an entry may tell its adapter (`adapter_params`); an unknown or mistyped one is an error of the entry."""

    def needed(self) -> tuple[str, ...]:
        """Columns that these parameters name and that rows must have."""
        return ()


P = TypeVar("P", bound=Parameters)


@dataclass(frozen=True)
class Context:
    """What an adapter may know besides its row: the entry's parameters, style and task."""

    style: str
    task: Task
    params: dict[str, Any]
    _typed: dict[type, Any] = field(default_factory=dict, compare=False, repr=False)

    def of(self, kind: type[P]) -> P:
        """The parameters as `kind`. Raises ValueError saying which is wrong."""
        if kind not in self._typed:
            try:
                self._typed[kind] = msgspec.convert(self.params, kind)
            except msgspec.ValidationError as error:
                raise ValueError(f"adapter_params: {str(error).replace('`', '')}") from None
        found: P = self._typed[kind]
        return found

    @property
    def film(self) -> bool:
        """Whether the set is about videos."""
        return self.task.startswith("video")


@dataclass(frozen=True)
class Adapter:
    """One published layout. `media` names what a row is about; `read` gets the same media with their facts, in that order.

    `columns` must be there whatever the parameters say; rows of JSON may leave out the
    `optional` ones. `code_version` is bumped by hand when the examples of unchanged rows change.
    """

    name: str
    columns: tuple[str, ...]
    media: Callable[[RawRow, Context], list[Reference]]
    read: Callable[[RawRow, Sequence[Media], Context], Piece]
    code_version: int = 1
    optional: tuple[str, ...] = ()
    parameters: type[Parameters] = Parameters

    def needs(self, context: Context) -> tuple[str, ...]:
        """Every column that is read under the parameters of a context. Raises ValueError for parameters that are none."""
        return tuple(dict.fromkeys((*self.columns, *context.of(self.parameters).needed())))


# -- fields -----------------------------------------------------------------------------------------------------------------


def need(data: Any, name: str, kind: type | tuple[type, ...] = object) -> Any:
    """A field that must be there and of a type; `data` must be an object. Raises RowFault."""
    if not isinstance(data, dict):
        raise RowFault("wrong_type", name, f"{type(data).__name__} where an object with {name!r} belongs")
    value = data.get(name)
    if value is None:
        raise RowFault("missing_field", name, "absent or null")
    kinds = kind if isinstance(kind, tuple) else (kind,)
    if not isinstance(value, kind) or (isinstance(value, bool) and bool not in kinds and object not in kinds):
        raise RowFault("wrong_type", name, f"{type(value).__name__}")
    if isinstance(value, int) and abs(value) >= 1 << 63:
        raise RowFault("wrong_type", name, "a whole number of more than 64 bits")
    return value


def number(data: Any, name: str) -> float:
    """A number that must be there. It may be infinite or NaN: that is the contract's to find."""
    return float(need(data, name, (int, float)))


def maybe_number(data: dict[str, Any], name: str) -> float | None:
    """A number that may be absent or null."""
    return None if data.get(name) is None else number(data, name)


def maybe_list(data: dict[str, Any], name: str) -> list[Any]:
    """A list that may be absent or null."""
    found: list[Any] = [] if data.get(name) is None else need(data, name, list)
    return found


def words(data: Any, name: str) -> str:
    """A text field with something in it, stripped."""
    text = str(need(data, name, str)).strip()
    if not text:
        raise RowFault("empty_text", name, "no words")
    return text


def word_list(data: dict[str, Any], name: str) -> list[str]:
    """A list of texts, each with something in it."""
    return [words({name: item}, name) for item in need(data, name, list)]


def maybe_digest(value: Any, name: str) -> str | None:
    """A published sha256, which may be absent."""
    if value is None:
        return None
    digest = str(need({name: value}, name, str)).strip().lower()
    return digest or None


def paired(name: str, *lists: Sequence[Any]) -> None:
    """Lists that belong together must be equally long."""
    if len({len(item) for item in lists}) > 1:
        raise RowFault("length_mismatch", name, f"lengths {[len(item) for item in lists]}")


# -- parts ------------------------------------------------------------------------------------------------------------------


def xy_list(points: Any, name: str) -> list[tuple[float, float]]:
    """Points as published: a list of {x, y}, or {x: [...], y: [...]}. Raises RowFault."""
    if points is None:
        raise RowFault("missing_field", name, "absent or null")
    if isinstance(points, dict):
        xs, ys = need(points, "x", list), need(points, "y", list)
        paired(name, xs, ys)
        pairs = [{"x": x, "y": y} for x, y in zip(xs, ys, strict=True)]
    elif isinstance(points, list):
        pairs = points
    else:
        raise RowFault("wrong_type", name, type(points).__name__)
    return [(number(point, "x"), number(point, "y")) for point in pairs]


UNITS = {"percent": 100.0, "thousandth": 1000.0, "fraction": 1.0}
"""Full width and height in the units of published coordinates that do not depend on the picture."""
Unit = Literal["percent", "thousandth", "fraction", "pixel"]


def scale_of(unit: Unit, media: Media) -> tuple[float, float]:
    """What full width and height are in a unit."""
    if unit == "pixel":
        return float(media.width), float(media.height)
    return UNITS[unit], UNITS[unit]


def fraction(value: float, whole: float) -> float:
    """`value` as a share of `whole`, to five decimals; never clipped: what is outside is the contract's to find."""
    return round(value / whole, 5) + 0.0  # no negative zero: it would be another row


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


def choice(branch: str, style: str, question: str, right: str, wrong: Sequence[str], about: str) -> Branch:
    """A branch of multiple choice.

    The options stand in an order of their own, a function of the words and of what they are `about`: sets publish the right one
    apart from the wrong ones, and evaluation prompts letter options as they are stored, so "A" would always be right.
    """
    options = tuple(sorted((right, *wrong), key=lambda option: _scrambled(about, question, option)))
    if len(options) < 2:
        raise RowFault("no_options", "options", f"{len(options)} options")
    if len({option.strip().lower() for option in options}) < len(options):
        raise RowFault("answer_ambiguous", "options", "options repeat")
    return ask(branch, style, question, Choices(options=options, answer=options.index(right)))


def _scrambled(*words: str) -> bytes:
    return hashlib.blake2b("\x1f".join(words).encode(), digest_size=8).digest()


def counted(points: Points, count: int) -> tuple[Part, ...]:
    """Points and their count. Raises RowFault where they disagree."""
    if len(points.points) != count:
        raise RowFault("count_mismatch", "count", f"count {count}, {len(points.points)} points")
    return points, Count(label=points.label, count=count)


def clip_of(media: Media, start: float | None, end: float | None) -> Media:
    """The medium cut to [start, end); unchanged where both are None or it is the whole file. Raises RowFault.

    An end that passes the file's by no more than rounding means the file's end.
    """
    if start is None and end is None:
        return media
    duration = media.duration or 0.0
    first, last = start or 0.0, duration if end is None else end
    if not 0 <= first < min(last, duration) or last > duration + _ROUNDED:
        raise RowFault("clip_invalid", "clip", f"from {first} to {last} of {duration} s")
    last = min(last, duration)
    if first == 0 and last == duration:
        return media
    return msgspec.structs.replace(media, clip=(first, last))


# -- masks ------------------------------------------------------------------------------------------------------------------


def mask_of(rle: Any, media: Media, name: str) -> dict[str, Any]:
    """A published run-length mask, checked: it decodes, and has the size of what is displayed. Raises RowFault."""
    from molmo2_assets.ingest.rle import decode_rle

    size, counts = need(rle, "size", list), need(rle, "counts", (list, str))
    if size != [media.height, media.width]:
        raise RowFault("size_mismatch", name, f"a mask of {size}, the file shows {media.height}×{media.width}")
    try:
        decode_rle(rle)
    except (ValueError, TypeError, OverflowError) as error:
        raise RowFault("wrong_type", name, str(error)) from None
    return {"size": size, "counts": counts}
