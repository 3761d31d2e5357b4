"""Published files in small: an entry of the catalogue, a file of its form written by hand, and the examples that it means.

Belongs here: what a fixture is, reading one through the entry as ingest does, and showing a branch in one line so that it can be
checked by eye. Does not belong here: the fixtures (`layouts_images.py`, `layouts_videos.py`, `layouts_evaluation.py`).

Where nothing else is said, the forms are those that the released loaders read (allenai/molmo2 at f3cb108, olmo/data/*.py). Pictures
show 200×100 pixels, films 400×200 pixels for 10 seconds.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec

from molmo2_assets.ingest.adapters import adapter_of
from molmo2_assets.ingest.reasons import RowFault
from molmo2_assets.ingest.rows import BadRow, annotation_files
from molmo2_assets.ingest.tables import rows_of
from molmo2_assets.profile import DatasetSpec
from tests.support.published_rows import film, picture
from training_backend.data.example import Branch, Choices, Count, Media, Points, Text, TimedPoints, Tracks

Said = tuple[str, str | None, str]
"""Style, question (None: the recipe words it), answer."""


@dataclass(frozen=True)
class Published:
    """Files by name (text, JSON value, or list of rows for Parquet and JSON lines), what each example says by key, and the reasons
    why rows were set aside, in order. `kept` are files in the folder of the media."""

    files: dict[str, Any]
    expected: dict[str, list[Said]]
    aside: list[str] = field(default_factory=list)
    kept: dict[str, Any] = field(default_factory=dict)


def write(folder: Path, files: dict[str, Any]) -> None:
    """The files of a fixture, each in its type."""
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if isinstance(content, bytes | str):
            path.write_bytes(content.encode() if isinstance(content, str) else content)
        elif path.suffix == ".parquet":
            import pyarrow as pa
            import pyarrow.parquet as pq

            pq.write_table(pa.Table.from_pylist(content), path)
        elif path.suffix == ".arrow":
            import pyarrow as pa

            table = pa.Table.from_pylist(content)
            with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_stream(sink, table.schema) as stream:
                stream.write_table(table)
        elif path.suffix == ".jsonl":
            path.write_text("".join(json.dumps(row) + "\n" for row in content))
        else:
            path.write_text(json.dumps(content))


@dataclass
class Read:
    """What an entry makes of its files."""

    said: dict[str, list[Said]] = field(default_factory=dict)
    aside: list[str] = field(default_factory=list)
    media: list[Media] = field(default_factory=list)
    meta: list[dict[str, Any]] = field(default_factory=list)


def read(spec: DatasetSpec, raw: Path) -> Read:
    """Rows of the files in `raw` through the entry's tables, selection and adapter; media are as large as they should be."""
    adapter, context = adapter_of(spec)
    found = Read()
    for path in annotation_files(raw, spec.source.files):
        for row in rows_of(spec, path, raw, adapter.needs(context), adapter.optional):
            if isinstance(row, BadRow):
                found.aside.append(row.fault.reason)
                continue
            try:
                shown = [picture(item.uri) if item.kind == "image" else film(item.uri) for item in adapter.media(row, context)]
                shown = [msgspec.structs.replace(medium, id=f"m{number}") for number, medium in enumerate(shown)]
                piece = adapter.read(row, shown, context)
            except RowFault as fault:
                found.aside.append(fault.reason)
                continue
            found.said.setdefault(piece.key, []).extend(shown_branch(branch) for branch in piece.branches)
            found.media += piece.media
            found.meta.append(piece.meta)
    return found


def shown_branch(branch: Branch) -> Said:
    """A branch in three words; the right option is marked, points and tracks are written out."""
    turns = list(branch.turns)
    question = " | ".join("".join(part.text for part in turn.parts if isinstance(part, Text)) for turn in turns[:-1])
    return branch.style, question if len(turns) > 1 else None, "; ".join(_part(part) for part in turns[-1].parts)


def _part(part: Any) -> str:
    if isinstance(part, Text):
        return part.text
    if isinstance(part, Choices):
        return " / ".join(f"*{option}" if place == part.answer else option for place, option in enumerate(part.options))
    if isinstance(part, Count):
        return f"{part.count} × {part.label}"
    if isinstance(part, Points):
        return f"{part.label}: " + " ".join(f"{p.image}@{p.x:g},{p.y:g}" for p in part.points)
    if isinstance(part, TimedPoints):
        return f"{part.label}: " + " ".join(f"{p.t:g}s@{p.x:g},{p.y:g}" for p in part.points)
    assert isinstance(part, Tracks)
    lines = [
        f"{track.id}[" + " ".join(f"{s.t:g}s@{s.x:g},{s.y:g}{'?' if s.occluded else ''}" for s in track.samples) + "]"
        for track in part.tracks
    ]
    return f"{part.query} {part.mode} at {part.fps:g}: " + " ".join(lines)
