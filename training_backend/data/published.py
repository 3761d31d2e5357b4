"""Folders of models: which of their files say what they are, their version, and the recipe that lies beside the weights.

Belongs here: what both packages must agree on before anything is converted. Does not belong here: what is in the files
(`training_backend.model`), where a folder came from (`molmo2_assets.sources`).
"""

from __future__ import annotations

from pathlib import Path

import msgspec

from training_backend.config import Recipe
from training_backend.data.fingerprint import file_sha256
from training_backend.data.manifest import FileEntry, files_version, replace_file

RECIPE_FILE = "recipe.json"
"""Encoding and budgets with which a checkpoint is asked."""
TOKENIZER_FOLDER = "tokenizer"
"""In a checkpoint folder: the tokenizer that came with imported weights."""
_SAY_WHAT_IT_IS = ("*.json", "*.jinja", "*.safetensors")


class PublishedError(ValueError):
    """A folder that holds no published model; the message names it and what is missing."""


def published_version(folder: Path) -> str:
    """Data version of a published model's folder: its weights, configuration, tokenizer and templates.

    Reads every byte of them. Raises PublishedError where there is no such model.
    """
    if not folder.is_dir():
        raise PublishedError(f"{folder} is not a folder.")
    if not (folder / "config.json").is_file():
        raise PublishedError(f"{folder} holds no config.json: it is no model as Hugging Face publishes them.")
    paths = sorted({path for pattern in _SAY_WHAT_IT_IS for path in folder.glob(pattern) if path.is_file()})
    if not any(path.suffix == ".safetensors" for path in paths):
        raise PublishedError(f"{folder} holds no *.safetensors; weights in other formats are not read, they can hold code.")
    return files_version(tuple(FileEntry(path=path.name, bytes=path.stat().st_size, sha256=file_sha256(path)) for path in paths))


def read_recipe(folder: Path) -> Recipe | None:
    """The recipe beside weights; None where there is none. Raises PublishedError for one that cannot be read."""
    path = folder / RECIPE_FILE
    try:
        return msgspec.json.decode(path.read_bytes(), type=Recipe)
    except FileNotFoundError:
        return None
    except msgspec.MsgspecError as error:
        raise PublishedError(f"{path} cannot be read: {error}.") from None


def write_recipe(folder: Path, recipe: Recipe) -> None:
    """Write `recipe.json`."""
    replace_file(folder / RECIPE_FILE, msgspec.json.format(msgspec.json.encode(recipe, order="sorted"), indent=1) + b"\n")
