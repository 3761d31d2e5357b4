"""Strategies: how Fabric is set up for a run, and what of an execution this version can do.

Belongs here: one function a strategy. Only `single` is built; asking for anything else says so instead of training something else.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from lightning_fabric import Fabric

from training_backend.api import Execution

_PRECISION = {"fp32": "32-true", "bf16": "bf16-mixed"}
_LATER: tuple[tuple[str, tuple[object, ...]], ...] = (
    ("activation_checkpointing", (False,)),
    ("compile", (False,)),
    ("wandb_project", (None,)),
)
"""Fields of an execution that are not built yet, and the values under which that makes no difference."""


def _single(device: str, precision: str) -> Fabric:
    return Fabric(accelerator=device, devices=1, strategy="auto", precision=_PRECISION[precision])  # type: ignore[arg-type]


STRATEGIES: dict[str, Callable[[str, str], Fabric]] = {"single": _single}


def check_execution(execution: Execution, context_parallel: int = 1) -> None:
    """Refuse what is not built, before anything is computed. Raises ValueError naming the field and what there is."""
    if execution.strategy not in STRATEGIES:
        raise ValueError(f"strategy {execution.strategy!r} is not built yet; available: {', '.join(sorted(STRATEGIES))}.")
    if execution.processes != 1:
        raise ValueError(f"strategy {execution.strategy!r} runs one process, not {execution.processes}; set processes to 1.")
    if context_parallel != 1:
        raise ValueError(f"context_parallel {context_parallel} is not built yet; set it to 1.")
    for field, known in _LATER:
        if getattr(execution, field) not in known:
            words = ", ".join(map(repr, known))
            raise ValueError(f"{field} {getattr(execution, field)!r} is not built yet; available: {words}.")
    for field in ("micro_batch", "checkpoint_every", "keep", "log_every", "threads"):
        if getattr(execution, field) < 1:
            raise ValueError(f"{field} is {getattr(execution, field)}; it must be at least 1.")


def make_fabric(execution: Execution, precision: str) -> Fabric:
    """Fabric for this execution. Raises ValueError as `check_execution` does."""
    check_execution(execution)
    device = execution.device
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    if device == "cuda" and not torch.cuda.is_available():
        raise ValueError("device 'cuda' is asked for and this machine has none; set device to cpu or auto.")
    return STRATEGIES[execution.strategy](device, precision)
