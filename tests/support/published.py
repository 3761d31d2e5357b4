"""A checkpoint with its tokenizer and a recipe of the released layout, and runs that convert it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tests.support.examples import WORDS
from tests.support.models import PATCH, SIDE, small_config
from tests.support.peers import randomise
from training_backend.api import RunSpec
from training_backend.config import EncodeConfig, ModelConfig, Recipe
from training_backend.data.fingerprint import plain
from training_backend.data.published import published_version
from training_backend.encode.tokens import EXTRA_TOKENS, train_tokenizer
from training_backend.model.molmo2 import Molmo2
from training_backend.model.weights import save_model

VOCAB = 420
MODEL = small_config(vocab_size=VOCAB, extra_tokens=len(EXTRA_TOKENS))
RECIPE = Recipe(
    encode=EncodeConfig(
        point_syntax="release", time="text", prompt_style="plain", image_size=SIDE, patch_size=PATCH, max_crops=4, overlap=(1, 0),
        max_frames=4,
    ),
    max_tokens=512,
    max_visual=24,
)  # fmt: skip


def checkpoint_at(folder: Path, config: ModelConfig = MODEL) -> Path:
    """`folder/checkpoint` with random weights and `folder/tokenizer`; returns `folder`."""
    model = Molmo2(config)
    randomise(model, 4)
    save_model(folder / "checkpoint", model)
    train_tokenizer(WORDS * 20, config.decoder.vocab_size, folder / "tokenizer")
    return folder


def export_spec(home: Path, recipe: Recipe = RECIPE, **card: Any) -> RunSpec:
    """An export run of `checkpoint_at(home)`."""
    identity = {"checkpoint": "c", "tokenizer": "t", "recipe": plain(recipe), "card": {"title": "A model of nothing", **card}}
    inputs = {"checkpoint": str(home / "checkpoint"), "tokenizer": str(home / "tokenizer")}
    return RunSpec(kind="export", identity=identity, inputs=inputs)


def import_spec(folder: Path, preset: ModelConfig | None = None, **identity: Any) -> RunSpec:
    """An import run of a Molmo2 folder."""
    said = {"source": "molmo2", "sources": {"folder": published_version(folder)}, "model": plain(preset), **identity}
    return RunSpec(kind="import", identity=said, inputs={"folder": str(folder)})
