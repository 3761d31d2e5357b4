"""A checkpoint by the name of its asset or by its folder, with what it takes to ask or to publish it.

Belongs here: finding its tokenizer and its recipe, from manifests and from what lies beside the weights. Does not belong here:
reading weights, running anything.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from molmo2_assets.home import Home
from molmo2_assets.lineage.bom import bill_of_materials
from molmo2_assets.lineage.versions import recorded
from training_backend.config import EncodeConfig, Recipe
from training_backend.data.manifest import MANIFEST_FILE, Manifest, files_version, list_files, read_manifest
from training_backend.data.published import TOKENIZER_FOLDER, read_recipe

MODEL_FILE = "model.json"


@dataclass(frozen=True)
class Checkpoint:
    """`tokenizer` lies in the checkpoint's own folder where `tokenizer_version` is None. `materials`: a row for each version."""

    title: str
    folder: Path
    version: str
    tokenizer: Path
    tokenizer_version: str | None
    recipe: Recipe
    materials: tuple[dict[str, Any], ...]


def find_checkpoint(home: Home, name: str) -> Checkpoint:
    """The current version of asset `name`, or the folder `name`. Raises ValueError naming what is missing and the way out."""
    current = home.store(name).current(name) if not Path(name).is_dir() and _is_key(name) else None
    folder = current[0] if current else Path(name).resolve()
    if not (folder / MODEL_FILE).is_file():
        raise ValueError(
            f"{name} is neither an asset of profile {home.profile} that was made, nor a folder with a {MODEL_FILE}: "
            "`molmo2 import` makes one of a Hugging Face folder, `make demo` trains one."
        )
    manifest = current[1] if current else read_manifest(folder) if (folder / MANIFEST_FILE).is_file() else None
    if manifest is not None and manifest.kind == "checkpoint":
        return _trained(home, folder, manifest, current is not None)
    recipe = read_recipe(folder)
    if recipe is None:
        raise ValueError(f"{folder} holds no recipe.json: nothing says how pictures and words are laid out for these weights.")
    if not (folder / TOKENIZER_FOLDER).is_dir():
        raise ValueError(f"{folder} holds no {TOKENIZER_FOLDER}/: import it from a folder that has a tokenizer.json.")
    version = manifest.data_version if manifest else files_version(list_files(folder))
    return Checkpoint(folder.name, folder, version, folder / TOKENIZER_FOLDER, None, recipe, ())


def _is_key(name: str) -> bool:
    return not name.startswith((".", "/")) and ".." not in name.split("/")


def _trained(home: Home, folder: Path, manifest: Manifest, is_current: bool) -> Checkpoint:
    stage = manifest.recipe["config"]["stage"]
    tokenizer = _parent(home, _parent(home, manifest, f"{manifest.key.removesuffix('_checkpoint')}_sequences")[1], "tokenizer")
    recipe = Recipe(
        encode=msgspec.convert(stage["encode"], EncodeConfig),
        max_tokens=stage["pack"]["max_tokens"],
        max_visual=stage["pack"]["max_visual"],
    )
    materials = tuple(bill_of_materials(home, manifest.key)) if is_current else ()
    title = f"{manifest.key} of profile {home.profile}"
    return Checkpoint(title, folder, manifest.data_version, tokenizer[0], tokenizer[1].data_version, recipe, materials)


def _parent(home: Home, child: Manifest, name: str) -> tuple[Path, Manifest]:
    found = recorded(home.store(name), name, child.parents[name])
    if found is None:
        raise ValueError(f"{child.key} was made from a version of {name} that is no longer on disk; materialise {child.key} again.")
    return found
