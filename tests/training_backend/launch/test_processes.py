"""Identities of processes: exact through reuse, death and zombies."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from tests.support.runs import wait_until
from training_backend.api import RunFailed
from training_backend.launch import processes
from training_backend.launch.processes import (
    LAUNCHED,
    Identity,
    boot_id,
    identify,
    is_alive,
    is_here,
    read_identity,
    register,
    send,
    wait_gone,
)

SLEEP = [sys.executable, "-c", "import time; time.sleep(60)"]


@pytest.fixture
def child() -> Iterator[subprocess.Popen[bytes]]:
    process = subprocess.Popen(SLEEP, start_new_session=True)
    yield process
    process.kill()
    process.wait()


def test_an_identity_says_which_process(child: subprocess.Popen[bytes]) -> None:
    identity = identify(child.pid)
    assert (identity.host, identity.boot_id, identity.pid) == (socket.gethostname(), boot_id(), child.pid)
    started = identity.start_ticks / os.sysconf("SC_CLK_TCK")
    assert started == pytest.approx(time.clock_gettime(time.CLOCK_BOOTTIME), abs=5)
    assert is_here(identity)
    assert is_alive(identity)
    assert identify(child.pid) == identity
    assert identify(os.getpid()) != identity


@pytest.mark.parametrize("change", [{"start_ticks": 1}, {"boot_id": "of last week"}, {"host": "another"}])
def test_the_same_number_is_not_the_same_process(child: subprocess.Popen[bytes], change: dict[str, object]) -> None:
    other = msgspec.structs.replace(identify(child.pid), **change)
    assert not is_alive(other)
    assert is_here(other) == ("start_ticks" in change)
    for group in (False, True):
        send(other, signal.SIGKILL, group=group)
    assert wait_gone([other], 0)
    time.sleep(0.05)
    assert child.poll() is None


def test_a_name_full_of_brackets_is_read(tmp_path: Path) -> None:
    program = tmp_path / "a) R 1 (b"
    program.symlink_to("/bin/sleep")
    process = subprocess.Popen([program, "60"])
    try:
        wait_until(lambda: ") R 1 (" in Path(f"/proc/{process.pid}/stat").read_text(), "the name")
        assert is_alive(identify(process.pid))
        assert identify(process.pid).start_ticks > identify(1).start_ticks
    finally:
        process.kill()
        process.wait()


def test_a_zombie_is_dead(child: subprocess.Popen[bytes]) -> None:
    identity = identify(child.pid)
    send(identity, signal.SIGKILL)
    assert wait_gone([identity], 10)
    assert Path(f"/proc/{child.pid}").exists()  # not reaped yet
    assert not is_alive(identity)
    send(identity, signal.SIGKILL)
    child.wait()
    assert not is_alive(identity)
    with pytest.raises(ProcessLookupError):
        identify(child.pid)


def test_wait_gone_has_a_limit(child: subprocess.Popen[bytes]) -> None:
    identity = identify(child.pid)
    began = time.monotonic()
    assert not wait_gone([identity], 0.2)
    assert 0.2 <= time.monotonic() - began < 2
    assert wait_gone([], 0)


def test_a_group_is_signalled_only_through_its_leader(tmp_path: Path) -> None:
    """A process that leads no group shares its starter's: killing 'its group' would kill whoever started it."""
    code = "import subprocess, sys, time; p = subprocess.Popen(sys.argv[1:]); print(p.pid, flush=True); time.sleep(60)"
    leader = subprocess.Popen([sys.executable, "-c", code, *SLEEP], start_new_session=True, stdout=subprocess.PIPE, text=True)
    assert leader.stdout is not None
    member = identify(int(leader.stdout.readline()))
    send(member, signal.SIGTERM, group=True)
    assert wait_gone([member], 10)
    assert leader.poll() is None
    send(identify(leader.pid), signal.SIGKILL, group=True)
    leader.wait(10)
    leader.stdout.close()


def test_a_child_dies_with_its_parent() -> None:
    code = (
        "import os, time; from training_backend.launch.processes import die_with_parent\n"
        "if os.fork() == 0:\n    die_with_parent(); print(os.getpid(), flush=True)\ntime.sleep(60)"
    )
    parent = subprocess.Popen([sys.executable, "-c", code], start_new_session=True, stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    child = identify(int(parent.stdout.readline()))
    parent.kill()
    parent.wait()
    assert wait_gone([child], 5)
    parent.stdout.close()


def test_identities_on_disk(tmp_path: Path) -> None:
    path = tmp_path / "agent.json"
    assert read_identity(path) is None
    path.write_bytes(msgspec.json.encode(identify(1))[:-5])
    assert read_identity(path) is None
    path.write_bytes(msgspec.json.encode(identify(1)))
    assert read_identity(path) == identify(1)


def test_a_worker_started_by_hand_registers_itself(
    tmp_path: Path, child: subprocess.Popen[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(LAUNCHED, raising=False)
    me = identify(os.getpid())
    register(tmp_path, 0)
    assert read_identity(tmp_path / "agent.json") == read_identity(tmp_path / "ranks" / "0.json") == me
    (tmp_path / "agent.json").write_bytes(msgspec.json.encode(identify(child.pid)))
    with pytest.raises(RunFailed, match=f"is at work already, as process {child.pid}"):
        register(tmp_path, 0)
    dead: Identity = msgspec.structs.replace(identify(child.pid), start_ticks=1)
    (tmp_path / "agent.json").write_bytes(msgspec.json.encode(dead))
    register(tmp_path, 0)
    assert read_identity(tmp_path / "agent.json") == me


def test_a_launched_worker_waits_to_be_registered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(LAUNCHED, "local")
    monkeypatch.setattr(processes, "_REGISTRATION_SECONDS", 0.1)
    with pytest.raises(RunFailed, match="was gone before registering it"):
        register(tmp_path, 0)
    assert not (tmp_path / "ranks").exists()
    (tmp_path / "agent.json").write_bytes(msgspec.json.encode(identify(os.getpid())))
    register(tmp_path, 0)
    assert (tmp_path / "ranks" / "0.json").exists()
