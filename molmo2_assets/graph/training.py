"""Run specs become assets: submitting, following, showing progress, detaching.

Belongs here: the bridge between a step and a launcher. Does not belong here: identities (`stages.py`), processes
(`training_backend.launch`). No step in this process imports torch.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dagster as dg

from molmo2_assets.graph.step import Step, link_files
from training_backend.api import Event, Launcher, RunFailed, RunHandle, RunResult, RunSpec, decode_spec
from training_backend.registry import find_launcher

MAX_OBSERVATIONS = 100
_LOG_SECONDS = 30.0
_GRPC_TAG = ".dagster/grpc_info"
"""Set on runs that a daemon or server launched; runs of the command line have none."""


def execute(step: Step, spec: RunSpec) -> RunResult:
    """Make sure the run is done, following it meanwhile, and link its files into the step's folder.

    Cancelled in the UI, or Ctrl-C on a terminal: the run is stopped, after saving. Anything else that ends this process, a dying
    daemon or a closed window, leaves it alive; the next materialisation attaches to it. Raises dg.Failure.
    """
    launcher = find_launcher(spec.execution.launcher)
    run_dir = step.home.runs / spec.run_name
    handle = launcher.submit(spec, run_dir)
    step.log(
        f"molmo2: {spec.kind} run {spec.run_name}: {launcher.status(handle)}; attach with `molmo2 runs attach {spec.run_name}`"
    )
    try:
        _follow(step, launcher, handle, spec)
        result = launcher.result(handle)
    except (dg.DagsterExecutionInterruptedError, KeyboardInterrupt):
        if _asked_to_stop(step.context):
            step.log(f"stopping {spec.run_name}, up to {spec.execution.grace_seconds:.0f} s for it to save")
            launcher.stop(handle, spec.execution.grace_seconds)
        else:
            step.log(f"this process is going away; {spec.run_name} lives on. `molmo2 runs stop {spec.run_name}` ends it.")
        raise
    except RunFailed as error:
        raise dg.Failure(description=str(error), metadata={"log": dg.MetadataValue.path(str(run_dir / "worker.log"))}) from None
    link_files(Path(result.output), step.folder)
    return result


DATA = ("sequences", "mixture", "tokenizer", "validated", "init")
"""Parts of a train run's identity that are versions of what it reads."""


def mind_other_data(spec: RunSpec, runs: Path, policy: str) -> None:
    """Stop where half of this stage is trained on other data and the profile does not want that thrown away (`on_data_change`).

    `restart` lets it lie and starts anew. Raises dg.Failure naming the run, its step and what changed.
    """
    if policy == "restart":
        return
    for folder in sorted(runs.glob("train-*")):
        saved = sorted(folder.glob("checkpoints/step-*"))
        if folder.name == spec.run_name or not saved or (folder / "result.json").is_file():
            continue
        other = decode_spec((folder / "spec.json").read_bytes()).identity
        changed = sorted(name for name in {*other, *spec.identity} if other.get(name) != spec.identity.get(name))
        if not changed or not set(changed) <= set(DATA):
            continue
        before, now = other.get("validated", {}), spec.identity.get("validated", {})
        sets = sorted(name for name in {*before, *now} if before.get(name) != now.get(name))
        what = ", ".join(sets[:5]) + (" …" if len(sets) > 5 else "") or ", ".join(changed)
        step = int(saved[-1].name.removeprefix("step-"))
        way = "`continue` is not built yet" if policy == "continue" else "the profile says on_data_change: refuse"
        raise dg.Failure(
            description=f"{spec.identity['stage']}: {folder.name} stands at step {step} of {spec.identity['steps']} with other "
            f"data (changed: {what}) and {way}. Put the data back to finish it, set on_data_change: restart to begin anew, "
            f"or remove {folder} if nobody needs it.",
            allow_retries=False,
        )


def _asked_to_stop(context: dg.AssetExecutionContext) -> bool:
    """Dagster raises the same interrupt for a cancel and for a dying daemon; the run's status tells them apart."""
    run = context.instance.get_run_by_id(context.run.run_id)
    if run is not None and run.status in (dg.DagsterRunStatus.CANCELING, dg.DagsterRunStatus.CANCELED):
        return True
    launched_by_server = run is not None and _GRPC_TAG in run.tags
    return not launched_by_server and sys.stdin is not None and sys.stdin.isatty()


def _follow(step: Step, launcher: Launcher, handle: RunHandle, spec: RunSpec) -> None:
    spoke = time.monotonic()
    pulse = _Pulse(step, int(spec.identity.get("steps", 0)))
    for event in _events(launcher, handle):
        if event.name == "step":
            pulse.beat(event.data)
            if time.monotonic() - spoke > _LOG_SECONDS:
                step.log(
                    f"molmo2: step {event.data['step']}/{pulse.steps}, loss {event.data['loss']:.3f}, "
                    f"{event.data['tokens_per_second']:.0f} tokens/s"
                )
                spoke = time.monotonic()
        elif event.name == "warning":
            step.context.log.warning(str(event.data.get("message")))
        elif event.name in ("resume", "failed", "stopped"):
            step.log(f"molmo2: {event.name} {event.data}")
        elif event.name == "log" and time.monotonic() - spoke > _LOG_SECONDS:
            step.log(f"molmo2: {event.data.get('message')}")
            spoke = time.monotonic()


def _events(launcher: Launcher, handle: RunHandle) -> Iterator[Event]:
    return launcher.follow(handle)


class _Pulse:
    """At most MAX_OBSERVATIONS observations of a training run, evenly over its steps: Dagster draws them live."""

    def __init__(self, step: Step, steps: int) -> None:
        self.step, self.steps = step, steps
        self.every = max(1, steps // MAX_OBSERVATIONS + (steps % MAX_OBSERVATIONS > 0))
        self.next = 0

    def beat(self, data: dict[str, Any]) -> None:
        if data["step"] < self.next and data["step"] != self.steps:
            return
        self.next = data["step"] + self.every
        metadata = {
            "step": int(data["step"]),
            "loss": float(data["loss"]),
            "tokens_per_second": float(data["tokens_per_second"]),
            **{f"loss/{task}": float(value) for task, value in data["tasks"].items()},
        }
        key = dg.AssetKey(self.step.key.split("/"))
        self.step.context.log_event(dg.AssetObservation(asset_key=key, metadata=metadata))
