"""Rows broken on purpose, as real sets are: planned by seed, a few in a hundred, each in its own way.

Belongs here: the plan, and how each kind breaks a row or its media. Does not belong here: finding them (that is ingest's work,
which never sees the plan; tests compare its quarantine with it).

A fault touches one row only: where the medium is broken, the row gets a broken medium of its own.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from molmo2_assets.sources.generated.content import URL_ROOT, MediaFolder, Params, Row
from molmo2_assets.sources.generated.seeds import keyed

HTML = (
    b"<!DOCTYPE html>\n<html><head><title>Not found</title></head><body><h1>404</h1><p>The picture has moved.</p></body></html>\n"
)


@dataclass(frozen=True)
class Fault:
    """Row number in the annotation file, what is wrong with it, and the column that shows it."""

    row: int
    kind: str
    field: str


@dataclass(frozen=True)
class FaultKind:
    """A way of breaking a row in place; `apply(row, number, media)`. `duplicate` has no `apply`: it copies an earlier row."""

    kind: str
    field: str
    apply: Callable[[Row, int, MediaFolder], None] | None


def plan_faults(params: Params, kinds: Sequence[FaultKind]) -> tuple[Fault, ...]:
    """Which rows will be broken and how, sorted by row: a function of the parameters alone.

    Row 0 stays whole, so that a duplicate always has an earlier row to repeat.
    """
    number = min(round(params.n * params.faults), params.n - 1)
    if not kinds or number <= 0:
        return ()
    rng = keyed(params.name, params.seed, "faults")
    order = list(kinds)
    rng.shuffle(order)
    rows = rng.sample(range(1, params.n), number)
    return tuple(
        sorted(
            (Fault(row, order[place % len(order)].kind, order[place % len(order)].field) for place, row in enumerate(rows)),
            key=lambda fault: fault.row,
        )
    )


def break_rows(rows: list[Row], params: Params, kinds: Sequence[FaultKind], media: MediaFolder) -> tuple[Fault, ...]:
    """Carry out the plan on the rows, in place."""
    plan = plan_faults(params, kinds)
    by_kind = {(kind.kind, kind.field): kind for kind in kinds}
    broken = {fault.row for fault in plan}
    for fault in plan:
        apply = by_kind[fault.kind, fault.field].apply
        if apply is None:
            whole = max(row for row in range(fault.row) if row not in broken)
            rows[fault.row] = copy.deepcopy(rows[whole])
        else:
            rows[fault.row] = copy.deepcopy(rows[fault.row])
            apply(rows[fault.row], fault.row, media)
    return plan


# -- media ------------------------------------------------------------------------------------------------------------------


def image_faults(column: str) -> tuple[FaultKind, ...]:
    """A picture that is gone, an HTML page in its place, a file cut in half. `column` holds its URL, or a list of URLs."""

    def swap(row: Row, number: int, suffix: str) -> tuple[str, str]:
        value = row[column]
        old = value[0] if isinstance(value, list) else value
        new = f"{URL_ROOT}{old.removeprefix(URL_ROOT).removesuffix('.png')}-{suffix}{number}.png"
        row[column] = [new, *value[1:]] if isinstance(value, list) else new
        return old.removeprefix(URL_ROOT), new.removeprefix(URL_ROOT)

    def missing(row: Row, number: int, media: MediaFolder) -> None:
        swap(row, number, "gone")

    def html(row: Row, number: int, media: MediaFolder) -> None:
        media.add(swap(row, number, "moved")[1], HTML)

    def half(row: Row, number: int, media: MediaFolder) -> None:
        old, new = swap(row, number, "half")
        data = media.path(old).read_bytes()
        media.add(new, data[: len(data) // 2])

    return (
        FaultKind("missing_media", column, missing),
        FaultKind("html_for_image", column, html),
        FaultKind("truncated_image", column, half),
    )


def wrong_hash(column: str) -> FaultKind:
    """The published hash of another picture."""

    def apply(row: Row, number: int, media: MediaFolder) -> None:
        row[column] = row[column][::-1]

    return FaultKind("hash_mismatch", column, apply)


def video_faults(*columns: str) -> tuple[FaultKind, ...]:
    """A film that is gone, one cut after its index, one of no bytes. All `columns` name the same film."""

    def swap(row: Row, number: int, suffix: str) -> tuple[str, str]:
        old = row[columns[0]]
        for column in columns:
            row[column] = f"{old}-{suffix}{number}"
        return f"{old}.mp4", f"{row[columns[0]]}.mp4"

    def missing(row: Row, number: int, media: MediaFolder) -> None:
        swap(row, number, "gone")

    def cut(row: Row, number: int, media: MediaFolder) -> None:
        old, new = swap(row, number, "cut")
        data = media.path(old).read_bytes()
        media.add(new, data[: len(data) * 2 // 5])

    def empty(row: Row, number: int, media: MediaFolder) -> None:
        media.add(swap(row, number, "empty")[1], b"")

    return (
        FaultKind("missing_media", columns[0], missing),
        FaultKind("truncated_video", columns[0], cut),
        FaultKind("empty_file", columns[0], empty),
    )


# -- fields -----------------------------------------------------------------------------------------------------------------


def set_to(kind: str, column: str, value: Callable[[Row], Any]) -> FaultKind:
    """A column whose value becomes value(row)."""

    def apply(row: Row, number: int, media: MediaFolder) -> None:
        row[column] = value(row)

    return FaultKind(kind, column, apply)


DUPLICATE = FaultKind("duplicate", "", None)


def blank(column: str) -> FaultKind:
    """Words that are only spaces."""
    return set_to("empty_text", column, lambda row: "  ")


def count_off(column: str = "count") -> FaultKind:
    """A count that is two more than there are points."""
    return set_to("count_mismatch", column, lambda row: row[column] + 2)


def _first_point(points: Any) -> dict[str, Any]:
    """The first point in any nesting of lists."""
    while isinstance(points, list):
        points = next(item for item in points if item)
    found: dict[str, Any] = points
    return found


def point_faults(column: str = "points") -> tuple[FaultKind, ...]:
    """A point beyond the frame (whatever the unit), and one that is not a number. Points are structs, or a struct of lists."""

    def put(row: Row, x: float) -> None:
        first = _first_point(row[column])
        if isinstance(first["x"], list):
            first["x"] = [x, *first["x"][1:]]
        else:
            first["x"] = x

    return (
        FaultKind("point_outside", column, lambda row, number, media: put(row, 3000.0)),
        FaultKind("point_not_a_number", column, lambda row, number, media: put(row, math.nan)),
    )
