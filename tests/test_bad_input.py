"""What goes wrong around the work: disks, permissions, killed runs, ports.

Each time: one plain sentence with the way out, nothing lost, and the next run works.
"""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from molmo2_assets.home import Home
from tests.support.disks import fill, small_disk, unwritable
from tests.support.homes import CHECKOUT, environment, molmo2
from tests.support.shell import end_group
from training_backend.data.manifest import MANIFEST_FILE

ALL = ["raw/shapes_cap", "scoreboard", "media/shapes_cap", "validated/shapes_cap", "tokenizer"]
ROOM = 6000
"""KiB: enough for profile `one_set` and Dagster's history of it."""


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    with small_disk(tmp_path / "disk", ROOM) as folder:
        yield folder


def failures(done: subprocess.CompletedProcess[str]) -> list[str]:
    return [line.strip() for line in done.stdout.splitlines() if "FAILED" in line]


def built(done: subprocess.CompletedProcess[str], word: str = "cache: hit") -> list[str]:
    """Assets on whose line `word` stands."""
    return [line.split()[-1 - len(word.split())] for line in done.stdout.splitlines() if line.startswith("  [") and word in line]


def works(env: dict[str, str], *others: Path) -> subprocess.CompletedProcess[str]:
    """The next run finishes, and leaves nothing half-written but what belongs to `others` who live."""
    done = molmo2(env, "demo")
    assert done.returncode == 0, done.stdout + done.stderr
    home = Home(Path(env["MOLMO2_HOME"]), env["MOLMO2_PROFILE"])
    assert all(home.store(key).current(key) for key in ALL)
    assert list(home.root.rglob(".partial-*")) == list(others)
    return done


def test_a_disk_that_fills_up_on_the_way(disk: Path, tmp_path: Path) -> None:
    env = environment(disk, "one_set", tmp_path / "history")
    filler = fill(disk)
    os.truncate(filler, filler.stat().st_size - (240 << 10))  # enough for the raw set and its media, not for the rows
    done = molmo2(env, "demo")
    assert done.returncode == 1
    assert done.stderr == ""
    assert "Traceback" not in done.stdout
    said = failures(done)
    assert said
    for line in said:
        assert re.fullmatch(
            rf"FAILED  \S+: cannot write {disk}/\S+: the disk is full; free some space and run again; nothing finished is lost\.",
            line,
        ), line
    assert not list(disk.rglob(".partial-*"))
    assert molmo2(env, "stale").returncode == 0
    filler.unlink()
    assert "raw/shapes_cap" in built(works(env))  # finished before the disk was full, kept


@pytest.mark.parametrize("room", [0, pytest.param(700, marks=pytest.mark.slow)])
def test_a_full_disk_meets_the_history_first(disk: Path, room: int) -> None:
    """As activate.sh arranges it: the history lies in the home."""
    env = environment(disk, "one_set")
    filler = fill(disk)
    os.truncate(filler, max(0, filler.stat().st_size - (room << 10)))
    done = molmo2(env, "demo")
    assert done.returncode in (1, 2)
    assert "Traceback" not in done.stdout + done.stderr
    if done.returncode == 2:
        line = done.stderr.splitlines()[-1]  # before it, Dagster may have said the same of its own log lines
        assert line.startswith(f"molmo2: cannot write Dagster's history in {disk}/one_set/dagster: ")
        assert line.endswith("and run again; nothing finished is lost.")
    else:
        assert failures(done)
    filler.unlink()
    works(env)


def test_a_home_that_must_not_be_written(disk: Path, tmp_path: Path) -> None:
    env, usual = environment(disk, "one_set", tmp_path / "history"), environment(disk, "one_set")
    with unwritable(disk):
        assert molmo2(env, "datasets").returncode == 0  # looking needs no right to write
        done = molmo2(env, "demo")
        inside = molmo2(usual, "demo")
    assert done.returncode == 1
    assert "Traceback" not in done.stdout + done.stderr
    for line in failures(done):
        assert f"cannot write {disk}/" in line
        assert line.endswith("no permission to write; choose another MOLMO2_HOME or give yourself access.")
    assert failures(done)
    # With the history in it, as activate.sh arranges it, that is what cannot be written first.
    assert (inside.returncode, len(inside.stderr.splitlines())) == (2, 1), inside.stderr
    assert f"{disk}/one_set/dagster" in inside.stderr
    works(usual)


def test_a_home_below_a_file(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    env = environment(tmp_path / "file" / "home", "one_set", tmp_path / "history")
    done = molmo2(env, "demo")
    assert done.returncode == 1
    for line in failures(done):
        assert "a file lies where a folder is needed; move it away or choose another MOLMO2_HOME." in line
    assert failures(done)


def test_a_killed_run_leaves_nothing_that_anybody_reads(tmp_path: Path) -> None:
    """Killed in the middle of writing; the half-written folder is there, is read by nobody, and goes with the next run."""
    env = environment(tmp_path, "one_set")
    ours = Home(tmp_path, "one_set").store("raw/shapes_cap").stage("raw/shapes_cap", "0" * 64)  # a builder that lives: this process
    process = subprocess.Popen(
        [sys.executable, "-m", "molmo2_assets.cli", "demo"],
        env=env,
        cwd=CHECKOUT,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.STDOUT,
    )
    end = time.monotonic() + 60
    folder = tmp_path / "shared" / "assets" / "validated"
    while not (half := list(folder.rglob(".partial-*"))) and time.monotonic() < end and process.poll() is None:
        time.sleep(0.001)
    process.send_signal(signal.SIGKILL)
    process.wait(10)
    assert half, "it was never seen writing"
    assert half[0].exists()

    assert dict(_states(molmo2(env, "datasets").stdout)) == {"shapes_cap": "not materialised"}
    assert molmo2(env, "stale").stdout == "everything that was materialised is up to date\n"
    done = works(env, ours)
    assert not half[0].exists()
    assert {"raw/shapes_cap", "media/shapes_cap"} <= set(built(done))
    assert molmo2(env, "sweep").stdout == "no run was left open by a process that is gone\n"  # the next run closed it


def _states(table: str) -> Iterator[tuple[str, str]]:
    header, *lines = [re.split(r"  +", line) for line in table.splitlines()]
    for cells in lines:
        yield cells[0], cells[header.index("state")]


@pytest.mark.slow
def test_damaged_and_unfinished_folders(tmp_path: Path) -> None:
    """A torn manifest is named; a folder without one is rebuilt without a word."""
    env = environment(tmp_path, "one_set")
    works(env)
    store = Home(tmp_path, "one_set").store("raw/shapes_cap")
    found = store.current("raw/shapes_cap")
    assert found is not None
    manifest = found[0] / MANIFEST_FILE
    whole = manifest.read_bytes()
    manifest.write_bytes(whole[: len(whole) // 2])
    done = molmo2(env, "demo")
    assert done.returncode == 1
    assert "Traceback" not in done.stdout + done.stderr
    (line,) = failures(done)
    assert f"{manifest} cannot be read" in line
    assert line.endswith("remove the folder and materialise the asset again.")
    manifest.unlink()
    again = works(env)
    assert built(again) == [key for key in ALL if key != "raw/shapes_cap"]  # the same bytes, so nothing below is done again


@pytest.mark.slow
def test_dagster_dev_on_a_port_in_use_says_which_it_takes_instead(tmp_path: Path) -> None:
    with socket.socket() as server:
        server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            server.bind(("127.0.0.1", 3000))
            server.listen()
        except OSError:
            pass  # somebody else has it: as good
        env = environment(tmp_path, "one_set")
        log = tmp_path / "log"
        with log.open("wb") as stream:
            process = subprocess.Popen(
                ["bash", "-c", f'source "{CHECKOUT}/activate.sh" && exec dagster dev --host 127.0.0.1'],
                env=env, cwd=CHECKOUT, stdin=subprocess.DEVNULL, stdout=stream, stderr=subprocess.STDOUT, start_new_session=True,
            )  # fmt: skip
        try:
            end = time.monotonic() + 90
            while "Serving dagster-webserver on" not in log.read_text() and time.monotonic() < end and process.poll() is None:
                time.sleep(0.2)
        finally:
            end_group(process)
    said = log.read_text()
    assert (found := re.search(r"Port 3000 is in use - using port (\d+) instead", said)), said
    assert f"http://127.0.0.1:{found[1]}" in said
