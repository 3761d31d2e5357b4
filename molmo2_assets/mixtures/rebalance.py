"""Changing a mixture on purpose, with the weights before and after: manual factors, datasets left out.

Belongs here: what a change does to every weight. Does not belong here: the rules of weights (`weights.py`), deciding which datasets
are absent (`build.py`).
"""

from __future__ import annotations

from collections.abc import Collection, Mapping

import msgspec

from molmo2_assets.mixtures.weights import WeightRow, mixture_weights
from molmo2_assets.profile.document import unknown
from molmo2_assets.profile.structs import MixtureItem, MixtureSpec


class Change(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A dataset's weight before and after. `before` is None where nothing says how large an absent dataset is, `after` where it is
    left out."""

    dataset: str
    before: float | None
    after: float | None


def with_factors(spec: MixtureSpec, factors: Mapping[str, float]) -> MixtureSpec:
    """`spec` with the factors of some datasets multiplied.

    Raises ValueError for a dataset that is not in the mixture, one whose weight is fixed, and a factor that is not greater than 0.
    """
    items = spec.datasets
    for name, factor in factors.items():
        if name not in items:
            raise ValueError(unknown("dataset of this mixture", name, items))
        if items[name].weight is not None:
            raise ValueError(f"the weight of {name} is fixed at {items[name].weight}; change that instead of a factor")
        if not factor > 0:
            raise ValueError(f"the factor of {name} is {factor}; it must be greater than 0 (leave the dataset out instead)")

    def scaled(entries: dict[str, MixtureItem]) -> dict[str, MixtureItem]:
        return {
            name: msgspec.structs.replace(item, factor=item.factor * factors[name]) if name in factors else item
            for name, item in entries.items()
        }

    groups = {name: msgspec.structs.replace(group, entries=scaled(group.entries)) for name, group in spec.groups.items()}
    return msgspec.structs.replace(spec, entries=scaled(spec.entries), groups=groups)


def leave_out(spec: MixtureSpec, rows: Mapping[str, int], missing: Collection[str]) -> tuple[list[WeightRow], list[Change]]:
    """The mixture without `missing`, and every weight before and after.

    `rows` holds the rows of datasets that are there, and declared rows of missing ones where they are known. A missing dataset of
    unknown size has no weight before, and the others' weights before are those without it.
    """
    after = mixture_weights(spec, rows, frozenset(missing))
    unsized = frozenset(name for name in missing if rows.get(name, 0) <= 0)
    before = mixture_weights(spec, rows, unsized)
    return after, changes(before, after, spec)


def changes(before: Collection[WeightRow], after: Collection[WeightRow], spec: MixtureSpec) -> list[Change]:
    """Every dataset of `spec` with its weight in both tables, in the order of its entries."""
    old = {row.dataset: row.weight for row in before}
    new = {row.dataset: row.weight for row in after}
    return [Change(dataset=name, before=old.get(name), after=new.get(name)) for name in spec.datasets]
