"""Tables beside the rows: a map of labels, a file of subtitles, a document or mask for every row.

Belongs here: reading them once, finding a row's record. Does not belong here: what the record means (`adapters/`). Such a file is
part of the published set, so one that is missing altogether or broken is an error of the set; a row without record merely lacks the
column.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

from molmo2_assets.ingest.reasons import RowFault
from molmo2_assets.ingest.rows import MAX_LINE, read_document

if TYPE_CHECKING:
    from molmo2_assets.profile.structs import JoinSpec

MAX_MASK_PIXELS = 1 << 26
"""Pixels of a mask that is kept as a picture."""
_WHITE = 127
"""A pixel brighter than this, in any channel, belongs to a mask."""


class Joined:
    """The tables of one raw folder, each read at its first use; those that are not there may lie with the media (`kept`)."""

    def __init__(self, raw: Path, kept: Path | None = None) -> None:
        self.folders = [raw, kept] if kept is not None else [raw]
        self._tables: dict[JoinSpec, dict[str, Any]] = {}

    def add(self, data: dict[str, Any], joins: Mapping[str, JoinSpec]) -> dict[str, Any]:
        """The row with a column for each join that has something to say of it. Raises RowFault, or ValueError naming the file."""
        for column, join in joins.items():
            found = self._document(join, data) if "{" in join.file else self._record(join, data)
            if found is not None and join.column is not None:
                found = found.get(join.column) if isinstance(found, dict) else None
            if found is not None:
                data[column] = found
        return data

    def _record(self, join: JoinSpec, data: dict[str, Any]) -> Any:
        if join not in self._tables:
            self._tables[join] = self._read(join)
        return self._tables[join].get(str(data.get(join.on or "")))

    def _read(self, join: JoinSpec) -> dict[str, Any]:
        path = next((folder / join.file for folder in self.folders if (folder / join.file).is_file()), self.folders[0] / join.file)
        try:
            if path.suffix == ".csv":
                with path.open(newline="", encoding="utf-8") as stream:
                    found: Any = list(csv.DictReader(stream))
            elif path.suffix == ".jsonl":
                found = [json.loads(line) for line in read_document(path, join.file).splitlines() if line.strip()]
            elif path.suffix == ".json":
                found = json.loads(read_document(path, join.file))
            else:
                found = read_document(path, join.file).decode().splitlines()
        except FileNotFoundError:
            raise ValueError(f"{join.file} is not among the raw files; rows take a column from it (source.tables.joins).") from None
        except (ValueError, csv.Error, RecursionError) as error:
            raise ValueError(f"{join.file} cannot be read: {error}") from None
        for key in join.at.split(".") if join.at else ():
            found = found.get(key) if isinstance(found, dict) else None
        if isinstance(found, dict):
            return {str(key): value for key, value in found.items()}
        if not isinstance(found, list):
            raise ValueError(f"{join.file} holds a {type(found).__name__} where a table should stand (source.tables.joins).")
        if join.key is None:
            return {str(number): item for number, item in enumerate(found)}
        try:
            return {str(item[join.key]): item for item in found}
        except (KeyError, TypeError):
            raise ValueError(f"{join.file} has records without {join.key!r} (source.tables.joins).") from None

    def _document(self, join: JoinSpec, data: dict[str, Any]) -> Any:
        """What the row's own file holds; None where there is none. Raises RowFault for one that leaves the folder or is broken."""
        try:
            relative = join.file.format(**data)
        except (KeyError, IndexError, AttributeError, TypeError, ValueError):
            return None
        parts = PurePosixPath(relative)
        if parts.is_absolute() or ".." in parts.parts:
            raise RowFault("media_escapes", join.file, relative[:80])
        path = next((folder / relative for folder in self.folders if (folder / relative).is_file()), None)
        if path is None:
            return None
        try:
            return _mask(path) if path.suffix == ".png" else json.loads(read_document(path, relative[:80], MAX_LINE))
        except (ValueError, RecursionError, OSError) as error:
            raise RowFault("wrong_type", join.file, f"{relative[:80]}: {error}") from None


def _mask(path: Path) -> dict[str, Any]:
    """Runs of a mask that is kept as a picture: white belongs to it."""
    import numpy as np
    from PIL import Image

    from molmo2_assets.ingest.rle import encode_rle

    try:
        picture = Image.open(path, formats=["PNG"])
    except Image.DecompressionBombError as error:
        raise ValueError(str(error)) from None
    with picture:
        if picture.width * picture.height > MAX_MASK_PIXELS:
            raise ValueError(f"a mask of {picture.width}×{picture.height} pixels")
        pixels = np.asarray(picture)
    return encode_rle(pixels > _WHITE if pixels.ndim == 2 else (pixels > _WHITE).any(axis=2))
