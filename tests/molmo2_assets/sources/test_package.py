from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from molmo2_assets.sources import SourceUnavailable, fetch, package, source_identity


def test_every_photograph_is_there_and_captioned(tmp_path: Path, entry: Callable[..., Any]) -> None:
    result = fetch(entry("package"), tmp_path, lambda line: None)
    rows = [json.loads(line) for line in (tmp_path / "photos.jsonl").read_text().splitlines()]
    assert len(rows) == result.facts["rows"] == len(package.PHOTOS)
    assert {row["image"] for row in rows} == {path.name for path in (tmp_path / "media").iterdir()}
    for row in rows:
        assert row["caption"].endswith(".")
        assert row["licence"]
        with Image.open(tmp_path / "media" / row["image"]) as picture:
            picture.load()
            assert min(picture.size) >= 256
    assert "scikit-image-" in result.revision


def test_what_a_package_lacks_is_named(tmp_path: Path, entry: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> None:
    absent = package.Photo("skimage", "data/not_shipped.png", "CC0-1.0", "Nothing.")
    monkeypatch.setattr(package, "PHOTOS", (*package.PHOTOS, absent))
    with pytest.raises(SourceUnavailable, match=r"1 of 16 photographs .*scikit-image: data/not_shipped\.png"):
        fetch(entry("package"), tmp_path, lambda line: None)


def test_the_identity_holds_the_versions(entry: Callable[..., Any]) -> None:
    identity = source_identity(entry("package"))
    assert set(identity["packages"]) == {"scikit-image", "scikit-learn"}
    assert all(identity["packages"].values())
