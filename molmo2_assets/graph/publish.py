"""hf_export: the last checkpoint as a folder that transformers opens, where the profile asks for one.

Belongs here: its recipe and its page. Does not belong here: converting (`training_backend.convert`), uploading.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import dagster as dg

from molmo2_assets.graph import checks, pictures
from molmo2_assets.graph.stages import execution, stage_budgets, tokenizer_of
from molmo2_assets.graph.step import Built, Layer, Metadata, Step, asset
from molmo2_assets.graph.training import execute
from molmo2_assets.home import Home
from molmo2_assets.profile import ExportSpec, Profile, StageSpec
from training_backend.api import RunSpec
from training_backend.data.fingerprint import plain
from training_backend.data.manifest import Manifest

EXPORT_VERSION = "1"
KEY = "hf_export"


def publish_assets(home: Home, profile: Profile) -> list[dg.AssetsDefinition]:
    """hf_export, or nothing."""
    if profile.hf_export is None or not profile.stages:
        return []
    stage = list(profile.stages.values())[-1]
    owners = [profile.owners["training"]] if "training" in profile.owners else []
    return [
        asset(
            home, KEY, _export(profile, stage, profile.hf_export), deps=[f"{stage.name}_checkpoint"], group="training",
            description=f"{stage.name}_checkpoint in Hugging Face's layout: weights, processor, tokenizer, chat template, and a "
            "card with its bill of materials.",
            kinds={"huggingface", "pytorch"}, owners=owners, tags={"layer": "export", "stage": stage.name},
            checks=checks.specs(KEY, "exported_whole"),
        )
    ]  # fmt: skip


def _export(profile: Profile, stage: StageSpec, export: ExportSpec) -> Layer:
    source = f"{stage.name}_checkpoint"

    def config() -> Mapping[str, Any]:
        return plain({"recipe": stage_budgets(stage), "export": export})

    def build(step: Step) -> Built:
        from molmo2_assets.lineage.bom import bill_of_materials

        checkpoint = step.parents[source]
        tokenizer = tokenizer_of(step, checkpoint)
        card = {
            "title": export.title or f"{source} of profile {profile.name}",
            "materials": bill_of_materials(step.home, source),
            "licence": export.licence,
        }
        spec = RunSpec(
            kind="export",
            identity={
                "checkpoint": checkpoint.manifest.data_version, "tokenizer": tokenizer.manifest.data_version,
                "recipe": stage_budgets(stage), "card": plain(card), "precision": export.precision,
                "max_positions": export.max_positions,
            },
            inputs={"checkpoint": str(checkpoint.folder), "tokenizer": str(tokenizer.folder)},
            execution=execution(profile, "export"),
        )  # fmt: skip
        result = execute(step, spec)
        return Built(result.data_version, result.counts)

    def show(folder: Path, manifest: Manifest) -> Metadata:
        rows = [{"file": entry.path, "bytes": entry.bytes} for entry in manifest.files]
        return {
            "parameters": int(manifest.counts["parameters"]),
            "bytes": sum(entry.bytes for entry in manifest.files),
            "files": pictures.table(rows, ("file", "bytes")),
            "card": dg.MetadataValue.md((folder / "README.md").read_text().partition("---\n\n")[2]),
        }

    return Layer("export", EXPORT_VERSION, config, build, show, lambda f, m: checks.whole(KEY, "exported_whole", f, m), (source,))
