"""Runs of the patient worker: a launcher for it, specs, waiting, and what a test asks of a run's folder.

`python -m tests.support.runs RUN_DIR SPEC_FILE` submits a run from another process, says so, and waits to be killed.
"""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from training_backend.api import Execution, RunHandle, RunSpec, decode_spec, encode_spec
from training_backend.launch.local import LocalLauncher
from training_backend.launch.processes import Identity, read_identity

ROOT = Path(__file__).resolve().parents[2]


class PatientLauncher(LocalLauncher):
    """The local launcher, running `patient_worker.py`."""

    worker = "tests.support.patient_worker"


def patient(behaviour: str, kind: Any = "plan", processes: int = 1, **identity: Any) -> RunSpec:
    """A run of the patient worker."""
    return RunSpec(kind=kind, identity={"behaviour": behaviour, **identity}, execution=Execution(processes=processes))


def handle_of(run_dir: Path, spec: RunSpec) -> RunHandle:
    """The handle that any process can make for itself."""
    return RunHandle(launcher="local", run_dir=str(run_dir), fingerprint=spec.fingerprint)


def wait_until(condition: Callable[[], Any], what: str, seconds: float = 30.0) -> None:
    """Wait for a condition, failing with `what` was waited for."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, f"waited {seconds:.0f} s in vain for {what}"
        time.sleep(0.02)


def starts(run_dir: Path) -> int:
    """How often the computation began."""
    path = run_dir / "starts"
    return len(path.read_text().splitlines()) if path.exists() else 0


def at_work(run_dir: Path, times: int = 1) -> None:
    """Wait until the computation has begun `times` times."""
    wait_until(lambda: starts(run_dir) >= times, f"start {times} of {run_dir.name}")


def identities(run_dir: Path) -> list[Identity]:
    """The leader and every rank, as the run's folder names them."""
    found = [read_identity(path) for path in (run_dir / "agent.json", *sorted(run_dir.glob("ranks/*.json")))]
    return [identity for identity in found if identity is not None]


@contextmanager
def submitter(run_dir: Path, spec: RunSpec) -> Iterator[subprocess.Popen[str]]:
    """Another process that has submitted a run and now waits to be killed."""
    path = run_dir.parent / f"{run_dir.name}.spec.json"
    path.write_bytes(encode_spec(spec))
    command = [sys.executable, "-m", "tests.support.runs", str(run_dir), str(path)]
    process = subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


if __name__ == "__main__":
    launcher = PatientLauncher()
    submitted = launcher.submit(decode_spec(Path(sys.argv[2]).read_bytes()), Path(sys.argv[1]))
    print(launcher.status(submitted), flush=True)
    sys.stdin.read()
