"""`molmo2 doctor`: what this machine has and lacks, in plain words.

Belongs here: looking, one sentence a finding, with the way out where something is missing. Changes nothing.
"""

from __future__ import annotations

import os
import re
import shutil
import socket
import sys
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path
from typing import Literal, NamedTuple

from molmo2_assets.home import Home

State = Literal["ok", "note", "missing"]
OWN = {"torch", "dagster", "dagster-webserver", "lightning-fabric", "pandera", "duckdb", "av", "polars", "pyarrow",
       "huggingface-hub", "tokenizers", "safetensors", "msgspec"}  # fmt: skip
"""Packages whose version is compared with the tested one."""
EXTRAS = {
    "decord": "a third video reader",
    "deepspeed": "the DeepSpeed strategy",
    "flash-attn": "flash attention",
    "wandb": "W&B logs",
}
UI_PORT = 3000
_WANTED_GIB = 2
_CONSTRAINTS = Path(__file__).resolve().parents[1] / "constraints.txt"
_CGROUP_LIMITS = (Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"))


class Finding(NamedTuple):
    """One line of the report."""

    state: State
    text: str


def examine(home: Home) -> list[Finding]:
    """Everything there is to say, worst last."""
    found = [*_python(), *look_at_packages(), *_machine(), *look_at_home(home), *look_at_port(UI_PORT), *look_at_shell(home)]
    return sorted(found, key=lambda item: ("ok", "note", "missing").index(item.state))


def _python() -> Iterator[Finding]:
    # An older Python is refused by the Makefile and by pip: this module would not be installed.
    yield Finding("ok", f"Python {'.'.join(map(str, sys.version_info[:3]))}")


def look_at_packages(constraints: Path = _CONSTRAINTS) -> Iterator[Finding]:
    """Installed packages against the pinned ones."""
    pins = dict(re.findall(r"^([A-Za-z0-9_.\-]+)==(\S+)$", constraints.read_text(), re.M)) if constraints.is_file() else {}
    different, absent = [], []
    for name, pinned in pins.items():
        if name.lower().replace("_", "-") not in OWN:
            continue
        installed = _installed(name)
        if installed is None:
            absent.append(name)
        elif installed.split("+")[0] != pinned:
            different.append(f"{name} {installed} (tested: {pinned})")
        if name == "lightning-fabric" and installed in ("2.6.2", "2.6.3"):
            yield Finding(
                "missing", f"lightning-fabric {installed} was a malicious upload: remove it, change your secrets, `make venv`"
            )
    if absent:
        yield Finding("missing", f"not installed: {', '.join(absent)}; `make venv` installs the tested versions")
    if different:
        yield Finding("note", "other versions than tested: " + ", ".join(different))
    if not absent and not different:
        yield Finding("ok", "packages are the tested versions")
    extras = [f"{name} ({why})" for name, why in EXTRAS.items() if _installed(name) is None]
    if extras:
        yield Finding("note", "optional, not installed: " + ", ".join(extras))


def _installed(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def _machine() -> Iterator[Finding]:
    cores = len(os.sched_getaffinity(0))
    memory = memory_bytes() / 2**30
    yield Finding(
        "ok" if cores >= 2 and memory >= 4 else "note", f"{cores} cores, {memory:.0f} GiB of memory (the demo wants 2 and 4)"
    )
    if shutil.which("nvidia-smi") is None:
        yield Finding("note", "no NVIDIA GPU: the demo does not need one, `report` and `release` do")


def memory_bytes(limits: tuple[Path, ...] = _CGROUP_LIMITS) -> int:
    """Memory that this process may use: the machine's, or what its container is held to."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    for path in limits:
        try:
            said = path.read_text().strip()
        except OSError:
            continue
        if said.isdigit():  # "max" where there is no limit
            memory = min(memory, int(said))
    return memory


def look_at_home(home: Home) -> Iterator[Finding]:
    """Whether MOLMO2_HOME can be written and has room."""
    folder = home.root
    while not os.path.exists(folder):
        folder = folder.parent
    if not folder.is_dir():
        yield Finding("missing", f"{folder} is a file, so {home.root} cannot be made: choose another MOLMO2_HOME")
        return
    # Says no on a read-only disk even for root, whom permissions do not stop.
    if not os.access(folder, os.W_OK | os.X_OK):
        yield Finding("missing", f"{folder} cannot be written: choose another MOLMO2_HOME or give yourself access")
    free = shutil.disk_usage(folder).free / 2**30
    if free < _WANTED_GIB:
        yield Finding(
            "missing",
            f"{free:.1f} GiB free for {home.root}, the demo wants {_WANTED_GIB}: free some space or choose another MOLMO2_HOME",
        )
    else:
        yield Finding("ok", f"{free:.0f} GiB free for {home.root} (the demo wants {_WANTED_GIB})")


def look_at_port(number: int) -> Iterator[Finding]:
    """Whether the UI can have its port."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as the server does: a port in TIME_WAIT is free
        try:
            probe.bind(("127.0.0.1", number))
        except OSError:
            yield Finding("note", f"port {number} is in use: `dagster dev -p {number + 1}`, or `make ui PORT={number + 1}`")
        else:
            yield Finding("ok", f"port {number} is free")


def look_at_shell(home: Home) -> Iterator[Finding]:
    """Whether activate.sh was sourced, for this profile."""
    history = os.environ.get("DAGSTER_HOME")
    if history is None or "DAGSTER_CLI_ASSET_MATERIALIZE_MODULE_NAME" not in os.environ:
        yield Finding("note", "this shell is not activated: `source activate.sh` gives the UI and the command line one history")
    elif Path(history) != home.dagster:
        yield Finding(
            "note",
            f"DAGSTER_HOME is {history}, profile {home.profile} keeps its history in {home.dagster}: "
            f"`export MOLMO2_PROFILE={home.profile}` and source activate.sh again",
        )
