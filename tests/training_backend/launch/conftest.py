"""A launcher and a run's folder; whatever a test leaves running is ended."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.runs import PatientLauncher, identities
from training_backend.launch.processes import send, wait_gone


@pytest.fixture
def launcher() -> PatientLauncher:
    return PatientLauncher()


@pytest.fixture
def run_dir(tmp_path: Path) -> Iterator[Path]:
    folder = tmp_path / "runs" / "run"
    folder.parent.mkdir()
    yield folder
    left = identities(folder)
    for identity in left:
        send(identity, signal.SIGKILL)
    assert wait_gone(left, 10)
