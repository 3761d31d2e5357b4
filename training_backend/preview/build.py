"""The run kind `preview`: some examples of a set, a mixture or packed sequences, encoded and written as one HTML file.

Belongs here: reading the run's inputs, choosing examples, encoding them as training does. Does not belong here: what a page looks
like (`page.py`, `crops.py`), encoding (`training_backend.encode`), packing (`training_backend.pack`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Literal

import msgspec

from training_backend.api import RunSpec
from training_backend.config import EncodeConfig, LossConfig, PackConfig
from training_backend.data.example import Example
from training_backend.data.manifest import replace_file
from training_backend.data.media import MediaCache, MediaFault
from training_backend.data.store import RowStore
from training_backend.encode.draws import Draws, position_keys, variant_of
from training_backend.encode.preprocessor import MediaSource, OversizedError, Preprocessor
from training_backend.pack.media_source import CachedMedia
from training_backend.pack.sequences import Settings, open_loader, open_mixture, open_preprocessor
from training_backend.preview.page import Group, Shown, write_page

PAGE_FILE = "preview.html"
Subject = Literal["dataset", "mixture", "sequences"]


class PreviewIdentity(msgspec.Struct, frozen=True, kw_only=True):
    """`identity` of a preview, beside the settings that plan and train runs share.

    `count` rows of a dataset, positions of a mixture or packs of sequences, from number `start` on. Versions of what is read
    (`mixture`, `tokenizer`, `sequences`, `validated`) stand beside these, so that a change makes another page.
    """

    subject: Subject
    name: str
    count: int
    start: int
    encode: EncodeConfig
    loss: LossConfig
    pack: PackConfig
    seed: int


def build_preview(spec: RunSpec, out: Path, log: Callable[[str], None]) -> dict[str, Any]:
    """Write `preview.html` into `out`.

    Reads inputs `tokenizer`, `cache`, `validated/<name>`, and `mixture` and `sequences` where the subject is one of those. Raises
    SequenceError for inputs that do not belong together, ValueError where there is nothing to show. Returns {"counts", "facts"}.
    """
    identity = msgspec.convert(spec.identity, PreviewIdentity)
    settings = msgspec.convert(spec.identity, Settings)
    if identity.count < 1 or identity.start < 0:
        raise ValueError(f"a page shows at least one example, from number 0 or later; not {identity.count} from {identity.start}")
    media = CachedMedia(MediaCache(Path(spec.inputs["cache"])))
    preprocessor = open_preprocessor(spec, settings)
    groups = list(_GATHER[identity.subject](spec, identity, preprocessor, media))
    what = {"dataset": "rows", "mixture": "positions", "sequences": "packs"}[identity.subject]
    page = write_page(identity.name, f"{identity.count} {what} from number {identity.start}", groups, preprocessor)
    replace_file(out / PAGE_FILE, page.encode())
    shown = [item for group in groups for item in group.shown]
    failures = sum(bool(item.fault) for item in shown)
    log(f"{len(shown)} examples of {identity.name} on a page of {len(page) / 1e6:.1f} MB, {failures} without their media")
    return {"counts": {"examples": len(shown), "media_failures": failures, "groups": len(groups)}, "facts": {}}


def _dataset(spec: RunSpec, identity: PreviewIdentity, preprocessor: Preprocessor, media: MediaSource) -> Iterator[Group]:
    store = RowStore(Path(spec.inputs[f"validated/{identity.name}"]))
    if identity.start >= len(store):
        raise ValueError(f"{identity.name} has {len(store)} rows; there is none from number {identity.start} on")
    rows = range(identity.start, min(identity.start + identity.count, len(store)))
    yield Group([_show(identity.name, row, None, row, store.example(row), preprocessor, media) for row in rows])


def _mixture(spec: RunSpec, identity: PreviewIdentity, preprocessor: Preprocessor, media: MediaSource) -> Iterator[Group]:
    mixture, stores = open_mixture(spec)
    names = mixture.datasets
    datasets, _, rows = mixture.window(identity.start, identity.count)
    keys = position_keys(identity.seed, identity.start, identity.count)
    shown = []
    for place, (dataset, row, key) in enumerate(zip(datasets.tolist(), rows.tolist(), keys.tolist(), strict=True)):
        example = stores[names[dataset]].example(row)
        shown.append(_show(names[dataset], row, identity.start + place, key, example, preprocessor, media))
    yield Group(shown)


def _sequences(spec: RunSpec, identity: PreviewIdentity, preprocessor: Preprocessor, media: MediaSource) -> Iterator[Group]:
    loader = open_loader(spec)
    for number in range(identity.start, identity.start + identity.count):
        shown = []
        for place in loader.places(number):
            example = loader.stores[place.dataset].example(place.row)
            shown.append(_show(place.dataset, place.row, place.position, place.key, example, preprocessor, media))
        yield Group(shown, number)


_GATHER = {"dataset": _dataset, "mixture": _mixture, "sequences": _sequences}


def _show(
    dataset: str, row: int, position: int | None, key: int, example: Example, preprocessor: Preprocessor, media: MediaSource
) -> Shown:
    """As the loader does it: media that fail leave their geometry; unlike it, a row that the recipe refuses is shown as such."""
    variant = variant_of(key)
    try:
        plan = preprocessor.plan(example, Draws(example.id, variant))
    except OversizedError as error:
        return Shown(dataset, row, position, variant, example, None, None, refused=str(error))
    if plan.left_out is not None:
        return Shown(dataset, row, position, variant, example, plan, None)
    fault = ""
    try:
        encoded = preprocessor.encode(example, key, media)
    except MediaFault as error:
        fault = f"{error.reason}: {error}"
        encoded = preprocessor.encode(example, key, None)
    return Shown(dataset, row, position, variant, example, plan, encoded, fault)
