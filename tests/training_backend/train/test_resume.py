"""A run that was killed, stopped and resumed is the run that nothing happened to: through real worker processes, bit for bit."""

from __future__ import annotations

import itertools
import json
import os
import random
import signal
import time
from pathlib import Path
from typing import Any

import pytest

from tests.support.runs import handle_of, wait_until
from tests.support.training import WEIGHTS, changed, training_home
from training_backend.api import RunFailed, RunResult, RunSpec
from training_backend.data.example import TASKS
from training_backend.data.fingerprint import file_sha256
from training_backend.data.manifest import files_version, read_manifest
from training_backend.launch.local import LocalLauncher
from training_backend.launch.processes import is_alive, read_identity, send
from training_backend.pack.sequences import open_batches

STEPS = 60


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("home")


@pytest.fixture(scope="module")
def spec(home: Path) -> RunSpec:
    return changed(training_home(home), steps=STEPS)


@pytest.fixture(scope="module")
def whole(home: Path, spec: RunSpec) -> RunResult:
    """The run that nothing happens to."""
    launcher = LocalLauncher()
    handle = launcher.submit(spec, home / "whole")
    list(launcher.follow(handle))
    return launcher.result(handle)


def summary(run_dir: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((run_dir / "output" / "training.json").read_text())
    return found


def weights(run_dir: Path) -> dict[str, str]:
    return {path.name: file_sha256(path) for path in sorted((run_dir / "output").glob("*.safetensors"))}


def seen(launcher: LocalLauncher, run_dir: Path, spec: RunSpec, name: str) -> list[int]:
    """Steps of the events of a name."""
    return [event.data["step"] for event in launcher.events(handle_of(run_dir, spec), 0)[0] if event.name == name]


def test_the_run_that_nothing_happened_to(home: Path, spec: RunSpec, whole: RunResult) -> None:
    records = summary(home / "whole")["records"]
    assert [record["step"] for record in records] == list(range(5, STEPS + 1, 5))
    assert set(records[0]["tasks"]) == set(WEIGHTS)
    assert records[-1]["loss"] < 0.6 * records[0]["loss"]  # it learns
    for task in WEIGHTS:
        assert records[-1]["tasks"][task] < records[0]["tasks"][task]
    manifest = read_manifest(home / "whole" / "output")
    assert [entry.path for entry in manifest.files] == [
        "loss.png",
        "model-00001-of-00001.safetensors",
        "model.json",
        "training.json",
    ]
    assert whole.data_version == files_version(tuple(e for e in manifest.files if e.path.endswith(".safetensors")))
    assert manifest.recipe["identity"]["steps"] == STEPS
    assert (whole.counts["steps"], whole.counts["skipped_steps"], whole.counts["loss_finite"]) == (STEPS, 0, True)
    assert len(list((home / "whole" / "checkpoints").iterdir())) == spec.execution.keep


def test_every_learned_token_has_the_weight_of_its_task(spec: RunSpec) -> None:
    """1.0, 1.5 and 2.0, as the recipe says, from rows on disk to what the loss reads."""
    found: dict[str, set[float]] = {}
    for batch in itertools.islice(open_batches(spec)(0), 8):
        for task, weight in zip(batch.loss_task.tolist(), batch.loss_weight.tolist(), strict=True):
            if weight:  # padding has none
                found.setdefault(TASKS[task], set()).add(weight)
    assert found == {task: {weight} for task, weight in WEIGHTS.items()}


def test_killed_stopped_damaged_and_resumed_it_is_the_same_run(home: Path, spec: RunSpec, whole: RunResult) -> None:
    run_dir, launcher = home / "interrupted", LocalLauncher()
    handle = launcher.submit(spec, run_dir)
    wait_until(lambda: seen(launcher, run_dir, spec, "checkpoint")[-1:] >= [14], "the second checkpoint", 60)
    worker = read_identity(run_dir / "agent.json")
    assert worker is not None
    os.kill(worker.pid, signal.SIGKILL)
    wait_until(lambda: not is_alive(worker), "its end")
    assert launcher.status(handle) == "interrupted"

    launcher.submit(spec, run_dir)
    wait_until(lambda: seen(launcher, run_dir, spec, "resume"), "the resumption", 60)
    launcher.stop(handle, 60)
    assert launcher.status(handle) == "interrupted"
    with pytest.raises(RunFailed, match="resumes from its last checkpoint"):
        launcher.result(handle)
    *_, previous, stopped = sorted((run_dir / "checkpoints").iterdir())
    saved = seen(launcher, run_dir, spec, "checkpoint")
    assert stopped.name == f"step-{saved[-1]:08d}"
    assert seen(launcher, run_dir, spec, "resume")[0] in saved

    data = bytearray((stopped / "model.safetensors").read_bytes())
    data[-3] ^= 64
    (stopped / "model.safetensors").write_bytes(data)
    # Where the state is kept and how often changes nothing. (Another micro-batch would add the same numbers in another order.)
    launcher.submit(changed(spec, {"checkpoint_every": 13, "keep": 1}), run_dir)
    events = list(launcher.follow(handle))
    (warning,) = [event.data["message"] for event in events if event.name == "warning"]
    assert warning.startswith("a checkpoint was passed over: ")
    assert f"{stopped.name}/model.safetensors differs" in warning
    assert f"step-{seen(launcher, run_dir, spec, 'resume')[-1]:08d}" == previous.name
    assert events[-1].name == "done"
    assert weights(run_dir) == weights(home / "whole")
    assert (run_dir / "output" / "training.json").read_bytes() == (home / "whole" / "output" / "training.json").read_bytes()
    assert launcher.result(handle).data_version == whole.data_version
    assert launcher.result(handle).counts == whole.counts


@pytest.mark.slow
def test_more_ranks_than_the_strategy_has_are_refused_by_each(home: Path, spec: RunSpec) -> None:
    run_dir, launcher = home / "two", LocalLauncher()
    handle = launcher.submit(changed(spec, {"processes": 2}), run_dir)
    list(launcher.follow(handle))
    assert launcher.status(handle) == "failed"
    with pytest.raises(RunFailed) as caught:
        launcher.result(handle)
    sentence = "strategy 'single' runs one process, not 2; set processes to 1, or strategy to ddp."
    assert str(caught.value).splitlines()[0] == f"The run two failed: ValueError: {sentence}"
    assert not (run_dir / "checkpoints").exists()
    assert list(run_dir.glob("output*")) == []


@pytest.mark.slow
def test_killed_again_and_again_at_any_moment(home: Path, spec: RunSpec, whole: RunResult) -> None:
    """While it loads, steps, saves, publishes: every kill is a resumption, and the end is the same."""
    run_dir, rng = home / "hunted", random.Random(0)
    for _ in range(12):
        launcher = LocalLauncher()
        handle = launcher.submit(spec, run_dir)
        worker = read_identity(run_dir / "agent.json")
        assert worker is not None
        began, saved = time.monotonic(), len(seen(launcher, run_dir, spec, "checkpoint"))
        patience = rng.uniform(0.0, 1.0) if rng.random() < 0.3 else 60.0
        while time.monotonic() - began < patience and launcher.status(handle) == "running":
            if len(seen(launcher, run_dir, spec, "checkpoint")) > saved:
                time.sleep(rng.uniform(0.0, 0.3))
                break
            time.sleep(0.01)
        send(worker, signal.SIGKILL)
        wait_until(lambda: launcher.status(handle) != "running", "its end")  # noqa: B023 - called at once
    launcher.submit(spec, run_dir)
    list(launcher.follow(handle))
    assert weights(run_dir) == weights(home / "whole")
    assert (run_dir / "output" / "training.json").read_bytes() == (home / "whole" / "output" / "training.json").read_bytes()
    assert launcher.result(handle).data_version == whole.data_version
