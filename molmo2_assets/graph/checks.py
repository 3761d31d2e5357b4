"""Asset checks: their specifications and the results that a finished folder gives.

Belongs here: what is checked of each layer, with which severity. Blocking checks stop what lies downstream in the same run.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import dagster as dg

from training_backend.data.manifest import Manifest, verify_files

DESCRIPTIONS = {
    "available": "the set could be had; an unavailable one is left out, or refused, by the mixture",
    "contract": "no more rows were set aside than the catalogue allows",
    "non_empty": "at least one row is left",
    "weights_sum_to_one": "the weights of the mixture sum to exactly one",
    "no_leaks": "no medium and no question of an evaluation set is in the mixture",
    "leaks_checked": "every evaluation set of the profile was there to be compared with",
    "sources_known": "provenance and licence of every dataset in the mixture are known",
    "loss_finite": "every recorded loss is a finite number",
    "checkpoint_loads": "the weights were read back equal after writing, and their files are what the manifest says",
    "packing_fill": "the tighter budget of the packed sequences is at least 90 % filled",
    "imported_whole": "the files of the import are what its manifest says",
    "exported_whole": "the files of the export are what its manifest says",
    "answered": "every question was asked",
    "above_blind": "the score is above that of the best predictor that sees no pixels",
}
WARNINGS = {"available", "leaks_checked", "sources_known", "packing_fill", "answered", "above_blind"}


def specs(key: str, *names: str) -> list[dg.AssetCheckSpec]:
    """Check specifications of an asset; all but warnings block."""
    path = dg.AssetKey(key.split("/"))
    return [dg.AssetCheckSpec(name, asset=path, description=DESCRIPTIONS[name], blocking=name not in WARNINGS) for name in names]


def result(key: str, name: str, passed: bool, **metadata: Any) -> dg.AssetCheckResult:
    """The result of one check."""
    severity = dg.AssetCheckSeverity.WARN if name in WARNINGS else dg.AssetCheckSeverity.ERROR
    return dg.AssetCheckResult(
        asset_key=dg.AssetKey(key.split("/")), check_name=name, passed=passed, severity=severity, metadata=metadata
    )


def raw(key: str, manifest: Manifest) -> list[dg.AssetCheckResult]:
    """Whether the set could be had."""
    return [result(key, "available", manifest.state == "ready", reason=str(manifest.facts.get("reason", "")))]


def validated(key: str, manifest: Manifest) -> list[dg.AssetCheckResult]:
    """Contract and rows. An absent set passes: the mixture decides what becomes of it."""
    absent = manifest.state == "unavailable"
    return [
        result(
            key, "contract", absent or manifest.state == "ready",
            bad_fraction=float(manifest.facts.get("bad_fraction", 0.0)), limit=float(manifest.facts.get("max_bad_fraction", 0.0)),
        ),
        result(key, "non_empty", absent or int(manifest.counts.get("rows_ok", 0)) > 0, rows=int(manifest.counts.get("rows_ok", 0))),
    ]  # fmt: skip


def mixture(key: str, folder: Path, manifest: Manifest) -> list[dg.AssetCheckResult]:
    """Weights and leaks."""
    from training_backend.data.order import Mixture

    facts = manifest.facts
    total = sum(entry.weight for entry in Mixture.load(folder).entries)
    leaks = facts.get("leaks", [])
    return [
        result(key, "weights_sum_to_one", total == Mixture.load(folder).file.period, units=total),
        result(key, "no_leaks", not leaks, leaks=len(leaks), first=json.dumps(leaks[0]) if leaks else ""),
        result(key, "leaks_checked", not facts["unchecked_evaluation_sets"], absent=", ".join(facts["unchecked_evaluation_sets"])),
        result(
            key, "sources_known", not facts["unknown_provenance"] and not facts["unknown_licence"],
            unknown_provenance=", ".join(facts["unknown_provenance"]), unknown_licence=", ".join(facts["unknown_licence"]),
            exceptions=json.dumps(facts["exceptions"], sort_keys=True),
        ),
    ]  # fmt: skip


def sequences(key: str, manifest: Manifest) -> list[dg.AssetCheckResult]:
    """Fill of the tighter budget."""
    fill = float(manifest.facts["fill"])
    return [result(key, "packing_fill", fill >= 0.9, fill=fill)]


def checkpoint(key: str, folder: Path, manifest: Manifest) -> list[dg.AssetCheckResult]:
    """Losses and files. Weights are small beside the disk's cache right after writing, so their hashes are checked too."""
    problems = verify_files(folder, manifest)
    losses = manifest.counts
    return [
        result(key, "loss_finite", bool(losses["loss_finite"]), last=float(losses["last"]["loss"])),
        result(key, "checkpoint_loads", not problems, problem=problems[0] if problems else ""),
    ]


def whole(key: str, name: str, folder: Path, manifest: Manifest) -> list[dg.AssetCheckResult]:
    """Files, under the check's own name."""
    problems = verify_files(folder, manifest)
    return [result(key, name, not problems, problem=problems[0] if problems else "")]


def predictions(key: str, counts: Mapping[str, Any]) -> list[dg.AssetCheckResult]:
    """Whether all questions were asked."""
    failures = int(counts.get("failures", 0))
    return [result(key, "answered", failures == 0, failures=failures)]


def evaluation(key: str, score: float, baseline: float) -> list[dg.AssetCheckResult]:
    """Whether the model sees."""
    return [result(key, "above_blind", score > baseline, score=score, baseline=baseline)]
