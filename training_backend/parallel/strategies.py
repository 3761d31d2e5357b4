"""Strategies: how Fabric is set up for a run, and what of an execution this version can do.

Belongs here: one function a strategy. Asking for one that is not built says so instead of training something else.

Gradients of all ranks are summed, never averaged: the loss is already divided by the weight of the whole step.
"""

# No `from __future__ import annotations`: torch reads those of the communication hook and knows no strings.

import os
from collections.abc import Callable

import torch
import torch.distributed as dist
from lightning_fabric import Fabric
from lightning_fabric.strategies import DDPStrategy
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from training_backend.api import Execution

_PRECISION = {"fp32": "32-true", "bf16": "bf16-mixed"}
_LATER: tuple[tuple[str, tuple[object, ...]], ...] = (
    ("activation_checkpointing", (False,)),
    ("compile", (False,)),
    ("wandb_project", (None,)),
)
"""Fields of an execution that are not built yet, and the values under which that makes no difference."""


def _single(device: str, precision: str, processes: int) -> Fabric:
    return Fabric(accelerator=device, devices=1, strategy="auto", precision=_PRECISION[precision])  # type: ignore[arg-type]


def _sum(_state: None, bucket: dist.GradBucket) -> torch.futures.Future[Tensor]:
    summed = dist.all_reduce(bucket.buffer(), async_op=True)
    assert summed is not None
    return summed.get_future().then(lambda future: future.value()[0])


class _SummedDDP(DDPStrategy):
    """Every rank holds the whole model; its gradients are those of its packs, summed over ranks during the backward."""

    def setup_module(self, module: nn.Module) -> DistributedDataParallel:
        wrapped = super().setup_module(module)
        wrapped.register_comm_hook(None, _sum)
        return wrapped


def _ddp(device: str, precision: str, processes: int) -> Fabric:
    if os.environ.get("WORLD_SIZE") != str(processes):  # Fabric would start this very command again as the other ranks
        raise ValueError(f"strategy 'ddp' with {processes} processes is started by torchrun; the launcher does that.")
    strategy = _SummedDDP(broadcast_buffers=False)
    return Fabric(accelerator=device, devices=processes, strategy=strategy, precision=_PRECISION[precision])  # type: ignore[arg-type]


STRATEGIES: dict[str, Callable[[str, str, int], Fabric]] = {"single": _single, "ddp": _ddp}


def check_execution(execution: Execution, context_parallel: int = 1) -> None:
    """Refuse what is not built, before anything is computed. Raises ValueError naming the field and what there is."""
    if execution.strategy not in STRATEGIES:
        raise ValueError(f"strategy {execution.strategy!r} is not built yet; available: {', '.join(sorted(STRATEGIES))}.")
    if execution.strategy == "single" and execution.processes != 1:
        raise ValueError(f"strategy 'single' runs one process, not {execution.processes}; set processes to 1, or strategy to ddp.")
    if context_parallel != 1:
        raise ValueError(f"context_parallel {context_parallel} is not built yet; set it to 1.")
    for field, known in _LATER:
        if getattr(execution, field) not in known:
            words = ", ".join(map(repr, known))
            raise ValueError(f"{field} {getattr(execution, field)!r} is not built yet; available: {words}.")
    for field in ("processes", "micro_batch", "checkpoint_every", "keep", "log_every", "threads"):
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
    return STRATEGIES[execution.strategy](device, precision, execution.processes)
