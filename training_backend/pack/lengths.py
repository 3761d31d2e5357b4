"""The length table: what every row of a store costs, in every realisation, without decoding media.

Belongs here: computing, writing and reading the table. Does not belong here: the arithmetic itself
(`training_backend.encode.preprocessor`), planning (`plan.py`).

A file is `lengths/<dataset>.npz` with columns [rows, VARIANTS]: `tokens`, `visual` (crops and frames), `truncated` (branches
left out), `dropped` (frames or crops left out), `left_out` (the whole row).
"""

from __future__ import annotations

import io
import zipfile
import zlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from training_backend.data.manifest import replace_file
from training_backend.data.store import RowStore
from training_backend.encode.draws import VARIANTS, Draws
from training_backend.encode.preprocessor import Plan, Preprocessor

CHECKED = 16
"""Rows of a store that are encoded when its table is made."""


class LengthError(ValueError):
    """A length table that is missing, torn, or of another store; the message names the file and the way out."""


@dataclass(frozen=True, slots=True)
class Lengths:
    """Columns [rows, VARIANTS] by row number (see the module)."""

    tokens: NDArray[np.int32]
    visual: NDArray[np.int32]
    truncated: NDArray[np.int32]
    dropped: NDArray[np.int32]
    left_out: NDArray[np.bool_]

    def __len__(self) -> int:
        return len(self.visual)

    def save(self, path: Path) -> None:
        """Write atomically; equal tables give equal bytes."""
        stream = io.BytesIO()
        np.savez_compressed(stream, **{name: getattr(self, name) for name in self.__slots__})
        replace_file(path, stream.getvalue())

    @classmethod
    def load(cls, path: Path, rows: int) -> Lengths:
        """Inverse of `save`. Raises LengthError, also where the table is not for a store of `rows` rows."""
        try:
            with np.load(path, allow_pickle=False) as file:
                table = cls(**{name: file[name] for name in cls.__slots__})
        except FileNotFoundError:
            raise LengthError(f"{path} is missing: materialise the sequences again.") from None
        except (OSError, ValueError, KeyError, zipfile.BadZipFile, zlib.error) as error:
            raise LengthError(f"{path} cannot be read ({error}): materialise the sequences again.") from None
        if any(getattr(table, name).shape != (rows, VARIANTS) for name in cls.__slots__):
            raise LengthError(f"{path} is for {len(table)} rows, the set has {rows}: materialise the sequences again.")
        return table


@dataclass(frozen=True, slots=True)
class Measured:
    """The table of some rows of a store that follow each other, and how many are left out for which reason."""

    table: Lengths
    reasons: Counter[str]


def length_table(store: RowStore, preprocessor: Preprocessor) -> tuple[Lengths, Counter[str]]:
    """The table of a store, and how many rows are left out for which reason. Raises what `measure` raises."""
    return joined(store, preprocessor, [measure(store, preprocessor, range(len(store)))])


def pieces(store: RowStore, size: int) -> list[range]:
    """All rows of a store, `size` at a time; an empty store is one piece without rows."""
    return [range(start, min(start + size, len(store))) for start in range(0, max(1, len(store)), size)]


def measure(store: RowStore, preprocessor: Preprocessor, rows: range) -> Measured:
    """The table of some rows. Raises OversizedError naming the row where the recipe refuses what does not fit."""
    shape = (len(rows), VARIANTS)
    columns = {name: np.empty(shape, dtype=np.int32) for name in ("tokens", "visual", "truncated", "dropped")}
    left_out = np.empty(shape, dtype=bool)
    reasons: Counter[str] = Counter()
    for place, number in enumerate(rows):
        plans = realisations(store, number, preprocessor)
        columns["tokens"][place] = [plan.tokens for plan in plans]
        columns["visual"][place] = [plan.visual for plan in plans]
        columns["truncated"][place] = [plan.truncated_branches for plan in plans]
        columns["dropped"][place] = [plan.dropped_frames for plan in plans]
        left_out[place] = [plan.left_out is not None for plan in plans]
        reasons.update({plan.left_out for plan in plans if plan.left_out is not None})
    return Measured(Lengths(**columns, left_out=left_out), reasons)


def joined(store: RowStore, preprocessor: Preprocessor, parts: Sequence[Measured]) -> tuple[Lengths, Counter[str]]:
    """The table of a store out of those of all its rows in order, and the reasons.

    Some rows, evenly spread, are encoded too, without their media: they must come out as long as the table says.
    """
    table = Lengths(**{name: np.concatenate([getattr(part.table, name) for part in parts]) for name in Lengths.__slots__})
    for number in np.unique(np.linspace(0, len(store) - 1, CHECKED).astype(int)).tolist() if len(store) else []:
        example, variant = store.example(number), number % VARIANTS
        encoded = preprocessor.encode(example, variant, None)
        found, planned = (len(encoded.tokens), len(encoded.crops)), (table.tokens[number, variant], table.visual[number, variant])
        assert found == planned, f"{example.id}: the table has {planned} tokens and crops, encoding makes {found}"
    return table, sum((part.reasons for part in parts), Counter())


def realisations(store: RowStore, number: int, preprocessor: Preprocessor) -> list[Plan]:
    """Plans of a row's variants, VARIANTS of them; computed once where the row leaves nothing to choose."""
    example = store.example(number)
    plans: list[Plan] = []
    for variant in range(VARIANTS):
        draws = Draws(example.id, variant)
        plans.append(preprocessor.plan(example, draws))
        if not draws.used:
            return plans * VARIANTS
    return plans
