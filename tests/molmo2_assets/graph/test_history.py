"""The history that activate.sh configures holds what Dagster's own would, for every process that looks, however others end."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import dagster as dg
import pytest
import yaml

from molmo2_assets.graph.history import KeptEvents, KeptHistory
from tests.support.homes import CHECKOUT, activated_instance, activated_yaml, environment, history_at

WORKER = """
import time, dagster as dg

@dg.asset(check_specs=[dg.AssetCheckSpec("sound", asset="one")])
def one():
    return dg.MaterializeResult(data_version=dg.DataVersion("1"), check_results=[dg.AssetCheckResult(passed=True)])

@dg.asset(deps=["one"])
def last(context: dg.AssetExecutionContext):
    print(context.run_id, flush=True)
    time.sleep({seconds})

instance = dg.DagsterInstance.get()
dg.materialize([one, last], instance=instance)
time.sleep({after})
"""


@pytest.fixture
def env(tmp_path: Path) -> dict[str, str]:
    made = environment(tmp_path, "small")
    (Path(made["DAGSTER_HOME"]) / "dagster.yaml").write_text(activated_yaml())
    return made


@pytest.fixture
def instance(env: dict[str, str]) -> Iterator[dg.DagsterInstance]:
    with history_at(Path(env["DAGSTER_HOME"])) as found:
        yield found


@pytest.fixture
def events(instance: dg.DagsterInstance) -> KeptEvents:
    assert isinstance(instance.event_log_storage, KeptEvents)
    return instance.event_log_storage


@dg.asset(check_specs=[dg.AssetCheckSpec("sound", asset="one")])
def one() -> dg.MaterializeResult:
    return dg.MaterializeResult(
        metadata={"rows": 3},
        data_version=dg.DataVersion("1"),
        check_results=[dg.AssetCheckResult(passed=True, metadata={"bad": 0})],
    )


@dg.asset(deps=["one"])
def two() -> None:
    raise ValueError("two cannot be made")


def told(instance: dg.DagsterInstance, run_id: str) -> list[tuple[str | None, str | None]]:
    events = [entry.dagster_event for entry in instance.all_logs(run_id)]
    return [(event.event_type_value, event.step_key) for event in events if event is not None]


def worker(env: dict[str, str], seconds: float, after: float = 0.0) -> subprocess.Popen[str]:
    """A run in another process: its last step takes `seconds`, and the process stays for so long `after` it."""
    return subprocess.Popen(
        [sys.executable, "-c", WORKER.format(seconds=seconds, after=after)], env=env, cwd=CHECKOUT, stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL, text=True,
    )  # fmt: skip


def started(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


def own_storage(folder: str) -> dg.DagsterInstance:
    """Dagster's own storage over the same files."""
    (Path(folder) / "dagster.yaml").write_text("telemetry: {enabled: false}\n")
    return dg.DagsterInstance.from_config(folder)


def test_the_yaml_of_activate_sh_names_it(env: dict[str, str], instance: dg.DagsterInstance) -> None:
    assert yaml.safe_load(activated_yaml())["storage"]["custom"]["class"] == KeptHistory.__name__
    assert isinstance(instance.event_log_storage, KeptEvents)
    assert instance.get_ref().storage_data is not None  # other processes make theirs from it


def test_what_is_written_is_what_dagster_writes(instance: dg.DagsterInstance, env: dict[str, str]) -> None:
    """The same run in both, and the files of one read by the other."""
    ours = dg.materialize([one, two], instance=instance, raise_on_error=False)
    with dg.instance_for_test() as other:
        theirs = dg.materialize([one, two], instance=other, raise_on_error=False)
        expected = told(other, theirs.run_id)
    assert told(instance, ours.run_id) == expected
    assert ("ASSET_CHECK_EVALUATION", "one") in expected
    assert ("STEP_FAILURE", "two") in expected
    with own_storage(env["DAGSTER_HOME"]) as other:
        assert told(other, ours.run_id) == expected
        assert other.get_run_by_id(ours.run_id) == instance.get_run_by_id(ours.run_id)
        key = dg.AssetCheckKey(dg.AssetKey("one"), "sound")
        latest = other.event_log_storage.get_latest_asset_check_execution_by_key([key])[key]
        assert latest.status.value == "SUCCEEDED"
        found = other.get_latest_materialization_event(dg.AssetKey("one"))
        assert found is not None
        assert found.asset_materialization is not None
        assert found.asset_materialization.metadata["rows"].value == 3


def test_a_history_of_dagsters_own_storage_is_read_and_continued(env: dict[str, str]) -> None:
    with own_storage(env["DAGSTER_HOME"]) as before:
        first = dg.materialize([one], instance=before)
    with activated_instance(Path(env["DAGSTER_HOME"])) as instance:
        second = dg.materialize([one], instance=instance)
        assert {run.run_id for run in instance.get_runs()} == {first.run_id, second.run_id}
        assert len(instance.fetch_materializations(dg.AssetKey("one"), limit=5).records) == 2


def test_two_processes_write_and_each_sees_the_other(env: dict[str, str], instance: dg.DagsterInstance) -> None:
    process = worker(env, 1.0)
    mine = [dg.materialize([one], instance=instance).run_id for _ in range(5)]
    theirs = started(process)
    assert process.wait(60) == 0
    assert {run.run_id for run in instance.get_runs()} == {*mine, theirs}
    assert told(instance, theirs)[-1] == ("PIPELINE_SUCCESS", None)
    assert len(instance.fetch_materializations(dg.AssetKey("one"), limit=10).records) == 6


def test_a_killed_process_loses_nothing_that_it_had_told(env: dict[str, str], instance: dg.DagsterInstance) -> None:
    process = worker(env, 100.0)
    run_id = started(process)
    process.send_signal(signal.SIGKILL)
    process.wait(10)
    assert ("STEP_START", "last") in told(instance, run_id)
    assert ("ASSET_MATERIALIZATION", "one") in told(instance, run_id)


def test_nothing_stays_open_when_a_process_ends(env: dict[str, str]) -> None:
    """Though it did not dispose of its instance: a write-ahead log would double the size of every run."""
    process = worker(env, 0.0)
    started(process)
    assert process.wait(60) == 0
    files = [path.suffix for path in (Path(env["DAGSTER_HOME"]) / "history").rglob("*.db*")]
    assert set(files) == {".db"}


def test_a_ui_is_told_of_another_process_while_it_runs(env: dict[str, str], events: KeptEvents) -> None:
    """Before anything of the run stands in its database itself."""
    process = worker(env, 3.0, after=100.0)
    run_id = started(process)
    seen: list[str] = []
    ended = threading.Event()

    def heard(entry: dg.EventLogEntry, cursor: str) -> None:
        seen.append(str(entry.dagster_event_type))
        if entry.dagster_event_type == dg.DagsterEventType.RUN_SUCCESS:
            ended.set()

    try:
        events.watch(run_id, events.get_records_for_run(run_id).cursor, heard)
        assert ended.wait(30)
        assert process.poll() is None
        assert len(seen) == len(set(seen))  # from where it had read on, and each once
    finally:
        process.kill()
        process.wait(10)


def test_a_fork_opens_its_own(instance: dg.DagsterInstance) -> None:
    dg.materialize([one], instance=instance)
    child = os.fork()
    if child == 0:
        status = 1
        try:
            status = 0 if dg.materialize([one], instance=instance).success and len(instance.get_runs()) == 2 else 1
        finally:
            os._exit(status)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert dg.materialize([one], instance=instance).success
    assert len(instance.fetch_materializations(dg.AssetKey("one"), limit=10).records) == 3


def test_files_that_are_gone_are_made_again(instance: dg.DagsterInstance) -> None:
    first = dg.materialize([one], instance=instance).run_id
    instance.wipe()
    assert told(instance, first) == []
    second = dg.materialize([one], instance=instance).run_id
    assert told(instance, second)[-1] == ("PIPELINE_SUCCESS", None)


def test_only_so_many_runs_stay_open(instance: dg.DagsterInstance, events: KeptEvents) -> None:
    runs = [dg.materialize([one], instance=instance).run_id for _ in range(12)]
    assert len(events._engines) == 8
    assert all(told(instance, run)[-1] == ("PIPELINE_SUCCESS", None) for run in runs)
