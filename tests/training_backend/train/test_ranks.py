"""Two ranks under torchrun train what one trains: real worker processes, gloo, gradients summed over what each has read."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from tests.support.runs import handle_of, identities, wait_until
from tests.support.training import changed, training_home
from training_backend.api import RunSpec
from training_backend.data.fingerprint import file_sha256
from training_backend.launch.local import LocalLauncher
from training_backend.launch.processes import is_alive

STEPS = 20
TWO = {"strategy": "ddp", "processes": 2, "micro_batch": 1}
"""Of the four packs of a step each rank has two, one at a time: gradients meet in the second backward alone."""


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("home")


@pytest.fixture(scope="module")
def spec(home: Path) -> RunSpec:
    return changed(training_home(home), {"checkpoint_every": 6, "log_every": 4}, steps=STEPS)


@pytest.fixture(scope="module")
def pair(home: Path, spec: RunSpec) -> Path:
    """The run of two ranks that nothing happens to."""
    return done(home / "pair", changed(spec, TWO))


@pytest.fixture(scope="module")
def alone(home: Path, spec: RunSpec) -> Path:
    return done(home / "alone", spec)


def done(run_dir: Path, spec: RunSpec) -> Path:
    launcher = LocalLauncher()
    handle = launcher.submit(spec, run_dir)
    list(launcher.follow(handle))
    launcher.result(handle)
    return run_dir


def summary(run_dir: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((run_dir / "output" / "training.json").read_text())
    return found


def steps(run_dir: Path, spec: RunSpec, name: str) -> list[dict[str, Any]]:
    return [event.data for event in LocalLauncher().events(handle_of(run_dir, spec), 0)[0] if event.name == name]


def tensors(run_dir: Path) -> dict[str, torch.Tensor]:
    return {name: value for path in sorted((run_dir / "output").glob("*.safetensors")) for name, value in load_file(path).items()}


def hashes(run_dir: Path) -> list[str]:
    return [file_sha256(path) for path in sorted((run_dir / "output").glob("*.safetensors"))]


def assert_the_same_run(one: Path, two: Path) -> None:
    """Up to the order in which the same numbers were added."""
    mine, theirs = summary(one), summary(two)
    for record, other in zip(mine.pop("records"), theirs.pop("records"), strict=True):
        assert record["step"] == other["step"]
        assert record["loss"] == pytest.approx(other["loss"], rel=1e-4)
        assert record["tasks"] == pytest.approx(other["tasks"], rel=1e-4)
    for field in ("first", "last"):
        del mine[field], theirs[field]
    assert mine == theirs  # tokens, examples, failures: counted once each, whoever read them
    weights = tensors(two)
    for name, value in tensors(one).items():
        torch.testing.assert_close(value, weights[name], rtol=1e-3, atol=1e-4)


def test_two_are_as_one(spec: RunSpec, pair: Path, alone: Path) -> None:
    assert_the_same_run(pair, alone)
    assert {path.name for path in (pair / "ranks").iterdir()} == {"0.json", "1.json"}
    for mine, theirs in zip(steps(pair, spec, "step"), steps(alone, spec, "step"), strict=True):
        assert mine["norms"] == pytest.approx(theirs["norms"], rel=1e-3)
        assert mine["fill"] == theirs["fill"]
        assert 0 <= mine["wait_share"] <= 1


def test_stopped_killed_and_resumed_it_is_the_same_run(home: Path, spec: RunSpec, pair: Path) -> None:
    run_dir, launcher, two = home / "interrupted", LocalLauncher(), changed(spec, TWO)
    handle = launcher.submit(two, run_dir)
    wait_until(lambda: steps(run_dir, two, "checkpoint"), "the first checkpoint", 60)
    launcher.stop(handle, 60)
    assert launcher.status(handle) == "interrupted"
    saved = steps(run_dir, two, "checkpoint")[-1]["step"]

    launcher.submit(two, run_dir)
    wait_until(lambda: steps(run_dir, two, "resume"), "the resumption", 60)
    agent, *ranks = identities(run_dir)
    os.kill(ranks[-1].pid, signal.SIGKILL)  # one rank: the others must not wait for it for ever
    wait_until(lambda: not any(map(is_alive, (agent, *ranks))), "the end of all", 60)
    assert steps(run_dir, two, "resume")[0]["step"] == saved

    done(run_dir, two)
    assert hashes(run_dir) == hashes(pair)
    assert (run_dir / "output" / "training.json").read_bytes() == (pair / "output" / "training.json").read_bytes()


def test_a_run_of_two_goes_on_as_a_run_of_one(home: Path, spec: RunSpec, alone: Path) -> None:
    run_dir, launcher, two = home / "moved", LocalLauncher(), changed(spec, TWO)
    handle = launcher.submit(two, run_dir)
    wait_until(lambda: steps(run_dir, two, "checkpoint"), "the first checkpoint", 60)
    launcher.stop(handle, 60)
    assert_the_same_run(done(run_dir, spec), alone)
    assert steps(run_dir, spec, "resume")
