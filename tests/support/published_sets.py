"""Reading generated sets back: rows, pictures, frames of films, colours."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from molmo2_assets.sources.generated import resolve
from molmo2_assets.sources.generated.content import Params
from molmo2_assets.sources.generated.shapes import COLOURS

Sets = dict[str, Path]
"""Name → folder of a generated set."""
SMALL = 24
"""Rows of each set that tests make."""
SIDE = 84
"""Side of its pictures."""


def params_of(name: str) -> Params:
    """The parameters that the sets of tests are made with."""
    return resolve(name, {"n": SMALL, "faults": 0.0})


def rows_of(folder: Path) -> list[dict[str, Any]]:
    """Rows of the one annotation file of a set."""
    import pyarrow.parquet as pq

    rows: list[dict[str, Any]] = pq.read_table(next(folder.rglob("*.parquet"))).to_pylist()
    return rows


def picture(folder: Path, url: str) -> np.ndarray:
    """The picture that a URL names, [H, W, 3]."""
    from PIL import Image

    return np.asarray(Image.open(folder / "media" / url.rsplit("/", 1)[1]))


def film(folder: Path, name: str) -> list[np.ndarray]:
    """All frames of a film, [H, W, 3] each, decoded."""
    import av

    with av.open(str(folder / "media" / f"{name}.mp4")) as container:
        return [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]


def is_colour(pixel: np.ndarray, name: str, tolerance: int = 60) -> bool:
    """Whether a pixel has the colour that a word means; the default allows for video coding."""
    return int(np.abs(pixel.astype(int) - COLOURS[name]).max()) <= tolerance
