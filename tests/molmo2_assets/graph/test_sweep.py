"""Runs that a killed process left open are closed by the next one; everybody else's are left alone."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import dagster as dg
import msgspec
import pytest

from molmo2_assets.graph.sweep import TAG, close_abandoned, mark_process
from tests.support.homes import CHECKOUT, environment, molmo2
from training_backend.launch.processes import Identity, identify

SLEEPER = """
import time, dagster as dg
from molmo2_assets.graph.sweep import mark_process

@dg.asset
def sleeper(context: dg.AssetExecutionContext) -> None:
    mark_process(context)
    print(context.run_id, flush=True)
    time.sleep(120)

dg.materialize([sleeper], instance=dg.DagsterInstance.get())
"""


@pytest.fixture
def env(tmp_path: Path) -> dict[str, str]:
    return environment(tmp_path, "small")


@pytest.fixture
def instance(env: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> Iterator[dg.DagsterInstance]:
    monkeypatch.setenv("DAGSTER_HOME", env["DAGSTER_HOME"])
    with dg.DagsterInstance.get() as found:
        yield found


class Sleeper:
    """A process in the middle of a run."""

    def __init__(self, env: dict[str, str]) -> None:
        self.process = subprocess.Popen([sys.executable, "-c", SLEEPER], env=env, cwd=CHECKOUT, stdout=subprocess.PIPE, text=True)
        assert self.process.stdout is not None
        self.run_id = self.process.stdout.readline().strip()

    def kill(self) -> None:
        self.process.send_signal(signal.SIGKILL)
        self.process.communicate(timeout=10)


@pytest.fixture
def sleeper(env: dict[str, str]) -> Iterator[Sleeper]:
    found = Sleeper(env)
    yield found
    found.kill()


def status(instance: dg.DagsterInstance, run_id: str) -> dg.DagsterRunStatus:
    run = instance.get_run_by_id(run_id)
    assert run is not None
    return run.status


def test_a_killed_run_is_closed_and_a_living_one_left_alone(
    env: dict[str, str], sleeper: Sleeper, instance: dg.DagsterInstance
) -> None:
    assert close_abandoned(instance) == []
    assert status(instance, sleeper.run_id) == dg.DagsterRunStatus.STARTED
    sleeper.kill()
    # Dagster itself has not noticed: this is what the sweep is for.
    assert status(instance, sleeper.run_id) == dg.DagsterRunStatus.STARTED

    swept = molmo2(env, "sweep", "--json")
    assert swept.returncode == 0
    assert sleeper.run_id in swept.stdout
    assert status(instance, sleeper.run_id) == dg.DagsterRunStatus.FAILURE
    said = [str(entry.dagster_event.message) for entry in instance.all_logs(sleeper.run_id) if entry.dagster_event]
    assert any(f"process {sleeper.process.pid} that executed this run is gone; run it again" in line for line in said)
    assert close_abandoned(instance) == []


def test_the_next_run_closes_it(sleeper: Sleeper, instance: dg.DagsterInstance) -> None:
    sleeper.kill()

    @dg.asset
    def next_one(context) -> None:  # type: ignore[no-untyped-def]  # Dagster reads annotations as objects, these are words
        mark_process(context)
        mark_process(context)  # every step calls it

    result = dg.materialize([next_one], instance=instance)
    assert result.success
    assert status(instance, sleeper.run_id) == dg.DagsterRunStatus.FAILURE
    run = instance.get_run_by_id(result.run_id)
    assert run is not None
    assert msgspec.json.decode(run.tags[TAG], type=Identity) == identify(os.getpid())


def test_what_happens_elsewhere_is_not_judged_and_a_reused_process_number_fools_nobody(
    sleeper: Sleeper, instance: dg.DagsterInstance
) -> None:
    here = identify(sleeper.process.pid)
    elsewhere = (
        msgspec.structs.replace(here, host="another-host"),
        msgspec.structs.replace(here, boot_id="00000000-0000-0000-0000-000000000000"),
    )
    for tag in (*(msgspec.json.encode(item).decode() for item in elsewhere), "not ours", "[]"):
        instance.add_run_tags(sleeper.run_id, {TAG: tag})
        assert close_abandoned(instance) == []
        assert status(instance, sleeper.run_id) == dg.DagsterRunStatus.STARTED
    # The number lives, but the process that had it when the run was marked is gone.
    reused = msgspec.structs.replace(here, start_ticks=here.start_ticks - 1)
    instance.add_run_tags(sleeper.run_id, {TAG: msgspec.json.encode(reused).decode()})
    assert close_abandoned(instance) == [sleeper.run_id]


def test_a_run_without_our_mark_is_left_alone(instance: dg.DagsterInstance) -> None:
    @dg.op
    def nothing() -> None: ...

    @dg.job
    def somebody_elses() -> None:
        nothing()

    run = instance.create_run_for_job(somebody_elses)
    instance.report_dagster_event(dg.DagsterEvent(dg.DagsterEventType.RUN_START.value, "somebody_elses"), run.run_id)
    assert status(instance, run.run_id) == dg.DagsterRunStatus.STARTED
    assert close_abandoned(instance) == []


def test_upstream_an_ignored_interrupt_ignores_termination_too() -> None:
    """Why tests/conftest.py gives SIGINT back to a suite that a shell started in the background."""
    code = (
        "import signal, sys\nsignal.signal(signal.SIGINT, signal.SIG_IGN)\nimport dagster as dg\n"
        "@dg.asset\ndef one(): ...\n"
        "dg.materialize([one], instance=dg.DagsterInstance.ephemeral())\n"
        "sys.exit(signal.getsignal(signal.SIGTERM) is not signal.SIG_IGN)"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, check=False).returncode == 0
