"""What `molmo2 doctor` finds, in machines that really lack the thing."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

from molmo2_assets.doctor import Finding, examine, look_at_home, look_at_packages, look_at_port, look_at_shell, memory_bytes
from molmo2_assets.home import Home
from tests.support.disks import small_disk, unwritable
from tests.support.homes import CHECKOUT, environment


def doctor(env: Mapping[str, str], *, python: list[str] | None = None, prefix: tuple[str, ...] = ()) -> tuple[int, list[Finding]]:
    """`molmo2 doctor --json` in a process of its own."""
    command = [*prefix, *(python or [sys.executable]), "-c", "import sys; from molmo2_assets.cli import main; sys.exit(main())"]
    done = subprocess.run([*command, "doctor", "--json"], env=dict(env), capture_output=True, text=True, timeout=60, check=False)
    assert not done.stderr, done.stderr
    return done.returncode, [Finding(**item) for item in json.loads(done.stdout)]


def texts(findings: list[Finding], state: str) -> str:
    return "\n".join(finding.text for finding in findings if finding.state == state)


def site(folder: Path, without: tuple[str, ...] = (), **versions: str) -> Path:
    """The installed packages as they are seen from `folder`: some missing, some in another version."""
    folder.mkdir()
    for entry in sys.path:
        if entry.endswith("site-packages"):
            for item in Path(entry).iterdir():
                name = item.name.split("-")[0].lower()
                gone = item.suffix == ".dist-info" and (name in without or name in versions)
                if not gone and not (folder / item.name).exists():
                    (folder / item.name).symlink_to(item)
    for name, version in versions.items():
        (folder / f"{name}-{version}.dist-info").mkdir()
        (folder / f"{name}-{version}.dist-info" / "METADATA").write_text(
            f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n"
        )
    return folder


def test_a_good_machine_has_nothing_missing(tmp_path: Path) -> None:
    home = Home(tmp_path, "small")
    findings = [f for f in examine(home) if "GiB free" not in f.text]  # the tester's disk is not ours to judge
    assert not texts(findings, "missing")
    assert f"Python {sys.version_info[0]}.{sys.version_info[1]}" in texts(findings, "ok")
    assert [f.state for f in findings] == sorted((f.state for f in findings), key=("ok", "note", "missing").index)


def test_packages_that_are_missing_or_other_than_tested(tmp_path: Path) -> None:
    lib = site(tmp_path / "lib", without=("duckdb", "pandera"), torch="9.9.0", lightning_fabric="2.6.2")
    env = environment(tmp_path / "home", "small", PYTHONPATH=os.pathsep.join([str(CHECKOUT), str(lib)]))
    code, findings = doctor(env, python=[sys.executable, "-S"])
    assert code == 1
    missing = texts(findings, "missing")
    assert "not installed: duckdb, pandera; `make venv` installs the tested versions" in missing
    assert "lightning-fabric 2.6.2 was a malicious upload" in missing
    assert "torch 9.9.0 (tested: " in texts(findings, "note")
    assert "packages are the tested versions" not in texts(findings, "ok")
    extras = [line for line in texts(findings, "note").splitlines() if line.startswith("optional, not installed")]
    assert extras == [] or "(" in extras[0]


def test_without_a_file_of_pins_nothing_is_claimed_missing(tmp_path: Path) -> None:
    assert not texts(list(look_at_packages(tmp_path / "constraints.txt")), "missing")


def test_one_core_is_too_few_for_the_demo(tmp_path: Path) -> None:
    if shutil.which("taskset") is None:
        pytest.skip("taskset (util-linux) is not here")
    core = min(os.sched_getaffinity(0))
    _, findings = doctor(environment(tmp_path, "small"), prefix=("taskset", "-c", str(core)))
    assert "1 cores" in texts(findings, "note")


def test_a_container_is_held_to_its_memory_limit(tmp_path: Path) -> None:
    limit, none = tmp_path / "memory.max", tmp_path / "none"
    limit.write_text(f"{3 << 30}\n")
    none.write_text("max\n")
    whole = memory_bytes(())
    assert memory_bytes((limit,)) == min(3 << 30, whole)
    assert memory_bytes((none, tmp_path / "absent")) == whole


def test_a_graphics_card_is_no_note(tmp_path: Path) -> None:
    tool = tmp_path / "bin" / "nvidia-smi"
    tool.parent.mkdir()
    tool.write_text("#!/bin/sh\n")
    tool.chmod(0o755)
    without = environment(tmp_path, "small", PATH=str(tmp_path / "empty"))
    assert "no NVIDIA GPU" in texts(doctor(without)[1], "note")
    with_card = environment(tmp_path, "small", PATH=str(tool.parent))
    assert "no NVIDIA GPU" not in texts(doctor(with_card)[1], "note")


def test_a_small_disk(tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk", 512) as disk:
        (finding,) = look_at_home(Home(disk / "not" / "yet", "small"))
    assert finding.state == "missing"
    assert finding.text.startswith(f"0.0 GiB free for {disk}/not/yet, the demo wants 2: free some space or choose another")


def test_a_home_that_cannot_be_written(tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk", 512) as disk, unwritable(disk):
        found = texts(list(look_at_home(Home(disk / "home", "small"))), "missing")
    assert f"{disk} cannot be written: choose another MOLMO2_HOME or give yourself access" in found


def test_a_home_below_a_file(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    env = environment(tmp_path / "file" / "home", "small")
    code, findings = doctor(env)
    assert code == 1
    assert texts(findings, "missing") == (
        f"{tmp_path}/file is a file, so {tmp_path}/file/home cannot be made: choose another MOLMO2_HOME"
    )


def test_a_port_in_use() -> None:
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen()
        port = server.getsockname()[1]
        (taken,) = look_at_port(port)
    (free,) = look_at_port(port)
    assert taken == ("note", f"port {port} is in use: `dagster dev -p {port + 1}`, or `make ui PORT={port + 1}`")
    assert free == ("ok", f"port {port} is free")


def test_a_shell_that_is_not_activated_or_for_another_profile(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    home = Home(tmp_path, "small")
    monkeypatch.delenv("DAGSTER_HOME", raising=False)
    monkeypatch.setenv("DAGSTER_CLI_ASSET_MATERIALIZE_MODULE_NAME", "definitions")
    (finding,) = look_at_shell(home)
    assert "not activated: `source activate.sh`" in finding.text
    monkeypatch.setenv("DAGSTER_HOME", str(Home(tmp_path, "demo").dagster))
    (finding,) = look_at_shell(home)
    assert "`export MOLMO2_PROFILE=small` and source activate.sh again" in finding.text
    monkeypatch.setenv("DAGSTER_HOME", str(home.dagster))
    assert list(look_at_shell(home)) == []
