"""Weights of a mixture from its specification and the sizes of its datasets: pure functions on numbers.

Belongs here: the rules fixed, sqrt and grouped. Does not belong here: reading datasets (`build.py`), what happens to datasets that
are absent (`rebalance.py`), which row a position means (`training_backend.data.order`).

Rules. sqrt: w_i = f_i √n_i / Σ f_j √n_j with manual factors f. fixed: as written. grouped: every group has a rate; inside it sqrt
or fixed. A `size` m replaces n as in allenai/molmo2, olmo/data/data_loader.py, `_build_mixture`: m ≥ 1 counts as m, 0 < m < 1 as
n·m, 0 as 1.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import msgspec

from molmo2_assets.profile.structs import MixtureItem, MixtureSpec

_TOLERANCE = 1e-9
UNGROUPED = "all"


class WeightRow(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One dataset of a mixture: `rows` it has, `size` that the rule used, manual `factor`, `weight` (all weights sum to one).

    `size` is None where the rule takes no size.
    """

    dataset: str
    group: str
    rows: int
    size: float | None
    factor: float
    weight: float


def size_used(rows: int, item: MixtureItem) -> float:
    """n under the square root."""
    if item.size is None:
        return float(rows)
    if item.size == 0:
        return 1.0
    return rows * item.size if item.size < 1 else item.size


def mixture_weights(spec: MixtureSpec, rows: Mapping[str, int], without: frozenset[str] = frozenset()) -> list[WeightRow]:
    """The table of a mixture, in the order of its entries.

    `rows` gives every dataset's rows but those in `without`. What a left-out dataset would have had goes to the others of its group
    in proportion; a group that is left out whole gives its rate to the other groups.

    Raises ValueError for a dataset without rows, rates or weights that do not sum to one and are not marked `normalise`, and for a
    mixture in which nothing is left.
    """
    groups = _groups(spec)
    if not spec.normalise:
        _expect_one("the rates of the groups", [rate for rate, _, _ in groups.values()])
        for name, (_, fixed, items) in groups.items():
            if fixed:
                _expect_one(f"the weights of {name}", [item.weight or 0.0 for item in items.values()])
    kept = {
        name: (rate, fixed, {key: item for key, item in items.items() if key not in without})
        for name, (rate, fixed, items) in groups.items()
    }
    kept = {name: group for name, group in kept.items() if group[2]}
    if not kept:
        raise ValueError("nothing is left in the mixture: every dataset is left out")
    total_rate = math.fsum(rate for rate, _, _ in kept.values())
    table: list[WeightRow] = []
    for name, (rate, fixed, items) in kept.items():
        raw = {key: _raw(key, item, fixed, rows) for key, item in items.items()}
        total = math.fsum(raw.values())
        for key, item in items.items():
            table.append(
                WeightRow(
                    dataset=key,
                    group=name,
                    rows=rows[key],
                    size=None if fixed else size_used(rows[key], item),
                    factor=item.factor,
                    weight=raw[key] / total * rate / total_rate,
                )
            )
    return table


def _groups(spec: MixtureSpec) -> dict[str, tuple[float, bool, dict[str, MixtureItem]]]:
    """name → (rate, weights fixed?, entries)."""
    if spec.method == "grouped":
        return {name: (group.rate, group.inside == "fixed", group.entries) for name, group in spec.groups.items()}
    return {UNGROUPED: (1.0, spec.method == "fixed", spec.entries)}


def _raw(name: str, item: MixtureItem, fixed: bool, rows: Mapping[str, int]) -> float:
    if rows.get(name, 0) <= 0:
        raise ValueError(f"{name} has no rows: leave it out of the mixture, or look at its quarantine")
    if fixed:
        return item.weight or 0.0
    return item.factor * math.sqrt(size_used(rows[name], item))


def _expect_one(what: str, values: list[float]) -> None:
    total = math.fsum(values)
    if abs(total - 1) > _TOLERANCE:
        raise ValueError(
            f"{what} sum to {total:.6g}, not to 1; correct them, or write normalise: true if they are meant relatively"
        )
