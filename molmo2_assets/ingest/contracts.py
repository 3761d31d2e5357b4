"""The contract: what must hold for every example, stated once as pandera schemas over flat facts.

Belongs here: facts of a piece, one schema a family, reading the verdict row by row. Does not belong here: layout (`adapters/`),
rules across rows (`validate.py`).

Traps that the form of this file avoids (pandera 0.35, polars): a check that evaluates to null passes, so facts are never null;
NaN passes `>=`, so finiteness is a fact of its own; `drop_invalid_rows` swallows schema errors, so it is not used, and rows are
found through each error's `check_output`.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from training_backend.data.example import Branch, Choices, Count, Family, Media, Points, Text, TimedPoints, Tracks

if TYPE_CHECKING:
    from pandera.polars import DataFrameSchema

MAX_TEXT = 60_000
"""Characters of one text."""
BATCH = 65_536
"""Rows of one call: below that, the fixed cost of a call (about 3 ms a column) shows."""
_TIME_SLACK = 0.05
"""Seconds by which a time may pass the clip's end, for rounding to one decimal."""
_CONTROL = {chr(code) for code in range(32)} - {"\n", "\t", "\r"} | {chr(127)}

Facts = dict[str, Any]
_EMPTY: Facts = {
    "branches": 0, "roles_ok": True, "min_text": 1, "max_text": 0, "control": False, "points": 0, "finite": True,
    "x_low": 0.5, "x_high": 0.5, "y_low": 0.5, "y_high": 0.5, "t_low": 0.0, "t_over": -1.0, "t_ordered": True,
    "count_ok": True, "options_low": 2, "options_distinct": True, "answer_ok": True, "seen": True, "media": 0, "images_ok": True,
}  # fmt: skip


def facts_of(branches: Sequence[Branch], media: Sequence[Media]) -> Facts:
    """Flat facts of what one row says: numbers and booleans, never null."""
    facts = dict(_EMPTY)
    facts["branches"], facts["media"] = len(branches), len(media)
    seconds = media[0].seconds if media else None
    for item in media:
        for line in item.subtitles:
            _text(facts, line.text)
    for branch in branches:
        roles = [turn.role for turn in branch.turns if turn.role != "system"]
        expected = ["user", "assistant"] * len(roles) if roles[:1] == ["user"] else ["assistant", "user"] * len(roles)
        facts["roles_ok"] &= bool(roles) and roles[-1] == "assistant" and roles == expected[: len(roles)]
        for turn in branch.turns:
            if not turn.parts:
                facts["min_text"] = 0
            points: int | None = None
            for part in turn.parts:
                found = _part(facts, part, len(media), seconds, points)
                points = points if found is None else found + (points or 0)
    return facts


def _part(facts: Facts, part: Any, images: int, seconds: float | None, points_before: int | None) -> int | None:
    """Fold one part into the facts; returns how many points it holds, None where it is not a part of points.

    "There are none" is a part of no points: a count beside it must be 0.
    """
    if isinstance(part, Text):
        _text(facts, part.text)
        return None
    if isinstance(part, Choices):
        for option in part.options:
            _text(facts, option)
        facts["options_low"] = min(facts["options_low"], len(part.options))
        facts["options_distinct"] &= len({option.strip().lower() for option in part.options}) == len(part.options)
        facts["answer_ok"] &= 0 <= part.answer < len(part.options)
        return None
    if isinstance(part, Count):
        _text(facts, part.label)
        facts["count_ok"] &= part.count >= 0 and points_before in (None, part.count)
        return None
    if isinstance(part, Points):
        _text(facts, part.label)
        for point in part.points:
            _place(facts, point.x, point.y)
            facts["images_ok"] &= 0 <= point.image < max(images, 1)
        return len(part.points)
    if isinstance(part, TimedPoints):
        _text(facts, part.label)
        for timed in part.points:
            _place(facts, timed.x, timed.y)
            _time(facts, timed.t, seconds)
        facts["t_ordered"] &= all(a.t <= b.t for a, b in itertools.pairwise(part.points))
        return len(part.points)
    assert isinstance(part, Tracks)
    _text(facts, part.query)
    facts["seen"] &= bool(part.tracks)
    for track in part.tracks:
        facts["seen"] &= any(not sample.occluded for sample in track.samples)
        facts["t_ordered"] &= all(a.t < b.t for a, b in itertools.pairwise(track.samples))
        for sample in track.samples:
            _place(facts, sample.x, sample.y)
            _time(facts, sample.t, seconds)
    return None


def _text(facts: Facts, text: str) -> None:
    facts["min_text"] = min(facts["min_text"], len(text.strip()))
    facts["max_text"] = max(facts["max_text"], len(text))
    facts["control"] |= not _CONTROL.isdisjoint(text)


def _place(facts: Facts, x: float, y: float) -> None:
    facts["points"] += 1
    if not (math.isfinite(x) and math.isfinite(y)):
        facts["finite"] = False
        return
    facts["x_low"], facts["x_high"] = min(facts["x_low"], x), max(facts["x_high"], x)
    facts["y_low"], facts["y_high"] = min(facts["y_low"], y), max(facts["y_high"], y)


def _time(facts: Facts, t: float, seconds: float | None) -> None:
    if not math.isfinite(t):
        facts["finite"] = False
        return
    facts["t_low"] = min(facts["t_low"], t)
    facts["t_over"] = max(facts["t_over"], t - (seconds if seconds is not None else 0.0))


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
    """For each row None, or (reason code, fact) of the first check that it fails, in the schema's order."""
    import pandera.errors
    import pandera.polars as pa
    import polars as pl

    out: list[tuple[str, str] | None] = []
    contract = schema(family)
    order = {name: place for place, name in enumerate(contract.columns)}
    types = {
        name: (pl.Boolean if isinstance(v, bool) else pl.Float64 if isinstance(v, float) else pl.Int64)
        for name, v in _EMPTY.items()
    }
    for start in range(0, len(facts), BATCH):
        frame = pl.DataFrame({name: [row[name] for row in facts[start : start + BATCH]] for name in _EMPTY}, schema=types)
        found: list[tuple[int, str, str] | None] = [None] * len(frame)
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
        out += [None if item is None else (item[1], item[2]) for item in found]
    return out
