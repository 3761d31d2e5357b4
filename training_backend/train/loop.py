"""The training loop: packs in, steps, events, checkpoints, weights out.

Belongs here: the order of things in a step. Everything with a subject of its own is next door: batches (`pack/`), loss, optimiser,
guard, state, pictures.

A step takes `global_batch` packs, shared out over the ranks. Its loss is the sum over all their weighted tokens divided once by the
sum of those weights, which is known before the first backward; nothing is averaged before that. Rank 0 alone writes: events,
checkpoints, the result.
"""

from __future__ import annotations

import itertools
import shutil
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import torch
from lightning_fabric import Fabric
from lightning_fabric.wrappers import _FabricModule
from torch import Tensor, nn

from training_backend.api import Execution, RunSpec, Stopped
from training_backend.checkpoint.saver import Saver
from training_backend.checkpoint.state import TrainState, load_state, restore_model
from training_backend.config import ModelConfig, StageConfig
from training_backend.data.example import TASKS
from training_backend.data.manifest import read_manifest
from training_backend.encode.draws import position_keys
from training_backend.model.molmo2 import PARTS, Molmo2, TensorBatch
from training_backend.model.weights import load_model, save_model
from training_backend.pack.batch import Batch
from training_backend.parallel.ranks import Ranks
from training_backend.parallel.strategies import check_execution, make_fabric
from training_backend.train.events import EventWriter
from training_backend.train.flops import batch_flops, peak_flops
from training_backend.train.guard import Guard
from training_backend.train.loss import weighted_cross_entropy
from training_backend.train.meter import Meter
from training_backend.train.optim import build_optimizer, clip_by_part, load_named_state, named_state, set_rates
from training_backend.train.picture import draw_losses

LOG_SECONDS = 30.0
_DROPOUT = 2 << 64
"""Separates the stream that seeds dropout from those that draw positions and order packs."""


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

    def forward(self, tensors: dict[str, Tensor], seeds: list[int]) -> tuple[Tensor, Tensor, Tensor]:
        batch = TensorBatch(**tensors)
        hidden = self.model(batch, self.stage.dropout.residual, self.stage.dropout.response, seeds)
        return weighted_cross_entropy(
            hidden, self.model.head_weight, batch.loss_index, batch.loss_target, batch.loss_weight, batch.loss_task,
            len(TASKS), self.stage.loss.chunk, self.stage.loss.z_loss,
        )  # fmt: skip


@dataclass
class _Progress:
    """What a run carries from step to step beside model and optimiser."""

    guard: Guard
    meter: Meter
    ranks: Ranks
    records: list[dict[str, Any]] = field(default_factory=list)
    totals: dict[str, float] = field(default_factory=lambda: {"tokens": 0.0, "examples": 0.0, "seconds": 0.0, "failures": 0.0})


def train(plan: TrainPlan, run_dir: Path, out: Path, batches: Callable[[int], Iterator[Batch]], events: EventWriter,
          stop_requested: Callable[[], bool], log: Callable[[str], None]) -> dict[str, Any]:  # fmt: skip
    """Train to the last step and write weights, model.json, loss.png and training.json into `out`.

    `batches(first_pack)` yields micro-batches from that pack on. Raises Stopped after saving, when asked to stop; RunDiverged.
    Returns {"counts", "facts"} of the result; of other ranks than 0 nothing.
    """
    stage, execution = plan.stage, plan.execution
    torch.manual_seed(stage.seed)
    torch.set_num_threads(execution.threads)
    fabric = make_fabric(execution, stage.precision)
    fabric.launch()
    torch.use_deterministic_algorithms(fabric.device.type == "cpu")
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]  # NaN in every new tensor: 1 %
    model = load_model(plan.init, plan.model) if plan.init else Molmo2(plan.model)
    if not plan.init:
        model.init_weights(stage.seed)
    model.attention = execution.attention
    optimizer_ = build_optimizer(model, stage.optim)
    module, optimizer = fabric.setup(_LossModule(model, stage), optimizer_)
    run = _Progress(Guard(stage.guard, fabric.device), Meter(fabric.device), Ranks(fabric))
    first = _resume(plan, run_dir, model, optimizer_, run, events)
    _check_agreed(first, run.ranks)
    meter, guard, records, ranks = run.meter, run.guard, run.records, run.ranks
    micro_batches = stage.global_batch // (execution.micro_batch * ranks.world)
    stream = batches(first * stage.global_batch)
    spoke = drawn = time.monotonic()
    device = torch.cuda.get_device_name() if fabric.device.type == "cuda" else ""
    with Saver(run_dir / "checkpoints", plan.fingerprint, execution.keep, lambda at: events.emit("checkpoint", step=at)) as saver:
        for step in range(first, stage.steps):
            waited = time.monotonic()
            group = list(itertools.islice(stream, micro_batches))
            meter.wait += time.monotonic() - waited
            loss, task_losses, task_weights = _accumulate(plan, fabric, module, group, step, run)
            rates = set_rates(optimizer_, stage.optim, step, stage.steps)
            norms = clip_by_part(optimizer_, stage.optim.clip)
            refused = guard.refuse(loss, norms)
            optimizer_.found_inf = refused  # type: ignore[attr-defined]
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
            meter.step(task_losses, task_weights, norms, refused)
            done = step + 1
            if done % execution.log_every == 0 or done == stage.steps:
                _write_record(done, run, rates, events, device)
                _check_diverged(stage, guard, done)
            now = time.monotonic()
            if now - spoke > LOG_SECONDS and ranks.rank == 0:
                log(f"step {done}/{stage.steps}, loss {records[-1]['loss'] if records else float(loss):.3f}")
                spoke = now
            if records and now - drawn > LOG_SECONDS:
                draw_losses(records, run_dir / "loss.png", plan.name)
                drawn = now
            stopping = ranks.any(stop_requested()) and done < stage.steps
            if stopping or (done % execution.checkpoint_every == 0 and done < stage.steps):
                meter.gather(ranks)
                if ranks.rank == 0:
                    saver.save(_state(plan, done, model, optimizer_, run))
            saver.check()
            if stopping:
                saver.wait()
                ranks.wait()  # torchrun ends all ranks when the first has ended, and one may still be writing
                raise Stopped(f"stopped after step {done} of {stage.steps} as asked")
    if int(guard.skipped) == stage.steps:
        raise RunDiverged(f"the guard skipped all {stage.steps} steps: no loss or gradient was finite.")
    ranks.close()
    return _finish(plan, out, run_dir, model, run) if ranks.rank == 0 else {}


def _accumulate(plan: TrainPlan, fabric: Fabric, module: _FabricModule, group: list[Batch], step: int,
                run: _Progress) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    """Gradients of one step over its micro-batches. Returns its loss, and loss and weight by task, detached."""
    ranks, size = run.ranks, plan.execution.micro_batch
    loss = torch.zeros((), device=fabric.device)
    by_task, weight_by_task = (torch.zeros(len(TASKS), device=fabric.device) for _ in range(2))
    # Needed for the first backward only: a rank whose data came late has the first forward to catch up.
    weights = ranks.begin_host_sum([sum(float(batch.loss_weight.sum(dtype=np.float64)) for batch in group)])
    for number, batch in enumerate(group):
        tensors = {name: torch.from_numpy(getattr(batch, name)).to(fabric.device) for name in TensorBatch.__slots__}
        pack = step * plan.stage.global_batch + (number * ranks.world + ranks.rank) * size
        with fabric.no_backward_sync(module, enabled=number + 1 < len(group)):
            total, task_loss, task_weight = module(tensors, dropout_seeds(plan.stage.seed, pack, len(batch.tokens)))
            [weight] = weights()  # where it is 0 the loss is 0/0, which the guard refuses
            fabric.backward(total / weight)
        loss += total.detach() / weight
        by_task += task_loss
        weight_by_task += task_weight
        run.meter.batch(batch, batch_flops(plan.model, batch))
    sums = ranks.device_sum(torch.cat([by_task, weight_by_task, loss[None]]))
    return sums[-1], sums[: len(TASKS)], sums[len(TASKS) : -1]


def dropout_seeds(seed: int, pack: int, packs: int) -> list[int]:
    """Seed of the dropout of each of `packs` packs from number `pack` on, by the run's seed and the pack's number alone."""
    return [int(key) for key in position_keys(seed + _DROPOUT, pack, packs)]


def _state(plan: TrainPlan, step: int, model: Molmo2, optimizer: torch.optim.Optimizer, run: _Progress) -> TrainState:
    return TrainState(
        step=step, model=dict(model.state_dict()), optimizer=named_state(optimizer), guard=run.guard.state(),
        meter=run.meter.tensors(), counts=run.meter.counts(), loader={"next_pack": step * plan.stage.global_batch},
        records=run.records, totals=run.totals,
    )  # fmt: skip


def _resume(plan: TrainPlan, run_dir: Path, model: Molmo2, optimizer: torch.optim.Optimizer, run: _Progress,
            events: EventWriter) -> int:  # fmt: skip
    """Restore the newest valid state; returns the first step to take."""
    state, passed = load_state(run_dir / "checkpoints", plan.fingerprint)
    for sentence in passed:
        events.emit("warning", message=f"a checkpoint was passed over: {sentence}")
    if state is None:
        events.emit("start", steps=plan.stage.steps)
        return 0
    restore_model(model, state.model)
    load_named_state(optimizer, state.optimizer)
    run.guard.load(state.guard)
    run.meter.load(state.meter, state.counts, run.ranks)
    run.records.extend(state.records)
    run.totals.update(state.totals)
    events.emit("resume", step=state.step, steps=plan.stage.steps)
    return state.step


def _check_agreed(first: int, ranks: Ranks) -> None:
    if ranks.host_sum([first])[0] != first * ranks.world:
        raise RuntimeError(f"rank {ranks.rank} resumes after step {first}, others elsewhere: do all see the same run directory?")


def _check_diverged(stage: StageConfig, guard: Guard, done: int) -> None:
    at, most = int(guard.diverged_at), stage.guard.max_consecutive
    if at:
        raise RunDiverged(
            f"{most} steps in a row, {at - most + 1} to {at}, had a loss or a gradient that is not finite, or a loss that jumped; "
            f"of {done} steps {int(guard.skipped)} were skipped. Lower the learning rate, or look at packs "
            f"{(at - most) * stage.global_batch} to {at * stage.global_batch - 1}."
        )


def _write_record(step: int, run: _Progress, rates: dict[str, float], events: EventWriter, device_name: str) -> None:
    """One point of the loss curve; also an event. This is where the device is waited for."""
    meter, totals = run.meter, run.totals
    meter.gather(run.ranks)
    if run.ranks.rank > 0:
        meter.reset()
        return
    loss, weight, taken = meter.loss.tolist(), meter.weight.tolist(), int(meter.taken)
    seconds = meter.elapsed()
    if taken:
        tasks = {name: loss[n] / weight[n] for n, name in enumerate(TASKS) if weight[n] > 0}
        record = {"step": step, "loss": sum(loss) / max(sum(weight), 1e-30), "tasks": tasks}
        run.records.append(record)
        norms = dict(zip(PARTS, (meter.norms / taken).tolist(), strict=True))
        peak = peak_flops(device_name)
        events.emit(
            "step", **record, norms=norms, rates=rates, tokens_per_second=meter.tokens / seconds,
            examples_per_second=meter.examples / seconds, teraflops=meter.flops / seconds / 1e12,
            mfu=meter.flops / seconds / peak if peak else None, fill=meter.tokens / meter.positions,
            wait_share=meter.wait / (seconds * run.ranks.world), skipped=int(run.guard.skipped), failures=meter.failures,
            memory_bytes=torch.cuda.max_memory_allocated() if device_name else None,
        )  # fmt: skip
    if taken < meter.steps:
        many = meter.steps - taken
        events.emit("warning", message=f"the guard skipped {many} of the {meter.steps} steps up to step {step}", step=step)
    totals["tokens"] += meter.tokens
    totals["examples"] += meter.examples
    totals["failures"] += meter.failures
    totals["seconds"] += seconds
    meter.reset()


def _finish(plan: TrainPlan, out: Path, run_dir: Path, model: Molmo2, run: _Progress) -> dict[str, Any]:
    """Weights, picture and summary of a finished run. The weights are read back before anyone may call them finished."""
    records, totals = run.records, run.totals
    save_model(out, model)
    reloaded = load_model(out, plan.model).state_dict()
    for name, tensor in model.state_dict().items():
        if not torch.equal(tensor.detach().cpu(), reloaded[name]):
            raise RuntimeError(f"{out}: {name} was written but reads back differently; check the disk.")
    draw_losses(records, run_dir / "loss.png", plan.name)
    shutil.copyfile(run_dir / "loss.png", out / "loss.png")
    finite = all(np.isfinite(record["loss"]) for record in records)
    summary = {
        "steps": plan.stage.steps, "first": records[0], "last": records[-1], "tokens": int(totals["tokens"]),
        "examples": int(totals["examples"]), "failures": int(totals["failures"]), "skipped_steps": int(run.guard.skipped),
        "parameters": sum(parameter.numel() for parameter in model.parameters()), "loss_finite": bool(finite),
    }  # fmt: skip
    (out / "training.json").write_bytes(msgspec.json.format(msgspec.json.encode({**summary, "records": records}), indent=1))
    return {"counts": summary, "facts": {"seconds": totals["seconds"], "tokens_per_second": totals["tokens"] / totals["seconds"]}}


def read_plan(spec: RunSpec) -> TrainPlan:
    """The typed plan of a train run spec. Raises ValueError for what is not built or does not belong together."""
    identity, execution = spec.identity, spec.execution
    stage = msgspec.convert({name: identity[name] for name in StageConfig.__struct_fields__ if name in identity}, StageConfig)
    if "model" not in identity:
        raise ValueError("the identity of a train run needs `model`, a ModelConfig.")
    check_execution(execution, stage.context_parallel)
    if stage.steps < 1 or stage.global_batch < 1:
        raise ValueError(f"steps is {stage.steps} and global_batch {stage.global_batch}; both must be at least 1.")
    if stage.global_batch % (execution.processes * execution.micro_batch):
        raise ValueError(
            f"global_batch {stage.global_batch} is not a multiple of {execution.processes} processes × micro-batch "
            f"{execution.micro_batch}"
        )
    model = msgspec.convert(identity["model"], ModelConfig)
    if model.connector.dropout:
        raise ValueError(f"connector.dropout is {model.connector.dropout}; no recipe drops there and it is not built: set it to 0.")
    init = Path(spec.inputs["init"]) if "init" in spec.inputs else None
    wanted, found = identity.get("init"), read_manifest(init).data_version if init else None
    if wanted != found:
        raise ValueError(f"the run starts from weights {wanted or 'of its own'}, its input `init` holds {found or 'nothing'}.")
    return TrainPlan(
        model=model,
        stage=stage,
        execution=execution,
        fingerprint=spec.fingerprint,
        name=str(identity.get("stage", "train")),
        init=init,
    )
