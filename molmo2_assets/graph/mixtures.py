"""Mixtures and their statistics.

Belongs here: their recipes and pages. Does not belong here: weights and leaks (`molmo2_assets.mixtures`).
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import dagster as dg

from molmo2_assets.graph import checks, pictures
from molmo2_assets.graph.step import Built, Layer, Metadata, Step, asset
from molmo2_assets.home import Home
from molmo2_assets.profile import MixtureSpec, Profile
from training_backend.data.fingerprint import fingerprint, plain, short
from training_backend.data.manifest import Manifest

STATISTICS_FILE = "statistics.json"
MIXTURE_VERSION = "1"
STATISTICS_VERSION = "1"


def planned_examples(profile: Profile, mixture: str) -> float | None:
    """Packs of the longest stage that uses a mixture: a lower bound of the examples that it hands out."""
    stages = [stage for stage in profile.stages.values() if stage.mixture == mixture]
    return max((float(stage.steps * stage.global_batch) for stage in stages), default=None)


def mixture_assets(home: Home, profile: Profile, key: str, spec: MixtureSpec) -> list[dg.AssetsDefinition]:
    """<stage>_mixture, under its name in the profile, and <stage>_statistics."""
    members = [f"validated/{name}" for name in spec.datasets]
    held_out = [f"validated/{name}" for name in profile.eval_datasets]
    owners = [profile.owners["mixture"]] if "mixture" in profile.owners else []
    statistics = f"{key.removesuffix('_mixture')}_statistics"
    return [
        asset(
            home, key, _mixture(profile, key, spec, members, held_out), deps=[*members, *held_out], group="mixtures",
            description=f"Which rows are trained on, in which order and how often ({spec.method}): "
            "a pure function of seed and position.",
            kinds={"json"}, owners=owners, tags={"layer": "mixture", "method": spec.method},
            checks=checks.specs(key, "weights_sum_to_one", "no_leaks", "leaks_checked", "sources_known"),
        ),
        asset(
            home, statistics, _statistics(key), deps=[key], group="mixtures",
            description=f"What {key} holds, by task and by dataset.", kinds={"json"}, owners=owners, tags={"layer": "mixture"},
        ),
    ]  # fmt: skip


def _mixture(profile: Profile, key: str, spec: MixtureSpec, members: list[str], held_out: list[str]) -> Layer:
    def config() -> Mapping[str, Any]:
        entries = {
            name: {"weight_rows": d.weight_rows, "rows": d.rows, "provenance": d.provenance, "licence": d.licence, "task": d.task}
            for name, d in ((name, profile.datasets[name]) for name in spec.datasets)
        }
        return plain({"spec": spec, "absent": profile.absent, "provenance": profile.provenance,
                      "licences": profile.licences, "datasets": entries,
                      "planned": planned_examples(profile, key)})  # fmt: skip

    def build(step: Step) -> Built:
        from molmo2_assets.mixtures.build import MixtureRefused, build_mixture

        def of(keys: list[str]) -> dict[str, tuple[Path, Manifest]]:
            return {name.removeprefix("validated/"): (step.parents[name].folder, step.parents[name].manifest) for name in keys}

        try:
            report = build_mixture(
                spec, of(members), profile.datasets, of(held_out), step.folder, profile.absent,
                provenance=profile.provenance, licences=profile.licences, planned_examples=planned_examples(profile, key),
            )  # fmt: skip
        except MixtureRefused as error:
            raise dg.Failure(description=f"{key} is refused:\n{error}", allow_retries=False) from None
        for left in report.left_out:
            step.context.log.warning(f"{key} leaves out {left.dataset}: {left.reason}")
        pictures.draw_bars(
            [(row.dataset, row.weight, row.before) for row in report.table],
            step.folder / "weights.png",
            f"{key}: share of examples",
        )
        return Built(report.data_version, report.counts, report.facts)

    def show(folder: Path, manifest: Manifest) -> Metadata:
        weights = json.loads((folder / "weights.json").read_text())
        return {
            "dagster/row_count": int(manifest.counts["rows"]),
            "datasets": int(manifest.counts["datasets"]),
            "left_out": int(manifest.counts["left_out"]),
            "weights": pictures.table(
                weights["rows"], ("dataset", "task", "rows", "size", "factor", "before", "weight", "repeats")
            ),
            "shares": pictures.embed(folder / "weights.png"),
            **pictures.page_of(key),
        }

    return Layer("mixture", MIXTURE_VERSION, config, build, show, lambda f, m: checks.mixture(key, f, m), (*members, *held_out))


def _statistics(key: str) -> Layer:
    def build(step: Step) -> Built:
        from molmo2_assets.graph.step import exact_parent
        from molmo2_assets.mixtures.statistics import mixture_statistics

        mixture = step.parents[key]
        entries = json.loads((mixture.folder / "weights.json").read_text())["rows"]
        validated = {}
        for row in entries:
            parent = exact_parent(step.home, mixture.manifest, f"validated/{row['dataset']}")
            validated[row["dataset"]] = (parent.folder, parent.manifest)
        tables = mixture_statistics(mixture.folder, validated)
        (step.folder / STATISTICS_FILE).write_text(json.dumps(tables, indent=1, sort_keys=True))
        return Built(short(fingerprint(tables)), {name: len(rows) for name, rows in tables.items()})

    def show(folder: Path, manifest: Manifest) -> Metadata:
        tables = json.loads((folder / STATISTICS_FILE).read_text())
        return {name: pictures.table(rows, tuple(rows[0])) for name, rows in tables.items() if rows}

    return Layer("statistics", STATISTICS_VERSION, dict, build, show, lambda f, m: [], (key,))
