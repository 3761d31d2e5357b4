"""States of a run, small and made of numbers."""

from __future__ import annotations

import torch

from training_backend.checkpoint.state import TrainState

RUN = "a" * 64


def state(step: int) -> TrainState:
    """After `step` steps; every number follows from it."""
    generator = torch.Generator().manual_seed(step)
    weights = {"b.weight": torch.randn(3, 4, generator=generator), "a": torch.randn(2, generator=generator).to(torch.bfloat16)}
    return TrainState(
        step=step,
        model=weights,
        optimizer={"a/step": torch.tensor(float(step)), "a/exp_avg": torch.randn(2, generator=generator)},
        guard={"accepted": torch.tensor(step), "history": torch.randn(5, generator=generator)},
        meter={"loss": torch.randn(3, generator=generator)},
        counts={"tokens": 12, "wait": 0.5},
        loader={"next_pack": step * 4},
        records=[{"step": step, "loss": 0.1 + step, "tasks": {"text": 1 / 3}}],
        totals={"tokens": 1e17},
    )
