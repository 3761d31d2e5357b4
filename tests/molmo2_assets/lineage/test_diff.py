"""Differences between two versions of a set, against comparing every row in full."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from molmo2_assets.lineage.diff import FIELDS, diff_stores
from tests.support.examples import picture
from tests.support.stores import example
from training_backend.data.example import Example, Point, Points, Turn
from training_backend.data.store import RowWriter


@dataclasses.dataclass(frozen=True)
class Row:
    """What the four field hashes see of a row, plainly."""

    text: str
    grounding: float
    media: str
    meta: int

    def example(self, number: int) -> Example:
        made = example(number, self.text, picture(self.media))
        points = Points(label="x", points=(Point(x=self.grounding, y=0.5, id=0),))
        (branch,) = made.branches
        branch = msgspec.structs.replace(branch, turns=(branch.turns[0], Turn(role="assistant", parts=(points,))))
        return msgspec.structs.replace(made, branches=(branch,), meta={"n": self.meta})


Set = dict[int, Row]
ROWS = st.builds(Row, st.sampled_from("ab"), st.sampled_from((0.25, 0.5)), st.sampled_from(("m", "n")), st.integers(0, 1))
SETS = st.dictionaries(st.integers(0, 12), ROWS, max_size=12)


def write(folder: Path, rows: Set) -> Path:
    with RowWriter(folder) as writer:
        for number, row in rows.items():
            writer.add(row.example(number))
    return folder


def brute(old: Set, new: Set) -> dict[str, Any]:
    """Meta is no part of a row's identity: it is counted among changed rows, and changes none by itself."""
    both = [number for number in old if number in new]
    changed = [n for n in both if dataclasses.astuple(old[n])[:3] != dataclasses.astuple(new[n])[:3]]
    return {
        "added": len(new) - len(both),
        "removed": len(old) - len(both),
        "changed": len(changed),
        "unchanged": len(both) - len(changed),
        "fields": {name: sum(getattr(old[n], name) != getattr(new[n], name) for n in changed) for name in FIELDS},
    }


@settings(max_examples=60, deadline=None)
@given(old=SETS, new=SETS)
def test_it_agrees_with_comparing_every_row(tmp_path_factory: pytest.TempPathFactory, old: Set, new: Set) -> None:
    folder = tmp_path_factory.mktemp("diff")
    found = dataclasses.asdict(diff_stores(write(folder / "old", old), write(folder / "new", new)))
    shown = found.pop("examples")
    assert found == brute(old, new)
    names = {kind: {int(name.removeprefix("row-")) for name in ids} for kind, ids in shown.items()}
    assert names["added"] <= set(new) - set(old)
    assert names["removed"] <= set(old) - set(new)
    assert names["changed"] <= set(old) & set(new)
    assert [len(ids) for ids in shown.values()] == [min(5, found[kind]) for kind in ("added", "removed", "changed")]


def test_order_and_source_are_no_difference(tmp_path: Path) -> None:
    rows = {number: Row("a", 0.5, "m", 0) for number in range(6)}
    found = diff_stores(write(tmp_path / "old", rows), write(tmp_path / "new", dict(reversed(rows.items()))))
    assert (found.added, found.removed, found.changed, found.unchanged) == (0, 0, 0, 6)


def test_a_changed_task_is_a_change_that_no_field_shows(tmp_path: Path) -> None:
    row = Row("a", 0.5, "m", 0).example(0)
    for name, made in (("old", row), ("new", msgspec.structs.replace(row, task="document_qa"))):
        with RowWriter(tmp_path / name) as writer:
            writer.add(made)
    found = diff_stores(tmp_path / "old", tmp_path / "new")
    assert (found.changed, sum(found.fields.values())) == (1, 0)
