"""What a generated set is made of: its parameters, its rows in a published layout, and the media files beside them.

Belongs here: parameters, the media folder, writing the annotation file. Does not belong here: any set's rows, faults.
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Callable, Iterable
from dataclasses import dataclass, fields
from itertools import repeat
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from molmo2_assets.sources.generated.seeds import keyed
from molmo2_assets.sources.outcome import SourceError
from training_backend.pool import processes, processors

MEDIA_FOLDER = "media"
URL_ROOT = "https://shapes.invalid/"
MANY_FILMS = 300
"""From here on several processes make them: they take half a second to begin."""
MOST_PROCESSES = 4
Row = dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class Params:
    """`n` rows of the annotation file, `seed`, the published `split` name, `size` = picture side (width) in pixels, `faults` =
    share of rows that are broken on purpose."""

    name: str
    n: int
    seed: int
    split: str
    size: int
    faults: float

    def rng(self, *key: str | int) -> Any:
        """A generator for one thing of this set: depends on the set's name and seed, not on `n`."""
        return keyed(self.name, self.seed, *key)


def read_params(name: str, defaults: dict[str, Any], given: dict[str, Any]) -> Params:
    """Defaults overridden by what the catalogue gives. Raises SourceError for an unknown or impossible parameter."""
    known = {field.name for field in fields(Params)} - {"name"}
    unknown = sorted(set(given) - known)
    if unknown:
        raise SourceError(f"The generator {name} has no parameter {unknown[0]!r}; it takes {', '.join(sorted(known))}.")
    values = {**defaults, **given}
    for field, low, high in (("n", 1, 1_000_000), ("size", 32, 1024)):
        if type(values[field]) is not int or not low <= values[field] <= high:
            raise SourceError(f"The generator {name} needs a whole {field} between {low} and {high}, not {values[field]!r}.")
    if type(values["seed"]) is not int:
        raise SourceError(f"The generator {name} needs a whole number as seed, not {values['seed']!r}.")
    if not isinstance(values["faults"], int | float) or not 0 <= values["faults"] <= 0.5:
        raise SourceError(f"The generator {name} needs a share of faults between 0 and 0.5, not {values['faults']!r}.")
    if values["size"] % 2:
        raise SourceError(f"The generator {name} needs an even size, because video is coded in pairs of pixels.")
    if not isinstance(values["split"], str) or not values["split"].replace("_", "").isalnum():
        raise SourceError(f"The generator {name} needs a split name of letters and digits, not {values['split']!r}.")
    return Params(name=name, **{**values, "faults": float(values["faults"])})


class MediaFolder:
    """Writes the media files of one set into `<dest>/media`."""

    def __init__(self, dest: Path, params: Params) -> None:
        self.folder = dest / MEDIA_FOLDER
        self.stem = f"{params.name}-{params.seed}"

    @property
    def files(self) -> int:
        """How many there are."""
        return sum(1 for _ in self.folder.iterdir()) if self.folder.is_dir() else 0

    def name(self, number: int, part: int | None = None) -> str:
        """Name without suffix of the picture or film of something; no other set or seed uses it."""
        return f"{self.stem}-{number:05d}" if part is None else f"{self.stem}-{number:05d}-{part}"

    def path(self, file: str) -> Path:
        """Where a file of the folder lies; makes the folder."""
        self.folder.mkdir(parents=True, exist_ok=True)
        return self.folder / file

    def add(self, file: str, data: bytes) -> None:
        """Write a file."""
        self.path(file).write_bytes(data)

    def add_image(self, name: str, pixels: NDArray[np.uint8]) -> tuple[str, str]:
        """Write a picture as PNG; returns its URL and the sha256 of its bytes."""
        data = png(pixels)
        self.add(f"{name}.png", data)
        return f"{URL_ROOT}{name}.png", hashlib.sha256(data).hexdigest()

    def add_video(self, name: str, frames: Iterable[NDArray[np.uint8]], fps: int) -> None:
        """Write a film as `<name>.mp4`."""
        from molmo2_assets.sources.generated.video import write_h264

        write_h264(self.path(f"{name}.mp4"), frames, fps)


def film_rows(make: Callable[[Params, MediaFolder, int], list[Row]], params: Params, media: MediaFolder, count: int) -> list[Row]:
    """The rows of film number 0, 1, … `count` - 1, made in several processes where there are many. `make` is a function of a module
    and looks at nothing but the number."""
    if count < MANY_FILMS or processors() < 2:
        return [row for number in range(count) for row in make(params, media, number)]
    with processes(min(processors(), MOST_PROCESSES)) as pool:
        found = pool.map(make, repeat(params), repeat(media), range(count), chunksize=10)
        return [row for rows in found for row in rows]


def png(pixels: NDArray[np.uint8]) -> bytes:
    """A picture as PNG bytes."""
    from PIL import Image

    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG", compress_level=3)
    return buffer.getvalue()


def write_parquet(dest: Path, file: str, rows: list[Row], layout: str) -> None:
    """Write rows as one Parquet file in a published layout. Raises pyarrow's error for a row that does not fit."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    from molmo2_assets.sources.generated.columns import schemas

    schema = schemas()[layout]
    path = dest / file
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.Table.from_pylist(rows, schema=schema), path, compression="zstd", row_group_size=1024)
