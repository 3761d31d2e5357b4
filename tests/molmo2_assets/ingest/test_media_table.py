"""The media table: a line for each uri, the same bytes whatever order they were collected in."""

from __future__ import annotations

from pathlib import Path

import pytest

from molmo2_assets.ingest.media_table import MEDIA_FILE, MediaRecord, read_media, write_media
from training_backend.data.example import Media

OK = MediaRecord(
    uri="b.mp4", kind="video", state="ok", sha256="ab" * 32, width=400, height=200, duration=10.0, fps=8.0, n_frames=80,
    codec="h264", bytes=1234,
)  # fmt: skip
GONE = MediaRecord(uri="a.png", kind="image", state="missing", reason="missing", detail="media/a.png is not there")


def test_records_come_back_by_uri(tmp_path: Path) -> None:
    write_media(tmp_path, [OK, GONE])
    assert read_media(tmp_path) == {"a.png": GONE, "b.mp4": OK}
    first = (tmp_path / MEDIA_FILE).read_bytes()
    write_media(tmp_path, [GONE, OK])
    assert (tmp_path / MEDIA_FILE).read_bytes() == first
    write_media(tmp_path, [])
    assert read_media(tmp_path) == {}


def test_a_usable_record_becomes_a_medium_of_an_example() -> None:
    assert OK.media("m0") == Media(
        id="m0", kind="video", uri="b.mp4", sha256="ab" * 32, width=400, height=200, duration=10.0, fps=8.0, n_frames=80
    )
    with pytest.raises(AssertionError):
        GONE.media("m0")
