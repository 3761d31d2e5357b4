"""base_weights: a published decoder and vision tower, in folders or on the Hub, as the checkpoint that training starts from.

Belongs here: its recipe and its page. Does not belong here: layouts (`training_backend.model.base_weights`), what trains on it
(`stages.py`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import dagster as dg

from molmo2_assets.graph import checks
from molmo2_assets.graph.step import Built, Layer, Metadata, Step, asset
from molmo2_assets.graph.training import execute
from molmo2_assets.home import Home
from molmo2_assets.profile import BaseWeights, Profile
from molmo2_assets.sources.outcome import SourceError
from molmo2_assets.sources.weights import fetch_weights
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
            home, KEY, _base(home, profile, profile.base_weights), deps=[], group="training",
            description="Published weights of a decoder and a vision tower in the profile's model; what they lack is drawn.",
            kinds={"huggingface", "pytorch"}, owners=owners, tags={"layer": "base_weights"},
            checks=checks.specs(KEY, "imported_whole"), pool="downloads",
        )
    ]  # fmt: skip


@contextmanager
def _plain_words() -> Iterator[None]:
    try:
        yield
    except (PublishedError, SourceError) as error:
        raise dg.Failure(description=f"{KEY}: {error}", allow_retries=False) from None


def _base(home: Home, profile: Profile, base: BaseWeights) -> Layer:
    sources = {"decoder": base.decoder, "vision": base.vision}

    def folder(name: str, log: Callable[[str], None]) -> Path:
        source = sources[name]
        if source.folder is not None:
            return Path(source.folder)
        return fetch_weights(str(source.repo), source.revision, home.cache, log, f"{KEY}.{name}")

    def version(name: str) -> str:
        """Content, not paths: a folder that moved is the same weights, one that changed is not. A commit is content."""
        source = sources[name]
        if source.folder is None and source.revision is not None:
            return f"{source.repo}@{source.revision}"
        return published_version(folder(name, lambda line: None))

    def config() -> Mapping[str, Any]:
        with _plain_words():
            return plain({"model": profile.model, "sources": {name: version(name) for name in sources}, "seed": base.seed})

    def build(step: Step) -> Built:
        with _plain_words():
            folders = {name: folder(name, step.log) for name in sources}
            versions = {name: published_version(where) for name, where in folders.items()}
        identity = {"source": "base", "precision": "float32", **config(), "sources": versions}
        inputs = {name: str(where) for name, where in folders.items()}
        execution = profile.execution.get("import", Execution())
        result = execute(step, RunSpec(kind="import", identity=identity, inputs=inputs, execution=execution))
        facts = {name: result.facts[name] for name in ("notes", "left_out", "initialised")}
        return Built(result.data_version, result.counts, {**facts, "sources": versions})

    def show(folder: Path, manifest: Manifest) -> Metadata:
        return {
            "parameters": int(manifest.counts["parameters"]),
            "initialised": dg.MetadataValue.json(list(manifest.facts["initialised"])),
            "left_out": dg.MetadataValue.json(list(manifest.facts["left_out"])),
            "notes": dg.MetadataValue.json(list(manifest.facts["notes"])),
        }

    return Layer(KEY, BASE_VERSION, config, build, show, lambda f, m: checks.whole(KEY, "imported_whole", f, m))
