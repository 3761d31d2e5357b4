"""A published decoder and a published vision tower → a checkpoint of ours to start training from.

Belongs here: the layouts of Qwen3, OLMo-2 and OLMo-3 decoders and of SigLIP and SigLIP2 towers as their publishers and transformers
write them, what must agree with the preset, position tables for another grid, and the tensors that no base model has. Does not
belong here: Molmo2 checkpoints (`hf.py`), where the folders come from.
"""

from __future__ import annotations

import hashlib
import math
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import torch
import torch.nn.functional as F
from torch import Tensor

from training_backend.config import DecoderConfig, ModelConfig, NormOrder, QkNorm, RopeScaling, VisionConfig
from training_backend.model.config_json import CONFIG_FILE, Section, read_json
from training_backend.model.hf import Imported, Precision, write_ours
from training_backend.model.hf_config import rope
from training_backend.model.hf_names import HEAD, our_shapes
from training_backend.model.molmo2 import init_tensor
from training_backend.model.tensor_files import TensorFolder, WeightsError, check_names, check_tensors
from training_backend.model.weights import SHARD_BYTES

_DECODERS: dict[str, tuple[NormOrder, QkNorm, tuple[str, str]]] = {
    # model_type: (order of norms, query-key norm, the two norms of a block)
    "qwen3": ("pre", "head", ("input_layernorm", "post_attention_layernorm")),
    "olmo2": ("post", "full", ("post_attention_layernorm", "post_feedforward_layernorm")),
    "olmo3": ("post", "full", ("post_attention_layernorm", "post_feedforward_layernorm")),
}
_KEYS = {
    "width": "hidden_size",
    "layers": "num_hidden_layers",
    "heads": "num_attention_heads",
    "kv_heads": "num_key_value_heads",
    "mlp_width": "intermediate_size",
    "norm_eps": "rms_norm_eps",
}
"""Our field → their key, where the two differ."""
_BLOCK = {
    "self_attn.q_proj": "wq",
    "self_attn.k_proj": "wk",
    "self_attn.v_proj": "wv",
    "self_attn.o_proj": "wo",
    "self_attn.q_norm": "q_norm",
    "self_attn.k_norm": "k_norm",
    "mlp.gate_proj": "w1",
    "mlp.up_proj": "w3",
    "mlp.down_proj": "w2",
}
_TOWERS = {"siglip", "siglip_vision_model", "siglip2", "siglip2_vision_model"}
_TOWER_BLOCK = {
    "layer_norm1": "attention_norm",
    "self_attn.q_proj": "wq",
    "self_attn.k_proj": "wk",
    "self_attn.v_proj": "wv",
    "self_attn.out_proj": "wo",
    "layer_norm2": "mlp_norm",
    "mlp.fc1": "w1",
    "mlp.fc2": "w2",
}


def import_base(
    decoder: Path,
    vision: Path,
    out: Path,
    preset: ModelConfig,
    *,
    seed: int = 0,
    precision: Precision = "float32",
    shard_bytes: int = SHARD_BYTES,
) -> Imported:
    """A checkpoint of `preset` in `out`: the two base models, and the connector and the extra rows initialised from `seed`.

    A head with rows for the extra tokens gets the base head's rows and initialised ones below. Every initialised tensor has a
    generator of its own name, so that it does not depend on the others. Raises WeightsError where a base model and the preset
    disagree, naming file and key.
    """
    words, pixels = TensorFolder(decoder), TensorFolder(vision)
    said = decoder_config(decoder / CONFIG_FILE)
    notes = _agree(decoder / CONFIG_FILE, said, preset.decoder)
    shapes = our_shapes(preset)
    word_names = decoder_names(preset.decoder, _model_type(decoder / CONFIG_FILE), said.tied)
    head_shape = shapes["decoder.embedding"]
    word_shapes = {theirs: head_shape if theirs == HEAD else shapes[ours] for theirs, ours in word_names.items()}
    check_tensors(words, word_shapes, optional={HEAD} if said.tied else set())
    notes += _check_head(words, said, preset.decoder)

    pixel_names, left_out = tower_names(vision / CONFIG_FILE, pixels, preset.vision)
    loaded = _tower(vision / CONFIG_FILE, pixels, pixel_names, preset.vision, shapes, notes)
    origin = {ours: (words, theirs) for theirs, ours in word_names.items() if ours in shapes and theirs in words.entries}
    if "decoder.head" in shapes and HEAD not in words.entries:
        origin["decoder.head"] = (words, "model.embed_tokens.weight")
    origin |= {ours: (pixels, theirs) for theirs, ours in pixel_names.items()}
    initialised = sorted(set(shapes) - set(origin))

    def blocks(name: str) -> Iterator[Tensor]:
        if name in loaded:
            yield loaded[name]
            return
        rows = 0
        if name in origin:
            folder, theirs = origin[name]
            rows = folder.spec(theirs).shape[0]
            yield from folder.blocks(theirs)
        if rows < shapes[name][0]:
            yield _initial(name, (shapes[name][0] - rows, *shapes[name][1:]), preset, seed).to(types[name])

    types = {name: origin[name][0].spec(origin[name][1]).dtype if name in origin else torch.float32 for name in shapes}
    files = write_ours(out, preset, types, blocks, precision, shard_bytes)
    if "decoder.head" in shapes and shapes["decoder.head"] != head_shape:
        notes.append(f"the head's last {shapes['decoder.head'][0] - head_shape[0]} rows are initialised")
    return Imported(preset, files, left_out=left_out, initialised=initialised, notes=notes)


def decoder_config(path: Path) -> DecoderConfig:
    """What the `config.json` of a base decoder says."""
    model_type = _model_type(path)
    if model_type not in _DECODERS:
        raise WeightsError(f"{path}: model_type is {model_type!r}; known decoders are {sorted(_DECODERS)}.")
    order, qk_norm, _ = _DECODERS[model_type]
    part = Section(path, "", read_json(path))
    part.expect("attention_bias", False, False)
    part.expect("hidden_act", "silu", "silu")
    part.expect("use_sliding_window", False, False)
    width, heads, layers = part.get("hidden_size", int), part.get("num_attention_heads", int), part.layers()
    window, every = _window(part, layers) if model_type == "olmo3" else (None, 1)
    theta, scaling = _rope(part, layers, every)
    return DecoderConfig(
        width=width,
        layers=layers,
        heads=heads,
        kv_heads=part.get("num_key_value_heads", int, heads),
        head_dim=part.get("head_dim", int, width // heads),
        mlp_width=part.get("intermediate_size", int),
        vocab_size=part.get("vocab_size", int),
        rope_theta=theta,
        rope_scaling=scaling,
        sliding_window=window,
        full_attention_every=every,
        qk_norm=qk_norm,
        norm_order=order,
        norm_eps=part.number("rms_norm_eps", None),
        tied=part.get("tie_word_embeddings", bool, False),
    )


def _model_type(path: Path) -> Any:
    return read_json(path).get("model_type")


def _window(part: Section, layers: int) -> tuple[int | None, int]:
    """OLMo-3: every fourth layer looks back over everything, unless `layer_types` says otherwise."""
    usual = ["full_attention" if (layer + 1) % 4 == 0 else "sliding_attention" for layer in range(layers)]
    kinds = part.get("layer_types", list, usual)
    for every in range(1, layers + 1):
        if kinds == ["full_attention" if (layer + 1) % every == 0 else "sliding_attention" for layer in range(layers)]:
            return (None if every == 1 else part.get("sliding_window", int)), every
    raise WeightsError(f"{part.path}: layer_types is not every n-th layer full, the others sliding: {kinds!r}.")


def _rope(part: Section, layers: int, every: int) -> tuple[float, RopeScaling | None]:
    """θ and scaling; OLMo-3 scales only the layers that look back over everything."""
    table = part.get("rope_parameters", dict, {})
    if "full_attention" in table:
        full = Section(part.path, "rope_parameters", table).get("full_attention", dict)
        plain = table.get("sliding_attention") or full
        if plain.get("rope_type", "default") != "default" or plain.get("rope_theta") != full.get("rope_theta"):
            raise WeightsError(
                f"{part.path}: rope_parameters.sliding_attention is {plain!r}; known is the plain one of equal theta."
            )
        part = Section(part.path, part.name, {**part.table, "rope_parameters": full})
    chosen = [layer for layer in range(layers) if (layer + 1) % every == 0]
    return rope(Section(part.path, part.name, {**part.table, "rope_scaling_layers": chosen}), layers)


def _agree(path: Path, said: DecoderConfig, wanted: DecoderConfig) -> list[str]:
    """Refuse a base whose numbers are not the preset's; returns what differs by the recipe's choice."""
    free = {"extra_tokens", "predict_extra", "tied", "sliding_window", "full_attention_every"}
    by_type = f"model_type {_model_type(path)} means that "
    for field in said.__struct_fields__:
        here, there = getattr(said, field), getattr(wanted, field)
        if field not in free and here != there:
            what = {"vocab_size": "another vocabulary: ", "qk_norm": by_type, "norm_order": by_type}.get(field, "")
            key = _KEYS.get(field, field)
            raise WeightsError(f"{path}: {what}{key} is {_plain(here)}, the preset's {field} is {_plain(there)}.")
    if (said.sliding_window, said.full_attention_every) != (wanted.sliding_window, wanted.full_attention_every):
        return [
            f"the base looks back over {said.sliding_window or 'everything'} (all of it every {said.full_attention_every} layers), "
            f"the preset over {wanted.sliding_window or 'everything'}"
        ]
    return []


def _plain(value: Any) -> str:
    return str(msgspec.to_builtins(value))


def decoder_names(config: DecoderConfig, model_type: str, tied: bool) -> dict[str, str]:
    """Their tensors → ours."""
    norms = dict(zip(_DECODERS[model_type][2], ("attention_norm", "mlp_norm"), strict=True))
    names = {"model.embed_tokens.weight": "decoder.embedding", "model.norm.weight": "decoder.norm.weight", HEAD: "decoder.head"}
    for layer in range(config.layers):
        for theirs, ours in {**norms, **_BLOCK}.items():
            names[f"model.layers.{layer}.{theirs}.weight"] = f"decoder.blocks.{layer}.{ours}.weight"
    return names


def _check_head(words: TensorFolder, said: DecoderConfig, wanted: DecoderConfig) -> list[str]:
    """Ties of base and preset: a copy is fine and told; different tables under one tie are not."""
    if wanted.tied and HEAD in words.entries:
        pairs = zip(words.blocks(HEAD), words.blocks("model.embed_tokens.weight"), strict=True)
        if not all(torch.equal(a, b) for a, b in pairs):
            raise WeightsError(f"{words.path(HEAD)}: {HEAD} differs from model.embed_tokens.weight; the preset ties the two.")
    if said.tied and not wanted.tied:
        return ["the base ties its head to the embeddings; the preset starts with a copy"]
    return []


def tower_names(path: Path, source: TensorFolder, config: VisionConfig) -> tuple[dict[str, str], list[str]]:
    """Their tensors → ours, and those that Molmo2 has no use for: later blocks, pooling head, the text side of a pair."""
    ends = [name for name in source.entries if name.endswith("embeddings.patch_embedding.weight")]
    if len(ends) != 1:
        raise WeightsError(f"{source.folder} holds {len(ends)} tensors …embeddings.patch_embedding.weight: not a SigLIP tower.")
    prefix = ends[0].removesuffix("embeddings.patch_embedding.weight")
    names = {f"{prefix}embeddings.patch_embedding.{kind}": f"vision.patch_embedding.{kind}" for kind in ("weight", "bias")}
    names[f"{prefix}embeddings.position_embedding.weight"] = "vision.position"
    depth = max(layer % config.layers for layer in config.feature_layers) + 1
    for layer in range(depth):
        for theirs, ours in _TOWER_BLOCK.items():
            for kind in ("weight", "bias"):
                names[f"{prefix}encoder.layers.{layer}.{theirs}.{kind}"] = f"vision.blocks.{layer}.{ours}.{kind}"
    unused = re.compile(
        rf"{re.escape(prefix)}(post_layernorm|head)\.|text_model\.|logit_(scale|bias)$|{re.escape(prefix)}encoder\.layers\.(\d+)\."
    )
    left_out = []
    for name in sorted(set(source.entries) - set(names)):
        match = unused.match(name)
        if match is not None and (match[3] is None or depth <= int(match[3]) < config.layers):
            left_out.append(name)
    check_names(source, names, frozenset(left_out))
    return names, left_out


def _tower(
    path: Path,
    source: TensorFolder,
    names: dict[str, str],
    config: VisionConfig,
    shapes: dict[str, tuple[int, ...]],
    notes: list[str],
) -> dict[str, Tensor]:
    """Check the tower against the preset; the tensors that are not taken as they are: patch embedding and positions."""
    raw = read_json(path)
    if raw.get("model_type") not in _TOWERS:
        raise WeightsError(f"{path}: model_type is {raw.get('model_type')!r}; known vision towers are {sorted(_TOWERS)}.")
    part = Section(path, "vision_config", raw["vision_config"]) if "vision_config" in raw else Section(path, "", raw)
    # Absent keys have the defaults of the base-sized SigLIP, as in transformers.
    for key, wanted, usual in (
        ("hidden_size", config.width, 768),
        ("intermediate_size", config.mlp_width, 3072),
        ("num_hidden_layers", config.layers, 12),
        ("num_attention_heads", config.heads, 12),
        ("patch_size", config.patch_size, 16),
        ("hidden_act", "gelu_pytorch_tanh", "gelu_pytorch_tanh"),
        ("layer_norm_eps", config.norm_eps, 1e-6),
        ("num_channels", 3, 3),
    ):
        part.expect(key, wanted, usual)
    loaded = {}
    for theirs, ours in names.items():
        shape, wanted_shape = source.spec(theirs).shape, shapes[ours]
        if ours == "vision.position" and len(shape) == 2 and shape[1] == config.width and math.isqrt(shape[0]) ** 2 == shape[0]:
            table = source.read(theirs)
            loaded[ours] = interpolate_positions(table, config.patches_per_side)
            if shape != wanted_shape:
                notes.append(f"positions interpolated from {math.isqrt(shape[0])}² to {config.patches_per_side}²")
        elif ours == "vision.patch_embedding.weight" and shape == (config.width, 3, config.patch_size, config.patch_size):
            # A convolution over (channel, row, column) → one matrix over (row, column, channel).
            loaded[ours] = source.read(theirs).permute(0, 2, 3, 1).reshape(wanted_shape)
        elif shape != wanted_shape:
            raise WeightsError(f"{source.path(theirs)}: {theirs} has shape {list(shape)}, the preset needs {list(wanted_shape)}.")
    return loaded


def interpolate_positions(table_PD: Tensor, side: int) -> Tensor:
    """A square table of positions [P, D] for a grid of side×side: bicubic, with the release's 0.1 against rounding down.

    The scale is (side + 0.1)/√P in both directions (allenai/molmo2 `scripts/prepare_pretrained_model.py`).
    """
    have = math.isqrt(len(table_PD))
    if have == side:
        return table_PD
    grid = table_PD.float().view(1, have, have, -1).permute(0, 3, 1, 2)
    scale = (side + 0.1) / have
    moved = F.interpolate(grid, scale_factor=(scale, scale), mode="bicubic", align_corners=False)
    assert moved.shape[-2:] == (side, side), (have, side)
    return moved.permute(0, 2, 3, 1).reshape(side * side, -1).to(table_PD.dtype)


def _initial(name: str, shape: tuple[int, ...], preset: ModelConfig, seed: int) -> Tensor:
    digest = hashlib.blake2b(f"{seed}/{name}".encode(), digest_size=7).digest()
    tensor = torch.empty(shape)
    init_tensor(name, tensor, preset, torch.Generator().manual_seed(int.from_bytes(digest, "little")))
    return tensor
