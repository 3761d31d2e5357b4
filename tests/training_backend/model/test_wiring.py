"""Vision-language wiring: a change of the input changes exactly the outputs that it can reach.

What it can reach is computed apart from the model, from the mask's predicate, pair by pair: a position hears in one block what it
may see, so after n blocks it has heard what n steps lead to.
"""

from __future__ import annotations

import dataclasses

import msgspec
import numpy as np
import pytest
import torch

from tests.support import peers
from tests.support.models import small_config
from training_backend.attention.mask import ImageAttention, allowed
from training_backend.config import ModelConfig
from training_backend.model.molmo2 import Molmo2, TensorBatch
from training_backend.pack.batch import Batch

Item = dict[str, np.ndarray]
MODES: list[ImageAttention] = ["causal", "image_tokens", "within_image"]
LAYERS = [1, 2, 3]


@pytest.fixture(params=[(mode, layers) for mode in MODES for layers in LAYERS], ids=lambda value: f"{value[0]}-{value[1]}")
def model(request: pytest.FixtureRequest) -> Molmo2:
    mode, layers = request.param
    model = Molmo2(msgspec.structs.replace(small_config(layers=layers), image_attention=mode))
    peers.randomise(model, 6)
    return model.eval()


def _video(config: ModelConfig, branches: int = 2) -> Item:
    """Three frames, each after two words (its time), and questions."""
    return peers.prompt(np.random.default_rng(1), config, 3, "video", branches)


def _batch(item: Item) -> Batch:
    return peers.our_batch([[item]], len(item["tokens"]), "video")


@torch.no_grad()
def _outputs(model: Molmo2, batch: Batch) -> torch.Tensor:
    return model(TensorBatch.from_numpy(batch))[0]


def _moved(a: torch.Tensor, b: torch.Tensor) -> list[int]:
    return torch.nonzero((a - b).abs().amax(dim=-1) > 1e-6).flatten().tolist()


def _reached(model: Molmo2, item: Item, changed: set[int]) -> list[int]:
    vectors = [(0, int(b), int(i), int(p)) for b, i, p in zip(item["branch"], item["image"], item["position"], strict=True)]
    heard = set(changed)
    for _ in range(model.config.decoder.layers):
        heard |= {
            q for q, query in enumerate(vectors) if any(allowed(query, vectors[k], model.config.image_attention) for k in heard)
        }
    return sorted(heard)


def _slots(item: Item, image: int) -> set[int]:
    return {int(slot) for slot in item["slots"] if item["image"][slot] == image}


@pytest.mark.parametrize("image", [0, 1, 2])
def test_shuffling_pixels(model: Molmo2, image: int) -> None:
    item = _video(model.config)
    crops = item["crops"].copy()
    crops[image] = np.random.default_rng(2).permutation(crops[image].reshape(-1)).reshape(crops[image].shape)
    moved = _moved(_outputs(model, _batch(item)), _outputs(model, _batch({**item, "crops": crops})))
    assert moved == _reached(model, item, _slots(item, image))


def test_one_patch_reaches_the_windows_of_its_crop_alone(model: Molmo2) -> None:
    """Inside a crop every patch sees every other one; between crops nothing passes before the decoder."""
    batch = TensorBatch.from_numpy(_batch(_video(model.config)))
    crops = batch.crops.clone()
    crops[1, :7, :7] = 255 - crops[1, :7, :7]
    with torch.no_grad():
        before, after = (model.connector(model.vision(each), batch.pool).view(3, 4, -1) for each in (batch.crops, crops))
    moved = (before - after).abs().amax(dim=-1) > 1e-6
    assert moved.tolist() == [[False] * 4, [True] * 4, [False] * 4]


@pytest.mark.parametrize("image", [0, 2])
def test_leaving_out_an_images_features(model: Molmo2, image: int) -> None:
    """The patch tokens stay, nothing is added to them: what failed media do."""
    item = _video(model.config)
    batch = _batch(item)
    weight = np.where(item["image"][item["slots"]] == image, 0, batch.slot_weight).astype(np.float32)
    moved = _moved(_outputs(model, batch), _outputs(model, dataclasses.replace(batch, slot_weight=weight)))
    assert moved == _reached(model, item, _slots(item, image))


def test_dropping_the_last_image_and_its_words(model: Molmo2) -> None:
    """Tokens and all: what remains in front of it moves only where an earlier image could see it."""
    item = _video(model.config)
    gone = (item["image"] == 2) | np.isin(np.arange(len(item["tokens"])), np.flatnonzero(item["image"] == 2)[0] - np.array([1, 2]))
    stays = np.flatnonzero(~gone)
    first = int(np.flatnonzero(gone)[0])
    cut = {name: value[stays] for name, value in item.items() if name not in ("slots", "crops")}
    cut["position"] = np.where(cut["position"] > first, cut["position"] - gone.sum(), cut["position"])
    cut["slots"], cut["crops"] = item["slots"][: 2 * 4], item["crops"][:2]
    moved = _moved(_outputs(model, _batch(item))[stays], _outputs(model, _batch(cut)))
    reached = set(_reached(model, item, set(np.flatnonzero(gone).tolist())))
    assert [int(stays[place]) for place in moved] == sorted(reached & set(stays.tolist()))


def test_swapping_two_images(model: Molmo2) -> None:
    item = _video(model.config)
    swapped = {**item, "crops": item["crops"][[2, 1, 0]]}
    outputs = _outputs(model, _batch(item))
    assert _moved(outputs, _outputs(model, _batch(swapped))) == _reached(model, item, _slots(item, 0) | _slots(item, 2))
    # Where the pictures lie in the batch says nothing: only the pooling table does.
    batch = _batch(swapped)
    patches = peers.GRID.size
    crop = batch.pool // patches
    pool = np.where(batch.pool < 0, -1, batch.pool + (2 - 2 * crop) * patches)
    torch.testing.assert_close(_outputs(model, dataclasses.replace(batch, pool=pool)), outputs, rtol=0, atol=1e-6)


@pytest.mark.parametrize("image", [0, 1, 2])
def test_moving_a_timestamp(model: Molmo2, image: int) -> None:
    """The word before a frame changes; frames before it hear of it only through the frames' view of each other."""
    item = _video(model.config)
    place = int(np.flatnonzero(item["image"] == image)[0]) - 1
    tokens = item["tokens"].copy()
    tokens[place] = (tokens[place] + 1) % 50
    moved = _moved(_outputs(model, _batch(item)), _outputs(model, _batch({**item, "tokens": tokens})))
    assert moved == _reached(model, item, {place})


def test_a_branch_of_its_own(model: Molmo2) -> None:
    """A word of one question reaches nothing but the rest of that question."""
    item = _video(model.config, branches=3)
    place = int(np.flatnonzero(item["branch"] == 1)[0])
    tokens = item["tokens"].copy()
    tokens[place] = (tokens[place] + 1) % 50
    moved = _moved(_outputs(model, _batch(item)), _outputs(model, _batch({**item, "tokens": tokens})))
    assert moved == _reached(model, item, {place}) == np.flatnonzero(item["branch"] == 1).tolist()
