"""The real sets taken once through the true graph, for all tests of this folder.

Belongs here: the folder that a person would fill, one materialisation, the batches that training reads.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import dagster as dg
import pytest

from molmo2_assets.home import Home
from molmo2_assets.profile import load_profile
from tests.support.real_sets import REAL, place_all
from tests.support.real_world import World

PROFILES = Path(__file__).resolve().parents[1] / "profiles"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    if REAL.is_dir():
        return
    here = Path(__file__).parent
    for item in items:
        if here in item.path.parents:
            item.add_marker(pytest.mark.skip(reason="the sample data is not beside this checkout (../shared/data/real)"))


@pytest.fixture(scope="session")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """The real profile, materialised once."""
    root = tmp_path_factory.mktemp("real")
    place_all(root / "manual")
    with pytest.MonkeyPatch.context() as patch, dg.DagsterInstance.ephemeral() as instance:
        patch.setenv("MOLMO2_MANUAL", str(root / "manual"))
        made = World(load_profile("real", [PROFILES]), Home(root / "home", "real"), instance)
        made.materialise()
        yield made
