"""The run kinds `import` and `export`: published weights become a checkpoint, a checkpoint becomes a published folder.

Belongs here: reading the run's identity and inputs, putting the parts of a folder together. Does not belong here: layouts of
tensors (`model/hf.py`, `model/base_weights.py`), tokenizers and processors (`model/hf_tokenizer.py`, `model/hf_processor.py`).

An imported checkpoint is a folder like any other, and holds beside its weights the tokenizer and the recipe that came with them,
where they came with them: it can be asked as it is.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import msgspec

from training_backend.api import RunSpec
from training_backend.config import Config, ModelConfig, Recipe
from training_backend.data.manifest import ManifestError, read_manifest
from training_backend.data.published import RECIPE_FILE, TOKENIZER_FOLDER, published_version, read_recipe, write_recipe
from training_backend.encode.tokens import Tokenizer
from training_backend.model.base_weights import import_base
from training_backend.model.hf import Imported, Precision, export_hf, import_hf
from training_backend.model.hf_card import CARD_FILE, Card, model_card
from training_backend.model.hf_processor import check_recipe, read_processor, write_processor
from training_backend.model.hf_tokenizer import read_tokenizer, write_tokenizer
from training_backend.model.molmo2 import parameter_counts
from training_backend.model.tensor_files import WeightsError
from training_backend.model.weights import read_config

Log = Callable[[str], None]


class ImportIdentity(Config, frozen=True, kw_only=True):
    """`identity` of an import run.

    `sources`: version of each input folder (`published_version`): `folder` of a Molmo2, or `decoder` and `vision` of base models.
    `model` is what they must be; a Molmo2 may be taken as it is. `seed` draws what no base model has.
    """

    source: Literal["molmo2", "base"]
    sources: dict[str, str]
    model: ModelConfig | None = None
    precision: Precision = "keep"
    seed: int = 0


class ExportIdentity(Config, frozen=True, kw_only=True):
    """`identity` of an export run. `checkpoint` and `tokenizer` are data versions; no `tokenizer`: it lies in the checkpoint."""

    checkpoint: str
    tokenizer: str | None
    recipe: Recipe
    card: Card
    precision: Precision = "keep"
    max_positions: int = 36_864


def run_import(spec: RunSpec, out: Path, log: Log) -> dict[str, Any]:
    """Make a checkpoint in `out`; returns {"counts": tensors' files, tensors left out and initialised; "facts": notes, names}.

    Raises WeightsError, or ValueError where an input changed since the run was specified.
    """
    identity = msgspec.convert(spec.identity, ImportIdentity)
    folders = {name: Path(spec.inputs[name]) for name in identity.sources}
    for name, wanted in identity.sources.items():
        if (found := published_version(folders[name])) != wanted:
            raise ValueError(f"{folders[name]} is version {found}, the run was specified for {wanted}; start it again.")
    if identity.source == "base":
        if identity.model is None:
            raise ValueError("base weights fill a model: the run names none.")
        made = import_base(
            folders["decoder"], folders["vision"], out, identity.model, seed=identity.seed, precision=identity.precision
        )
        notes = made.notes
    else:
        made = import_hf(folders["folder"], out, preset=identity.model, precision=identity.precision)
        notes = [*made.notes, *_bring(folders["folder"], out, made)]
    for note in notes:
        log(note)
    counts = {"files": len(made.files), "left_out": len(made.left_out), "initialised": len(made.initialised)}
    counts["parameters"] = sum(parameter_counts(made.config).values())
    facts = {"model": made.config.name, "notes": notes, "left_out": made.left_out, "initialised": made.initialised}
    return {"counts": counts, "facts": facts}


def _bring(folder: Path, out: Path, made: Imported) -> list[str]:
    """Tokenizer and recipe of a Molmo2 folder. Weights are worth having without them, so what is missing is said, not refused."""
    notes = []
    if not read_tokenizer(folder, out / TOKENIZER_FOLDER, made.config.decoder):
        notes.append("no tokenizer.json: the checkpoint needs a tokenizer from elsewhere to be asked")
    try:
        write_recipe(out, read_recipe(folder) or read_processor(folder, made.config))
    except WeightsError as error:
        notes.append(f"no recipe to ask with: {error}")
    return notes


def run_export(spec: RunSpec, out: Path, log: Log) -> dict[str, Any]:
    """Make a folder that AutoModelForImageTextToText and AutoProcessor open; returns {"counts", "facts"}.

    Reads inputs `checkpoint` and, where the identity names one, `tokenizer`. Raises WeightsError for what they cannot express.
    """
    identity = msgspec.convert(spec.identity, ExportIdentity)
    checkpoint = Path(spec.inputs["checkpoint"])
    tokenizer = Path(spec.inputs["tokenizer"]) if identity.tokenizer else checkpoint / TOKENIZER_FOLDER
    _expect(checkpoint, identity.checkpoint)
    if identity.tokenizer:
        _expect(tokenizer, identity.tokenizer)
    config = read_config(checkpoint)
    # Refused before gigabytes are written.
    check_recipe(identity.recipe.encode, config)
    out.mkdir(parents=True, exist_ok=True)
    files = write_tokenizer(tokenizer, out, config.decoder, identity.max_positions)
    files += write_processor(out, identity.recipe.encode, config, Tokenizer(tokenizer, config.decoder.extra_tokens))
    files += export_hf(checkpoint, out, precision=identity.precision, max_positions=identity.max_positions)
    parameters = sum(parameter_counts(config).values())
    write_recipe(out, identity.recipe)
    (out / CARD_FILE).write_text(model_card(identity.card, config, identity.recipe, parameters))
    files += [RECIPE_FILE, CARD_FILE]
    log(f"wrote {len(files)} files of a model of {parameters:,} parameters")
    return {"counts": {"files": len(files), "parameters": parameters}, "facts": {"model": config.name}}


def _expect(folder: Path, version: str) -> None:
    """What was specified lies there. A folder without manifest is somebody's own, whose version the caller made up."""
    try:
        found = read_manifest(folder).data_version
    except ManifestError:
        return
    if found != version:
        raise ValueError(f"{folder} is version {found}, the run was specified for {version}; start it again.")
