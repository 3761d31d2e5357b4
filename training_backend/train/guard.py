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
_STATE = ("history", "accepted", "skipped", "in_a_row", "diverged_at")


class Guard:
    """Window of accepted losses and the count of refused steps; its state is saved with the run.

    `diverged_at` is the step (from 1) at which `max_consecutive` refusals in a row were reached first, 0 before: the device is
    asked only when something is logged, and by then a bad stretch may be over.
    """

    def __init__(self, config: GuardConfig, device: torch.device) -> None:
        self.config = config
        self.history = torch.zeros(config.history, device=device)
        self._places = torch.arange(config.history, device=device)
        self.accepted, self.skipped, self.in_a_row, self.diverged_at = (
            torch.zeros((), dtype=torch.int64, device=device) for _ in range(4)
        )

    def refuse(self, loss: Tensor, norms: Tensor) -> Tensor:
        """1.0 if the step must not be taken, else 0.0, as the scalar tensor that the optimiser reads; updates the memory.

        `loss` is the global loss, `norms` the global gradient norms: equal on every rank, so all ranks agree without talking.
        """
        filled = self._places < self.accepted
        count = filled.sum().clamp(min=1)
        mean = (self.history * filled).sum() / count
        deviation = (((self.history - mean) * filled).square().sum() / count).sqrt()
        jump = (self.accepted >= _ENOUGH) & (loss > mean + self.config.sigmas * deviation + 1e-3 * mean.abs())
        bad = ~torch.isfinite(loss) | ~torch.isfinite(norms).all() | jump
        # Indexing with a tensor of no dimensions would read it on the host.
        here = self._places == self.accepted % len(self.history)
        self.history = torch.where(here & ~bad, loss, self.history)
        self.accepted = self.accepted + (~bad).to(torch.int64)
        self.skipped = self.skipped + bad.to(torch.int64)
        self.in_a_row = torch.where(bad, self.in_a_row + 1, torch.zeros_like(self.in_a_row))
        reached = (self.in_a_row >= self.config.max_consecutive) & (self.diverged_at == 0)
        self.diverged_at = torch.where(reached, self.accepted + self.skipped, self.diverged_at)
        return bad.to(torch.float32)

    def state(self) -> dict[str, Tensor]:
        """Tensors to save."""
        return {name: getattr(self, name) for name in _STATE}

    def load(self, saved: dict[str, Tensor]) -> None:
        """Inverse of `state`. Raises KeyError for one that is missing."""
        for name in _STATE:
            setattr(self, name, saved[name].to(self.history.device).clone())
