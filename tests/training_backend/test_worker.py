"""The worker by itself, as a person with a spec file starts it: exit codes, sentences, what it leaves, what it publishes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import get_args

import msgspec
import pytest

from tests.support.examples import asked, row, store_at
from tests.support.runs import ROOT, at_work, handle_of, patient, starts
from training_backend.api import Kind, RunResult, RunSpec, encode_spec
from training_backend.data.manifest import files_version, list_files, read_manifest, verify_files
from training_backend.launch.local import Exit, LocalLauncher, read_exit
from training_backend.launch.processes import LAUNCHED, identify, read_identity
from training_backend.worker import CODE_VERSION, KINDS

REAL, PATIENT = "training_backend.worker", "tests.support.patient_worker"


@pytest.fixture
def run_dir(tmp_path: Path) -> Path:
    folder = tmp_path / "run"
    folder.mkdir()
    return folder


def start(run_dir: Path, spec: RunSpec | bytes | None, module: str = PATIENT) -> subprocess.Popen[str]:
    """The worker on a spec file; None: on a file that is not there. Modules in the run's folder come before installed ones."""
    path = run_dir / "spec.json"
    if spec is not None:
        path.write_bytes(spec if isinstance(spec, bytes) else encode_spec(spec))
    command = [sys.executable, "-m", module, "--spec", str(path), "--run-dir", str(run_dir)]
    environment = {name: value for name, value in os.environ.items() if name != LAUNCHED} | {"PYTHONPATH": str(run_dir)}
    return subprocess.Popen(command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def run(run_dir: Path, spec: RunSpec | bytes | None, module: str = PATIENT) -> tuple[int, str]:
    """Exit code and what was written to stderr."""
    process = start(run_dir, spec, module)
    _, said = process.communicate(timeout=60)
    return process.returncode, said


def test_every_kind_that_a_spec_can_name_is_built() -> None:
    assert set(KINDS) == set(CODE_VERSION) == set(get_args(Kind))


@pytest.mark.parametrize(
    ("spec", "sentence"),
    [
        (None, "No such file or directory"),
        (b"{", "cannot be read as a run spec: Input data was truncated"),
        (b'{"kind":"dance","identity":{}}', r"cannot be read as a run spec: Invalid enum value 'dance' - at `$.kind`"),
        (encode_spec(patient("quick")).replace(b"micro_batch", b"mikro_batch"), "contains unknown field `mikro_batch`"),
    ],
)
def test_a_spec_that_is_none(run_dir: Path, spec: bytes | None, sentence: str) -> None:
    code, said = run(run_dir, spec, REAL)
    assert code == 1
    assert sentence in said
    assert len(said.splitlines()) == 1
    assert str(run_dir / "spec.json") in said
    ended = read_exit(run_dir)
    assert ended is not None
    assert (ended.code, sentence in ended.message) == (1, True)


def test_done_is_zero_and_published_whole(run_dir: Path) -> None:
    spec = patient("quick")
    assert run(run_dir, spec) == (0, "")
    assert read_exit(run_dir) is None
    output = run_dir / "output"
    manifest = read_manifest(output)
    assert verify_files(output, manifest) == []
    assert manifest.files == list_files(output)
    assert (manifest.kind, manifest.key, manifest.code_version) == ("plan", spec.run_name, "1")
    assert manifest.recipe == {"kind": "plan", "identity": spec.identity}
    assert manifest.counts == {"answer": 42}
    assert set(manifest.run) == {"seconds", "mood"}
    assert manifest.data_version == files_version(manifest.files)  # of a plan every file counts
    result = msgspec.json.decode((run_dir / "result.json").read_bytes(), type=RunResult)
    assert result == RunResult(
        output=str(output), data_version=manifest.data_version, counts={"answer": 42}, facts={"mood": "patient"}
    )
    assert LocalLauncher().result(handle_of(run_dir, spec)) == result
    assert read_identity(run_dir / "agent.json") == read_identity(run_dir / "ranks" / "0.json")


def test_a_checkpoint_s_version_is_that_of_its_tensors(tmp_path: Path) -> None:
    versions, others = set(), set()
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        assert run(tmp_path / name, patient("quick", "train"))[0] == 0
        manifest = read_manifest(tmp_path / name / "output")
        assert [entry.path for entry in manifest.files] == ["answer.safetensors", "minutes.txt"]
        versions.add(manifest.data_version)
        others.add(manifest.files[1].sha256)
        assert manifest.data_version == files_version(manifest.files[:1])
    assert (len(versions), len(others)) == (1, 2)


def test_a_failure_is_one(run_dir: Path) -> None:
    code, said = run(run_dir, patient("fail"))
    assert code == 1
    assert said.splitlines()[-1] == "ValueError: the cause of it all"
    assert list(run_dir.glob("output*")) == []
    # What the attempt before left, or a request to stop it, does not decide about this one.
    (run_dir / "stop").touch()
    (run_dir / "go").touch()
    assert run(run_dir, patient("wait", "train")) == (0, "")
    assert read_exit(run_dir) is None


@pytest.mark.parametrize(("kind", "message"), [("plan", "stopped as asked"), ("train", "saved")])
def test_a_stop_is_seventy_five(run_dir: Path, kind: str, message: str) -> None:
    process = start(run_dir, patient("wait", kind))
    at_work(run_dir)
    process.send_signal(signal.SIGINT)  # Ctrl-C of a terminal that shares the group: not for the run
    process.send_signal(signal.SIGTERM)
    _, said = process.communicate(timeout=30)
    assert (process.returncode, said) == (75, "")
    assert read_exit(run_dir) == Exit(code=75, message=message)
    assert list(run_dir.glob("output*")) == []


def test_leftovers_of_a_killed_run_are_removed(run_dir: Path) -> None:
    process = start(run_dir, patient("wait"))
    at_work(run_dir)
    process.kill()
    process.communicate()
    (leftover,) = run_dir.glob("output.partial-*")
    (leftover / "half").write_text("half")
    stale = run_dir / "output"
    stale.mkdir()
    (stale / "old").touch()
    assert run(run_dir, patient("quick"))[0] == 0
    assert list(run_dir.glob("output*")) == [stale]
    assert not (stale / "old").exists()


def test_killed_while_it_publishes_it_is_done_or_done_again(tmp_path: Path) -> None:
    launcher, states = LocalLauncher(), []
    for number in range(1, 40):
        folder, spec = tmp_path / str(number), patient("quick", die_at=number)
        folder.mkdir()
        killed = run(folder, spec)[0] == -signal.SIGKILL
        states.append(launcher.status(handle_of(folder, spec)))
        if not killed:
            break
        if states[-1] == "interrupted":
            assert run(folder, spec) == (0, "")
        assert launcher.result(handle_of(folder, spec)).counts == {"answer": 42}
        assert [path.name for path in folder.glob("output*")] == ["output"]
    assert states == sorted(states, reverse=True)
    assert states.count("interrupted") >= 5
    assert states[-1] == "done"


def test_a_run_at_work_is_left_alone(run_dir: Path) -> None:
    process = start(run_dir, patient("wait"))
    at_work(run_dir)
    code, said = run(run_dir, patient("wait"))
    assert code == 1
    assert said == f"{run_dir} is at work already, as process {process.pid}.\n"
    assert read_identity(run_dir / "agent.json") == identify(process.pid)
    assert read_exit(run_dir) is None
    (run_dir / "go").touch()
    assert process.communicate(timeout=30)[1] == ""
    assert (process.returncode, starts(run_dir)) == (0, 1)
    assert LocalLauncher().status(handle_of(run_dir, patient("wait"))) == "done"


def test_a_real_kind(tmp_path: Path, run_dir: Path) -> None:
    """A tokenizer, by the real worker, twice: the same bytes, and no torch on the way."""
    store_at(tmp_path / "texts", [row("text", [], asked("What is it?", "red " * (n + 1)), name=f"t{n}") for n in range(9)])
    identity = {"config": {"kind": "train", "vocab_size": 300}}
    spec = RunSpec(kind="tokenizer", identity=identity, inputs={"validated/texts": str(tmp_path / "texts")})
    versions = []
    for folder in (run_dir, tmp_path / "again"):
        folder.mkdir(exist_ok=True)
        (folder / "torch.py").write_text("raise SystemExit('torch was imported')")
        code, said = run(folder, spec, REAL)
        assert (code, said) == (0, "")
        versions.append(read_manifest(folder / "output").data_version)
    assert versions[0] == versions[1]
    names = [event.name for event in LocalLauncher().events(handle_of(run_dir, spec), 0)[0]]
    assert names[-1] == "done"
    assert "log" in names
