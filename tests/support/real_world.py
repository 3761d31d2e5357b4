"""A home in which the real profile was materialised, and ways to look at what it made.

Belongs here: reading assets, media and batches for the tests of `tests/real`. Does not belong here: the sets (`real_sets.py`), the
one materialisation (`tests/real/conftest.py`).
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import dagster as dg
import numpy as np
from numpy.typing import NDArray

from molmo2_assets.graph.build import build_definitions
from molmo2_assets.home import Home
from molmo2_assets.profile import Profile
from training_backend.api import RunSpec, decode_spec
from training_backend.data.example import Example
from training_backend.data.manifest import Manifest
from training_backend.data.media import MediaCache, read_image
from training_backend.data.store import RowStore
from training_backend.data.video import VideoReader
from training_backend.pack.batch import Batch
from training_backend.pack.loader import PackLoader, Place
from training_backend.pack.sequences import open_batches

SETS = ("real_photos", "real_people", "real_signs", "real_film", "real_tracks", "real_problems")


@dataclass(frozen=True)
class Seen:
    """One example inside a packed batch: what the model is given of it."""

    example: Example
    place: Place
    batch: Batch
    at: slice
    shown: slice

    @property
    def crops(self) -> NDArray[np.uint8]:
        """[N, H, W, 3] of this example."""
        return self.batch.crops[self.shown]

    @property
    def slots(self) -> NDArray[np.int64]:
        """[V] positions in the example that visual tokens are added to."""
        slot = self.batch.slot
        return slot[(slot >= self.at.start) & (slot < self.at.stop)] - self.at.start

    @property
    def pool(self) -> NDArray[np.int64]:
        """[V, K] patches of the batch that each of them pools."""
        slot = self.batch.slot
        return self.batch.pool[(slot >= self.at.start) & (slot < self.at.stop)]

    @property
    def tokens(self) -> NDArray[np.int64]:
        """[S] ids."""
        return self.batch.tokens[0, self.at]

    def learned(self) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float32]]:
        """Positions in the example whose prediction is learned, their targets and weights."""
        index, weight = self.batch.loss_index, self.batch.loss_weight
        mine = (index >= self.at.start) & (index < self.at.stop) & (weight > 0)
        return index[mine] - self.at.start, self.batch.loss_target[mine], weight[mine]


@dataclass
class World:
    """A home in which the real profile was materialised."""

    profile: Profile
    home: Home
    instance: dg.DagsterInstance
    results: list[dg.ExecuteInProcessResult] = field(default_factory=list)

    def materialise(self) -> dg.ExecuteInProcessResult:
        """Everything in the profile, in this process."""
        defs = build_definitions(self.profile, self.home)
        job = defs.resolve_implicit_global_asset_job_def()
        self.results.append(job.execute_in_process(instance=self.instance, raise_on_error=True))
        return self.results[-1]

    def asset(self, key: str) -> tuple[Path, Manifest]:
        """Folder and manifest that are current."""
        current = self.home.store(key).current(key)
        assert current is not None, key
        return current

    def store(self, name: str) -> RowStore:
        """The examples of a set."""
        return RowStore(self.asset(f"validated/{name}")[0])

    def example(self, name: str, uri: str) -> Example:
        """The example of a set about this medium."""
        return next(example for example in self.store(name) if any(media.uri == uri for media in example.media))

    def picture(self, example: Example) -> NDArray[np.uint8]:
        """Its first picture as displayed, from the cache."""
        return read_image(MediaCache(self.home.cache).path(example.media[0].sha256))

    def film(self, example: Example) -> VideoReader:
        """Its video, from the cache."""
        return VideoReader(MediaCache(self.home.cache).path(example.media[0].sha256))

    @cached_property
    def train_spec(self) -> RunSpec:
        """The run that trained the checkpoint, as its folder keeps it."""
        (path,) = self.home.runs.glob("train-*/spec.json")
        return decode_spec(path.read_bytes())

    @cached_property
    def loader(self) -> PackLoader:
        """The loader that the training run reads from."""
        batches = open_batches(self.train_spec)
        loader = batches.func.__self__  # type: ignore[attr-defined]
        assert isinstance(loader, PackLoader)
        return loader

    def places(self, dataset: str) -> Iterator[tuple[list[Place], int]]:
        """Packs that hold an example of a set, and its number in the pack, from the first pack on."""
        for number in itertools.count():
            pack = self.loader.places(number)
            for place, item in enumerate(pack):
                if item.dataset == dataset:
                    yield pack, place

    def seen(self, dataset: str, uri: str | None = None) -> Seen:
        """The first packed batch of the run that holds an example of this set, about this medium if one is named."""
        for pack, number in itertools.islice(self.places(dataset), 200):
            example = self.loader.stores[dataset].example(pack[number].row)
            if uri is not None and all(media.uri != uri for media in example.media):
                continue
            start = sum(place.tokens for place in pack[:number])
            shown = sum(place.visual for place in pack[:number])
            return Seen(
                example,
                pack[number],
                self.loader.batch([pack]),
                slice(start, start + pack[number].tokens),
                slice(shown, shown + pack[number].visual),
            )
        raise AssertionError(f"{dataset} {uri} is not in the first packs")
