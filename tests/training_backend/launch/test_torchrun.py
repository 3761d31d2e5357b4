"""Several ranks under torchrun: every one is known, dies with its agent, and none is left by a stop.

The ranks are the patient worker's. Training with several is tested in `train/test_ranks.py`.
"""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import pytest

from tests.support.runs import PatientLauncher, at_work, identities, patient, starts, wait_until
from training_backend.api import RunFailed
from training_backend.launch.local import command, needs_torchrun, read_exit
from training_backend.launch.processes import is_alive, read_identity


def test_only_ranks_cost_a_torchrun() -> None:
    assert not needs_torchrun(patient("quick", "train"))
    assert not needs_torchrun(patient("quick", "plan", processes=2))
    line = command(patient("quick", "train", processes=2), Path("/runs/one"))
    assert line[1:] == [
        "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2",
        "-m", "training_backend.worker", "--spec", "/runs/one/spec.json", "--run-dir", "/runs/one",
    ]  # fmt: skip


def test_ranks_register_and_finish_as_one_run(launcher: PatientLauncher, run_dir: Path) -> None:
    handle = launcher.submit(patient("wait", "train", processes=2), run_dir)
    at_work(run_dir, 2)
    agent, *ranks = identities(run_dir)
    assert len({agent, *ranks}) == 3
    assert all(map(is_alive, (agent, *ranks)))
    assert [os.getpgid(rank.pid) == os.getpgid(agent.pid) for rank in ranks] == [False, False]  # sessions of their own
    (run_dir / "go").touch()
    names = [event.name for event in launcher.follow(handle)]
    assert names == ["working", "log", "done"]  # one rank speaks for all
    assert launcher.result(handle).counts == {"answer": 42}
    assert sorted(run_dir.glob("output*")) == [run_dir / "output"]


def test_ranks_die_with_their_agent(launcher: PatientLauncher, run_dir: Path) -> None:
    handle = launcher.submit(patient("deaf", "train", processes=2), run_dir)
    at_work(run_dir, 2)
    agent, *ranks = identities(run_dir)
    os.kill(agent.pid, signal.SIGKILL)
    wait_until(lambda: not any(map(is_alive, ranks)), "the ranks' end", 5)
    assert launcher.status(handle) == "interrupted"


@pytest.mark.parametrize(("behaviour", "grace"), [("wait", 30.0), ("deaf", 0.5)])
def test_a_stop_leaves_nobody(launcher: PatientLauncher, run_dir: Path, behaviour: str, grace: float) -> None:
    handle = launcher.submit(patient(behaviour, "train", processes=2), run_dir)
    at_work(run_dir, 2)
    everyone = identities(run_dir)
    began = time.monotonic()
    launcher.stop(handle, grace)
    assert time.monotonic() - began < 12
    assert not any(map(is_alive, everyone))
    assert launcher.status(handle) == "interrupted"
    ended = read_exit(run_dir)
    assert (ended.code if ended else None) == (75 if behaviour == "wait" else None)


def test_a_stop_while_ranks_are_still_coming_up(launcher: PatientLauncher, run_dir: Path) -> None:
    handle = launcher.submit(patient("deaf", "train", processes=2), run_dir)
    launcher.stop(handle, 0.1)
    known, begun = identities(run_dir), starts(run_dir)
    time.sleep(1.0)
    assert (identities(run_dir), starts(run_dir)) == (known, begun)
    assert not any(map(is_alive, known))
    assert launcher.status(handle) == "interrupted"


def test_one_failing_rank_is_the_run_s_failure(launcher: PatientLauncher, run_dir: Path) -> None:
    """torchrun then stops the others, which save and call that resumable."""
    handle = launcher.submit(patient("fail", "train", processes=2, rank="1"), run_dir)
    list(launcher.follow(handle))
    assert not any(map(is_alive, identities(run_dir)))
    assert launcher.status(handle) == "failed"
    with pytest.raises(RunFailed, match="failed: ValueError: the cause of it all"):
        launcher.result(handle)
    agent = read_identity(run_dir / "agent.json")
    assert agent is not None
