"""The shell's side: activate.sh in bash and zsh, the Makefile, .envrc."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

from tests.support.disks import fill, small_disk, unwritable
from tests.support.homes import CHECKOUT, history_at

NAMES = (
    "MOLMO2_HOME", "MOLMO2_PROFILE", "DAGSTER_HOME", "DAGSTER_CLI_ASSET_MATERIALIZE_MODULE_NAME",
    "DAGSTER_CLI_ASSET_MATERIALIZE_WORKING_DIRECTORY", "DAGSTER_CLI_ASSET_LIST_MODULE_NAME",
    "DAGSTER_CLI_ASSET_LIST_WORKING_DIRECTORY", "FAKE_VENV",
)  # fmt: skip


@pytest.fixture(params=["bash", "zsh"])
def shell(request: pytest.FixtureRequest) -> str:
    if shutil.which(request.param) is None:
        pytest.skip(f"{request.param} is not installed")
    return str(request.param)


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A checkout in a folder with spaces, whose environment is a word in FAKE_VENV."""
    root = tmp_path / "my models" / "nano molmo2"
    (root / ".venv" / "bin").mkdir(parents=True)
    for name in ("activate.sh", ".envrc", "Makefile", "pyproject.toml", "constraints.txt"):
        shutil.copy(CHECKOUT / name, root)
    (root / ".venv" / "bin" / "activate").write_text("export FAKE_VENV=on\n")
    return root


def shown(text: str) -> dict[str, str]:
    """What `_show()` printed last."""
    found: dict[str, str] = json.loads(text.splitlines()[-1])
    return found


def call(shell: str, script: str, cwd: Path, **variables: str) -> subprocess.CompletedProcess[str]:
    """A script in a shell without the tester's own settings or start-up files."""
    clean: Mapping[str, str] = {n: v for n, v in os.environ.items() if not n.startswith(("MOLMO2_", "DAGSTER_", "VIRTUAL_ENV"))}
    plain = ["--norc", "--noprofile"] if shell == "bash" else ["-f"]
    return subprocess.run(
        [shell, *plain, "-c", script], env={**clean, **variables}, cwd=cwd, capture_output=True, text=True, timeout=60, check=False
    )


def test_it_sets_everything_from_any_folder(shell: str, checkout: Path, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    done = call(shell, f"set -u; source '../my models/nano molmo2/activate.sh' && {_show()}", tmp_path / "elsewhere")
    assert done.stderr == ""
    assert shown(done.stdout) == {
        "MOLMO2_HOME": f"{checkout}/.molmo2",
        "MOLMO2_PROFILE": "demo",
        "DAGSTER_HOME": f"{checkout}/.molmo2/demo/dagster",
        "DAGSTER_CLI_ASSET_MATERIALIZE_MODULE_NAME": "definitions",
        "DAGSTER_CLI_ASSET_MATERIALIZE_WORKING_DIRECTORY": str(checkout),
        "DAGSTER_CLI_ASSET_LIST_MODULE_NAME": "definitions",
        "DAGSTER_CLI_ASSET_LIST_WORKING_DIRECTORY": str(checkout),
        "FAKE_VENV": "on",
    }
    assert (checkout / ".molmo2" / "demo" / "dagster" / "dagster.yaml").is_file()


def _show() -> str:
    code = f"import json, os; print(json.dumps({{n: os.environ.get(n) for n in {list(NAMES)!r}}}))"
    return f'{sys.executable} -c "{code}"'


def test_nothing_of_its_own_stays_behind(shell: str, checkout: Path) -> None:
    listing = "{ set; typeset -f; } | grep -c '^_molmo2' || true"
    assert call(shell, f"source ./activate.sh && {listing}", checkout).stdout.strip() == "0"


def test_cdpath_does_not_confuse_it(shell: str, checkout: Path) -> None:
    done = call(shell, f"export CDPATH='{checkout.parent}:/tmp'; source 'nano molmo2/activate.sh' && {_show()}", checkout.parent)
    assert shown(done.stdout)["MOLMO2_HOME"] == f"{checkout}/.molmo2"


def test_twice_is_as_good_as_once_and_keeps_your_dagster_yaml(shell: str, checkout: Path) -> None:
    yaml = checkout / ".molmo2" / "demo" / "dagster" / "dagster.yaml"
    once = call(shell, f"source ./activate.sh && {_show()}", checkout)
    yaml.write_text(yaml.read_text() + "# mine\n")
    twice = call(shell, f"source ./activate.sh && source ./activate.sh && {_show()}", checkout)
    assert shown(once.stdout) == shown(twice.stdout)
    assert yaml.read_text().endswith("# mine\n")
    assert [path.name for path in yaml.parent.iterdir()] == ["dagster.yaml"]


def test_another_profile_has_another_history(shell: str, checkout: Path) -> None:
    done = call(shell, f"source ./activate.sh; export MOLMO2_PROFILE=report; source ./activate.sh && {_show()}", checkout)
    assert shown(done.stdout)["DAGSTER_HOME"] == f"{checkout}/.molmo2/report/dagster"
    assert sorted(path.name for path in (checkout / ".molmo2").iterdir()) == ["demo", "report"]


def test_a_home_of_your_own(shell: str, checkout: Path, tmp_path: Path) -> None:
    mine = tmp_path / "my home"
    done = call(shell, f"source ./activate.sh && {_show()}", checkout, MOLMO2_HOME=str(mine))
    assert shown(done.stdout)["DAGSTER_HOME"] == f"{mine}/demo/dagster"
    relative = call(shell, f"source '{checkout}/activate.sh' && {_show()}", tmp_path, MOLMO2_HOME="here")
    assert shown(relative.stdout)["MOLMO2_HOME"] == f"{tmp_path}/here"


def _one_sentence(done: subprocess.CompletedProcess[str], home: Path) -> None:
    assert done.stdout == "after 1\n"
    assert done.stderr == _refusal(home) + "\n"


def _refusal(home: Path) -> str:
    return f"activate.sh: cannot write {home}/demo/dagster; free some space, or set MOLMO2_HOME to a folder that you may write."


def test_a_home_that_cannot_be_made(shell: str, checkout: Path, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    home = tmp_path / "file" / "home"
    _one_sentence(call(shell, "source ./activate.sh; echo after $?", checkout, MOLMO2_HOME=str(home)), home)


def test_a_home_that_is_read_only_or_full(shell: str, checkout: Path, tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk", 64) as disk:
        with unwritable(disk):
            _one_sentence(call(shell, "source ./activate.sh; echo after $?", checkout, MOLMO2_HOME=str(disk)), disk)
        filler = fill(disk)
        _one_sentence(call(shell, "source ./activate.sh; echo after $?", checkout, MOLMO2_HOME=str(disk)), disk)
        filler.unlink()
        assert call(shell, "source ./activate.sh; echo after $?", checkout, MOLMO2_HOME=str(disk)).stdout == "after 0\n"
        assert (disk / "demo" / "dagster" / "dagster.yaml").read_text() == _yaml(checkout)


def _yaml(checkout: Path) -> str:
    assert call("bash", "source ./activate.sh", checkout).returncode == 0
    return (checkout / ".molmo2" / "demo" / "dagster" / "dagster.yaml").read_text()


def test_without_an_environment_it_says_how_to_make_one(shell: str, checkout: Path) -> None:
    shutil.rmtree(checkout / ".venv")
    done = call(shell, "source ./activate.sh; echo after $?", checkout)
    assert done.stdout == "after 0\n"
    assert done.stderr == f"activate.sh: there is no environment in {checkout}/.venv yet; `make venv` makes it.\n"


def test_the_dagster_yaml_is_one_that_dagster_accepts(checkout: Path) -> None:
    _yaml(checkout)
    with history_at(checkout / ".molmo2" / "demo" / "dagster") as instance:
        assert instance.telemetry_enabled is False
        assert instance.nux_enabled is False
        assert instance.run_monitoring_enabled is True
        assert instance.global_op_concurrency_default_limit == 1


def test_envrc_is_the_same_environment(checkout: Path) -> None:
    plain = call("bash", f"source ./.envrc && {_show()}", checkout)
    assert plain.stderr == ""
    assert shown(plain.stdout) == shown(call("bash", f"source ./activate.sh && {_show()}", checkout).stdout)


def test_direnv_loads_it(checkout: Path, tmp_path: Path) -> None:
    direnv = shutil.which("direnv")
    if direnv is None:
        pytest.skip("direnv is not installed")
    own = {"HOME": str(tmp_path), "XDG_DATA_HOME": str(tmp_path / "data"), "XDG_CONFIG_HOME": str(tmp_path / "config")}
    done = call("bash", f"direnv allow . && direnv exec . {_show()}", checkout, **own)
    assert shown(done.stdout)["DAGSTER_HOME"] == f"{checkout}/.molmo2/demo/dagster"


# -- make -------------------------------------------------------------------------------------------------------------------


def make(folder: Path, *arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    clean = {n: v for n, v in os.environ.items() if not n.startswith(("MOLMO2_", "DAGSTER_", "MAKE"))}
    return subprocess.run(
        ["make", *arguments], cwd=folder, env={**clean, **variables}, capture_output=True, text=True, timeout=90, check=False
    )


def _sentences(done: subprocess.CompletedProcess[str]) -> list[str]:
    """What was said, without make's own last word."""
    return [line for line in (done.stdout + done.stderr).splitlines() if not line.startswith("make: ***")]


def test_make_lists_the_targets(checkout: Path) -> None:
    done = make(checkout)
    assert done.returncode == 0
    assert [line.split()[1] for line in done.stdout.splitlines()] == [
        "help",
        "venv",
        "peers",
        "demo",
        "learn",
        "test",
        "lint",
        "ui",
        "clean",
    ]
    assert all(line.startswith("  make ") and len(line.split()) > 2 for line in done.stdout.splitlines())


def _old_python(folder: Path) -> Path:
    """A python3 that is 3.9 in everything it says of itself."""
    folder.mkdir()
    fake = folder / "python3"
    fake.write_text(
        f'#!/bin/sh\n[ "$1" = -c ] || exit 9\nexec {sys.executable} -c \'import sys; sys.version_info = (3, 9, 18, "final", 0); '
        'exec(sys.argv[1])\' "$2"\n'
    )
    fake.chmod(0o755)
    return fake


@pytest.mark.parametrize("target", ["venv", "demo", "test"])
def test_an_old_python_is_one_sentence(checkout: Path, tmp_path: Path, target: str) -> None:
    shutil.rmtree(checkout / ".venv")
    old = _old_python(tmp_path / "old")
    path = f"{old.parent}:{os.environ['PATH']}"
    done = make(checkout, target, PATH=path)
    assert done.returncode != 0
    assert _sentences(done) == ["Python 3.11 or newer is needed, python3 is 3.9: set PYTHON=/path/to/python3.11"]
    assert not (checkout / ".venv").exists()


def test_no_python_is_one_sentence(checkout: Path) -> None:
    shutil.rmtree(checkout / ".venv")
    done = make(checkout, "venv", "PYTHON=/nowhere/python3.11")
    assert done.returncode != 0
    assert _sentences(done) == ["/nowhere/python3.11 is not here: install Python 3.11 or newer, or set PYTHON=/path/to/python3.11"]


def _installed(checkout: Path) -> None:
    """The environment that these tests run in, as if `make venv` had made it here."""
    shutil.rmtree(checkout / ".venv")
    (checkout / ".venv").mkdir()
    for path in Path(sys.prefix).iterdir():
        if not path.name.startswith(".installed-"):
            (checkout / ".venv" / path.name).symlink_to(path)
    both = (checkout / "pyproject.toml").read_bytes() + (checkout / "constraints.txt").read_bytes()
    (checkout / ".venv" / f".installed-{hashlib.sha256(both).hexdigest()[:12]}").touch()


def test_make_venv_has_nothing_to_do_where_it_is_made(checkout: Path) -> None:
    _installed(checkout)
    assert make(checkout, "venv", "-q").returncode == 0


def test_the_ui_on_a_port_in_use_is_one_sentence(checkout: Path) -> None:
    _installed(checkout)
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen()
        port = server.getsockname()[1]
        done = make(checkout, "ui", f"PORT={port}")
    assert done.returncode != 0
    assert _sentences(done) == [
        f"Port {port} is in use, perhaps by another UI: close that one, or choose another port: make ui PORT={port + 1}"
    ]


def test_make_demo_stops_where_the_home_cannot_be_written(checkout: Path, tmp_path: Path) -> None:
    _installed(checkout)
    (tmp_path / "file").touch()
    done = make(checkout, "demo", MOLMO2_HOME=str(tmp_path / "file" / "home"))
    assert done.returncode != 0
    assert _sentences(done) == [_refusal(tmp_path / "file" / "home")]
