"""The training loop: packs in, steps, events, checkpoints, weights out.

Belongs here: the order of things in a step. Everything with a subject of its own is next door: batches (`pack/`), loss, optimiser,
guard, state, pictures.

A step takes `global_batch` packs. Its loss is the sum over all their weighted tokens divided once by the sum of those weights,
which is known before the first backward; nothing is averaged before that.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from training_backend.api import Execution, RunSpec
from training_backend.checkpoint.state import TrainState, load_state, restore_model, save_state
from training_backend.config import ModelConfig, StageConfig
from training_backend.data.example import TASKS
from training_backend.model.molmo2 import PARTS, Molmo2, TensorBatch
from training_backend.model.weights import load_model, save_model
from training_backend.pack.batch import Batch
from training_backend.parallel.strategies import make_fabric
from training_backend.train.events import EventWriter
from training_backend.train.flops import batch_flops, peak_flops
from training_backend.train.guard import Guard
from training_backend.train.loss import weighted_cross_entropy
from training_backend.train.optim import build_optimizer, clip_by_part, load_named_state, named_state, set_rates
from training_backend.train.picture import draw_losses

LOG_SECONDS = 30.0


class Stopped(Exception):
    """The run saved its state and stopped because it was asked to."""


class RunDiverged(RuntimeError):
    """Too many steps in a row were refused by the guard."""


@dataclass(frozen=True)
class TrainPlan:
    """A train run spec, typed."""

    model: ModelConfig
    stage: StageConfig
    execution: Execution
    fingerprint: str
    name: str
    init: Path | None


class _LossModule(nn.Module):
    """Forward and loss in one call, so that a wrapping strategy sees every parameter used."""

    def __init__(self, model: Molmo2, stage: StageConfig) -> None:
        super().__init__()
        self.model = model
        self.stage = stage

    def forward(self, tensors: dict[str, Tensor], seed: int) -> tuple[Tensor, Tensor, Tensor]:
        batch = TensorBatch(**tensors)
        hidden = self.model(batch, self.stage.dropout.residual, self.stage.dropout.response, seed)
        return weighted_cross_entropy(
            hidden, self.model.head_weight, batch.loss_index, batch.loss_target, batch.loss_weight, batch.loss_task,
            len(TASKS), self.stage.loss.chunk, self.stage.loss.z_loss,
        )  # fmt: skip


class _Meter:
    """What happened since the last record, kept on the device until it is logged."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.reset()

    def reset(self) -> None:
        self.loss = torch.zeros(len(TASKS), device=self.device)
        self.weight = torch.zeros(len(TASKS), device=self.device)
        self.norms = torch.zeros(len(PARTS), device=self.device)
        self.steps = self.tokens = self.examples = self.failures = self.positions = 0
        self.flops = self.wait = 0.0
        self.started = time.monotonic()

    def count(self, batch: Batch, flops: float) -> None:
        self.tokens += batch.filled
        self.positions += batch.tokens.size
        self.examples += batch.examples
        self.failures += batch.failures
        self.flops += flops


def train(plan: TrainPlan, run_dir: Path, out: Path, batches: Callable[[int], Iterator[Batch]], events: EventWriter,
          stop_requested: Callable[[], bool], log: Callable[[str], None]) -> dict[str, Any]:  # fmt: skip
    """Train to the last step and write weights, model.json, loss.png and training.json into `out`.

    `batches(first_pack)` yields micro-batches from that pack on. Raises Stopped after saving, when asked to stop; RunDiverged.
    Returns {"counts", "facts"} of the result.
    """
    stage, execution = plan.stage, plan.execution
    torch.manual_seed(stage.seed)
    torch.set_num_threads(execution.threads)
    fabric = make_fabric(execution, stage.precision)
    fabric.launch()
    torch.use_deterministic_algorithms(fabric.device.type == "cpu")
    model = load_model(plan.init, plan.model) if plan.init else Molmo2(plan.model)
    if not plan.init:
        model.init_weights(stage.seed)
    optimizer_ = build_optimizer(model, stage.optim)
    module, optimizer = fabric.setup(_LossModule(model, stage), optimizer_)
    guard = Guard(stage.guard, fabric.device)
    meter = _Meter(fabric.device)
    records: list[dict[str, Any]] = []
    totals = {"tokens": 0.0, "examples": 0.0, "seconds": 0.0, "failures": 0.0}
    first = _resume(plan, run_dir, model, optimizer_, guard, records, totals, events)
    micro_batches = stage.global_batch // execution.micro_batch
    stream = batches(first * stage.global_batch)
    spoke = drawn = time.monotonic()
    name = torch.cuda.get_device_name() if fabric.device.type == "cuda" else ""
    for step in range(first, stage.steps):
        waited = time.monotonic()
        group = list(itertools.islice(stream, micro_batches))
        meter.wait += time.monotonic() - waited
        weight = float(sum(float(batch.loss_weight.sum(dtype=np.float64)) for batch in group))
        loss = torch.zeros((), device=fabric.device)
        for number, batch in enumerate(group):
            tensors = {field: torch.from_numpy(getattr(batch, field)).to(fabric.device) for field in TensorBatch.__slots__}
            total, task_loss, task_weight = module(tensors, step * micro_batches + number)
            fabric.backward(total / weight)
            loss += total.detach() / weight
            meter.loss += task_loss
            meter.weight += task_weight
            meter.count(batch, batch_flops(plan.model, batch))
        rates = set_rates(optimizer_, stage.optim, step, stage.steps)
        norms = clip_by_part(optimizer_, stage.optim.clip)
        optimizer_.found_inf = guard.refuse(loss, norms)  # type: ignore[attr-defined]
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        meter.norms += norms
        meter.steps += 1
        done = step + 1
        if done % execution.log_every == 0 or done == stage.steps:
            records.append(_record(done, meter, guard, rates, totals, events, name))
            if int(guard.in_a_row) >= stage.guard.max_consecutive:
                raise RunDiverged(
                    f"{stage.guard.max_consecutive} steps in a row up to step {done} had a loss or gradient that is not finite or "
                    f"jumped; the newest is loss {float(loss):.4g}. Lower the learning rate, or look at the packs near "
                    f"{step * stage.global_batch} with `molmo2 preview`."
                )
        now = time.monotonic()
        if now - spoke > LOG_SECONDS:
            log(f"step {done}/{stage.steps}, loss {records[-1]['loss'] if records else float(loss):.3f}")
            spoke = now
        if records and now - drawn > LOG_SECONDS:
            draw_losses(records, run_dir / "loss.png", plan.name)
            drawn = now
        stopping = stop_requested() and done < stage.steps
        if stopping or (done % execution.checkpoint_every == 0 and done < stage.steps):
            state = TrainState(
                step=done, model=dict(model.state_dict()), optimizer=named_state(optimizer_), guard=guard.state(),
                loader={"next_pack": done * stage.global_batch}, records=records, totals=totals,
            )  # fmt: skip
            save_state(run_dir / "checkpoints", state, plan.fingerprint, execution.keep)
            events.emit("checkpoint", step=done)
        if stopping:
            raise Stopped(f"stopped after step {done} of {stage.steps} as asked")
    return _finish(plan, out, run_dir, model, records, totals, guard, peak_flops(name))


def _resume(plan: TrainPlan, run_dir: Path, model: Molmo2, optimizer: torch.optim.Optimizer, guard: Guard,
            records: list[dict[str, Any]], totals: dict[str, float], events: EventWriter) -> int:  # fmt: skip
    """Restore the newest valid state; returns the first step to take."""
    state, passed = load_state(run_dir / "checkpoints", plan.fingerprint)
    for sentence in passed:
        events.emit("warning", message=f"a checkpoint was passed over: {sentence}")
    if state is None:
        events.emit("start", steps=plan.stage.steps)
        return 0
    restore_model(model, state.model)
    load_named_state(optimizer, state.optimizer)
    guard.load(state.guard)
    records.extend(state.records)
    totals.update(state.totals)
    events.emit("resume", step=state.step, steps=plan.stage.steps)
    return state.step


def _record(step: int, meter: _Meter, guard: Guard, rates: dict[str, float], totals: dict[str, float], events: EventWriter,
            device_name: str) -> dict[str, Any]:  # fmt: skip
    """One line of the loss curve; also an event. This is where the device is waited for."""
    loss, weight = meter.loss.tolist(), meter.weight.tolist()
    seconds = time.monotonic() - meter.started
    tasks = {name: loss[n] / weight[n] for n, name in enumerate(TASKS) if weight[n] > 0}
    record = {"step": step, "loss": sum(loss) / max(sum(weight), 1e-30), "tasks": tasks}
    norms = dict(zip(PARTS, (meter.norms / meter.steps).tolist(), strict=True))
    peak = peak_flops(device_name)
    events.emit(
        "step", **record, norms=norms, rates=rates, tokens_per_second=meter.tokens / seconds,
        examples_per_second=meter.examples / seconds, teraflops=meter.flops / seconds / 1e12,
        mfu=meter.flops / seconds / peak if peak else None, fill=meter.tokens / meter.positions,
        wait_share=meter.wait / seconds, skipped=int(guard.skipped), failures=meter.failures,
        memory_bytes=torch.cuda.max_memory_allocated() if device_name else None,
    )  # fmt: skip
    totals["tokens"] += meter.tokens
    totals["examples"] += meter.examples
    totals["failures"] += meter.failures
    totals["seconds"] += seconds
    meter.reset()
    return record


def _finish(plan: TrainPlan, out: Path, run_dir: Path, model: Molmo2, records: list[dict[str, Any]], totals: dict[str, float],
            guard: Guard, peak: float | None) -> dict[str, Any]:  # fmt: skip
    """Weights, picture and summary of a finished run. The weights are read back before anyone may call them finished."""
    import msgspec

    save_model(out, model)
    reloaded = load_model(out, plan.model).state_dict()
    for name, tensor in model.state_dict().items():
        if not torch.equal(tensor.detach().cpu(), reloaded[name]):
            raise RuntimeError(f"{out}: {name} was written but reads back differently; check the disk.")
    draw_losses(records, out / "loss.png", plan.name)
    draw_losses(records, run_dir / "loss.png", plan.name)
    finite = all(np.isfinite(record["loss"]) for record in records)
    summary = {
        "steps": plan.stage.steps, "first": records[0], "last": records[-1], "tokens": int(totals["tokens"]),
        "examples": int(totals["examples"]), "failures": int(totals["failures"]), "skipped_steps": int(guard.skipped),
        "parameters": sum(parameter.numel() for parameter in model.parameters()), "loss_finite": bool(finite),
    }  # fmt: skip
    (out / "training.json").write_bytes(msgspec.json.format(msgspec.json.encode({**summary, "records": records}), indent=1))
    return {"counts": summary, "facts": {"seconds": totals["seconds"], "tokens_per_second": totals["tokens"] / totals["seconds"]}}


def read_plan(spec: RunSpec) -> TrainPlan:
    """The typed plan of a train run spec. Raises ValueError for a batch that the micro-batch does not divide."""
    import msgspec

    identity = spec.identity
    fields = {name: identity[name] for name in StageConfig.__struct_fields__ if name in identity}
    stage = msgspec.convert(fields, StageConfig)
    ranks = spec.execution.processes * spec.execution.micro_batch
    if stage.global_batch % ranks:
        raise ValueError(
            f"global_batch {stage.global_batch} is not a multiple of {spec.execution.processes} processes × micro-batch "
            f"{spec.execution.micro_batch}"
        )
    return TrainPlan(
        model=msgspec.convert(identity["model"], ModelConfig),
        stage=stage,
        execution=spec.execution,
        fingerprint=spec.fingerprint,
        name=str(identity.get("stage", "train")),
        init=Path(spec.inputs["init"]) if "init" in spec.inputs else None,
    )
