"""A mixture asset: from a specification and validated datasets to `mixture.json`, its schedule and `weights.json`.

Belongs here: which datasets take part, what is refused, the files. Does not belong here: the rules of weights (`weights.py`), the
order of rows (`training_backend.data.order`), publishing (the graph).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from molmo2_assets.mixtures.leaks import find_leaks
from molmo2_assets.mixtures.rebalance import leave_out
from molmo2_assets.mixtures.weights import WeightRow
from molmo2_assets.profile import Absent, DatasetSpec, LicenceRule, MixtureSpec, ProvenanceRule, objections
from training_backend.data.fingerprint import short

if TYPE_CHECKING:
    from training_backend.data.manifest import Manifest

CODE_VERSION = "2"
WEIGHTS_FILE = "weights.json"
WEIGHTS_SCHEMA = "molmo2-weights/1"


class TableRow(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One dataset of `weights.json`.

    `weight` is what the order really uses: a whole number of 1/2^20; `exact` the rule's own value. `before` is the weight before
    absent datasets were left out, None where it cannot be known. `repeats`: how often each row is seen over the planned examples,
    where those are known.
    """

    dataset: str
    group: str
    task: str
    provenance: str
    rows: int
    size: float | None
    factor: float
    before: float | None
    exact: float
    weight: float
    repeats: float | None


class LeftOut(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A dataset of the recipe that is not in the mixture, why, and the weight that it would have."""

    dataset: str
    reason: str
    before: float | None


class WeightsFile(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`weights.json`."""

    method: str
    rows: tuple[TableRow, ...]
    left_out: tuple[LeftOut, ...]
    schema: str = WEIGHTS_SCHEMA


class MixtureReport(msgspec.Struct, frozen=True, kw_only=True):
    """What was built. `facts` has `leaks` (an empty list where there are none), `shared_wordings` and `left_out`."""

    data_version: str
    table: tuple[TableRow, ...]
    left_out: tuple[LeftOut, ...]
    counts: dict[str, Any]
    facts: dict[str, Any]


class MixtureRefused(ValueError):
    """A mixture that must not be built as it is; the message lists every reason, one a line, with the way out."""


def build_mixture(
    spec: MixtureSpec,
    validated: Mapping[str, tuple[Path, Manifest]],
    datasets: Mapping[str, DatasetSpec],
    eval_validated: Mapping[str, tuple[Path, Manifest]],
    dest: Path,
    absent: Absent,
    *,
    provenance: ProvenanceRule | None = None,
    licences: LicenceRule | None = None,
    planned_examples: float | None = None,
) -> MixtureReport:
    """Write the mixture into `dest`.

    `validated` has the folder and manifest of every dataset that was materialised, also of unavailable and rejected ones. Leaks
    into `eval_validated` are reported, not raised: whoever publishes decides. `planned_examples` (of the longest stage that uses
    the mixture) is needed to hold `max_repeats`.

    Raises MixtureRefused for absent datasets under `refuse`, empty datasets, a provenance or licence that the recipe does not
    allow, and rows that would be repeated too often.
    """
    from training_backend.data.order import PERIOD, Mixture, MixtureEntry, integer_weights
    from training_backend.data.store import RowStore

    missing = _absent(spec, validated)
    rows = {name: len(RowStore(validated[name][0])) for name in spec.datasets if name not in missing}
    sources, terms = provenance or ProvenanceRule(), licences or LicenceRule()
    reasons = _refusals(rows, [datasets[name] for name in spec.datasets], missing, absent, (sources, terms))
    if reasons:
        raise MixtureRefused("\n".join(reasons))
    declared = {name: datasets[name].weight_rows or datasets[name].rows or 0 for name in missing}
    weights, changes = leave_out(spec, {**rows, **declared}, missing)
    before = {change.dataset: change.before for change in changes}
    whole = integer_weights([row.weight for row in weights])
    table = tuple(
        _table_row(row, datasets[row.dataset], before[row.dataset], weight / PERIOD, planned_examples)
        for row, weight in zip(weights, whole, strict=True)
    )
    _check_repeats(spec, table, planned_examples)
    mixture = Mixture.build(
        spec.seed,
        [
            MixtureEntry(dataset=row.dataset, rows=row.rows, data_version=validated[row.dataset][1].data_version, weight=weight)
            for row, weight in zip(weights, whole, strict=True)
        ],
    )
    left_out = tuple(LeftOut(dataset=name, reason=reason, before=before[name]) for name, reason in missing.items())
    mixture.save(dest)
    body = WeightsFile(method=spec.method, rows=table, left_out=left_out)
    (dest / WEIGHTS_FILE).write_bytes(msgspec.json.format(msgspec.json.encode(body), indent=1) + b"\n")
    ready = {name: folder for name, (folder, manifest) in eval_validated.items() if manifest.state == "ready"}
    found = find_leaks({name: validated[name][0] for name in rows}, ready)
    return MixtureReport(
        data_version=short(mixture.fingerprint),
        table=table,
        left_out=left_out,
        counts={"datasets": len(table), "rows": sum(rows.values()), "left_out": len(left_out)},
        facts={
            "leaks": [msgspec.to_builtins(leak) for leak in found.leaks],
            "shared_wordings": found.shared_wordings,
            "left_out": [msgspec.to_builtins(entry) for entry in left_out],
            "unchecked_evaluation_sets": sorted(set(eval_validated) - set(ready)),
            "unknown_provenance": sorted(name for name in rows if datasets[name].provenance == "unknown"),
            "unknown_licence": sorted(name for name in rows if datasets[name].licence == "unknown"),
            "exceptions": {name: reason for rule in (sources, terms) for name, reason in rule.exceptions.items() if name in rows},
        },
    )


def read_weights(folder: Path) -> WeightsFile:
    """`weights.json` of a mixture. Raises ValueError naming the file."""
    path = folder / WEIGHTS_FILE
    try:
        return msgspec.json.decode(path.read_bytes(), type=WeightsFile)
    except FileNotFoundError:
        raise ValueError(f"{path} is missing: materialise the mixture again.") from None
    except msgspec.MsgspecError as error:
        raise ValueError(f"{path} cannot be read ({error}): materialise the mixture again.") from None


def _absent(spec: MixtureSpec, validated: Mapping[str, tuple[Path, Manifest]]) -> dict[str, str]:
    """Datasets of the recipe that cannot take part, with the reason."""
    found = {}
    for name in spec.datasets:
        if name not in validated:
            found[name] = "never materialised"
        elif validated[name][1].state != "ready":
            manifest = validated[name][1]
            found[name] = f"{manifest.state}: {manifest.facts.get('reason', 'see its manifest')}"
    return found


def _refusals(
    rows: Mapping[str, int],
    datasets: Iterable[DatasetSpec],
    missing: Mapping[str, str],
    absent: Absent,
    rules: tuple[ProvenanceRule, LicenceRule],
) -> list[str]:
    reasons = []
    if absent == "refuse":
        reasons += [
            f"{name} is absent ({reason}); materialise it, take it out of the mixture, or set absent: leave_out in the profile"
            for name, reason in missing.items()
        ]
    for dataset in datasets:
        reasons += [f"{objection}; take it out, or name it in the rule's exceptions" for objection in objections(dataset, *rules)]
        if rows.get(dataset.name) == 0:
            reasons.append(f"{dataset.name} has no rows; look at its quarantine, or take it out of the mixture")
    return reasons


def _table_row(row: WeightRow, dataset: DatasetSpec, before: float | None, weight: float, planned: float | None) -> TableRow:
    return TableRow(
        dataset=row.dataset,
        group=row.group,
        task=dataset.task,
        provenance=dataset.provenance,
        rows=row.rows,
        size=row.size,
        factor=row.factor,
        before=before,
        exact=row.weight,
        weight=weight,
        repeats=None if planned is None else planned * weight / row.rows,
    )


def _check_repeats(spec: MixtureSpec, table: tuple[TableRow, ...], planned: float | None) -> None:
    limit = spec.max_repeats
    if limit is None or planned is None:
        return
    reasons = [
        f"each of the {row.rows} rows of {row.dataset} would be seen {row.repeats:.1f} times over {planned:.0f} examples, more "
        f"than max_repeats {limit:g}; lower its factor, add data, or raise max_repeats"
        for row in table
        if row.repeats is not None and row.repeats > limit
    ]
    if reasons:
        raise MixtureRefused("\n".join(reasons))
