"""Stopping: asked first, insisted on after the grace, and never a process that is not the run's."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from tests.support.runs import PatientLauncher, at_work, handle_of, identities, patient, starts, submitter
from training_backend.api import RunFailed
from training_backend.launch.local import read_exit
from training_backend.launch.processes import Identity, identify, is_alive, read_identity


@pytest.fixture
def bystander() -> Iterator[Identity]:
    """A process that is nobody's."""
    process = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"], start_new_session=True)
    yield identify(process.pid)
    process.kill()
    process.wait()


def test_a_kind_without_state_stops_at_once(launcher: PatientLauncher, run_dir: Path) -> None:
    spec = patient("wait")
    handle = launcher.submit(spec, run_dir)
    at_work(run_dir)
    began = time.monotonic()
    launcher.stop(handle, 30)
    assert time.monotonic() - began < 5
    assert launcher.status(handle) == "interrupted"
    assert not any(map(is_alive, identities(run_dir)))
    ended = read_exit(run_dir)
    assert ended is not None
    assert (ended.code, ended.message) == (75, "stopped as asked")
    assert [event.name for event in launcher.events(handle, 0)[0]] == ["working", "stopped"]
    assert list(run_dir.glob("output*")) == []
    with pytest.raises(RunFailed, match="was interrupted"):
        launcher.result(handle)
    # The request was for that attempt: the next one is not stopped by it.
    launcher.submit(spec, run_dir)
    at_work(run_dir, 2)
    assert launcher.status(handle) == "running"
    (run_dir / "go").touch()
    list(launcher.follow(handle))
    assert launcher.status(handle) == "done"


def test_a_run_with_state_is_asked_and_seen_stopping(launcher: PatientLauncher, run_dir: Path) -> None:
    handle = launcher.submit(patient("wait", "train"), run_dir)
    at_work(run_dir)
    launcher.stop(handle, 30)
    ended = read_exit(run_dir)
    assert ended is not None
    assert (ended.code, ended.message) == (75, "saved")
    assert launcher.status(handle) == "interrupted"


def test_the_deaf_are_killed_after_the_grace(launcher: PatientLauncher, run_dir: Path) -> None:
    spec = patient("deaf", "train")
    handle = launcher.submit(spec, run_dir)
    at_work(run_dir)
    with submitter(run_dir, spec) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "running\n"  # attached to, while it is deaf
    (run_dir / "stop").touch()
    assert launcher.status(handle) == "stopping"
    began = time.monotonic()
    launcher.stop(handle, 0.5)
    assert 0.4 < time.monotonic() - began < 5
    assert not any(map(is_alive, identities(run_dir)))
    assert launcher.status(handle) == "interrupted"
    assert read_exit(run_dir) is None


def test_another_process_may_stop_a_run(run_dir: Path, launcher: PatientLauncher) -> None:
    spec = patient("deaf")
    with submitter(run_dir, spec) as process:
        assert process.stdout is not None
        process.stdout.readline()
        at_work(run_dir)
        launcher.stop(handle_of(run_dir, spec), 0.1)
        assert not any(map(is_alive, identities(run_dir)))
        # The submitter has not reaped its child: what is left of it does not count as alive.
        assert launcher.status(handle_of(run_dir, spec)) == "interrupted"


def test_nothing_to_stop(launcher: PatientLauncher, run_dir: Path) -> None:
    spec = patient("quick")
    launcher.stop(handle_of(run_dir, spec), 1)
    handle = launcher.submit(spec, run_dir)
    list(launcher.follow(handle))
    launcher.stop(handle, 1)
    assert launcher.status(handle) == "done"
    assert not (run_dir / "stop").exists()


def test_a_reused_process_number_is_never_signalled(launcher: PatientLauncher, run_dir: Path, bystander: Identity) -> None:
    handle = launcher.submit(patient("deaf"), run_dir)
    at_work(run_dir)
    # The folder names a rank that died long ago, whose number now is somebody else's.
    past = msgspec.structs.replace(bystander, start_ticks=bystander.start_ticks - 1)
    (run_dir / "ranks" / "1.json").write_bytes(msgspec.json.encode(past))
    launcher.stop(handle, 0.1)
    assert is_alive(bystander)
    # So does a leader.
    (run_dir / "agent.json").write_bytes(msgspec.json.encode(past))
    assert launcher.status(handle) == "interrupted"
    launcher.stop(handle, 0.1)
    assert is_alive(bystander)


def test_every_listed_rank_is_killed(launcher: PatientLauncher, run_dir: Path, bystander: Identity) -> None:
    """A rank in a session of its own, which killing the leader's group does not reach."""
    handle = launcher.submit(patient("deaf"), run_dir)
    at_work(run_dir)
    (run_dir / "ranks" / "1.json").write_bytes(msgspec.json.encode(bystander))
    leader = read_identity(run_dir / "agent.json")
    assert leader is not None
    os.kill(leader.pid, signal.SIGKILL)
    # The leader is gone, a rank is not: the run is not over, and is not started a second time beside it.
    assert launcher.status(handle) == "running"
    launcher.submit(patient("deaf"), run_dir)
    assert starts(run_dir) == 1
    launcher.stop(handle, 0.1)
    assert not is_alive(bystander)
    assert launcher.status(handle) == "interrupted"
