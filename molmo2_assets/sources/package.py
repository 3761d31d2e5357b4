"""Photographs that come with installed packages: no download, true pictures.

Belongs here: which files of scikit-image and scikit-learn are used, their captions and licences, copying them. Does not belong
here: anything drawn. Captions are ours; so is the layout: `photos.jsonl` with {image, caption, licence}, the files in `media/`.

Only pictures that the installed wheels carry are used; those that scikit-image would fetch are not.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from importlib import metadata, util
from pathlib import Path
from typing import Any

from molmo2_assets.sources.outcome import FetchResult, SourceUnavailable

CODE_VERSION = 1
ANNOTATIONS = "photos.jsonl"
DISTRIBUTIONS = {"skimage": "scikit-image", "sklearn": "scikit-learn"}


@dataclass(frozen=True)
class Photo:
    """A file of an installed package, relative to it."""

    package: str
    file: str
    licence: str
    caption: str


PUBLIC, CC0, CC_BY = "public domain", "CC0-1.0", "CC-BY-2.0"

PHOTOS: tuple[Photo, ...] = (
    Photo("skimage", "data/astronaut.png", PUBLIC,
          "A smiling astronaut with short curly hair wears an orange space suit. A flag hangs on the left; a model of a space "
          "shuttle and a helmet are on the right."),
    Photo("skimage", "data/brick.png", CC0, "A grey picture of long narrow bricks that fill the whole frame."),
    Photo("skimage", "data/camera.png", CC0,
          "A black and white photograph of a man in a dark coat who looks through a camera on a tripod. Behind him are a lawn and "
          "buildings."),
    Photo("skimage", "data/chelsea.png", CC0, "The face of a tabby cat with green eyes, seen from close up."),
    Photo("skimage", "data/clock_motion.png", CC0,
          "A blurred bright disc on a grey background: a clock that moved while the picture was taken."),
    Photo("skimage", "data/coffee.png", CC0, "A cup of coffee on a red saucer with a small spoon, on a wooden table."),
    Photo("skimage", "data/coins.png", PUBLIC,
          "A black and white photograph of twenty-four old coins in four rows on a dark background."),
    Photo("skimage", "data/grass.png", CC0, "A black and white photograph of grass and dry stalks from above."),
    Photo("skimage", "data/gravel.png", CC0, "A black and white photograph of small stones that fill the whole frame."),
    Photo("skimage", "data/horse.png", CC0, "The black silhouette of a horse that faces to the right, on a white background."),
    Photo("skimage", "data/hubble_deep_field.jpg", PUBLIC, "Many distant galaxies of different colours on a black sky."),
    Photo("skimage", "data/moon.png", PUBLIC,
          "A grey photograph of the surface of the moon with several craters; a round one is at the top left."),
    Photo("skimage", "data/rocket.jpg", CC0,
          "A white rocket stands on its launch pad at dusk between tall lattice towers, lit by bright lamps."),
    Photo("sklearn", "datasets/images/china.jpg", CC_BY,
          "A Chinese tower with several roofs rises above trees; a lake lies behind it."),
    Photo("sklearn", "datasets/images/flower.jpg", CC_BY, "An orange dahlia in full bloom before dark green leaves."),
)  # fmt: skip


def identity() -> dict[str, Any]:
    """What decides the bytes: our list, and the versions of the packages (None where one is not installed)."""
    versions: dict[str, str | None] = {}
    for distribution in DISTRIBUTIONS.values():
        try:
            versions[distribution] = metadata.version(distribution)
        except metadata.PackageNotFoundError:
            versions[distribution] = None
    return {"code_version": CODE_VERSION, "packages": versions}


def fetch_package(dest: Path, log: Callable[[str], None]) -> FetchResult:
    """Copy the photographs into `dest/media` and write their captions. Raises SourceUnavailable where a package or a file is not
    there."""
    rows, missing = [], []
    (dest / "media").mkdir(parents=True, exist_ok=True)
    for photo in PHOTOS:
        source = _installed(photo)
        if source is None:
            missing.append(f"{DISTRIBUTIONS[photo.package]}: {photo.file}")
            continue
        shutil.copyfile(source, dest / "media" / source.name)
        rows.append({"image": source.name, "caption": photo.caption, "licence": photo.licence})
    if missing:
        raise SourceUnavailable(
            f"{len(missing)} of {len(PHOTOS)} photographs are not in the installed packages (first: {missing[0]}).",
            "Install scikit-image and scikit-learn from their wheels (they are dependencies of this project).",
        )
    (dest / ANNOTATIONS).write_text("".join(json.dumps(row) + "\n" for row in rows))
    log(f"{len(rows)} photographs from {', '.join(DISTRIBUTIONS.values())}")
    versions = identity()["packages"]
    revision = " ".join(f"{name}-{version}" for name, version in versions.items())
    return FetchResult(revision=revision, facts={"rows": len(rows), "media_files": len(rows), "packages": versions})


def _installed(photo: Photo) -> Path | None:
    """Where a file lies, found without importing its package."""
    spec = util.find_spec(photo.package)
    for folder in (spec.submodule_search_locations or []) if spec is not None else []:
        path = Path(folder) / photo.file
        if path.is_file():
            return path
    return None
