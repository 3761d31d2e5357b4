"""Tokenizer, packed sequences and the three checkpoints: run specs of a profile's stages.

Belongs here: what identifies each run, and where its inputs lie. Does not belong here: how runs are executed (`training.py`).
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import dagster as dg
import msgspec

from molmo2_assets.graph import checks, pictures
from molmo2_assets.graph.budget import mind_gpu_hours
from molmo2_assets.graph.step import Built, Layer, Metadata, Parent, Step, asset, exact_parent
from molmo2_assets.graph.training import execute, mind_other_data
from molmo2_assets.home import Home
from molmo2_assets.lineage.preview import PACKS, PAGE_FILE, page_spec
from molmo2_assets.profile import STAGES, Profile, StageSpec
from training_backend.api import Execution, RunResult, RunSpec
from training_backend.data.fingerprint import plain
from training_backend.data.manifest import Manifest, read_manifest

TOKENIZER_VERSION = "2"
SEQUENCES_VERSION = "2"
CHECKPOINT_VERSION = "1"


def execution(profile: Profile, kind: str) -> Execution:
    """How runs of a kind are executed in this profile."""
    return profile.execution.get(kind, Execution())


def stage_assets(home: Home, profile: Profile) -> list[dg.AssetsDefinition]:
    """tokenizer, <stage>_sequences, <stage>_checkpoint."""
    owners = [profile.owners["training"]] if "training" in profile.owners else []
    texts = [f"validated/{name}" for name in profile.tokenizer_texts]
    found = [
        asset(
            home, "tokenizer", _tokenizer(profile, texts), deps=texts, group="training",
            description="Text to token ids: a byte-level BPE trained on the profile's own text, or a published one at its commit.",
            kinds={"python"}, owners=owners, tags={"layer": "tokenizer"},
        )
    ]  # fmt: skip
    previous: str | None = "base_weights" if profile.base_weights else None
    for name in STAGES:
        if name not in profile.stages:
            continue
        stage = profile.stages[name]
        sequences, key = f"{name}_sequences", f"{name}_checkpoint"
        found.append(
            asset(
                home, sequences, _sequences(profile, stage), deps=[stage.mixture, "tokenizer"], group="training",
                description=f"{stage.mixture} as sequences of {stage.pack.max_tokens} tokens and {stage.pack.max_visual} crops: "
                "lengths, the planner's identity, and what the first windows hold.",
                kinds={"numpy"}, owners=owners, tags={"layer": "sequences", "stage": name},
                checks=checks.specs(sequences, "packing_fill"),
            )
        )  # fmt: skip
        found.append(
            asset(
                home, key, _checkpoint(profile, stage, previous), deps=[sequences, *([previous] if previous else [])],
                group="training", description=f"Weights after {stage.steps} steps of {stage.global_batch} sequences"
                + (f", continued from {previous}." if previous else ", from scratch."),
                kinds={"pytorch"}, owners=owners, tags={"layer": "checkpoint", "stage": name}, pool="accelerator",
                checks=checks.specs(key, "loss_finite", "checkpoint_loads"),
            )
        )  # fmt: skip
        previous = key
    return found


def _tokenizer(profile: Profile, texts: list[str]) -> Layer:
    def build(step: Step) -> Built:
        spec = RunSpec(
            kind="tokenizer",
            identity={
                "code": TOKENIZER_VERSION,  # or a done run of older code would be found again
                "config": plain(profile.tokenizer),
                "datasets": {name.removeprefix("validated/"): step.parents[name].manifest.data_version for name in texts},
            },
            inputs={name: str(step.parents[name].folder) for name in texts},
            execution=execution(profile, "tokenizer"),
        )
        result = execute(step, spec)
        return Built(result.data_version, result.counts)

    def show(folder: Path, manifest: Manifest) -> Metadata:
        return {name: value for name, value in manifest.counts.items() if isinstance(value, int | float | str)}

    return Layer(
        "tokenizer", TOKENIZER_VERSION, lambda: {"config": plain(profile.tokenizer)}, build, show, lambda f, m: [], tuple(texts)
    )


def _members(step: Step, mixture: Parent) -> dict[str, Parent]:
    """The validated sets of a mixture, in exactly the versions that it was made from."""
    rows = json.loads((mixture.folder / "weights.json").read_text())["rows"]
    return {row["dataset"]: exact_parent(step.home, mixture.manifest, f"validated/{row['dataset']}") for row in rows}


def _inputs(mixture: Parent, tokenizer: Parent, members: Mapping[str, Parent]) -> dict[str, str]:
    return {
        "mixture": str(mixture.folder),
        "tokenizer": str(tokenizer.folder),
        **{f"validated/{name}": str(parent.folder) for name, parent in members.items()},
    }


def _versions(members: Mapping[str, Parent]) -> dict[str, str]:
    return {name: parent.manifest.data_version for name, parent in members.items()}


def _sequences(profile: Profile, stage: StageSpec) -> Layer:
    name = f"{stage.name}_sequences"

    def config() -> Mapping[str, Any]:
        return plain({"encode": stage.encode, "loss": stage.loss, "pack": stage.pack, "seed": stage.seed,
                      "extra_tokens": profile.model.decoder.extra_tokens})  # fmt: skip

    def build(step: Step) -> Built:
        mixture, tokenizer = step.parents[stage.mixture], step.parents["tokenizer"]
        members = _members(step, mixture)
        spec = RunSpec(
            kind="plan",
            identity={
                "code": SEQUENCES_VERSION,
                "stage": stage.name, "encode": plain(stage.encode), "loss": plain(stage.loss), "pack": plain(stage.pack),
                "seed": stage.seed, "mixture": mixture.manifest.data_version, "tokenizer": tokenizer.manifest.data_version,
                "validated": _versions(members),
                "model": {"decoder": {"extra_tokens": profile.model.decoder.extra_tokens}},
            },
            inputs=_inputs(mixture, tokenizer, members),
            execution=execution(profile, "plan"),
        )  # fmt: skip
        result = execute(step, spec)
        report = json.loads((step.folder / "report.json").read_text())
        pictures.draw_bars(
            [(task, share, None) for task, share in report["loss_by_task"].items()], step.folder / "loss_mass.png",
            f"{name}: share of the loss by task",
        )  # fmt: skip
        _page(step, profile, stage, result, mixture, tokenizer, members)
        return Built(result.data_version, result.counts, {"fill": report["fill"]})

    def show(folder: Path, manifest: Manifest) -> Metadata:
        report = json.loads((folder / "report.json").read_text())
        simple = {key: value for key, value in report.items() if isinstance(value, int | float)}
        return {
            "fill": float(report["fill"]),
            "packing": pictures.count_table("fact", simple),
            "loss_by_dataset": pictures.count_table("dataset", report["loss_by_dataset"]),
            "loss_by_task": pictures.embed(folder / "loss_mass.png"),
            **pictures.page_of(name, folder / PAGE_FILE),
        }

    return Layer(
        "sequences",
        SEQUENCES_VERSION,
        config,
        build,
        show,
        lambda f, m: checks.sequences(name, m),
        (stage.mixture, "tokenizer"),
    )


def _page(
    step: Step,
    profile: Profile,
    stage: StageSpec,
    result: RunResult,
    mixture: Parent,
    tokenizer: Parent,
    members: Mapping[str, Parent],
) -> None:
    """The first packs as people see them, beside the lengths. Training needs no page, so one that cannot be made is a warning."""
    parents = {"mixture": mixture, "tokenizer": tokenizer, **{f"validated/{name}": parent for name, parent in members.items()}}
    output = Path(result.output)
    made = {
        "sequences": (output, read_manifest(output)),
        **{key: (parent.folder, parent.manifest) for key, parent in parents.items()},
    }
    try:
        execute(step, page_spec(profile, step.home, stage, "sequences", f"{stage.name}_sequences", made, PACKS))
    except dg.Failure as failure:
        step.context.log.warning(f"no page of the first packs: {failure.description}")


def _checkpoint(profile: Profile, stage: StageSpec, previous: str | None) -> Layer:
    key, sequences_key = f"{stage.name}_checkpoint", f"{stage.name}_sequences"

    def config() -> Mapping[str, Any]:
        return plain({"model": profile.model, "stage": stage.config})

    def build(step: Step) -> Built:
        sequences = step.parents[sequences_key]
        mixture = exact_parent(step.home, sequences.manifest, stage.mixture)
        tokenizer = exact_parent(step.home, sequences.manifest, "tokenizer")
        members = _members(step, mixture)
        init = step.parents[previous] if previous else None
        spec = RunSpec(
            kind="train",
            identity={
                **plain(stage.config), "stage": stage.name, "model": plain(profile.model),
                "sequences": sequences.manifest.data_version, "mixture": mixture.manifest.data_version,
                "tokenizer": tokenizer.manifest.data_version, "validated": _versions(members),
                "init": init.manifest.data_version if init else None,
            },
            inputs={
                **_inputs(mixture, tokenizer, members), "sequences": str(sequences.folder), "cache": str(step.home.cache),
                **({"init": str(init.folder)} if init else {}),
            },
            execution=execution(profile, "train"),
        )  # fmt: skip
        allowed = bool((step.context.op_execution_context.op_config or {}).get("over_budget"))
        mind_gpu_hours(profile.model, stage, spec.execution, allowed=allowed)
        mind_other_data(spec, step.home.runs, stage.on_data_change)
        result = execute(step, spec)
        return Built(result.data_version, result.counts, {"seconds": result.facts["seconds"]})

    def show(folder: Path, manifest: Manifest) -> Metadata:
        counts = manifest.counts
        tasks = [
            {"task": task, "first": counts["first"]["tasks"].get(task), "last": counts["last"]["tasks"].get(task)}
            for task in sorted({*counts["first"]["tasks"], *counts["last"]["tasks"]})
        ]
        return {
            "loss": float(counts["last"]["loss"]),
            "loss_curve": pictures.embed(folder / "loss.png"),
            "loss_by_task": pictures.table(tasks, ("task", "first", "last")),
            "parameters": int(counts["parameters"]),
            "tokens": int(counts["tokens"]),
            "examples": int(counts["examples"]),
            "skipped_steps": int(counts["skipped_steps"]),
            "media_failures": int(counts["failures"]),
            "training_seconds": float(manifest.facts["seconds"]),
        }

    reads = (sequences_key, *((previous,) if previous else ()))
    return Layer("checkpoint", CHECKPOINT_VERSION, config, build, show, lambda f, m: checks.checkpoint(key, f, m), reads)


def tokenizer_of(step: Step, checkpoint: Parent) -> Parent:
    """The tokenizer that a checkpoint was trained with, through its sequences."""
    stage = checkpoint.key.removesuffix("_checkpoint")
    sequences = exact_parent(step.home, checkpoint.manifest, f"{stage}_sequences")
    return exact_parent(step.home, sequences.manifest, "tokenizer")


def stage_budgets(stage: StageSpec) -> dict[str, Any]:
    """Encoding and budgets with which a stage's checkpoint is asked."""
    return {
        "encode": msgspec.to_builtins(stage.encode),
        "max_tokens": stage.pack.max_tokens,
        "max_visual": stage.pack.max_visual,
    }
