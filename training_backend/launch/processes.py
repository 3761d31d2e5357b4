"""Processes of a run: who they are, whether they still live, ending them.

Belongs here: identities that survive the reuse of process numbers, and the kill that is sure to hit the right process. Does not belong
here: what is started (`local.py`).

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

_PR_SET_PDEATHSIG = 1


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
    """Ask the kernel to end this process when its parent ends (Linux; torchrun's ranks use it)."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL) != 0:
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_PDEATHSIG) failed")


def send(identity: Identity, number: signal.Signals, *, group: bool = False) -> None:
    """Send a signal to a process (or its group) if it still is the same one."""
    if not is_alive(identity):
        return
    try:
        if group:
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
