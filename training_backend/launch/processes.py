"""Processes of a run: who they are, whether they still live, ending them.

Belongs here: identities that survive the reuse of process numbers, the files that hold them, and the kill that is sure to hit the
right process. Does not belong here: what is started (`local.py`).

torchrun gives every rank a session of its own, so killing the agent's group leaves ranks alive: each rank registers itself, and is
ended by name.
"""

from __future__ import annotations

import ctypes
import os
import signal
import socket
import time
from pathlib import Path

import msgspec

from training_backend.api import RunFailed
from training_backend.data.manifest import replace_file

LAUNCHED = "MOLMO2_LAUNCHED"
"""In the environment of a run that a launcher started and will register."""
ATTEMPT_FILES = ("stop", "exit.json", "result.json")
"""What an attempt leaves about itself; the next one begins without."""
_PR_SET_PDEATHSIG = 1
_REGISTRATION_SECONDS = 30.0


class Identity(msgspec.Struct, frozen=True, kw_only=True):
    """One process: host name, boot of that host, process number, start time in clock ticks since boot."""

    host: str
    boot_id: str
    pid: int
    start_ticks: int


def boot_id() -> str:
    """Identity of this boot of the kernel."""
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()


def _stat(pid: int) -> tuple[str, int] | None:
    """(state letter, start ticks) of a process, None where there is none."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return fields[0], int(fields[19])


def identify(pid: int) -> Identity:
    """The identity of a living process of this host. Raises ProcessLookupError."""
    found = _stat(pid)
    if found is None:
        raise ProcessLookupError(f"no process {pid}")
    return Identity(host=socket.gethostname(), boot_id=boot_id(), pid=pid, start_ticks=found[1])


def is_here(identity: Identity) -> bool:
    """Whether the process belongs to this boot of this host."""
    return identity.host == socket.gethostname() and identity.boot_id == boot_id()


def is_alive(identity: Identity) -> bool:
    """Whether exactly this process runs on this host; a zombie does not."""
    found = _stat(identity.pid) if is_here(identity) else None
    return found is not None and found[1] == identity.start_ticks and found[0] not in "ZX"


def die_with_parent() -> None:
    """Ask the kernel to end this process when its parent ends (Linux; torchrun's ranks use it).

    A parent that ended before this call is not noticed: look who the parent is afterwards.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL) != 0:
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_PDEATHSIG) failed")


def send(identity: Identity, number: signal.Signals, *, group: bool = False) -> None:
    """Send a signal to a process (or the group that it leads) if it still is the same one. Raises PermissionError."""
    if not is_alive(identity):
        return
    try:
        if group and os.getpgid(identity.pid) == identity.pid:
            os.killpg(identity.pid, number)
        else:
            os.kill(identity.pid, number)
    except ProcessLookupError:
        return


def wait_gone(identities: list[Identity], seconds: float) -> bool:
    """Wait until none of the processes is alive; False when some still are after `seconds`."""
    end = time.monotonic() + seconds
    while any(is_alive(identity) for identity in identities):
        if time.monotonic() >= end:
            return False
        time.sleep(0.05)
    return True


def read_identity(path: Path) -> Identity | None:
    """An identity as a file holds it; None where there is none, or a torn one."""
    try:
        return msgspec.json.decode(path.read_bytes(), type=Identity)
    except (FileNotFoundError, msgspec.MsgspecError):
        return None


def register(run_dir: Path, rank: int) -> None:
    """Make this process known as a rank of the run, before it does anything. Raises RunFailed.

    A launcher starts the run's leader (this process, or torchrun's agent above it) and then writes `agent.json`. Nothing is
    computed before that: a launcher that was killed in between, and a rank whose agent is gone already, would leave a run that
    nobody knows. A worker that was started by hand writes the file itself, unless the run is at work.
    """
    ranked = "TORCHELASTIC_RUN_ID" in os.environ
    if ranked:
        die_with_parent()
    leader = identify(os.getppid() if ranked else os.getpid())
    agent = run_dir / "agent.json"
    if LAUNCHED in os.environ:
        end = time.monotonic() + _REGISTRATION_SECONDS
        while read_identity(agent) != leader:
            if time.monotonic() > end:
                raise RunFailed(f"{run_dir}: whoever started this process was gone before registering it; submit the run again.")
            time.sleep(0.02)
    elif rank == 0:
        known = read_identity(agent)
        if known is not None and known != leader and is_alive(known):
            raise RunFailed(f"{run_dir} is at work already, as process {known.pid}.")
        for name in ATTEMPT_FILES:
            (run_dir / name).unlink(missing_ok=True)
        replace_file(agent, msgspec.json.encode(leader))
    replace_file(run_dir / "ranks" / f"{rank}.json", msgspec.json.encode(identify(os.getpid())))
