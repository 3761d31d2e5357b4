"""Training runs of a few seconds: stages, a home with everything that a train run reads, and batches made of numbers alone."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from PIL import Image

from tests.support.examples import asked, branch, mixture_of, picture, recipe, row, store_at, tokenizer_at
from tests.support.models import PATCH, SIDE, pack, random_example, small_config
from training_backend.api import Execution, RunSpec
from training_backend.config import (
    DropoutConfig,
    GuardConfig,
    LossConfig,
    LossRule,
    OptimConfig,
    PackConfig,
    PartOptim,
    StageConfig,
)
from training_backend.data.example import TASKS, Example, Point, Points, Text
from training_backend.data.fingerprint import plain
from training_backend.data.media import MediaCache
from training_backend.encode.tokens import EXTRA_TOKENS
from training_backend.pack.batch import Batch
from training_backend.pack.sequences import build_sequences
from training_backend.train.loop import TrainPlan

WEIGHTS = {"image_caption": 1.0, "text": 1.5, "image_pointing": 2.0}
"""The report's three weights, on the three tasks of the home."""
MODEL = small_config(vocab_size=400, extra_tokens=len(EXTRA_TOKENS))
OPTIM = OptimConfig(
    vision=PartOptim(lr=1e-3, warmup=2), connector=PartOptim(lr=3e-3, warmup=4), decoder=PartOptim(lr=2e-3, warmup=0)
)


def stage(**changes: Any) -> StageConfig:
    """A stage of 12 steps of 4 packs."""
    fields: dict[str, Any] = {
        "mixture": "mixture", "pack": PackConfig(max_tokens=160, max_visual=4, window=64), "steps": 12, "global_batch": 4,
        "encode": recipe(image_size=SIDE, patch_size=PATCH, max_crops=1, overlap=(0, 0), low_resolution=False),
        "loss": LossConfig(rules={task: LossRule(weight=WEIGHTS.get(task, 1.0)) for task in TASKS}),
        "optim": OPTIM, "seed": 5, "precision": "fp32", "guard": GuardConfig(),
    }  # fmt: skip
    return StageConfig(**fields | changes)


def training_plan(execution: Execution | None = None, **changes: Any) -> TrainPlan:
    """A plan for batches of `numbers`."""
    return TrainPlan(
        model=small_config(), stage=stage(**changes), execution=execution or Execution(device="cpu", log_every=1),
        fingerprint="f" * 64, name="test", init=None,
    )  # fmt: skip


def numbers(plan: TrainPlan, spoil: Callable[[int, Batch], Batch] = lambda _, batch: batch) -> Callable[[int], Iterator[Batch]]:
    """Packs of random vectors and pictures, by their number; `spoil(first pack, batch)` may break some."""

    def batches(first: int) -> Iterator[Batch]:
        size = plan.execution.micro_batch
        while True:
            rows = []
            for number in range(first, first + size):
                rng = np.random.default_rng(number)
                rows.append([random_example(rng, 1, 2), random_example(rng, number % 2, 1)])
            batch = pack(rows, 64)  # whose tasks follow the row in the batch: here they follow the pack
            yield spoil(first, replace(batch, loss_task=(batch.loss_task + first) % 3))
            first += size

    return batches


def poisoned(packs: set[int]) -> Callable[[int, Batch], Batch]:
    """Packs whose loss is not a number."""

    def spoil(first: int, batch: Batch) -> Batch:
        return replace(batch, loss_weight=batch.loss_weight * np.float32("nan")) if first in packs else batch

    return spoil


def training_home(folder: Path) -> RunSpec:
    """Three small sets (captions, pointing, text), tokenizer, mixture and sequences; returns a train run over them."""
    tokenizer_at(folder / "tokenizer")
    cache = MediaCache(folder / "cache")
    stores = {
        "captions": store_at(folder / "captions", [_caption(cache, number) for number in range(24)]),
        "points": store_at(folder / "points", [_pointing(cache, number) for number in range(24)]),
        "texts": store_at(
            folder / "texts", [row("text", [], asked("What?", "red " * (n % 5 + 1)), name=f"t{n}") for n in range(24)]
        ),
    }
    mixture_of(stores).save(folder / "mixture")
    sets = {f"validated/{name}": str(folder / name) for name in stores}
    inputs = {"mixture": str(folder / "mixture"), "tokenizer": str(folder / "tokenizer"), **sets}
    identity = {**plain(stage(dropout=DropoutConfig(residual=0.1, response=0.1))), "stage": "tiny", "model": plain(MODEL)}
    build_sequences(RunSpec(kind="plan", identity=identity, inputs=inputs), folder / "sequences", lambda message: None)
    inputs |= {"sequences": str(folder / "sequences"), "cache": str(folder / "cache")}
    execution = Execution(device="cpu", micro_batch=2, checkpoint_every=7, log_every=5, keep=2)
    return RunSpec(kind="train", identity=identity, inputs=inputs, execution=execution)


def changed(spec: RunSpec, execution: dict[str, Any] | None = None, **identity: Any) -> RunSpec:
    """The same run with other fields."""
    return msgspec.structs.replace(
        spec, identity=spec.identity | identity, execution=msgspec.structs.replace(spec.execution, **(execution or {}))
    )


def _picture(cache: MediaCache, number: int) -> Any:
    stream = io.BytesIO()
    pixels = np.random.default_rng(number).integers(0, 256, (SIDE, SIDE, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(stream, "PNG")
    return msgspec.structs.replace(picture(f"m{number}", SIDE, SIDE), sha256=cache.add_bytes(stream.getvalue()))


def _text(number: int) -> Example:
    return row("text", [], asked("What?", "red " * (number % 5 + 1)), name=f"t{number}")


def _caption(cache: MediaCache, number: int) -> Example:
    words = branch(("assistant", [Text(text="A large red square. " * (1 + number % 3))]), style="long_caption")
    return row("image_caption", [_picture(cache, number)], words, name=f"c{number}")


def _pointing(cache: MediaCache, number: int) -> Example:
    points = Points(label="red circles", points=tuple(Point(x=0.2 + 0.1 * n, y=0.1, id=n) for n in range(1 + number % 3)))
    answer = branch(("assistant", [points]), style="pointing")
    return row("image_pointing", [_picture(cache, 100 + number)], answer, name=f"p{number}")
