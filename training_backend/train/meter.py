"""The meter: what happened since the last record of a run.

Belongs here: sums on the device and counts on the host, and their state, so that a run that was resumed between two records writes
the same records. Does not belong here: what a record looks like (`loop.py`).
"""

from __future__ import annotations

import time
from typing import Any

import torch
from torch import Tensor

from training_backend.data.example import TASKS
from training_backend.model.molmo2 import PARTS
from training_backend.pack.batch import Batch
from training_backend.parallel.ranks import Ranks

_SUMS = ("loss", "weight", "norms", "taken")
_COUNTS = ("steps", "tokens", "positions", "examples", "failures", "flops", "wait", "seconds")
_APART = ("tokens", "positions", "examples", "failures", "flops", "wait")
"""Counts of which every rank has its own; the others and the sums are the same on all."""


class Meter:
    """Weighted loss and weight by task, gradient norms and number of the steps that were taken; refused steps count nowhere.

    `wait` are seconds spent waiting for data, added up over ranks, `seconds` those that earlier attempts spent on the record under
    way.
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.reset()

    def reset(self) -> None:
        self.loss = torch.zeros(len(TASKS), device=self.device)
        self.weight = torch.zeros(len(TASKS), device=self.device)
        self.norms = torch.zeros(len(PARTS), device=self.device)
        self.taken = torch.zeros((), device=self.device)
        self.steps = self.tokens = self.positions = self.examples = self.failures = 0
        self.flops = self.wait = self.seconds = 0.0
        self._started = time.monotonic()

    def batch(self, batch: Batch, flops: float) -> None:
        """Count a micro-batch."""
        self.tokens += batch.filled
        self.positions += batch.tokens.size
        self.examples += batch.examples
        self.failures += batch.failures
        self.flops += flops

    def step(self, loss: Tensor, weight: Tensor, norms: Tensor, refused: Tensor) -> None:
        """Add a step's sums by task over all ranks, and its norms, where it was taken.

        What is refused may be NaN, so it is not multiplied.
        """
        keep = refused < 0.5
        self.loss += torch.where(keep, loss, torch.zeros_like(loss))
        self.weight += torch.where(keep, weight, torch.zeros_like(weight))
        self.norms += torch.where(keep, norms, torch.zeros_like(norms))
        self.taken += keep
        self.steps += 1

    def gather(self, ranks: Ranks) -> None:
        """Move what the ranks counted apart to rank 0; the others go on from nothing. All ranks call it together."""
        counts = ranks.host_sum([getattr(self, name) for name in _APART])
        for name, count in zip(_APART, counts, strict=True):
            setattr(self, name, type(getattr(self, name))(count))
        self._leave_to_rank_0(ranks)

    def _leave_to_rank_0(self, ranks: Ranks) -> None:
        if ranks.rank > 0:
            for name in _APART:
                setattr(self, name, type(getattr(self, name))(0))

    def elapsed(self) -> float:
        """Seconds of the record under way, over all attempts."""
        return self.seconds + time.monotonic() - self._started

    def tensors(self) -> dict[str, Tensor]:
        """Sums to save."""
        return {name: getattr(self, name) for name in _SUMS}

    def counts(self) -> dict[str, Any]:
        """Counts to save."""
        return {name: getattr(self, name) for name in _COUNTS} | {"seconds": self.elapsed()}

    def load(self, tensors: dict[str, Tensor], counts: dict[str, Any], ranks: Ranks) -> None:
        """Inverse of `tensors` and `counts`, which all ranks read. Raises KeyError for one that is missing."""
        for name in _SUMS:
            setattr(self, name, tensors[name].to(self.device).clone())
        for name in _COUNTS:
            setattr(self, name, counts[name])
        self._leave_to_rank_0(ranks)
        self._started = time.monotonic()
