"""Ours against transformers' Molmo2: the same weights, the same inputs, the same numbers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
import torch

from molmo2_assets.profile.load import catalogue
from tests.support import peers
from tests.support.transformers_peer import need_transformers
from training_backend.config import GenerateConfig
from training_backend.model.decoder import inverse_frequencies
from training_backend.model.generate import generate
from training_backend.model.hf import export_hf, import_hf
from training_backend.model.hf_config import to_hf
from training_backend.model.molmo2 import Molmo2, TensorBatch
from training_backend.model.tensor_files import TensorFolder
from training_backend.model.weights import load_model, save_model
from training_backend.pack.batch import PREFIX, Encoded
from training_backend.train.loss import weighted_cross_entropy

need_transformers()

TOLERANCE = 1e-4


@pytest.fixture(scope="module", params=list(peers.VARIANTS), ids=lambda name: name.replace(", ", "-").replace(" ", "-"))
def pair(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, Molmo2]:
    """Their model, and ours imported from its files."""
    config = peers.released_config(**peers.VARIANTS[request.param])
    theirs = peers.peer(config)
    folder = tmp_path_factory.mktemp("peer")
    imported = import_hf(peers.saved_peer(theirs, folder / "hf"), folder / "ours", preset=config)
    assert imported.config == config
    return theirs, load_model(folder / "ours", config).eval()


@torch.no_grad()
def _logits(model: Molmo2, batch: TensorBatch) -> torch.Tensor:
    return model(batch) @ model.head_weight.T


@pytest.mark.parametrize(("kind", "pictures"), [("image", 0), ("image", 1), ("image", 3), ("video", 4)])
def test_logits_and_loss(pair: tuple[Any, Molmo2], kind: str, pictures: int) -> None:
    theirs, ours = pair
    item = peers.prompt(np.random.default_rng(pictures), ours.config, pictures, kind)
    labels = torch.full((1, len(item["tokens"])), -100)
    learned = np.flatnonzero(item["weights"])
    labels[0, learned + 1] = torch.from_numpy(item["targets"][learned])
    with torch.no_grad():
        expected = theirs(**peers.peer_inputs(item, kind), labels=labels)
    batch = TensorBatch.from_numpy(peers.our_batch([[item]], len(item["tokens"]), kind))
    actual = _logits(ours, batch)
    assert expected.logits.std() > 0.3, "random weights that say something"
    if pictures:
        other = {**item, "crops": 255 - item["crops"]}
        with torch.no_grad():
            moved = (theirs(**peers.peer_inputs(other, kind)).logits - expected.logits)[0, item["slots"][-1] :]
        assert moved.abs().max() > 0.05, "pictures that matter"
    assert (actual - expected.logits).abs().max() <= TOLERANCE
    total, _, weights = weighted_cross_entropy(
        ours(batch), ours.head_weight, batch.loss_index, batch.loss_target, batch.loss_weight, batch.loss_task, 3, 16
    )
    assert abs(float((total / weights.sum()).detach()) - float(expected.loss)) <= TOLERANCE


def test_packed_sequences_are_their_examples_one_by_one(pair: tuple[Any, Molmo2]) -> None:
    theirs, ours = pair
    rng = np.random.default_rng(11)
    items = [peers.prompt(rng, ours.config, pictures, branches=branches) for pictures, branches in ((1, 1), (2, 3), (0, 2))]
    rows = [[items[0], items[2]], [items[1]]]
    packed = _logits(ours, TensorBatch.from_numpy(peers.our_batch(rows, 72)))
    for row, examples in enumerate(rows):
        start = 0
        for item in examples:
            for branch in range(item["branch"].max() + 1):
                # A branch of a tree is, for them, the prefix followed by that branch alone.
                keep = np.flatnonzero((item["branch"] == PREFIX) | (item["branch"] == branch))
                with torch.no_grad():
                    expected = theirs(**peers.peer_inputs(item, keep=keep)).logits[0]
                assert (packed[row, start + keep] - expected).abs().max() <= TOLERANCE
            start += len(item["tokens"])


@pytest.mark.parametrize("kind", ["image", "video"])
def test_greedy_generation_is_theirs_token_for_token(pair: tuple[Any, Molmo2], kind: str) -> None:
    theirs, ours = pair
    rng = np.random.default_rng(5)
    items = [peers.prompt(rng, ours.config, pictures, kind) for pictures in (1, 0, 3)]
    batch = peers.our_batch([[item] for item in items], max(len(item["tokens"]) for item in items), kind)
    answers = generate(ours, batch, [_encoded(item) for item in items], GenerateConfig(max_new_tokens=16), stop=[-5])
    for item, answer in zip(items, answers, strict=True):
        expected = theirs.generate(**peers.peer_inputs(item, kind), max_new_tokens=16, do_sample=False, eos_token_id=None)
        assert answer == expected[0, len(item["tokens"]) :].tolist()


def _encoded(item: dict[str, np.ndarray]) -> Encoded:
    return Encoded(
        tokens=item["tokens"], targets=item["targets"], weights=item["weights"], position=item["position"], branch=item["branch"],
        image=item["image"], crops=item["crops"], pool=np.zeros(0, np.int32), slot=item["slots"], task=0,
    )  # fmt: skip


def test_their_gradients_are_ours(pair: tuple[Any, Molmo2]) -> None:
    """One backward through every part: what training continues from."""
    theirs, ours = pair
    item = peers.prompt(np.random.default_rng(3), ours.config, 2)
    length = len(item["tokens"])
    seed = torch.randn(1, length, ours.head_weight.shape[0], generator=torch.Generator().manual_seed(1))
    theirs.zero_grad()
    (theirs(**peers.peer_inputs(item)).logits * seed).sum().backward()
    ours.zero_grad()
    hidden = ours(TensorBatch.from_numpy(peers.our_batch([[item]], length)))
    ((hidden @ ours.head_weight.T) * seed).sum().backward()
    inner = theirs.model
    for mine, their in (
        (ours.vision.position, inner.vision_tower.positional_embedding),
        (ours.connector.pooling.wk.weight, inner.multi_modal_projector.image_pooling_2d.k_proj.weight),
        (ours.decoder.blocks[0].wq.weight, inner.language_model.layers[0].self_attn.q_proj.weight),
        (ours.decoder.blocks[2].w3.weight, inner.language_model.layers[2].mlp.up_proj.weight),
    ):
        torch.testing.assert_close(mine.grad, their.grad, rtol=1e-3, atol=1e-4 * float(their.grad.abs().max()))


@pytest.mark.parametrize("name", ["release-4b", "release-8b", "release-o-7b"])
def test_positions_of_the_released_sizes(name: str) -> None:
    """Scaled and plain frequencies at the real head width, base and length, bit by bit up to rounding."""
    from transformers import Molmo2Config
    from transformers.models.molmo2.modeling_molmo2 import Molmo2RotaryEmbedding

    config = catalogue().models[name]
    text = Molmo2Config(**to_hf(config)).text_config
    scaling = config.decoder.rope_scaling
    for scaled in (True, False):
        theirs = Molmo2RotaryEmbedding(text, scaled=scaled)
        ours, factor = inverse_frequencies(config.decoder.head_dim, config.decoder.rope_theta, scaling if scaled else None)
        torch.testing.assert_close(ours, theirs.inv_freq, rtol=1e-6, atol=0)
        assert factor == theirs.attention_scaling
    layers = range(config.decoder.layers)
    assert text.rope_scaling_layers == list(scaling.layers if scaling else layers)


def test_blocks_that_nothing_reads_are_nowhere(tmp_path: Path) -> None:
    """Released towers count 27 blocks and hold 25: features are read from the third- and the ninth-from-last."""
    config = peers.released_config()
    config = msgspec.structs.replace(config, vision=msgspec.structs.replace(config.vision, layers=5, feature_layers=(-2, -4)))
    theirs = peers.peer(config)
    assert len(theirs.model.vision_tower.layers) == 4
    ours_folder = tmp_path / "ours"
    imported = import_hf(peers.saved_peer(theirs, tmp_path / "hf"), ours_folder, preset=config)
    assert imported.config.vision.layers == 5
    ours = load_model(ours_folder, config)
    item = peers.prompt(np.random.default_rng(1), config, 2)
    with torch.no_grad():
        expected = theirs(**peers.peer_inputs(item)).logits
    actual = _logits(ours, TensorBatch.from_numpy(peers.our_batch([[item]], len(item["tokens"]))))
    assert (actual - expected).abs().max() <= TOLERANCE


def test_upstream_saving_cuts_the_embeddings_in_halves(tmp_path: Path) -> None:
    """transformers 5.24 joins the base and the extra table on loading, and on saving cuts the joined one in two equal parts.

    `import_hf` reads both ways to cut. When this fails because of 50 rows, upstream has mended it and `_moved_split` may go once no
    such file is about any more.
    """
    config = peers.released_config()
    folder = peers.saved_peer(peers.peer(config), tmp_path / "hf")
    assert TensorFolder(folder).spec("model.transformer.wte.embedding").shape == ((50 + 16) // 2, 32)
    imported = import_hf(folder, tmp_path / "ours")
    assert imported.notes == ["released layout", "embeddings split after row 33, not 50, as transformers saves them"]


def test_their_folder_without_fused_tensors_says_the_same(tmp_path: Path) -> None:
    config = peers.released_config()
    theirs = peers.peer(config)
    fused, apart = (
        import_hf(peers.saved_peer(theirs, tmp_path / name, save_original_format=original), tmp_path / f"{name}-ours")
        for name, original in (("fused", True), ("apart", False))
    )
    assert fused.files == apart.files
    for file in fused.files:
        assert (tmp_path / "fused-ours" / file).read_bytes() == (tmp_path / "apart-ours" / file).read_bytes()


@pytest.mark.parametrize("layout", ["released", "modules"])
@pytest.mark.parametrize(
    "decoder",
    [
        {"predict_extra": False},
        {"predict_extra": True},
        {"predict_extra": True, "tied": True},
        {"predict_extra": False, "tied": True, "norm_order": "post", "qk_norm": "full"},
        {"predict_extra": False, "rope_scaling": peers.YARN},
    ],
    ids=["base-rows", "all-rows", "all-rows-tied", "tied-post-norm", "scaled"],
)
def test_they_open_what_we_export(tmp_path: Path, decoder: dict[str, Any], layout: Any) -> None:
    from transformers import AutoModelForImageTextToText

    ours = Molmo2(peers.released_config(**decoder))
    peers.randomise(ours, 4)
    save_model(tmp_path / "ours", ours)
    export_hf(tmp_path / "ours", tmp_path / "hf", layout=layout, shard_bytes=20_000)
    theirs, report = AutoModelForImageTextToText.from_pretrained(tmp_path / "hf", output_loading_info=True)
    assert {name: keys for name, keys in report.items() if keys} == {}
    item = peers.prompt(np.random.default_rng(2), ours.config, 2)
    with torch.no_grad():
        expected = theirs.eval()(**peers.peer_inputs(item)).logits
    actual = _logits(ours, TensorBatch.from_numpy(peers.our_batch([[item]], len(item["tokens"]))))
    assert (actual - expected).abs().max() <= TOLERANCE
    # What they save again comes back bit by bit.
    again = import_hf(peers.saved_peer(theirs, tmp_path / "again"), tmp_path / "back")
    assert again.config == ours.config
    for name, tensor in load_model(tmp_path / "back").state_dict().items():
        assert torch.equal(tensor, ours.state_dict()[name]), name
