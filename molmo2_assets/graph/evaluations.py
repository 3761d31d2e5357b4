"""Predictions, evaluations and the scoreboard.

Belongs here: their recipes and pages. Does not belong here: generating (`training_backend.predict`), metrics
(`molmo2_assets.evaluation`). Scoring never generates again.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import dagster as dg

from molmo2_assets.graph import checks, pictures
from molmo2_assets.graph.stages import execution, stage_budgets, tokenizer_of
from molmo2_assets.graph.step import Built, Layer, Metadata, Step, asset
from molmo2_assets.graph.training import execute
from molmo2_assets.home import Home
from molmo2_assets.profile import BenchmarkSpec, Profile, StageSpec
from training_backend.api import RunSpec
from training_backend.data.fingerprint import fingerprint, plain, short
from training_backend.data.manifest import Manifest

PREDICTIONS_VERSION = "1"
SCOREBOARD_VERSION = "1"


def evaluation_assets(home: Home, profile: Profile) -> list[dg.AssetsDefinition]:
    """predictions/<checkpoint>/<benchmark>, evaluation/<checkpoint>/<benchmark>, scoreboard."""
    owners = [profile.owners["evaluation"]] if "evaluation" in profile.owners else []
    found, keys = [], []
    for stage in profile.stages.values():
        checkpoint = f"{stage.name}_checkpoint"
        for name in stage.benchmarks:
            benchmark = profile.benchmarks[name]
            truth = f"validated/{benchmark.dataset}"
            asked, scored = f"predictions/{checkpoint}/{name}", f"evaluation/{checkpoint}/{name}"
            keys.append(scored)
            found += [
                asset(
                    home, asked, _predictions(profile, stage, benchmark), deps=[checkpoint, truth], group="predictions",
                    description=f"Answers of {checkpoint} to {benchmark.title}.", kinds={"pytorch"}, owners=owners,
                    tags={"layer": "predictions", "stage": stage.name}, pool="accelerator", checks=checks.specs(asked, "answered"),
                ),
                asset(
                    home, scored, _evaluation(stage, benchmark), deps=[asked, truth], group="evaluation",
                    description=f"{benchmark.title} of {checkpoint}, beside the best predictor that sees no pixels.",
                    kinds={"json"}, owners=owners, tags={"layer": "evaluation", "stage": stage.name},
                    checks=checks.specs(scored, "above_blind"),
                ),
            ]  # fmt: skip
    found.append(
        asset(
            home, "scoreboard", _scoreboard(keys), deps=keys, group="evaluation",
            description="Every benchmark of every stage beside its blind baseline.", kinds={"json"}, owners=owners,
            tags={"layer": "evaluation"},
        )
    )  # fmt: skip
    return found


def _predictions(profile: Profile, stage: StageSpec, benchmark: BenchmarkSpec) -> Layer:
    checkpoint_key, truth = f"{stage.name}_checkpoint", f"validated/{benchmark.dataset}"
    key = f"predictions/{checkpoint_key}/{benchmark.name}"

    def config() -> Mapping[str, Any]:
        return plain({**stage_budgets(stage), "generate": benchmark.generate, "limit": benchmark.limit})

    def build(step: Step) -> Built:
        checkpoint, dataset = step.parents[checkpoint_key], step.parents[truth]
        tokenizer = tokenizer_of(step, checkpoint)
        spec = RunSpec(
            kind="predict",
            identity={
                "benchmark": benchmark.name, "dataset": dataset.manifest.data_version,
                "checkpoint": checkpoint.manifest.data_version, "tokenizer": tokenizer.manifest.data_version,
                **stage_budgets(stage), "generate": plain(benchmark.generate), "limit": benchmark.limit,
            },
            inputs={
                "checkpoint": str(checkpoint.folder), "tokenizer": str(tokenizer.folder), "validated": str(dataset.folder),
                "cache": str(step.home.cache),
            },
            execution=execution(profile, "predict"),
        )  # fmt: skip
        result = execute(step, spec)
        return Built(result.data_version, result.counts)

    def show(folder: Path, manifest: Manifest) -> Metadata:
        with (folder / "predictions.jsonl").open() as stream:
            first = [json.loads(line) for line, _ in zip(stream, range(8), strict=False)]
        page: Metadata = {name: value for name, value in manifest.counts.items() if isinstance(value, int | float)}
        page["first_answers"] = pictures.table(first, ("id", "prompt", "answer"))
        return page

    return Layer(
        "predictions",
        PREDICTIONS_VERSION,
        config,
        build,
        show,
        lambda f, m: checks.predictions(key, m.counts),
        (checkpoint_key, truth),
    )


def _evaluation(stage: StageSpec, benchmark: BenchmarkSpec) -> Layer:
    from molmo2_assets.evaluation.registry import headline_value
    from molmo2_assets.evaluation.score import metric_versions

    checkpoint, truth = f"{stage.name}_checkpoint", f"validated/{benchmark.dataset}"
    asked, key = f"predictions/{checkpoint}/{benchmark.name}", f"evaluation/{checkpoint}/{benchmark.name}"
    versions = metric_versions(benchmark.metrics)
    headline = headline_value(benchmark.headline)

    def build(step: Step) -> Built:
        from molmo2_assets.evaluation.score import score

        report = score(benchmark, step.parents[asked].folder, step.parents[truth].folder, step.folder)
        body = json.loads((step.folder / "scores.json").read_text())
        return Built(
            short(fingerprint(body)),
            {"n": report.n},
            {"metrics": body["metrics"], "baseline": body["baseline"], "headline": headline},
        )

    def show(folder: Path, manifest: Manifest) -> Metadata:
        metrics, baseline = manifest.facts["metrics"], manifest.facts["baseline"]
        rows = [{"value": name, "score": metrics[name], "blind": baseline.get(name)} for name in metrics]
        return {
            "score": float(metrics[headline]), "baseline": float(baseline.get(headline, 0.0)), "headline": headline,
            "questions": int(manifest.counts["n"]), "scores": pictures.table(rows, ("value", "score", "blind")),
        }  # fmt: skip

    def check(folder: Path, manifest: Manifest) -> list[dg.AssetCheckResult]:
        metrics, baseline = manifest.facts["metrics"], manifest.facts["baseline"]
        return checks.evaluation(key, float(metrics[headline]), float(baseline.get(headline, 0.0)))

    version = f"{benchmark.code_version}-" + ".".join(f"{name}{number}" for name, number in sorted(versions.items()))
    return Layer(
        "evaluation", version, lambda: plain({"metrics": benchmark.metrics, "headline": benchmark.headline}), build, show, check,
        (asked, truth),
    )  # fmt: skip


def _scoreboard(keys: list[str]) -> Layer:
    def build(step: Step) -> Built:
        from molmo2_assets.evaluation.scoreboard import scoreboard, write_scoreboard

        rows = scoreboard([(key.split("/")[1].removesuffix("_checkpoint"), step.parents[key].folder) for key in keys])
        write_scoreboard(rows, step.folder)
        return Built(short(fingerprint([plain(row) for row in rows])), {"rows": len(rows)})

    def show(folder: Path, manifest: Manifest) -> Metadata:
        rows = json.loads((folder / "scoreboard.json").read_text())
        rows = rows["rows"] if isinstance(rows, dict) else rows
        return {
            "scoreboard": pictures.table(rows, ("stage", "benchmark", "metric", "score", "baseline")),
            "picture": pictures.embed(folder / "scoreboard.png"),
        }

    return Layer("scoreboard", SCOREBOARD_VERSION, dict, build, show, lambda f, m: [], tuple(keys))
