from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from molmo2_assets.sources import SourceUnavailable, fetch, source_identity

Entry = Callable[..., Any]


def quiet(line: str) -> None:
    assert line


@pytest.fixture
def placed(tmp_path: Path) -> Path:
    folder = tmp_path / "manual" / "docvqa"
    (folder / "images").mkdir(parents=True)
    (folder / "train.json").write_text("[1]")
    (folder / "images" / "a.png").write_bytes(b"picture")
    (folder / ".DS_Store").write_bytes(b"junk")
    return folder


def test_files_are_taken_with_their_checksums(placed: Path, tmp_path: Path, entry: Entry, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MOLMO2_MANUAL", str(tmp_path / "manual"))
    result = fetch(entry("manual", path="docvqa"), tmp_path / "raw", quiet)
    found = {path.relative_to(tmp_path / "raw").as_posix() for path in (tmp_path / "raw").rglob("*") if path.is_file()}
    assert found == {"train.json", "images/a.png"}
    assert result.facts == {"files": 2, "bytes": 10}
    again = fetch(entry("manual", path=str(placed)), tmp_path / "again", quiet)
    assert again.revision == result.revision
    (placed / "train.json").unlink()
    (placed / "train.json").write_text("[2]")
    changed = fetch(entry("manual", path=str(placed)), tmp_path / "changed", quiet)
    assert changed.revision != result.revision
    assert (tmp_path / "raw" / "train.json").read_text() == "[1]"


def test_patterns_choose(placed: Path, tmp_path: Path, entry: Entry) -> None:
    result = fetch(entry("manual", path=str(placed), files=("*.json",)), tmp_path / "raw", quiet)
    assert result.facts["files"] == 1
    with pytest.raises(SourceUnavailable, match=r"holds nothing that matches \*\.csv"):
        fetch(entry("manual", path=str(placed), files=("*.csv",)), tmp_path / "none", quiet)


def test_what_is_absent_says_what_to_do(tmp_path: Path, entry: Entry, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MOLMO2_MANUAL", raising=False)
    with pytest.raises(SourceUnavailable, match="MOLMO2_MANUAL, which is not set") as caught:
        fetch(entry("manual", path="docvqa", instructions="Register at the site, then unpack train.zip."), tmp_path, quiet)
    assert caught.value.instructions == "Register at the site, then unpack train.zip."
    monkeypatch.setenv("MOLMO2_MANUAL", str(tmp_path))
    with pytest.raises(SourceUnavailable, match="there is no folder") as caught:
        fetch(entry("manual", path="docvqa"), tmp_path / "raw", quiet)
    assert "https://sets.invalid/some" in caught.value.instructions
    with pytest.raises(SourceUnavailable, match=r"names no source\.path"):
        fetch(entry("manual"), tmp_path / "raw", quiet)


def test_the_identity_changes_when_files_come_or_grow(placed: Path, tmp_path: Path, entry: Entry) -> None:
    spec = entry("manual", path=str(placed))
    first = source_identity(spec)
    assert source_identity(spec) == first
    (placed / "images" / "b.png").write_bytes(b"")
    second = source_identity(spec)
    assert second != first
    (placed / "images" / "b.png").write_bytes(b"1")
    assert source_identity(spec) not in (first, second)
    assert source_identity(entry("manual", path=str(tmp_path / "nowhere")))["listing"] is None


def test_linked_files_and_folders_are_taken(placed: Path, tmp_path: Path, entry: Entry) -> None:
    """Annotations are small and stay, pictures lie on another disk: a link each, or one for their folder."""
    far = tmp_path / "disk"
    (far / "more").mkdir(parents=True)
    (far / "b.png").write_bytes(b"other")
    (far / "more" / "c.png").write_bytes(b"third")
    (placed / "images" / "b.png").symlink_to(far / "b.png")
    (placed / "far").symlink_to(far)
    (placed / "gone.png").symlink_to(far / "nothing.png")
    (far / "round").symlink_to(placed)
    fetch(entry("manual", path=str(placed)), tmp_path / "raw", quiet)
    found = {path.relative_to(tmp_path / "raw").as_posix() for path in (tmp_path / "raw").rglob("*") if path.is_file()}
    assert found == {"train.json", "images/a.png", "images/b.png", "far/b.png", "far/more/c.png"}
    assert not any(path.is_symlink() for path in (tmp_path / "raw").rglob("*"))
    assert (tmp_path / "raw" / "far" / "more" / "c.png").read_bytes() == b"third"
