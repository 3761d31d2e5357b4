"""A pool of processes: what was asked is done, and nobody is left behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from training_backend.launch.processes import identify, wait_gone
from training_backend.pool import processes, processors

_ASKS = """
import os, signal, sys, time
from training_backend.pool import processes
def work(number):
    return os.getpid()
if __name__ == "__main__":
    with processes(2) as pool:
        print(*{pool.submit(work, n).result() for n in range(8)} | {pool.submit(os.getpid).result()}, flush=True)
        time.sleep(60)
"""


def test_what_is_prepared_is_there() -> None:
    with processes(1, os.putenv, "MOLMO2_PREPARED", "yes") as pool:
        assert pool.submit(os.system, 'test "$MOLMO2_PREPARED" = yes').result() == 0
    assert processors() >= 1


def test_after_an_error_what_has_not_begun_never_does(tmp_path: Path) -> None:
    def ask() -> None:
        with processes(1) as pool:
            pool.submit(time.sleep, 0.5)
            for number in range(20):
                pool.submit((tmp_path / str(number)).touch)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        ask()
    assert len(list(tmp_path.iterdir())) < 20


def test_a_process_that_was_ended_is_told_in_words() -> None:
    def ask() -> None:
        with processes(1) as pool:
            pool.submit(os.abort).result()

    with pytest.raises(RuntimeError, match="ended from outside"):
        ask()


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_processes_end_with_their_parent(tmp_path: Path, number: signal.Signals) -> None:
    script = tmp_path / "asks.py"
    script.write_text(_ASKS)
    environment = os.environ | {"PYTHONPATH": os.getcwd()}
    with subprocess.Popen([sys.executable, str(script)], stdout=subprocess.PIPE, text=True, env=environment) as asking:
        assert asking.stdout is not None
        found = [identify(int(word)) for word in asking.stdout.readline().split()]
        assert found
        asking.send_signal(number)
        asking.wait()
        assert wait_gone(found, 10)
