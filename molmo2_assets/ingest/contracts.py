"""The contract: what must hold for every example, stated once as pandera schemas over flat facts.

Belongs here: facts of a piece, one schema a family, reading the verdict row by row. Does not belong here: layout (`adapters/`),
rules across rows (`validate.py`).

Traps that the form of this file avoids (pandera 0.35, polars): a check that evaluates to null passes, so facts are never null;
NaN passes `>=`, so finiteness is a fact of its own; `drop_invalid_rows` swallows schema errors, so it is not used, and rows are
found through each error's `check_output`.
"""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from training_backend.data.example import Branch, Choices, Count, Family, Media, Point, Points, Text, TimedPoints, Tracks

if TYPE_CHECKING:
    from pandera.polars import DataFrameSchema

MAX_TEXT = 60_000
"""Characters of one text."""
BATCH = 65_536
"""Rows of one call: below that, the fixed cost of a call (about 3 ms a column) shows."""
_TIME_SLACK = 0.05
"""Seconds by which a time may pass the clip's end, for rounding to one decimal."""
_CONTROL = {chr(code) for code in range(32)} - {"\n", "\t", "\r"} | {chr(127)}

Facts = tuple[Any, ...]
_EMPTY: dict[str, Any] = {
    "branches": 0, "roles_ok": True, "min_text": 1, "max_text": 0, "control": False, "finite": True,
    "x_low": 0.5, "x_high": 0.5, "y_low": 0.5, "y_high": 0.5, "t_low": 0.0, "t_over": -1.0, "t_ordered": True,
    "count_ok": True, "options_low": 2, "options_distinct": True, "answer_ok": True, "seen": True, "media": 0, "images_ok": True,
    "words": 0,
}  # fmt: skip
FACTS = tuple(_EMPTY)
"""Names of the facts, in their order. Of what lies inside the frame or has words, no extreme is kept: the values above stand."""


def facts_of(branches: Sequence[Branch], media: Sequence[Media]) -> Facts:
    """Flat facts of what one row says, in the order of FACTS: numbers and booleans, never null."""
    if len(branches) == 1 and len(turns := branches[0].turns) == 1 and len(parts := turns[0].parts) == 1 and len(media) == 1:
        part = parts[0]
        if type(part) is Points and not media[0].subtitles and all(map(_inside, part.points)):
            return facts_of_label(turns[0].role, part.label) or _gathered(branches, media)
    return _gathered(branches, media)


def facts_of_label(role: str, label: str) -> Facts | None:
    """The same of the commonest row by far: one medium without subtitles, one list of points inside of it, nothing wrong with the
    label; None where something is."""
    if len(label) > MAX_TEXT or not label.isprintable() or not label.strip():
        return None
    return _plain(role == "assistant", len(label))


def _inside(point: Point) -> bool:
    return not point.image and 0.0 <= point.x <= 1.0 and 0.0 <= point.y <= 1.0


@functools.cache
def _plain(answers: bool, length: int) -> Facts:
    return (1, answers, 1, length, *_PLAIN)


_PLAIN = (False, True, 0.5, 0.5, 0.5, 0.5, 0.0, -1.0, True, True, 2, True, True, True, 1, True, 0)
"""The facts from `control` on, of such a row."""


def _gathered(branches: Sequence[Branch], media: Sequence[Media]) -> Facts:
    say = _Said(len(media), media[0].seconds if media else None)
    for item in media:
        for line in item.subtitles:
            say.text(line.text)
    roles_ok = True
    for branch in branches:
        turns = branch.turns
        if len(turns) == 1:
            roles_ok &= turns[0].role == "assistant"
        else:
            roles = [turn.role for turn in turns if turn.role != "system"]
            expected = ["user", "assistant"] * len(roles) if roles[:1] == ["user"] else ["assistant", "user"] * len(roles)
            roles_ok &= bool(roles) and roles[-1] == "assistant" and roles == expected[: len(roles)]
        for turn in turns:
            if not turn.parts:
                say.min_text = 0
            points: int | None = None
            for part in turn.parts:
                found = say.part(part, points)
                points = points if found is None else found + (points or 0)
    return (
        len(branches), roles_ok, say.min_text, say.max_text, say.control, say.finite, say.x_low, say.x_high, say.y_low, say.y_high,
        say.t_low, say.t_over, say.t_ordered, say.count_ok, say.options_low, say.options_distinct, say.answer_ok, say.seen,
        len(media), say.images_ok, say.words,
    )  # fmt: skip


class _Said:
    """Facts of one row while they are gathered."""

    __slots__ = (
        "answer_ok", "control", "count_ok", "finite", "images", "images_ok", "max_text", "min_text", "options_distinct",
        "options_low", "seconds", "seen", "t_low", "t_ordered", "t_over", "words", "x_high", "x_low", "y_high", "y_low",
    )  # fmt: skip

    def __init__(self, images: int, seconds: float | None) -> None:
        self.images, self.seconds = max(images, 1), seconds or 0.0
        self.min_text, self.max_text, self.words, self.options_low = 1, 0, 0, 2
        self.control = False
        self.finite = self.t_ordered = self.count_ok = self.options_distinct = self.answer_ok = self.seen = self.images_ok = True
        self.x_low = self.x_high = self.y_low = self.y_high = 0.5
        self.t_low, self.t_over = 0.0, -1.0

    def part(self, part: Any, points_before: int | None) -> int | None:
        """Fold one part in; returns how many points it holds, None where it is not a part of points.

        "There are none" is a part of no points: a count beside it must be 0.
        """
        kind = type(part)
        if kind is Points:
            self.text(part.label)
            images = self.images
            for point in part.points:
                x, y = point.x, point.y
                if not (0.0 <= x <= 1.0 and 0.0 <= y <= 1.0):
                    self.place(x, y)
                if not 0 <= point.image < images:
                    self.images_ok = False
            return len(part.points)
        if kind is Text:
            self.text(part.text)
            self.words += len(part.text.split())
            return None
        if kind is Count:
            self.text(part.label)
            self.count_ok &= part.count >= 0 and points_before in (None, part.count)
            return None
        if kind is Choices:
            for option in part.options:
                self.text(option)
            self.options_low = min(self.options_low, len(part.options))
            self.options_distinct &= len({option.strip().lower() for option in part.options}) == len(part.options)
            self.answer_ok &= 0 <= part.answer < len(part.options)
            return None
        if kind is TimedPoints:
            self.text(part.label)
            for timed in part.points:
                self.place(timed.x, timed.y)
                self.time(timed.t)
            self.t_ordered &= all(a.t <= b.t for a, b in itertools.pairwise(part.points))
            return len(part.points)
        assert kind is Tracks
        self.text(part.query)
        self.seen &= bool(part.tracks)
        for track in part.tracks:
            self.seen &= any(not sample.occluded for sample in track.samples)
            self.t_ordered &= all(a.t < b.t for a, b in itertools.pairwise(track.samples))
            for sample in track.samples:
                self.place(sample.x, sample.y)
                self.time(sample.t)
        return None

    def text(self, text: str) -> None:
        length = len(text)
        if length > self.max_text:
            self.max_text = length
        if not length or text.isspace():
            self.min_text = 0
        if not text.isprintable() and not _CONTROL.isdisjoint(text):
            self.control = True

    def place(self, x: float, y: float) -> None:
        if not (math.isfinite(x) and math.isfinite(y)):
            self.finite = False
            return
        self.x_low, self.x_high = min(self.x_low, x), max(self.x_high, x)
        self.y_low, self.y_high = min(self.y_low, y), max(self.y_high, y)

    def time(self, t: float) -> None:
        if not math.isfinite(t):
            self.finite = False
            return
        self.t_low = min(self.t_low, t)
        self.t_over = max(self.t_over, t - self.seconds)


# Column → (reason code, check in words of pandera). The order is the order in which a row's first reason is named.
_TRUE = {
    "roles_ok": "roles", "finite": "not_finite", "images_ok": "point_outside", "count_ok": "count_mismatch",
    "options_distinct": "answer_ambiguous", "answer_ok": "answer_outside", "t_ordered": "time_order", "seen": "never_seen",
}  # fmt: skip
_RANGE = {
    "branches": ("missing_field", 1, None), "min_text": ("empty_text", 1, None), "max_text": ("text_too_long", None, MAX_TEXT),
    "options_low": ("no_options", 2, None), "x_low": ("point_outside", 0.0, None), "x_high": ("point_outside", None, 1.0),
    "y_low": ("point_outside", 0.0, None), "y_high": ("point_outside", None, 1.0), "t_low": ("time_outside", 0.0, None),
    "t_over": ("time_outside", None, _TIME_SLACK),
}  # fmt: skip


def schema(family: Family) -> DataFrameSchema:
    """The schema of a family over the fact columns; each check is named by its reason code."""
    import pandera.polars as pa
    import polars as pl

    columns: dict[str, Any] = {}
    for name, reason in _TRUE.items():
        columns[name] = pa.Column(pl.Boolean, pa.Check.eq(True, name=reason))
    for name, (reason, low, high) in _RANGE.items():
        check = pa.Check.ge(low, name=reason) if high is None else pa.Check.le(high, name=reason)
        columns[name] = pa.Column(pl.Float64 if isinstance(_EMPTY[name], float) else pl.Int64, check)
    columns["control"] = pa.Column(pl.Boolean, pa.Check.eq(False, name="control_character"))
    least = 0 if family == "text" else 1
    columns["media"] = pa.Column(pl.Int64, pa.Check.ge(least, name="no_media"))
    return pa.DataFrameSchema(columns, strict=False)


def verdicts(family: Family, facts: Sequence[Facts]) -> list[tuple[str, str] | None]:
    """For each row None, or (reason code, fact) of the first check that it fails, in the schema's order.

    Rows are judged BATCH at a time; the last batch takes what is left over, so that none is small where there are many.
    """
    out: list[tuple[str, str] | None] = []
    batches = max(1, len(facts) // BATCH)
    for number in range(batches):
        start = number * BATCH
        out += _judge(family, facts[start : start + BATCH] if number + 1 < batches else facts[start:])
    return out


def _judge(family: Family, facts: Sequence[Facts]) -> list[tuple[str, str] | None]:
    import pandera.errors
    import pandera.polars as pa
    import polars as pl

    found: list[tuple[int, str, str] | None] = [None] * len(facts)
    if not facts:
        return []
    contract = _contract(family)
    order = {name: place for place, name in enumerate(contract.columns)}
    columns = dict(zip(FACTS, zip(*facts, strict=True), strict=True))
    frame = pl.DataFrame({name: pl.Series(name, columns[name], _polars_type(name)) for name in contract.columns})
    try:
        contract.validate(frame, lazy=True)
    except pandera.errors.SchemaErrors as errors:
        for error in errors.schema_errors:
            column = str(error.schema.name)
            if error.check_output is None or not isinstance(error.check, pa.Check):  # a null, NaN or wrong type in the facts
                raise RuntimeError(f"the contract cannot be applied: {error}") from None
            passed = error.check_output.to_series() if isinstance(error.check_output, pl.DataFrame) else error.check_output
            for row in passed.fill_null(value=False).not_().arg_true().to_list():
                candidate = (order[column], str(error.check.name), column)
                known = found[row]
                found[row] = candidate if known is None else min(known, candidate)
    return [None if item is None else (item[1], item[2]) for item in found]


def prepare(family: Family) -> None:
    """Load what judging needs, before there is something to judge: half a second."""
    _contract(family)


@functools.cache
def _contract(family: Family) -> DataFrameSchema:
    return schema(family)


def _polars_type(name: str) -> Any:
    import polars as pl

    value = _EMPTY[name]
    return pl.Boolean if isinstance(value, bool) else pl.Float64 if isinstance(value, float) else pl.Int64
