"""A catalogue entry as the sources read it, and every generated set at a small size, made once."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest

from molmo2_assets.sources.generated import GENERATORS, generate
from tests.support.published_sets import SMALL, Sets


@pytest.fixture
def entry() -> Callable[..., Any]:
    """entry(kind, **source fields): an object with the attributes of a DatasetSpec that sources use."""

    def make(kind: str, *, name: str = "some_set", url: str = "https://sets.invalid/some", **source: Any) -> Any:
        fields = dict.fromkeys(("repo", "revision", "config", "split", "generator", "path", "instructions"))
        return SimpleNamespace(
            name=name, url=url, source=SimpleNamespace(kind=kind, **{**fields, "files": (), "params": {}, **source})
        )

    return make


@pytest.fixture(scope="session")
def whole_sets(tmp_path_factory: pytest.TempPathFactory) -> Sets:
    """Folder of each generated set, SMALL rows, nothing broken."""
    root = tmp_path_factory.mktemp("sets")
    for name in GENERATORS:
        generate(name, {"n": SMALL, "faults": 0.0}, root / name, lambda line: None)
    return {name: root / name for name in GENERATORS}
