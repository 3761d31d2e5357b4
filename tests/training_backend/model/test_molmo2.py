"""The model as wiring: what each output may depend on."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch

from tests.support.models import pack, random_example, small_config
from training_backend.model.molmo2 import Molmo2, TensorBatch, parameter_counts
from training_backend.pack.batch import Batch


def _model(**decoder: object) -> Molmo2:
    model = Molmo2(small_config(**decoder))
    model.init_weights(3)
    return model.eval()


def _hidden(model: Molmo2, batch: Batch) -> torch.Tensor:
    with torch.no_grad():
        return model(TensorBatch.from_numpy(batch))


VARIANTS = [
    {},
    {"qk_norm": "full", "norm_order": "post"},
    {"qk_norm": "none", "tied": True},
    {"sliding_window": 4, "full_attention_every": 2},
    {"predict_extra": False},
]


@pytest.mark.parametrize("variant", VARIANTS, ids=str)
def test_packed_is_one_by_one(variant: dict[str, object]) -> None:
    rng = np.random.default_rng(0)
    examples = [random_example(rng, images, branches) for images, branches in ((1, 2), (0, 1), (2, 3))]
    model = _model(**variant)
    packed = _hidden(model, pack([examples[:2], examples[2:]], 64))
    start = 0
    for row, item in ((0, examples[0]), (0, examples[1]), (1, examples[2])):
        start = 0 if row == 1 else start
        length = len(item["tokens"])
        alone = _hidden(model, pack([[item]], length))[0]
        torch.testing.assert_close(packed[row, start : start + length], alone, rtol=1e-4, atol=1e-5)
        start += length


def test_a_branch_does_not_see_its_sibling_and_the_prefix_sees_no_branch() -> None:
    rng = np.random.default_rng(1)
    item = random_example(rng, 1, 3)
    changed = {**item, "tokens": item["tokens"].copy()}
    changed["tokens"][item["branch"] == 1] = 7
    model = _model()
    before, after = (_hidden(model, pack([[each]], 48))[0, : len(item["tokens"])] for each in (item, changed))
    moved = (before - after).abs().amax(dim=-1).numpy() > 1e-6
    assert moved[item["branch"] == 1].any()
    assert not moved[item["branch"] != 1].any()


def test_pixels_reach_the_image_and_what_follows_and_nothing_before() -> None:
    rng = np.random.default_rng(2)
    item = random_example(rng, 1, 1)
    shuffled = {**item, "crops": item["crops"][:, ::-1].copy()}
    model = _model()
    before, after = (_hidden(model, pack([[each]], 32))[0, : len(item["tokens"])] for each in (item, shuffled))
    moved = (before - after).abs().amax(dim=-1).numpy() > 1e-6
    first = int(np.flatnonzero(item["image"] >= 0)[0])
    assert not moved[:first].any()
    assert moved[first:].all(), "image tokens see each other both ways, so even the opening token moves"


def test_a_batch_without_images_runs_the_vision_path_and_ignores_it() -> None:
    rng = np.random.default_rng(3)
    batch = pack([[random_example(rng, 0, 2)]], 32)
    noisy = dataclasses.replace(batch, crops=rng.integers(0, 256, batch.crops.shape, dtype=np.uint8))
    model = _model()
    torch.testing.assert_close(_hidden(model, batch), _hidden(model, noisy), rtol=0, atol=0)
    model(TensorBatch.from_numpy(batch)).sum().backward()
    assert all(parameter.grad is not None for _, parameter in model.parts()["vision"]), "every rank reduces the same gradients"


def test_dropout_is_a_function_of_its_seed_and_of_its_positions() -> None:
    rng = np.random.default_rng(4)
    rows = [[random_example(rng, 1, 2)], [random_example(rng, 0, 2)]]
    batch = TensorBatch.from_numpy(pack(rows, 32))
    model = _model()
    a, b, c = (model(batch, residual=0.1, seeds=seeds) for seeds in ((1, 5), (1, 5), (2, 5)))
    torch.testing.assert_close(a, b, rtol=0, atol=0)
    assert (a - c)[0].abs().max() > 1e-3
    torch.testing.assert_close(a[1], c[1], rtol=1e-5, atol=1e-6)
    alone = model(TensorBatch.from_numpy(pack(rows[1:], 32)), residual=0.1, seeds=(5,))
    torch.testing.assert_close(a[1:], alone, rtol=1e-5, atol=1e-6)
    with pytest.raises(ValueError, match="1 seeds of dropout for 2 rows"):
        model(batch, residual=0.1, seeds=(1,))
    none = dataclasses.replace(batch, response=torch.zeros_like(batch.response))
    torch.testing.assert_close(model(none, response=0.5, seeds=(1, 2)), model(none), rtol=0, atol=0)


def test_parts_cover_every_parameter_once_and_new_rows_train_with_the_connector() -> None:
    model = _model()
    names = [name for group in model.parts().values() for name, _ in group]
    assert sorted(names) == sorted(name for name, _ in model.named_parameters())
    assert "decoder.extra_embedding" in [name for name, _ in model.parts()["connector"]]


def test_counting_parameters_allocates_nothing_and_agrees() -> None:
    model = _model()
    counts = parameter_counts(small_config())
    assert sum(counts.values()) == sum(parameter.numel() for parameter in model.parameters())


def test_weights_are_a_function_of_the_seed() -> None:
    first, second = _model(), _model()
    for (name, a), (_, b) in zip(first.named_parameters(), second.named_parameters(), strict=True):
        assert torch.equal(a, b), name
        assert torch.isfinite(a).all(), name
