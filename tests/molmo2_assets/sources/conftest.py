"""A catalogue entry as the sources read it, and every generated set at a small size, made once."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from molmo2_assets.profile import DatasetSpec, SourceSpec
from molmo2_assets.sources.generated import GENERATORS, generate
from tests.support.published_sets import SMALL, Sets


@pytest.fixture
def entry() -> Callable[..., DatasetSpec]:
    """entry(kind, **source fields): a catalogue entry."""

    def make(kind: Any, *, url: str | None = "https://sets.invalid/some", **source: Any) -> DatasetSpec:
        return DatasetSpec(
            name="some_set", title="Some set", url=url, source=SourceSpec(kind=kind, **source), task="image_qa", group="tests"
        )

    return make


@pytest.fixture(scope="session")
def whole_sets(tmp_path_factory: pytest.TempPathFactory) -> Sets:
    """Folder of each generated set, SMALL rows, nothing broken."""
    root = tmp_path_factory.mktemp("sets")
    for name in GENERATORS:
        generate(name, {"n": SMALL, "faults": 0.0}, root / name, lambda line: None)
    return {name: root / name for name in GENERATORS}


@pytest.fixture(autouse=True)
def loopback_allowed(monkeypatch: pytest.MonkeyPatch) -> None:
    """The hosts of these tests are on this machine, which a person has to allow."""
    monkeypatch.setenv("MOLMO2_PRIVATE_NETWORKS", "127.0.0.0/8")
