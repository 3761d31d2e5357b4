"""One materialised home for all tests that only look, and `molmo2` called in this process."""

from __future__ import annotations

import fcntl
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from molmo2_assets.cli import main
from tests.support.homes import environment, molmo2


class Said(NamedTuple):
    """What a command answered."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)

    @property
    def table(self) -> list[str]:
        return self.out.splitlines()


Run = Callable[..., Said]


@pytest.fixture(scope="session")
def small_home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The whole graph of profile `small`, made by `molmo2 demo` (about 20 s), once for all test processes. Read only."""
    base = tmp_path_factory.getbasetemp()
    base = base.parent if base.name.startswith("popen-") else base  # pytest-xdist: one folder below for each process
    home = base / "small-home"
    with (base / "small-home.lock").open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (home / "output.txt").is_file():
            done = molmo2(environment(home, "small"), "demo", seconds=240)
            assert done.returncode == 0, done.stdout + done.stderr
            (home / "output.txt").write_text(done.stdout)
    return home


def _runner(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], home: Path) -> Run:
    for name, value in environment(home, "small").items():
        if name.startswith(("MOLMO2_", "DAGSTER_")):
            monkeypatch.setenv(name, value)

    def run(*arguments: str) -> Said:
        capsys.readouterr()
        try:
            code = main(arguments)
        except SystemExit as ended:  # argparse ends --help this way
            code = int(ended.code or 0)
        return Said(code, *capsys.readouterr())

    return run


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], small_home: Path) -> Run:
    """`molmo2` on the materialised home."""
    return _runner(monkeypatch, capsys, small_home)


@pytest.fixture
def run_empty(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Run:
    """`molmo2` on a home where nothing was made."""
    return _runner(monkeypatch, capsys, tmp_path)
