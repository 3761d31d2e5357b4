"""Submitting, attaching, resuming: with real processes, some of which are killed."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from pathlib import Path

import msgspec
import pytest

from tests.support.disks import fill, small_disk, unwritable
from tests.support.runs import ROOT, PatientLauncher, at_work, handle_of, identities, patient, starts, submitter, wait_until
from training_backend.api import Event, Execution, RunFailed, encode_spec
from training_backend.data.fingerprint import file_sha256
from training_backend.data.manifest import StorageError, read_manifest
from training_backend.launch import local
from training_backend.launch.local import command
from training_backend.launch.processes import LAUNCHED, identify, is_alive, read_identity

WAIT, QUICK = patient("wait"), patient("quick")


def test_absent_starts_and_done_is_reused(launcher: PatientLauncher, run_dir: Path) -> None:
    handle = handle_of(run_dir, QUICK)
    assert launcher.status(handle) == "absent"
    with pytest.raises(RunFailed, match="was never started"):
        launcher.result(handle)
    assert launcher.submit(QUICK, run_dir) == handle
    assert [event.name for event in launcher.follow(handle)] == ["working", "log", "done"]
    result = launcher.result(handle)
    assert (result.counts, result.facts) == ({"answer": 42}, {"mood": "patient"})
    assert result.data_version == read_manifest(run_dir / "output").data_version
    other = PatientLauncher()
    assert other.submit(QUICK, run_dir) == handle
    assert (other.status(handle), other.result(handle), starts(run_dir)) == ("done", result, 1)
    # Neither where a run is computed nor where it lies makes it another one.
    elsewhere = msgspec.structs.replace(QUICK, execution=Execution(threads=3))
    moved = run_dir.rename(run_dir.with_name("moved"))
    other.submit(elsewhere, moved)
    assert other.result(handle_of(moved, elsewhere)).output == str(moved / "output")
    assert starts(moved) == 1


def test_a_relative_folder_is_the_same_folder(launcher: PatientLauncher, run_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(run_dir.parent)
    (run_dir.parent / "msgspec.py").write_text("raise SystemExit('a file of the folder that somebody stood in was imported')")
    handle = launcher.submit(QUICK, Path("run"))
    assert handle == handle_of(run_dir, QUICK)
    list(launcher.follow(handle))
    assert launcher.status(handle) == "done"


def test_alive_is_attached_to_and_survives_its_submitter(launcher: PatientLauncher, run_dir: Path) -> None:
    with submitter(run_dir, WAIT) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "running\n"
        at_work(run_dir)
        handle = launcher.submit(WAIT, run_dir)
        assert (launcher.status(handle), starts(run_dir)) == ("running", 1)
        with pytest.raises(RunFailed, match="is still running"):
            launcher.result(handle)
        process.send_signal(signal.SIGKILL)
        process.wait()
        assert launcher.status(handle) == "running"
    (run_dir / "go").touch()
    assert [event.name for event in launcher.follow(handle)] == ["working", "log", "done"]
    assert launcher.result(handle).counts == {"answer": 42}
    assert starts(run_dir) == 1


def test_two_submit_at_once_and_one_worker_starts(run_dir: Path, launcher: PatientLauncher) -> None:
    with submitter(run_dir, WAIT) as one, submitter(run_dir, WAIT) as two, submitter(run_dir, WAIT) as three:
        for process in (one, two, three):
            assert process.stdout is not None
            assert process.stdout.readline() == "running\n"
        at_work(run_dir)
        (run_dir / "go").touch()
        wait_until(lambda: launcher.status(handle_of(run_dir, WAIT)) == "done", "the result")
    assert starts(run_dir) == 1


def test_a_worker_that_ends_while_its_status_is_read_did_not_die(
    launcher: PatientLauncher, run_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    handle = launcher.submit(WAIT, run_dir)
    at_work(run_dir)
    look = local._valid_result

    def slowly(folder: Path) -> object:
        """What was there before the worker finished, said after."""
        found = look(folder)
        (run_dir / "go").touch()
        wait_until(lambda: not any(map(is_alive, identities(run_dir))), "its end")
        return found

    with monkeypatch.context() as patch:
        patch.setattr(local, "_valid_result", slowly)
        assert launcher.status(handle) == "running"
    assert launcher.status(handle) == "done"


def test_a_killed_worker_is_interrupted_and_submit_resumes(launcher: PatientLauncher, run_dir: Path) -> None:
    handle = launcher.submit(WAIT, run_dir)
    at_work(run_dir)
    (worker, rank) = identities(run_dir)
    assert worker == rank
    os.kill(worker.pid, signal.SIGKILL)
    wait_until(lambda: not is_alive(worker), "its end")
    assert launcher.status(handle) == "interrupted"
    assert PatientLauncher().status(handle) == "interrupted"
    with pytest.raises(RunFailed, match="was interrupted; run it again and it resumes"):
        launcher.result(handle)
    assert len(list(run_dir.glob("output.partial-*"))) == 1
    launcher.submit(WAIT, run_dir)
    at_work(run_dir, 2)
    assert len(list(run_dir.glob("output.partial-*"))) == 1  # its own: the killed one's is gone
    (run_dir / "go").touch()
    list(launcher.follow(handle))
    assert launcher.result(handle).counts == {"answer": 42}
    assert list(run_dir.glob("output.partial-*")) == []


def test_a_worker_that_nobody_registered_computes_nothing(launcher: PatientLauncher, run_dir: Path) -> None:
    """A launcher that is killed between starting a worker and writing agent.json leaves one that nobody could find."""
    run_dir.mkdir()
    (run_dir / "spec.json").write_bytes(encode_spec(QUICK))
    code = (
        "import sys; from training_backend.launch import processes; processes._REGISTRATION_SECONDS = 0.5;"
        "from tests.support import patient_worker; sys.exit(patient_worker.worker.main(sys.argv[1:]))"
    )
    interpreter, _, _, *arguments = command(QUICK, run_dir)
    environment = {**os.environ, LAUNCHED: "local"}
    done = subprocess.run([interpreter, "-c", code, *arguments], cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 1
    assert "gone before registering it; submit the run again." in done.stderr
    assert "Traceback" not in done.stderr
    assert starts(run_dir) == 0
    handle = launcher.submit(QUICK, run_dir)
    list(launcher.follow(handle))
    assert launcher.status(handle) == "done"


def test_a_failed_run_says_why(launcher: PatientLauncher, run_dir: Path) -> None:
    spec = patient("fail")
    handle = launcher.submit(spec, run_dir)
    events = list(launcher.follow(handle))
    assert (events[-1].name, events[-1].data) == ("failed", {"message": "ValueError: the cause of it all"})
    assert launcher.status(handle) == "failed"
    with pytest.raises(RunFailed) as caught:
        launcher.result(handle)
    lines = str(caught.value).splitlines()
    assert lines[0] == "The run run failed: ValueError: the cause of it all"
    assert f"Log: {run_dir / 'worker.log'}" in lines[1]
    assert lines[-1] == "ValueError: the cause of it all"
    assert len(lines) <= 33
    launcher.submit(spec, run_dir)  # a person who runs it again wants it to be tried again
    list(launcher.follow(handle))
    assert starts(run_dir) == 2


@pytest.mark.parametrize("damage", ["manifest", "file", "version", "result"])
def test_a_damaged_output_is_not_done(launcher: PatientLauncher, run_dir: Path, damage: str) -> None:
    handle = launcher.submit(QUICK, run_dir)
    list(launcher.follow(handle))
    wait_until(lambda: not any(map(is_alive, identities(run_dir))), "the end of a worker that is done")
    if damage == "manifest":
        path = run_dir / "output" / "manifest.json"
        path.write_bytes(path.read_bytes()[:100])
    elif damage == "file":
        (run_dir / "output" / "answer.safetensors").unlink()
    elif damage == "version":
        path = run_dir / "result.json"
        path.write_bytes(path.read_bytes().replace(launcher.result(handle).data_version.encode(), b"000000000000"))
    else:
        (run_dir / "result.json").write_bytes(b'{"output":')
    assert launcher.status(handle) == "interrupted"
    launcher.submit(QUICK, run_dir)
    list(launcher.follow(handle))
    assert launcher.status(handle) == "done"
    assert starts(run_dir) == 2


def test_the_folder_of_another_run_is_refused(launcher: PatientLauncher, run_dir: Path) -> None:
    launcher.submit(QUICK, run_dir)
    with pytest.raises(RunFailed, match=r"runs/run belongs to another run; move it away"):
        launcher.submit(patient("quick", other=1), run_dir)
    list(launcher.follow(handle_of(run_dir, QUICK)))
    assert launcher.status(handle_of(run_dir, QUICK)) == "done"
    (run_dir / "spec.json").write_text("{")
    with pytest.raises(RunFailed, match="belongs to another run"):
        launcher.submit(QUICK, run_dir)


def test_a_torn_event_is_waited_for_and_then_passed_over(launcher: PatientLauncher, run_dir: Path) -> None:
    run_dir.mkdir()
    path, handle = run_dir / "events.jsonl", handle_of(run_dir, QUICK)
    assert launcher.events(handle, 0) == ([], 0)
    whole = msgspec.json.encode(Event(time=1.0, name="step", data={"step": 1})) + b"\n"
    path.write_bytes(whole + b'{"time":2.0,"na')
    found, cursor = launcher.events(handle, 0)
    assert ([event.data for event in found], cursor) == ([{"step": 1}], len(whole))
    assert launcher.events(handle, cursor) == ([], cursor)
    launcher.submit(QUICK, run_dir)
    assert [event.name for event in launcher.follow(handle, cursor)] == ["working", "log", "done"]
    assert len(path.read_bytes().splitlines()) == 5


def test_a_run_of_another_host_lives_while_its_heart_beats(launcher: PatientLauncher, run_dir: Path) -> None:
    handle = launcher.submit(WAIT, run_dir)
    at_work(run_dir)
    here = read_identity(run_dir / "agent.json")
    assert here is not None
    there = msgspec.structs.replace(here, host="another", boot_id="another")
    (run_dir / "agent.json").write_bytes(msgspec.json.encode(there))
    (run_dir / "ranks" / "0.json").unlink()
    assert launcher.status(handle) == "running"
    with pytest.raises(RunFailed, match="runs on host another; stop it there"):
        launcher.stop(handle, 1.0)
    old = time.time() - 3600
    os.utime(run_dir / "heartbeat", (old, old))
    assert launcher.status(handle) == "interrupted"
    # The worker's own sign of life brings it back.
    wait_until(lambda: launcher.status(handle) == "running", "a heartbeat", 10)
    os.kill(here.pid, signal.SIGKILL)


def test_a_full_disk_is_one_sentence_and_the_next_run_works(launcher: PatientLauncher, tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk", 512) as disk:
        spec, run_dir = patient("fill"), disk / "run"
        handle = launcher.submit(spec, run_dir)
        list(launcher.follow(handle))
        assert launcher.status(handle) == "failed"
        with pytest.raises(RunFailed) as caught:
            launcher.result(handle)
        first = str(caught.value).splitlines()[0]
        assert first.startswith(f"The run run failed: cannot write {run_dir}: the disk is full; free some space")
        assert "Traceback" not in str(caught.value)
        # Not even room for the spec: refused before anything is started.
        filler = fill(disk)
        with pytest.raises(StorageError, match="the disk is full; free some space"):
            launcher.submit(QUICK, disk / "other")
        with pytest.raises(StorageError, match="the disk is full"):
            launcher.submit(spec, run_dir)
        assert starts(run_dir) == 1
        filler.unlink()
        quick = launcher.submit(QUICK, disk / "other")
        list(launcher.follow(quick))
        assert launcher.result(quick).counts == {"answer": 42}


def test_an_unwritable_folder_is_one_sentence(launcher: PatientLauncher, tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk", 512) as disk:
        handle = launcher.submit(QUICK, disk / "run")
        list(launcher.follow(handle))
        (disk / "empty").mkdir()
        with unwritable(disk):
            for folder in ("new", "empty", "run"):
                with pytest.raises(StorageError, match="no permission to write; choose another MOLMO2_HOME"):
                    launcher.submit(QUICK, disk / folder)
            assert launcher.status(handle) == "done"
        launcher.submit(QUICK, disk / "new")
        list(launcher.follow(handle_of(disk / "new", QUICK)))
        assert file_sha256(disk / "new" / "output" / "answer.safetensors") == file_sha256(disk / "run/output/answer.safetensors")


def test_a_launcher_that_cannot_register_its_worker_ends_it(
    launcher: PatientLauncher, run_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pids: list[int] = []

    def refuse(pid: int) -> None:
        pids.append(pid)
        raise ProcessLookupError(pid)

    with monkeypatch.context() as patch:
        patch.setattr(local, "identify", refuse)
        with pytest.raises(ProcessLookupError):
            launcher.submit(WAIT, run_dir)
    with pytest.raises(ProcessLookupError):
        identify(pids[0])
    assert starts(run_dir) == 0
