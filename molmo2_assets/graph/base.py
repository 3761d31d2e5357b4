"""base_weights: a published decoder and vision tower, in folders, as the checkpoint that training starts from.

Belongs here: its recipe and its page. Does not belong here: layouts (`training_backend.model.base_weights`), what trains on it
(`stages.py`).
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import dagster as dg

from molmo2_assets.graph import checks
from molmo2_assets.graph.step import Built, Layer, Metadata, Step, asset
from molmo2_assets.graph.training import execute
from molmo2_assets.home import Home
from molmo2_assets.profile import BaseWeights, Profile
from training_backend.api import Execution, RunSpec
from training_backend.data.fingerprint import plain
from training_backend.data.manifest import Manifest
from training_backend.data.published import PublishedError, published_version

BASE_VERSION = "1"
KEY = "base_weights"


def base_assets(home: Home, profile: Profile) -> list[dg.AssetsDefinition]:
    """base_weights, or nothing where training starts from scratch."""
    if profile.base_weights is None:
        return []
    owners = [profile.owners["training"]] if "training" in profile.owners else []
    return [
        asset(
            home, KEY, _base(profile, profile.base_weights), deps=[], group="training",
            description="Published weights of a decoder and a vision tower in the profile's model; what they lack is drawn.",
            kinds={"huggingface", "pytorch"}, owners=owners, tags={"layer": "base_weights"},
            checks=checks.specs(KEY, "imported_whole"),
        )
    ]  # fmt: skip


def _base(profile: Profile, base: BaseWeights) -> Layer:
    folders = {"decoder": base.decoder, "vision": base.vision}

    def config() -> Mapping[str, Any]:
        try:
            # Content, not paths: a folder that moved is the same weights, one that changed is not.
            sources = {name: published_version(Path(folder)) for name, folder in folders.items()}
        except PublishedError as error:
            raise dg.Failure(description=f"{KEY}: {error}", allow_retries=False) from None
        return plain({"model": profile.model, "sources": sources, "seed": base.seed})

    def build(step: Step) -> Built:
        identity = {"source": "base", "precision": "float32", **config()}
        execution = profile.execution.get("import", Execution())
        result = execute(step, RunSpec(kind="import", identity=identity, inputs=folders, execution=execution))
        facts = {name: result.facts[name] for name in ("notes", "left_out", "initialised")}
        return Built(result.data_version, result.counts, facts)

    def show(folder: Path, manifest: Manifest) -> Metadata:
        return {
            "parameters": int(manifest.counts["parameters"]),
            "initialised": dg.MetadataValue.json(list(manifest.facts["initialised"])),
            "left_out": dg.MetadataValue.json(list(manifest.facts["left_out"])),
            "notes": dg.MetadataValue.json(list(manifest.facts["notes"])),
        }

    return Layer(KEY, BASE_VERSION, config, build, show, lambda f, m: checks.whole(KEY, "imported_whole", f, m))
