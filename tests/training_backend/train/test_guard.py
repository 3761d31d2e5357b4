"""The guard: what is not finite or jumps is refused and counted; a bad stretch is remembered until somebody looks."""

from __future__ import annotations

import math

import pytest
import torch

from training_backend.config import GuardConfig
from training_backend.train.guard import Guard

FINE = torch.ones(3)
NAN, INF = math.nan, math.inf


def feed(guard: Guard, *losses: float, norms: torch.Tensor = FINE) -> list[bool]:
    return [bool(guard.refuse(torch.tensor(loss), norms)) for loss in losses]


def guard_of(**fields: float) -> Guard:
    return Guard(GuardConfig(**fields), torch.device("cpu"))  # type: ignore[arg-type]


def counts(guard: Guard) -> tuple[int, int, int, int]:
    return int(guard.accepted), int(guard.skipped), int(guard.in_a_row), int(guard.diverged_at)


def test_what_is_not_finite_is_refused() -> None:
    guard = guard_of()
    assert feed(guard, 2.0, NAN, INF, -INF, 2.0) == [False, True, True, True, False]
    assert feed(guard, 2.0, norms=torch.tensor([1.0, NAN, 1.0])) == [True]
    assert feed(guard, 2.0, norms=torch.tensor([INF, 1.0, 1.0])) == [True]
    assert counts(guard) == (2, 5, 2, 0)
    assert guard.history[:3].tolist() == [2.0, 2.0, 0.0]
    assert torch.isfinite(guard.history).all()


def test_a_jump_is_refused_once_there_is_something_to_compare_with() -> None:
    guard = guard_of(sigmas=6.0)
    wave = [2.0 + 0.1 * (-1) ** n for n in range(31)]
    assert feed(guard, 50.0, *wave) == [False] * 32  # too early to judge: the first is taken
    guard = guard_of(sigmas=6.0)
    assert not any(feed(guard, *wave, 2.0))
    # Mean 2.0, deviation 0.1: the limit is 2.6 and a thousandth of the mean.
    assert feed(guard, 2.61, 2.59, 1.0, 0.0) == [True, False, False, False]
    assert counts(guard)[:2] == (35, 1)


def test_a_loss_that_no_longer_moves_is_not_a_jump() -> None:
    guard = guard_of()
    assert not any(feed(guard, *[2.0] * 40, 2.001))
    assert feed(guard, 2.1) == [True]


def test_only_the_window_counts() -> None:
    guard = guard_of(history=32)
    feed(guard, *[10.0 + n % 2 for n in range(40)])
    feed(guard, *[1.0 + 0.01 * (n % 2) for n in range(32)])
    assert sorted(set(guard.history.tolist())) == pytest.approx([1.0, 1.01])
    assert feed(guard, 5.0) == [True]


def test_a_bad_stretch_is_remembered_after_it_is_over() -> None:
    guard = guard_of(max_consecutive=3)
    feed(guard, 1.0, NAN, NAN, 1.0, NAN, NAN)
    assert counts(guard) == (2, 4, 2, 0)
    feed(guard, NAN, NAN, 1.0, 1.0, NAN, NAN, NAN)
    assert counts(guard) == (4, 9, 3, 7)  # the seventh step was the third refusal in a row, the first time


def test_a_saved_guard_goes_on_as_if_nothing_had_happened() -> None:
    losses = [2.0 + 0.3 * math.sin(n) for n in range(60)] + [9.0, NAN, 2.0]
    whole, first = guard_of(history=40), guard_of(history=40)
    feed(whole, *losses)
    feed(first, *losses[:37])
    second = guard_of(history=40)
    second.load({name: value.clone() for name, value in first.state().items()})
    feed(second, *losses[37:])
    assert all(torch.equal(second.state()[name], value) for name, value in whole.state().items())
    with pytest.raises(KeyError, match="diverged_at"):
        second.load({name: value for name, value in first.state().items() if name != "diverged_at"})
