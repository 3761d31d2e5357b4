"""Row-level difference between two versions of a validated set, from their indexes alone.

Belongs here: added, removed and changed rows, and which side of a row changed. The JSON is read only for the examples shown.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from training_backend.data.store import RowStore

FIELDS = ("text", "grounding", "media", "meta")
_SHOWN = 5


@dataclass(frozen=True)
class Difference:
    """Counts of rows, how many of the changed ones differ in each field, and a few ids of each kind."""

    added: int
    removed: int
    changed: int
    unchanged: int
    fields: dict[str, int]
    examples: dict[str, list[str]]


def diff_stores(old: Path, new: Path) -> Difference:
    """The difference from `old` to `new`, folders of two versions of one validated set."""
    import numpy as np

    before, after = RowStore(old), RowStore(new)
    old_ids, new_ids = (np.ascontiguousarray(store.column("id_hash")).view("V16").ravel() for store in (before, after))
    both, left, right = np.intersect1d(old_ids, new_ids, assume_unique=True, return_indices=True)
    changed = (before.column("row_hash")[left] != after.column("row_hash")[right]).any(axis=1)
    fields = {name: int((before.column(name)[left] != after.column(name)[right]).any(axis=1)[changed].sum()) for name in FIELDS}
    gone = np.setdiff1d(np.arange(len(before)), left)
    come = np.setdiff1d(np.arange(len(after)), right)
    examples = {
        "added": [after.example(int(row)).id for row in come[:_SHOWN]],
        "removed": [before.example(int(row)).id for row in gone[:_SHOWN]],
        "changed": [after.example(int(row)).id for row in right[changed][:_SHOWN]],
    }
    return Difference(len(come), len(gone), int(changed.sum()), len(both) - int(changed.sum()), fields, examples)
