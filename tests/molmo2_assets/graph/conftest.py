"""The graph of a handful of rows, materialised once by the command that a person would type.

Belongs here: that one home, which tests may read and add to. A test that breaks something works in a copy (`own_home`).
"""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass
from pathlib import Path

import pytest

from molmo2_assets.home import Home
from molmo2_assets.profile import Profile, load_profile
from tests.support.shell import ROOT, activated, clean_environment


@dataclass(frozen=True)
class Made:
    """A home in which profile `graph` was materialised, and what the command printed."""

    root: Path
    notes: Path
    output: str

    @property
    def home(self) -> Home:
        return Home(self.root, "graph")

    @property
    def environment(self) -> dict[str, str]:
        return clean_environment(self.root, "graph", MOLMO2_MANUAL=str(self.notes.parent))

    def manifest_of(self, key: str) -> tuple[Path, object]:
        found = self.home.store(key).current(key)
        assert found is not None, f"{key} was not made"
        return found


def graph_profile() -> Profile:
    """The profile, as another process would load it."""
    return load_profile("graph", [ROOT / "tests"])


def write_notes(folder: Path, rows: int = 24) -> None:
    """The set that somebody keeps in a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    lines = [json.dumps({"question": f"What is {n} and {n}?", "answer": f"It is {2 * n}."}) + "\n" for n in range(rows)]
    (folder / "notes.jsonl").write_text("".join(lines))


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    """Everything, by `molmo2 demo` in an activated shell."""
    root = tmp_path_factory.mktemp("graph")
    write_notes(root / "manual" / "notes")
    place = Made(root / "home", root / "manual" / "notes", "")
    done = activated("molmo2 demo", place.environment, timeout=280)
    assert done.returncode == 0, done.stdout[-4000:]
    return Made(place.root, place.notes, done.stdout)


@pytest.fixture
def own_home(made: Made, tmp_path: Path) -> Made:
    """A copy of the made home that a test may break. Files of finished versions never change, so they are linked."""
    shutil.copytree(made.root, tmp_path / "home", copy_function=_link, symlinks=True)
    shutil.copytree(made.notes.parent, tmp_path / "manual")
    return Made(tmp_path / "home", tmp_path / "manual" / "notes", made.output)


def _link(source: str, target: str) -> None:
    # Dagster's history and our pointers are written in place or replaced; only content is shared.
    if "/dagster/" in source:
        shutil.copy2(source, target)
    else:
        Path(target).hardlink_to(source)
