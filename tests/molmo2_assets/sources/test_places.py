"""Where media are: templates with wildcards, several of them, a person's own folder, and what must not be reached."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from molmo2_assets.ingest.adapters import Reference
from molmo2_assets.ingest.rows import RawRow
from molmo2_assets.profile import MediaSpec
from molmo2_assets.sources.places import file_of, listing_of
from training_backend.data.media import MediaFault


@pytest.fixture
def kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("MOLMO2_MANUAL", str(tmp_path / "kept"))
    folder = tmp_path / "kept" / "set"
    folder.mkdir(parents=True)
    return folder


def touch(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"x")


def place(media: MediaSpec, folder: Path, uri: str = "v1", **data: Any) -> str:
    return file_of(media, RawRow("a", 0, data), Reference(uri, "video"), folder).relative_to(folder).as_posix()


def fault(media: MediaSpec, folder: Path, uri: str = "v1", **data: Any) -> str:
    with pytest.raises(MediaFault) as caught:
        file_of(media, RawRow("a", 0, data), Reference(uri, "video"), folder)
    return caught.value.reason


def test_any_extension_and_any_of_several_folders(kept: Path) -> None:
    touch(kept, "cc/cc-a/v1/film.webm", "batch/v2.mkv", "batch/v10.mp4")
    media = MediaSpec(kind="folder", path="set", layout="cc/cc-*/{uri}/*.*", also=("batch/{uri}.*",))
    assert place(media, kept) == "cc/cc-a/v1/film.webm"
    assert place(media, kept, "v2") == "batch/v2.mkv"
    assert fault(media, kept, "v1*") == "missing", "wildcards of a value are its own characters"
    assert fault(media, kept, "v3") == "missing"


def test_the_first_by_name_where_several_match(kept: Path) -> None:
    touch(kept, "v1.mp4", "v1.mkv")
    assert place(MediaSpec(kind="folder", path="set", layout="{uri}.*"), kept) == "v1.mkv"


def test_columns_of_the_row_are_part_of_a_place(kept: Path) -> None:
    touch(kept, "P01/videos/v1.MP4")
    media = MediaSpec(kind="folder", path="set", layout="{who}/videos/{uri}.*")
    assert place(media, kept, who="P01") == "P01/videos/v1.MP4"
    assert fault(media, kept) == "missing"
    assert fault(media, kept, who="..") == "escapes"
    assert fault(media, kept, who="/etc") == "escapes"


def test_links_are_a_persons_own_affair_but_not_a_download(kept: Path, tmp_path: Path) -> None:
    touch(tmp_path, "elsewhere/v1.mp4", "raw/x")
    (kept / "disk").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "raw" / "disk").symlink_to(tmp_path / "elsewhere")
    assert place(MediaSpec(kind="folder", path="set", layout="disk/{uri}.mp4"), kept) == "disk/v1.mp4"
    assert fault(MediaSpec(kind="folder", layout="disk/{uri}.mp4"), tmp_path / "raw") == "escapes"
    assert fault(MediaSpec(kind="folder", layout="disk/{uri}.*"), tmp_path / "raw") == "escapes"


def test_an_unset_folder_is_said(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("MOLMO2_MANUAL", raising=False)
    with pytest.raises(MediaFault, match="MOLMO2_MANUAL, which is not set"):
        file_of(MediaSpec(kind="folder", path="set", layout="{uri}"), RawRow("a", 0, {}), Reference("v", "video"), tmp_path)


def test_the_listing_changes_when_a_film_arrives(kept: Path) -> None:
    media = MediaSpec(kind="folder", path="set", layout="{uri}/*.*")
    touch(kept, "v1/a.mp4")
    before = listing_of(media)
    assert listing_of(media) == before
    touch(kept, "v2/a.mp4")
    assert listing_of(media) != before
    assert listing_of(MediaSpec(kind="folder", path="gone")) is None
    assert listing_of(MediaSpec(kind="folder")) is None
