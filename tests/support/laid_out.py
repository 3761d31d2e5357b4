"""Any set of the catalogue as a folder that a person put in place: the fixture of its layout, with pictures and films to read.

Belongs here: which fixture an entry has, writing it and the media that its rows name. Does not belong here: the fixtures
(`layouts_*.py`), running anything over them.
"""

from __future__ import annotations

import functools
import hashlib
import io
import re
import tempfile
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from molmo2_assets.ingest.adapters import Reference, adapter_of
from molmo2_assets.ingest.rows import RawRow, annotation_files
from molmo2_assets.ingest.tables import rows_of
from molmo2_assets.profile import DatasetSpec, MediaSpec, catalogue
from molmo2_assets.sources.places import file_of
from tests.support.layouts import Published, write
from tests.support.layouts_evaluation import EVALUATION
from tests.support.layouts_images import IMAGES
from tests.support.layouts_videos import VIDEOS
from tests.support.published_rows import LAYOUTS
from training_backend.data.fingerprint import fingerprint, plain
from training_backend.data.media import MediaFault

PUBLISHED: dict[str, Published] = {**IMAGES, **VIDEOS, **EVALUATION}


def layout_of(spec: DatasetSpec) -> str:
    """What decides how files are read, without what only names things: entries that are alike need one fixture."""
    return fingerprint([spec.adapter, plain(spec.adapter_params), plain(spec.source.tables), spec.task.startswith("video")])


@functools.cache
def _owners() -> dict[str, str]:
    entries = catalogue().datasets
    return {layout_of(entries[name]): name for name in PUBLISHED}


def lay_out(spec: DatasetSpec, root: Path) -> DatasetSpec:
    """Write the set into `root/<name>`, rows that its fixture breaks on purpose too; returns the entry that reads it there."""
    folder = root / spec.name
    owner = spec.name if spec.name in PUBLISHED else _owners().get(layout_of(spec))
    if owner is not None:
        fixture = PUBLISHED[owner]
        write(folder, {name: _readable(content) for name, content in {**fixture.kept, **fixture.files}.items()})
        patterns = catalogue().datasets[owner].source.patterns or tuple(fixture.files)
    else:
        row = _readable(LAYOUTS[spec.adapter or ""].row)
        patterns = ("rows.parquet",) if "image" in row and isinstance(row["image"], dict) else ("rows.jsonl",)
        write(folder, {patterns[0]: [row]})
    joined = (join.file for table in spec.source.tables for join in table.joins.values() if "{" not in join.file)
    source = msgspec.structs.replace(
        spec.source, kind="manual", path=str(folder), instructions="x", files=(*patterns, *joined), repo=None, unpack=()
    )
    media = msgspec.structs.replace(spec.media, path=str(folder)) if spec.media.kind == "folder" else spec.media
    if media.kind == "urls":
        media = MediaSpec(kind="folder", path=str(folder), sha256_column=media.sha256_column)
    found = msgspec.structs.replace(spec, source=source, media=media, max_bad_fraction=1.0)
    if media.kind == "folder":
        _put_media(found, folder, patterns)
    return found


def _readable(content: Any) -> Any:
    """The same fixture with pictures for the bytes that only stand for some, and their hash for what stands for it."""
    if content == "1" * 64:
        return hashlib.sha256(picture()).hexdigest()
    if isinstance(content, dict):
        return {key: picture() if key == "bytes" and value else _readable(value) for key, value in content.items()}
    return [_readable(item) for item in content] if isinstance(content, list) else content


def _put_media(spec: DatasetSpec, folder: Path, patterns: tuple[str, ...]) -> None:
    adapter, context = adapter_of(spec)
    for path in annotation_files(folder, patterns):
        for row in rows_of(spec, path, folder):
            if isinstance(row, RawRow):
                for reference in adapter.media(row, context):
                    _put(spec, row, reference, folder)


def _put(spec: DatasetSpec, row: RawRow, reference: Reference, folder: Path) -> None:
    """A picture or film where it is looked for: the first place that its absence names, `*` filled in."""
    try:
        file_of(spec.media, row, reference, folder)
    except MediaFault as fault:
        place = re.match(r"(.*?)(?: or .*)? is not there$", str(fault))
        if place is None:
            return  # a name that leaves the folder, as the fixture means it
        path = folder / re.sub(r"\[(.)\]", r"\1", place[1]).replace("*", "x")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(picture() if reference.kind == "image" else film())


@functools.cache
def picture() -> bytes:
    """200×100 pixels, as fixtures have them."""
    from PIL import Image

    stream = io.BytesIO()
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (100, 200, 3), np.uint8)).save(stream, "PNG")
    return stream.getvalue()


@functools.cache
def film() -> bytes:
    """400×200 pixels, ten seconds, eight frames a second."""
    import av

    with tempfile.TemporaryDirectory() as folder:
        with av.open(f"{folder}/film.mp4", "w") as container:
            stream = container.add_stream("libx264", rate=8)
            stream.width, stream.height, stream.pix_fmt = 400, 200, "yuv420p"
            stream.options = {"threads": "1", "preset": "ultrafast"}
            for number in range(80):
                frame = av.VideoFrame.from_ndarray(np.full((200, 400, 3), 3 * number, np.uint8), format="rgb24")
                frame.pts = number
                container.mux(stream.encode(frame))
            container.mux(stream.encode())
        return Path(f"{folder}/film.mp4").read_bytes()
