"""The count of operations against torch's own counter, and against the mask itself."""

from __future__ import annotations

from dataclasses import fields, replace
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from tests.support.models import pack, random_example, small_config
from training_backend.config import ModelConfig
from training_backend.data.example import TASKS
from training_backend.model.molmo2 import Molmo2, TensorBatch
from training_backend.pack.batch import Batch
from training_backend.train.flops import allowed_pairs, batch_flops, peak_flops
from training_backend.train.loss import weighted_cross_entropy


def packed(seed: int = 0, rows: int = 2, images: int = 2) -> Batch:
    rng = np.random.default_rng(seed)
    return pack([[random_example(rng, images, 2), random_example(rng, images, 3)] for _ in range(rows)], 80)


def tensors(batch: Batch) -> TensorBatch:
    return TensorBatch(**{field.name: torch.from_numpy(getattr(batch, field.name)) for field in fields(TensorBatch)})


@pytest.mark.parametrize("mode", ["image_tokens", "causal", "within_image"])
@pytest.mark.parametrize("window", [None, 1, 5, 1000])
def test_pairs_are_those_of_the_mask(mode: Any, window: int | None) -> None:
    batch = packed(images=3)
    mask = replace(Molmo2(small_config()).mask(tensors(batch)), mode=mode, window=window).allowed(0, 80)
    padding = int((batch.example < 0).sum())  # each sees itself
    assert allowed_pairs(batch, mode, window) == int(mask.sum()) - padding


def forward_flops(config: ModelConfig, batch: Batch) -> float:
    """What torch counts in a forward: every product of matrices, and attention over whole squares."""
    model = Molmo2(config)
    model.init_weights(0)
    found = tensors(batch)
    with FlopCounterMode(display=False) as counter, torch.no_grad(), sdpa_kernel(SDPBackend.MATH):
        hidden = model(found)
        weighted_cross_entropy(
            hidden, model.head_weight, found.loss_index, found.loss_target, found.loss_weight, found.loss_task, len(TASKS), 4096
        )
    return counter.get_total_flops()


def test_every_product_of_matrices_is_counted_once() -> None:
    """A batch without padding, whose attention is put back to whole squares, as torch counts it."""
    config, batch = small_config(), packed()
    length = int((batch.example >= 0).sum(axis=1).min())
    full = np.zeros((2, length), dtype=np.int32)
    keep = batch.slot % batch.tokens.shape[1] < length
    learned = (batch.loss_index % batch.tokens.shape[1] < length) & (batch.loss_weight > 0)
    size = batch.tokens.shape[1]

    def moved(index: np.ndarray) -> np.ndarray:
        return index // size * length + index % size

    whole = replace(
        batch, tokens=batch.tokens[:, :length], position=np.arange(length, dtype=np.int32)[None].repeat(2, 0), branch=full - 1,
        image=full - 1, example=full, slot=moved(batch.slot[keep]), pool=batch.pool[keep], slot_weight=batch.slot_weight[keep],
        loss_index=moved(batch.loss_index[learned]), loss_target=batch.loss_target[learned],
        loss_weight=batch.loss_weight[learned], loss_task=batch.loss_task[learned], response=batch.response[:, :length],
        filled=2 * length,
    )  # fmt: skip
    decoder = config.decoder
    pairs = 2 * length * (length + 1) // 2
    assert allowed_pairs(whole, config.image_attention) == pairs
    squares = 2 * length * length - pairs
    attention = 2 * 2 * decoder.layers * decoder.heads * decoder.head_dim * squares
    assert batch_flops(config, whole) / 3 + attention == pytest.approx(forward_flops(config, whole), rel=1e-9)


def test_padding_costs_nothing_and_more_work_costs_more() -> None:
    config, batch = small_config(), packed()
    vectors = {name: getattr(batch, name) for name in ("tokens", "position", "branch", "image", "example")}
    wider = replace(batch, **{n: np.pad(v, ((0, 0), (0, 40)), constant_values=-1) for n, v in vectors.items()})  # type: ignore[arg-type]
    assert batch_flops(config, wider) == batch_flops(config, batch)
    assert batch_flops(config, packed(rows=3)) > batch_flops(config, batch)
    assert batch_flops(small_config(layers=4), batch) > batch_flops(config, batch)


def test_peaks() -> None:
    assert peak_flops("NVIDIA H100 80GB HBM3") == 989e12
    assert peak_flops("") is None
    assert peak_flops("a card of next year") is None
