"""The project as a person uses it: its commands in a shell of their own, and what such a shell would find.

Belongs here: environments and processes for tests of the command line and of servers. Does not belong here: what is asserted.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
_OURS = ("MOLMO2_", "DAGSTER_", "VIRTUAL_ENV", "PYTEST_", "COV_")


def clean_environment(home: Path, profile: str, **more: str) -> dict[str, str]:
    """This process's environment without anything of ours, of Dagster's or of pytest's; then home and profile."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(_OURS)}
    return {**kept, "MOLMO2_HOME": str(home), "MOLMO2_PROFILE": profile, "MOLMO2_PROFILE_DIRS": str(ROOT / "tests"), **more}


def activated(
    command: str, environment: dict[str, str], cwd: Path | None = None, timeout: float = 240
) -> subprocess.CompletedProcess[str]:
    """A command line in a fresh bash after `source activate.sh`; output and errors together in `stdout`."""
    return subprocess.run(
        ["bash", "-c", f'source "{ROOT}/activate.sh" && {command}'],
        env=environment, cwd=cwd or ROOT, text=True, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        timeout=timeout, check=False,
    )  # fmt: skip


def free_port() -> int:
    """A port that nobody listens on just now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    return port


@contextmanager
def server(
    command: str, environment: dict[str, str], log: Path, url: str, seconds: float = 90
) -> Iterator[subprocess.Popen[bytes]]:
    """A command that serves `url`, in a session of its own; everything in that session is ended afterwards."""
    with log.open("wb") as stream:
        process = subprocess.Popen(
            ["bash", "-c", f'source "{ROOT}/activate.sh" && exec {command}'],
            env=environment, cwd=ROOT, stdin=subprocess.DEVNULL, stdout=stream, stderr=subprocess.STDOUT, start_new_session=True,
        )  # fmt: skip
    try:
        _wait_for(url, process, log, seconds)
        yield process
    finally:
        end_group(process)


def end_group(process: subprocess.Popen[bytes], grace: float = 15) -> None:
    """SIGTERM to a process that leads its own session, then SIGKILL to all that is left of it."""
    for number, wait in ((signal.SIGTERM, grace), (signal.SIGKILL, 5.0)):
        try:
            os.killpg(process.pid, number)
        except ProcessLookupError:
            break
        try:
            process.wait(wait)
        except subprocess.TimeoutExpired:
            continue
    process.wait(5)


def _wait_for(url: str, process: subprocess.Popen[bytes], log: Path, seconds: float) -> None:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if process.poll() is not None:
            raise AssertionError(f"the server ended with {process.returncode}:\n{log.read_text(errors='replace')[-3000:]}")
        try:
            with urllib.request.urlopen(url, timeout=2):
                return
        except (urllib.error.URLError, OSError):
            time.sleep(0.2)
    raise AssertionError(f"nothing answered at {url} in {seconds} s:\n{log.read_text(errors='replace')[-3000:]}")
