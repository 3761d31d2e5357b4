"""Rows that were set aside, judged again: what a changed contract, adapter or media table would make of each of them.

Belongs here: reading those rows alone. Does not belong here: publishing (materialise `validated/<set>` for that), rules across
rows, which need the whole set.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from molmo2_assets.ingest.adapters import Piece, adapter_of
from molmo2_assets.ingest.contracts import FACTS, Facts, verdicts
from molmo2_assets.ingest.media_table import read_media
from molmo2_assets.ingest.quarantine import Quarantined
from molmo2_assets.ingest.reasons import RowFault
from molmo2_assets.ingest.rows import BadRow, RawRow
from molmo2_assets.ingest.tables import rows_of
from molmo2_assets.ingest.validate import read_row

if TYPE_CHECKING:
    from molmo2_assets.profile import DatasetSpec

WHOLE_SET = "needs the whole set"


@dataclass(frozen=True)
class Replayed:
    """One row: why it was set aside, and why it would be now; `now` is None where it would be kept, WHOLE_SET where only a run
    over all rows can tell, `gone` where its file no longer has it."""

    file: str
    row: int
    before: str
    now: str | None
    field: str = ""
    detail: str = ""


class _Judged:
    """Takes what reading a row comes to."""

    def __init__(self) -> None:
        self.faults: dict[tuple[str, int], RowFault] = {}
        self.facts: list[Facts] = []
        self.places: list[tuple[str, int]] = []

    def set_aside(self, row: RawRow | BadRow, stage: Any, fault: RowFault) -> None:
        self.faults[row.file, row.row] = fault

    def accept(self, row: RawRow, piece: Piece, facts: Facts) -> None:
        self.places.append((row.file, row.row))
        self.facts.append(facts)


def replay(spec: DatasetSpec, raw: Path, media: Path, aside: Sequence[Quarantined]) -> list[Replayed]:
    """Judge the rows of a quarantine again, one by one; `raw` and `media` are the folders of the assets to read them from."""
    adapter, context = adapter_of(spec)
    table, judged = read_media(media), _Judged()
    seen: set[tuple[str, int]] = set()
    for file in sorted({item.file for item in aside}):
        wanted = {item.row for item in aside if item.file == file}
        if not (raw / file).is_file():
            continue
        for row in rows_of(spec, raw / file, raw):
            if row.row in wanted:
                seen.add((file, row.row))
                read_row(row, adapter, context, table, judged)
            if row.row >= max(wanted):
                break
    for place, facts, verdict in zip(judged.places, judged.facts, verdicts(spec.family, judged.facts), strict=True):
        if verdict is not None:
            reason, name = verdict
            judged.faults[place] = RowFault(reason, name, str(facts[FACTS.index(name)]))
    return [_outcome(item, judged.faults.get((item.file, item.row)), (item.file, item.row) in seen) for item in aside]


def _outcome(item: Quarantined, fault: RowFault | None, seen: bool) -> Replayed:
    if not seen:
        return Replayed(item.file, item.row, item.reason, "gone")
    if fault is not None:
        return Replayed(item.file, item.row, item.reason, fault.reason, fault.field, fault.detail[:200])
    return Replayed(item.file, item.row, item.reason, WHOLE_SET if item.stage == "cross" else None)
