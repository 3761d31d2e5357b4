"""Base models in their published layouts: our towers alone against transformers' own classes, and what does not fit."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from tests.support import peers
from tests.support.models import PATCH, SIDE, pack
from tests.support.transformers_peer import need_transformers
from training_backend.config import ModelConfig
from training_backend.model.base_weights import import_base, interpolate_positions
from training_backend.model.molmo2 import Molmo2, TensorBatch
from training_backend.model.tensor_files import WeightsError
from training_backend.model.vision import patchify
from training_backend.model.weights import load_model
from training_backend.pack.batch import PREFIX

transformers = need_transformers()

TOLERANCE = 1e-4
SIZES = {"hidden_size": 32, "intermediate_size": 48, "num_attention_heads": 4, "vocab_size": 50, "rms_norm_eps": 1e-6}
TOWER = {"hidden_size": 24, "intermediate_size": 32, "num_hidden_layers": 3, "num_attention_heads": 2, "patch_size": PATCH}
YARN = {"rope_type": "yarn", "factor": 8.0, "original_max_position_embeddings": 16, "attention_factor": 1.2}
OLMO = {"norm_order": "post", "qk_norm": "full", "kv_heads": 4, "rope_theta": 5e5}


def _qwen3(tied: bool) -> Any:
    return transformers.Qwen3Config(
        **SIZES, num_key_value_heads=2, head_dim=8, num_hidden_layers=3, tie_word_embeddings=tied, rope_theta=1e6
    )


DECODERS: dict[str, tuple[Any, dict[str, Any]]] = {
    "qwen3": (lambda: transformers.Qwen3ForCausalLM(_qwen3(False)), {"rope_theta": 1e6}),
    "qwen3 tied": (lambda: transformers.Qwen3ForCausalLM(_qwen3(True)), {"rope_theta": 1e6, "tied": True}),
    "olmo2": (
        lambda: transformers.Olmo2ForCausalLM(transformers.Olmo2Config(**SIZES, num_hidden_layers=3, rope_theta=5e5)),
        OLMO,
    ),
    "olmo3": (
        lambda: transformers.Olmo3ForCausalLM(
            transformers.Olmo3Config(**SIZES, num_hidden_layers=8, rope_theta=5e5, rope_scaling=YARN, sliding_window=6)
        ),
        {
            **OLMO, "layers": 8, "sliding_window": 6, "full_attention_every": 4,
            "rope_scaling": msgspec.structs.replace(peers.YARN, attention_factor=1.2, layers=(3, 7)),
        },
    ),
}  # fmt: skip


def _save(folder: Path, model: Any, seed: int = 3) -> Any:
    peers.randomise(model, seed)
    peers.saved_peer(model.eval(), folder)
    return model


def _tower(folder: Path) -> Any:
    return _save(folder, transformers.SiglipVisionModel(transformers.SiglipVisionConfig(**TOWER, image_size=SIDE)))


@pytest.mark.parametrize("predict_extra", [False, True])
@pytest.mark.parametrize("name", list(DECODERS))
def test_a_decoder_alone(tmp_path: Path, name: str, predict_extra: bool) -> None:
    build, fields = DECODERS[name]
    preset = peers.released_config(**fields, predict_extra=predict_extra)
    theirs = _save(tmp_path / "decoder", build())
    _tower(tmp_path / "vision")
    imported = import_base(tmp_path / "decoder", tmp_path / "vision", tmp_path / "out", preset)
    ours = load_model(tmp_path / "out", preset)
    tokens = torch.from_numpy(np.random.default_rng(0).integers(0, 50, (1, 40)))
    with torch.no_grad():
        expected = theirs(input_ids=tokens).logits
        actual = ours(_text(tokens)) @ ours.head_weight.T
    assert expected.std() > 0.3
    assert (actual[..., :50] - expected).abs().max() <= TOLERANCE
    assert actual.shape[-1] == (66 if predict_extra else 50)
    assert "decoder.extra_embedding" in imported.initialised
    assert all(name.startswith("connector.") for name in imported.initialised if name != "decoder.extra_embedding")


def _text(tokens: torch.Tensor) -> TensorBatch:
    length = tokens.shape[1]
    item = {
        "tokens": tokens[0].numpy(), "targets": tokens[0].numpy(), "weights": np.ones(length, np.float32),
        "position": np.arange(length), "branch": np.full(length, PREFIX), "image": np.full(length, -1),
        "slots": np.zeros(0, np.int64), "crops": np.zeros((0, SIDE, SIDE, 3), np.uint8),
    }  # fmt: skip
    return TensorBatch.from_numpy(pack([[item]], length))


def _features(theirs: Any, crops: torch.Tensor) -> torch.Tensor:
    """Hidden states after the last and the third-from-last block, as `small_config` reads them."""
    with torch.no_grad():
        if "Siglip2" in type(theirs).__name__:
            side = SIDE // PATCH
            pixels = patchify(crops, PATCH)
            inputs = {
                "pixel_values": pixels,
                "pixel_attention_mask": torch.ones(pixels.shape[:2], dtype=torch.int64),
                "spatial_shapes": torch.tensor([[side, side]] * len(crops)),
            }
        else:
            inputs = {"pixel_values": crops.permute(0, 3, 1, 2).float() / 127.5 - 1}
        states = theirs(**inputs, output_hidden_states=True).hidden_states
    return torch.cat([states[-1], states[-3]], dim=-1)


TOWERS = {
    "siglip": lambda: transformers.SiglipVisionModel(transformers.SiglipVisionConfig(**TOWER, image_size=SIDE)),
    "siglip with its text side": lambda: transformers.SiglipModel(
        transformers.SiglipConfig(
            vision_config={**TOWER, "image_size": SIDE},
            text_config={
                "hidden_size": 24,
                "intermediate_size": 32,
                "num_hidden_layers": 1,
                "num_attention_heads": 2,
                "vocab_size": 40,
            },
        )
    ),
    "siglip2": lambda: transformers.Siglip2VisionModel(transformers.Siglip2VisionConfig(**TOWER, num_patches=(SIDE // PATCH) ** 2)),
}


@pytest.mark.parametrize("name", list(TOWERS))
def test_a_tower_alone(tmp_path: Path, name: str) -> None:
    preset = peers.released_config(**DECODERS["qwen3"][1])
    theirs = _save(tmp_path / "vision", TOWERS[name]())
    _save(tmp_path / "decoder", DECODERS["qwen3"][0]())
    imported = import_base(tmp_path / "decoder", tmp_path / "vision", tmp_path / "out", preset)
    crops = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (3, SIDE, SIDE, 3), dtype=np.uint8))
    with torch.no_grad():
        actual = load_model(tmp_path / "out").vision(crops)
    expected = _features(getattr(theirs, "vision_model", theirs), crops)
    assert expected.std() > 0.3
    assert (actual - expected).abs().max() <= TOLERANCE
    assert any("post_layernorm" in left for left in imported.left_out)
    assert any("text_model." in left for left in imported.left_out) == ("text" in name)


def test_another_grid_gets_interpolated_positions(tmp_path: Path) -> None:
    """As the release does: bicubic; transformers' SigLIP interpolates the same way up to the release's 0.1 against rounding."""
    preset = peers.released_config(**DECODERS["qwen3"][1])
    config = transformers.SiglipVisionConfig(**TOWER, image_size=6 * PATCH)
    theirs = _save(tmp_path / "vision", transformers.SiglipVisionModel(config))
    _save(tmp_path / "decoder", DECODERS["qwen3"][0]())
    imported = import_base(tmp_path / "decoder", tmp_path / "vision", tmp_path / "out", preset)
    assert imported.notes == ["positions interpolated from 6² to 4²"]
    table = theirs.get_parameter("embeddings.position_embedding.weight").detach()
    moved = load_model(tmp_path / "out").vision.position
    torch.testing.assert_close(moved.detach(), _bicubic(table, 4), rtol=0, atol=1e-5)
    assert interpolate_positions(table, 6) is table


def _bicubic(table: torch.Tensor, side: int) -> torch.Tensor:
    """Keys' cubic (a = -0.75) at the centres of the new cells, borders repeated; one coordinate after the other."""
    have = math.isqrt(len(table))
    matrix = torch.zeros(side, have)
    for row in range(side):
        centre = (row + 0.5) * have / (side + 0.1) - 0.5
        for tap in range(math.floor(centre) - 1, math.floor(centre) + 3):
            x = abs(centre - tap)
            near, far = 1.25 * x**3 - 2.25 * x**2 + 1, -0.75 * (x**3 - 5 * x**2 + 8 * x - 4)
            matrix[row, min(max(tap, 0), have - 1)] += near if x <= 1 else far
    return torch.einsum("ai,bj,ijd->abd", matrix, matrix, table.view(have, have, -1)).reshape(side * side, -1)


@pytest.fixture
def bases(tmp_path: Path) -> Path:
    _save(tmp_path / "decoder", DECODERS["olmo3"][0]())
    _tower(tmp_path / "vision")
    return tmp_path


def _olmo3(**changes: Any) -> ModelConfig:
    return peers.released_config(**{**DECODERS["olmo3"][1], **changes})


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"vocab_size": 51}, r"config\.json: another vocabulary: vocab_size is 50, the preset's vocab_size is 51"),
        ({"rope_theta": 1e4}, r"config\.json: rope_theta is 500000\.0, the preset's rope_theta is 10000\.0"),
        ({"layers": 9}, r"config\.json: num_hidden_layers is 8, the preset's layers is 9"),
        ({"qk_norm": "head"}, r"config\.json: model_type olmo3 means that qk_norm is full, the preset's qk_norm is head"),
        ({"rope_scaling": None}, r"config\.json: rope_scaling is \{.*\}, the preset's rope_scaling is None"),
        ({"tied": True}, r"lm_head\.weight differs from model\.embed_tokens\.weight; the preset ties the two"),
    ],
)
def test_a_base_that_is_not_the_presets(bases: Path, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(WeightsError, match=message):
        import_base(bases / "decoder", bases / "vision", bases / "out", _olmo3(**changes))


def _edit(folder: Path, gone: Sequence[str], more: Sequence[str]) -> None:
    """Take tensors out of the first shard of a folder and put others in; nothing else says what it holds."""
    (folder / "model.safetensors.index.json").unlink(missing_ok=True)
    for path in folder.glob("*.safetensors"):
        tensors = load_file(path)
        kept = {name: tensor for name, tensor in tensors.items() if name not in gone}
        save_file({**kept, **{name: torch.zeros(1) for name in more}}, path)
        more = ()


def test_missing_and_surplus_tensors_are_listed(bases: Path) -> None:
    vision, decoder = bases / "vision", bases / "decoder"
    gone = ("embeddings.patch_embedding.bias", "encoder.layers.0.mlp.fc1.bias")
    _edit(vision, gone, ("encoder.layers.9.mlp.fc1.bias", "new.weight"))
    with pytest.raises(
        WeightsError, match=r"vision lacks 2 tensors: embed.*_embedding\.bias, encoder.*fc1\.bias; it holds 2 "
    ) as said:
        import_base(decoder, vision, bases / "out", _olmo3())
    assert re.search(r"holds 2 .*: encoder\.layers\.9\.mlp\.fc1\.bias \(model.*\), new\.weight \(model", str(said.value))
    _edit(decoder, ("model.norm.weight",), ("model.layers.8.mlp.up_proj.weight",))
    with pytest.raises(WeightsError, match=r"decoder lacks 1 .*: model\.norm\.weight; it holds 1 .*: model\.layers\.8\..* \(model"):
        import_base(decoder, vision, bases / "out", _olmo3())


@pytest.mark.parametrize("name", ["decoder", "vision"])
def test_a_shard_that_broke_off_is_named(bases: Path, name: str) -> None:
    path = max((bases / name).glob("*.safetensors"))
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(WeightsError, match=rf"{name}/{path.name}: its tensors take .* it is cut off in "):
        import_base(bases / "decoder", bases / "vision", bases / "out", _olmo3())
    assert not (bases / "out").exists()


def test_looking_over_everything_is_a_choice_that_is_told(bases: Path) -> None:
    """Released Molmo2-O-7B does: it keeps OLMo-3's scaled layers and drops its windows."""
    imported = import_base(bases / "decoder", bases / "vision", bases / "out", _olmo3(sliding_window=None, full_attention_every=1))
    assert imported.notes == ["the base looks back over 6 (all of it every 4 layers), the preset over everything"]


def test_wrong_towers_and_architectures_are_named(bases: Path) -> None:
    path = bases / "vision" / "config.json"
    body = json.loads(path.read_text())
    path.write_text(json.dumps({**body, "intermediate_size": 33}))
    with pytest.raises(WeightsError, match=r"config\.json: intermediate_size is 33; this architecture has 32"):
        import_base(bases / "decoder", bases / "vision", bases / "out", _olmo3())
    path.write_text(json.dumps({**body, "model_type": "clip"}))
    with pytest.raises(WeightsError, match="known vision towers"):
        import_base(bases / "decoder", bases / "vision", bases / "out", _olmo3())
    with pytest.raises(WeightsError, match=r"model_type is 'clip'; known decoders"):
        import_base(bases / "vision", bases / "vision", bases / "out", _olmo3())


def test_initialised_rows_follow_the_seed_and_nothing_else(bases: Path) -> None:
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        import_base(bases / "decoder", bases / "vision", bases / name, _olmo3(predict_extra=True), seed=seed, shard_bytes=20_000)
    files = sorted(path.name for path in (bases / "a").glob("*.safetensors"))
    assert all((bases / "a" / file).read_bytes() == (bases / "b" / file).read_bytes() for file in files)
    a, c = (load_model(bases / name) for name in ("a", "c"))
    moved = {name for name, tensor in a.state_dict().items() if not torch.equal(tensor, c.state_dict()[name])}
    matrices = {name for name, _ in Molmo2(_olmo3()).named_parameters() if name.startswith("connector") and "bias" not in name}
    assert moved == matrices | {"decoder.extra_embedding", "decoder.head"}
    assert torch.equal(a.decoder.head[:50], c.decoder.head[:50])
