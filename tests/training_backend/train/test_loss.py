"""The chunked loss against the plain one."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F

from training_backend.train.loss import weighted_cross_entropy


def _inputs() -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    hidden = torch.randn(2, 9, 16, generator=generator, dtype=torch.float64, requires_grad=True)
    head = torch.randn(40, 16, generator=generator, dtype=torch.float64, requires_grad=True)
    index = torch.tensor([0, 3, 4, 10, 17, 0, 0])
    weight = torch.tensor([0.5, 1.0, 2.0, 0.1, 1.5, 0.0, 0.0], dtype=torch.float64)
    target = torch.randint(0, 40, (7,), generator=generator)
    return {"hidden": hidden, "head": head, "index": index, "weight": weight, "target": target, "task": torch.arange(7) % 3}


@pytest.mark.parametrize("chunk", [1, 3, 100])
@pytest.mark.parametrize("z_loss", [0.0, 1e-2])
def test_value_and_gradients_equal_the_plain_loss(chunk: int, z_loss: float) -> None:
    i = _inputs()
    logits = i["hidden"].reshape(18, 16)[i["index"]] @ i["head"].T
    plain = F.cross_entropy(logits, i["target"], reduction="none")
    expected = (i["weight"] * (plain + z_loss * logits.logsumexp(-1) ** 2)).sum()
    total, by_task, weights = weighted_cross_entropy(
        i["hidden"], i["head"], i["index"], i["target"], i["weight"], i["task"], 3, chunk, z_loss
    )
    torch.testing.assert_close(total, expected, rtol=1e-12, atol=0)
    for task in range(3):
        mine = i["task"] == task
        torch.testing.assert_close(by_task[task], (i["weight"] * plain)[mine].sum(), rtol=1e-10, atol=1e-12)
        torch.testing.assert_close(weights[task], i["weight"][mine].sum(), rtol=1e-12, atol=0)
    wanted = torch.autograd.grad(expected * 3.7, [i["hidden"], i["head"]])
    actual = torch.autograd.grad(total * 3.7, [i["hidden"], i["head"]])
    for mine, theirs in zip(actual, wanted, strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-10, atol=1e-12)


def test_padding_changes_nothing() -> None:
    i = _inputs()
    full = weighted_cross_entropy(i["hidden"], i["head"], i["index"], i["target"], i["weight"], i["task"], 3, 4)
    cut = {name: i[name][:5] for name in ("index", "target", "weight", "task")}
    short = weighted_cross_entropy(i["hidden"], i["head"], cut["index"], cut["target"], cut["weight"], cut["task"], 3, 4)
    for a, b in zip(full, short, strict=True):
        torch.testing.assert_close(a, b)


def test_half_precision_multiplies_low_and_sums_high() -> None:
    """Under autocast the products are bf16, as in every linear layer; loss and gradients come out in fp32, near the exact ones."""
    i = {name: value.float().detach() if value.is_floating_point() else value for name, value in _inputs().items()}
    inputs = [i["hidden"].requires_grad_(), i["head"].requires_grad_()]
    results = []
    for low in (False, True):
        with torch.autocast("cpu", torch.bfloat16, enabled=low):
            total, *_ = weighted_cross_entropy(*inputs, i["index"], i["target"], i["weight"], i["task"], 3, 4, 1e-2)
        results.append((total, *torch.autograd.grad(total / 5, inputs)))
    for exact, low in zip(*results, strict=True):
        assert low.dtype == torch.float32
        assert not torch.equal(exact, low)
        torch.testing.assert_close(low / exact.abs().max(), exact / exact.abs().max(), rtol=0, atol=2e-2)


@pytest.mark.parametrize("frozen", ["hidden", "head"])
def test_a_frozen_side_gets_no_gradient(frozen: str) -> None:
    i = _inputs()
    other = i["head" if frozen == "hidden" else "hidden"]
    (wanted,) = torch.autograd.grad(weighted_cross_entropy(*_arguments(i))[0], other)
    i[frozen].requires_grad_(False)
    (actual,) = torch.autograd.grad(weighted_cross_entropy(*_arguments(i))[0], other)
    assert torch.equal(actual, wanted)


def _arguments(i: dict[str, torch.Tensor]) -> tuple[Any, ...]:
    return i["hidden"], i["head"], i["index"], i["target"], i["weight"], i["task"], 3, 4
