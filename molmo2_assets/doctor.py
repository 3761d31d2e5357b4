"""`molmo2 doctor`: what this machine has and lacks, in plain words.

Belongs here: looking, one sentence a finding. Changes nothing.
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


class Finding(NamedTuple):
    """One line of the report."""

    state: State
    text: str


def examine(home: Home) -> list[Finding]:
    """Everything there is to say, worst last."""
    found = [*_python(), *_packages(), *_machine(), *_home(home), *_ports(), *_activation()]
    return sorted(found, key=lambda item: ("ok", "note", "missing").index(item.state))


def _python() -> Iterator[Finding]:
    # An older Python is refused by the Makefile and by pip: this module would not be installed.
    yield Finding("ok", f"Python {'.'.join(map(str, sys.version_info[:3]))}")


def _packages() -> Iterator[Finding]:
    constraints = Path(__file__).resolve().parents[1] / "constraints.txt"
    pins = dict(re.findall(r"^([A-Za-z0-9_.\-]+)==(\S+)$", constraints.read_text(), re.M)) if constraints.is_file() else {}
    different = []
    for name, pinned in pins.items():
        if name.lower().replace("_", "-") not in OWN:
            continue
        try:
            installed = metadata.version(name)
        except metadata.PackageNotFoundError:
            yield Finding("missing", f"the package {name} is not installed: `make venv`")
            continue
        if installed.split("+")[0] != pinned:
            different.append(f"{name} {installed} (tested: {pinned})")
        if name == "lightning-fabric" and installed in ("2.6.2", "2.6.3"):
            yield Finding(
                "missing", f"lightning-fabric {installed} was a malicious upload: remove it, change your secrets, `make venv`"
            )
    if different:
        yield Finding("note", "other versions than tested: " + ", ".join(different))
    else:
        yield Finding("ok", "packages are the tested versions")
    absent = [f"{name} ({why})" for name, why in EXTRAS.items() if not _installed(name)]
    if absent:
        yield Finding("note", "optional, not installed: " + ", ".join(absent))


def _installed(name: str) -> bool:
    try:
        metadata.version(name)
    except metadata.PackageNotFoundError:
        return False
    return True


def _machine() -> Iterator[Finding]:
    cores = len(os.sched_getaffinity(0))
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    yield Finding(
        "ok" if cores >= 2 and memory >= 4 else "note", f"{cores} cores, {memory:.0f} GiB of memory (the demo wants 2 and 4)"
    )
    if shutil.which("nvidia-smi") is None:
        yield Finding("note", "no NVIDIA GPU: the demo does not need one, `report` and `release` do")


def _home(home: Home) -> Iterator[Finding]:
    folder = home.root
    while not folder.exists():
        folder = folder.parent
    free = shutil.disk_usage(folder).free / 2**30
    yield Finding("ok" if free >= 2 else "missing", f"{free:.0f} GiB free for {home.root} (the demo wants 2)")
    if not os.access(folder, os.W_OK):
        yield Finding("missing", f"{folder} cannot be written: choose another MOLMO2_HOME")


def _ports() -> Iterator[Finding]:
    with socket.socket() as probe:
        taken = probe.connect_ex(("127.0.0.1", 3000)) == 0
    yield Finding("note" if taken else "ok", "port 3000 is in use: `dagster dev -p 3001`" if taken else "port 3000 is free")


def _activation() -> Iterator[Finding]:
    if "DAGSTER_HOME" not in os.environ or "DAGSTER_CLI_ASSET_MATERIALIZE_MODULE_NAME" not in os.environ:
        yield Finding("note", "this shell is not activated: `source activate.sh` gives the UI and the command line one history")
