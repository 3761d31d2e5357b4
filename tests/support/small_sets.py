"""Sets of a few rows on disk, taken through collecting media and validating: what tests of ingest look at.

Belongs here: writing rows and media, running both layers with the real parts. Does not belong here: rows of published layouts
(`published_rows.py`), generated sets (`published_sets.py`).
"""

from __future__ import annotations

import io
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from molmo2_assets.ingest.media_table import MediaRecord, read_media
from molmo2_assets.ingest.quarantine import Quarantined, read_quarantine
from molmo2_assets.ingest.validate import ValidateReport, validate
from molmo2_assets.profile import DatasetSpec, MediaSpec, SourceSpec
from molmo2_assets.sources.media import MediaReport, collect_media
from training_backend.data.media import DEFAULT_LIMITS, Limits, MediaCache
from training_backend.data.store import RowStore


def quiet(line: str) -> None:
    """A log that nobody reads."""


def picture_bytes(seed: int = 0, width: int = 20, height: int = 10, kind: str = "PNG") -> bytes:
    """A small picture of noise, another one for every seed."""
    from PIL import Image

    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, kind)
    return stream.getvalue()


def write_film(path: Path, seconds: float = 2.0, fps: int = 8, side: int = 32) -> Path:
    """A small film of one grey."""
    import av

    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=fps)
        stream.width, stream.height, stream.pix_fmt = side, side, "yuv420p"
        stream.options = {"threads": "1", "preset": "ultrafast"}
        for number in range(round(seconds * fps)):
            frame = av.VideoFrame.from_ndarray(np.full((side, side, 3), 8 * number % 256, np.uint8), format="rgb24")
            frame.pts = number
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


def spec_of(adapter: str, task: Any, media: MediaSpec | None = None, **fields: Any) -> DatasetSpec:
    """A catalogue entry for a set in a folder."""
    fields = {"source": SourceSpec(kind="manual", path="set"), "max_bad_fraction": 1.0, **fields}
    return DatasetSpec(
        name="set", title="A set", task=task, group="tests", adapter=adapter, media=media or MediaSpec(kind="folder"), **fields
    )


def json_lines(rows: Iterable[Any]) -> bytes:
    """Rows as JSON lines; a row given as bytes stands as it is."""
    return b"".join((row if isinstance(row, bytes) else json.dumps(row).encode()) + b"\n" for row in rows)


@dataclass
class Validated:
    """What both layers made of a set."""

    raw: Path
    folder: Path
    media: MediaReport
    records: dict[str, MediaRecord]
    report: ValidateReport
    aside: list[Quarantined]

    @property
    def store(self) -> RowStore:
        """The rows that were kept."""
        return RowStore(self.folder)

    @property
    def reasons(self) -> dict[int, str]:
        """Row → why it was set aside, for sets of one file."""
        return {item.row: item.reason for item in self.aside}


def run(spec: DatasetSpec, home: Path, rows: Sequence[Any] | None = None, limits: Limits = DEFAULT_LIMITS) -> Validated:
    """Collect and validate `home/raw`, where `rows`, if given, become `rows.jsonl`."""
    raw, media, folder = home / "raw", home / "media", home / "validated"
    for path in (raw, media, folder):
        path.mkdir(parents=True, exist_ok=True)
    if rows is not None:
        (raw / "rows.jsonl").write_bytes(json_lines(rows))
    collected = collect_media(spec, raw, MediaCache(home / "cache"), media, quiet, limits)
    report = validate(spec, raw, media, folder, quiet)
    return Validated(raw, folder, collected, read_media(media), report, list(read_quarantine(folder)))
