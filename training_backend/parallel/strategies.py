"""Strategies: how Fabric is set up for a run, and by what a local loss is scaled before it is reduced.

Belongs here: one function a strategy. Only `single` is built; asking for another says so instead of training something else.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from lightning_fabric import Fabric

from training_backend.api import Execution

_PRECISION = {"fp32": "32-true", "bf16": "bf16-mixed"}


def _single(execution: Execution, device: str, precision: str) -> Fabric:
    if execution.processes != 1:
        raise ValueError(f"strategy 'single' runs one process, not {execution.processes}")
    return Fabric(accelerator=device, devices=1, strategy="auto", precision=_PRECISION[precision])  # type: ignore[arg-type]


STRATEGIES: dict[str, Callable[[Execution, str, str], Fabric]] = {"single": _single}


def make_fabric(execution: Execution, precision: str) -> Fabric:
    """Fabric for this execution. Raises ValueError naming the strategies that there are."""
    if execution.strategy not in STRATEGIES:
        raise ValueError(f"strategy {execution.strategy!r} is not built yet; available: {', '.join(sorted(STRATEGIES))}")
    device = execution.device
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    return STRATEGIES[execution.strategy](execution, device, precision)
