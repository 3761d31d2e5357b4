"""Rates by hand, parts apart, refused steps without a trace, states that come back."""

from __future__ import annotations

import itertools
import math

import msgspec
import pytest
import torch

from tests.support.models import small_config
from training_backend.config import OptimConfig, PartOptim
from training_backend.model.molmo2 import PARTS, Molmo2
from training_backend.train.optim import build_optimizer, clip_by_part, learning_rate, load_named_state, named_state, set_rates

OPTIM = OptimConfig(
    vision=PartOptim(lr=6e-6, warmup=2), connector=PartOptim(lr=2e-4, warmup=4), decoder=PartOptim(lr=2e-5, warmup=0), clip=1.0
)


def model() -> Molmo2:
    made = Molmo2(small_config())
    made.init_weights(0)
    return made


def give_gradients(made: Molmo2, seed: int, scale: float = 1.0) -> None:
    generator = torch.Generator().manual_seed(seed)
    for _, parameter in made.named_parameters():
        if parameter.requires_grad:
            parameter.grad = scale * torch.randn(parameter.shape, generator=generator)


def take(optimizer: torch.optim.Optimizer, refused: float = 0.0) -> None:
    optimizer.found_inf = torch.tensor(refused)  # type: ignore[attr-defined]
    optimizer.step()


def test_rates_by_hand() -> None:
    rates = [learning_rate(1.0, 4, step, 12, 0.1) for step in range(12)]
    assert rates[:5] == [0.2, 0.4, 0.6, 0.8, 1.0]
    assert rates[8] == pytest.approx(0.55)  # half way down the cosine
    assert rates[6] == pytest.approx(0.1 + 0.9 * 0.5 * (1 + math.sqrt(0.5)))
    assert rates[11] > 0.1
    assert learning_rate(1.0, 4, 12, 12, 0.1) == pytest.approx(0.1)
    assert learning_rate(1.0, 4, 99, 12, 0.1) == pytest.approx(0.1)
    assert all(one > two for one, two in itertools.pairwise(rates[4:]))
    # A warm-up as long as the run still ends at its peak's side, without dividing by zero.
    assert [learning_rate(3.0, 2, step, 2, 0.0) for step in range(3)] == [1.0, 2.0, 3.0]


def test_every_part_has_its_own_rate_and_warm_up() -> None:
    optimizer = build_optimizer(model(), OPTIM)
    assert set_rates(optimizer, OPTIM, 0, 10) == {"vision": 2e-6, "connector": 4e-5, "decoder": 2e-5}
    at_two = set_rates(optimizer, OPTIM, 2, 10)
    assert at_two["vision"] == 6e-6
    assert at_two["connector"] == pytest.approx(1.2e-4)
    assert at_two["decoder"] == pytest.approx(2e-5 * (0.1 + 0.9 * 0.5 * (1 + math.cos(math.pi * 0.2))))
    assert {group["name"]: group["lr"] for group in optimizer.param_groups} == at_two
    assert [group["betas"] for group in optimizer.param_groups] == [(0.9, 0.95)] * 3
    names = [name for group in optimizer.param_groups for name in group["parameter_names"]]
    assert sorted(names) == sorted(name for name, _ in model().named_parameters())
    connector = next(group for group in optimizer.param_groups if group["name"] == "connector")
    assert "decoder.extra_embedding" in connector["parameter_names"]


def test_frozen_parts_have_no_gradient_no_state_and_do_not_move() -> None:
    frozen = msgspec.structs.replace(OPTIM, vision=PartOptim(lr=1.0, warmup=0, frozen=True))
    made = model()
    optimizer = build_optimizer(made, frozen)
    before = {name: value.clone() for name, value in made.state_dict().items()}
    assert set(set_rates(optimizer, frozen, 0, 10)) == {"connector", "decoder"}
    give_gradients(made, 1)
    norms = clip_by_part(optimizer, 1.0)
    assert norms[PARTS.index("vision")] == 0
    assert (norms[1:] > 1).all()
    take(optimizer)
    for name, value in made.state_dict().items():
        assert torch.equal(value, before[name]) == name.startswith("vision."), name
    assert {name.split("/")[0] for name in named_state(optimizer)} == {n for n in before if not n.startswith("vision.")}
    everything = {part: PartOptim(lr=1.0, warmup=0, frozen=True) for part in PARTS}
    with pytest.raises(ValueError, match="every part of the model is frozen"):
        build_optimizer(model(), msgspec.structs.replace(OPTIM, **everything))


def test_clipping_part_by_part() -> None:
    made = model()
    optimizer = build_optimizer(made, OPTIM)
    give_gradients(made, 1, 1e-4)
    for _, parameter in made.parts()["decoder"]:
        parameter.grad = torch.full_like(parameter, 3.0)
    wanted = {
        part: math.sqrt(sum(float(p.grad.double().square().sum()) for _, p in group if p.grad is not None))
        for part, group in made.parts().items()
    }
    small = {name: p.grad.clone() for name, p in made.parts()["vision"] if p.grad is not None}
    norms = clip_by_part(optimizer, 1.0)
    assert dict(zip(PARTS, norms.tolist(), strict=True)) == pytest.approx(wanted, rel=1e-5)
    after = math.sqrt(sum(float(p.grad.square().sum()) for _, p in made.parts()["decoder"] if p.grad is not None))
    assert after == pytest.approx(1.0, rel=1e-5)
    assert all(torch.equal(p.grad, small[name]) for name, p in made.parts()["vision"] if p.grad is not None)


@pytest.mark.parametrize("poison", [math.nan, math.inf])
def test_a_refused_step_leaves_no_trace(poison: float) -> None:
    one, two = model(), model()
    optimizers = [build_optimizer(one, OPTIM), build_optimizer(two, OPTIM)]
    for step in range(4):
        for made, optimizer in zip((one, two), optimizers, strict=True):
            if step == 2 and made is one:
                continue
            set_rates(optimizer, OPTIM, step, 10)
            give_gradients(made, step, poison if step == 2 else 1.0)
            clip_by_part(optimizer, 1.0)
            take(optimizer, float(step == 2))
            optimizer.zero_grad(set_to_none=True)
    assert all(torch.equal(value, two.state_dict()[name]) for name, value in one.state_dict().items())
    states = [named_state(optimizer) for optimizer in optimizers]
    assert all(torch.equal(value, states[1][name]) for name, value in states[0].items())
    assert states[0]["decoder.norm.weight/step"] == 3


def test_a_state_comes_back(tmp_path: object) -> None:
    one, two = model(), model()
    first, second = build_optimizer(one, OPTIM), build_optimizer(two, OPTIM)
    load_named_state(second, named_state(first))  # nothing yet
    assert named_state(second) == {}
    for step in range(6):
        set_rates(first, OPTIM, step, 10)
        give_gradients(one, step)
        take(first)
        if step == 2:
            two.load_state_dict(one.state_dict())
            load_named_state(second, {name: value.clone() for name, value in named_state(first).items()})
        elif step > 2:
            set_rates(second, OPTIM, step, 10)
            give_gradients(two, step)
            take(second)
    assert all(torch.equal(value, two.state_dict()[name]) for name, value in one.state_dict().items())
    saved = named_state(first)
    assert all(torch.equal(value, saved[name]) for name, value in named_state(second).items())
    del saved["decoder.norm.weight/exp_avg"]
    with pytest.raises(KeyError, match=r"decoder\.norm\.weight/exp_avg"):
        load_named_state(second, saved)
