"""Rows broken on purpose, all the way into quarantine: what was planned is exactly what ingest sets aside."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from molmo2_assets.ingest.validate import validate
from molmo2_assets.profile import DatasetSpec, MediaSpec, SourceSpec
from molmo2_assets.sources import fetch
from molmo2_assets.sources.generated import planned_faults
from molmo2_assets.sources.media import collect_media
from training_backend.data.media import MediaCache

SETS = {
    "shapes_points": ("pixmo_points", "image_pointing", MediaSpec(kind="folder", sha256_column="image_sha256")),
    "clips_track": ("molmo2_track_instruction", "video_tracking", MediaSpec(kind="folder", layout="media/{video}.mp4")),
    "charts_qa": ("chart_qa", "document_qa", MediaSpec(kind="embedded")),
}


@pytest.mark.parametrize("name", SETS)
def test_ingest_sets_aside_what_was_planned_and_nothing_else(tmp_path: Path, name: str) -> None:
    adapter, task, media = SETS[name]
    params = {"n": 40, "faults": 0.4}
    source = SourceSpec(kind="generated", generator=name, params=params)
    spec = DatasetSpec(
        name=name, title=name, source=source, task=task, group="tests", adapter=adapter, media=media, max_bad_fraction=0.5
    )
    raw, found, rows = (tmp_path / part for part in ("raw", "media", "validated"))
    found.mkdir()
    rows.mkdir()
    fetch(spec, raw, lambda line: None)
    collect_media(spec, raw, MediaCache(tmp_path / "cache"), found, lambda line: None)
    report = validate(spec, raw, found, rows, lambda line: None)
    planned = {fault.row: fault for fault in planned_faults(name, params)}
    aside = {line["row"]: line for line in map(json.loads, (rows / "quarantine.jsonl").read_text().splitlines())}
    assert aside.keys() == planned.keys()
    assert report.rows_in == 40
    assert report.rows_ok == 40 - len(planned)
