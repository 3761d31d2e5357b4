"""The guard: a step whose loss or gradient is not finite, or whose loss jumps, changes nothing.

Belongs here: the decision and its memory, all on the device. A refused step is masked inside the fused optimiser (`found_inf`), so
neither parameters nor moments nor step counts move, and the refused loss never enters the statistics.
"""

from __future__ import annotations

import torch
from torch import Tensor

from training_backend.config import GuardConfig

_ENOUGH = 32
"""Accepted losses before a jump is called one."""


class Guard:
    """Window of accepted losses and the count of refused steps; its state is saved with the run."""

    def __init__(self, config: GuardConfig, device: torch.device) -> None:
        self.config = config
        self.history = torch.zeros(config.history, device=device)
        self.accepted = torch.zeros((), dtype=torch.int64, device=device)
        self.skipped = torch.zeros((), dtype=torch.int64, device=device)
        self.in_a_row = torch.zeros((), dtype=torch.int64, device=device)

    def refuse(self, loss: Tensor, norms: Tensor) -> Tensor:
        """1.0 if the step must not be taken, else 0.0, as the scalar tensor that the optimiser reads; updates the memory.

        `loss` is the global loss, `norms` the global gradient norms: equal on every rank, so all ranks agree without talking.
        """
        filled = torch.arange(len(self.history), device=loss.device) < self.accepted
        count = filled.sum().clamp(min=1)
        mean = (self.history * filled).sum() / count
        deviation = (((self.history - mean) * filled).square().sum() / count).sqrt()
        jump = (self.accepted >= _ENOUGH) & (loss > mean + self.config.sigmas * deviation + 1e-3 * mean.abs())
        bad = ~torch.isfinite(loss) | ~torch.isfinite(norms).all() | jump
        place = self.accepted % len(self.history)
        self.history[place] = torch.where(bad, self.history[place], loss)
        self.accepted += (~bad).to(torch.int64)
        self.skipped += bad.to(torch.int64)
        self.in_a_row = torch.where(bad, self.in_a_row + 1, torch.zeros_like(self.in_a_row))
        return bad.to(torch.float32)

    def state(self) -> dict[str, Tensor]:
        """Tensors to save."""
        return {name: getattr(self, name) for name in ("history", "accepted", "skipped", "in_a_row")}

    def load(self, saved: dict[str, Tensor]) -> None:
        """Inverse of `state`."""
        for name, value in saved.items():
            setattr(self, name, value.to(self.history.device).clone())
