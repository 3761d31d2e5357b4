"""The tensors of Hugging Face Molmo2 checkpoints, by name and in both layouts that are in use.

Belongs here: the tables; nothing here reads a file. Every tensor of theirs is some of ours below one another (rows concatenated),
or one of ours as it is; so one table serves import and export:

* `released`: what allenai publishes and transformers saves by default: queries, keys and values in one `att_proj`; both halves of
  SwiGLU in one `ff_proj`, the ungated one first; a table of its own for the extra tokens.
* `modules`: the names of transformers' modules (`save_original_format=False`): all apart, one table of embeddings.

Sources: allenai/molmo2 `olmo/hf_model/`, and transformers' conversion table for "molmo2".
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch

from training_backend.config import ModelConfig
from training_backend.model.molmo2 import Molmo2

Layout = Literal["released", "modules"]
HEAD = "lm_head.weight"
BASE, EXTRA = "model.transformer.wte.embedding", "model.transformer.wte.new_embedding"
"""The two tables of embeddings in the released layout."""


@dataclass(frozen=True, slots=True)
class Rows:
    """One tensor of theirs: the named ones of ours below one another; none of ours: a table of `shape` without rows."""

    theirs: str
    ours: tuple[str, ...]
    shape: tuple[int, ...]


def our_shapes(config: ModelConfig) -> dict[str, tuple[int, ...]]:
    """Every tensor of a model of ours and its shape."""
    with torch.device("meta"):
        return {name: tuple(tensor.shape) for name, tensor in Molmo2(config).state_dict().items()}


_VISION = {
    # ours: (released, modules)
    "attention_norm": ("attention_norm", "layer_norm1"),
    "wq": ("attention.wq", "self_attn.q_proj"),
    "wk": ("attention.wk", "self_attn.k_proj"),
    "wv": ("attention.wv", "self_attn.v_proj"),
    "wo": ("attention.wo", "self_attn.o_proj"),
    "mlp_norm": ("ffn_norm", "layer_norm2"),
    "w1": ("feed_forward.w1", "mlp.fc1"),
    "w2": ("feed_forward.w2", "mlp.fc2"),
}
_CONNECTOR = {
    "pooling.wq": ("image_pooling_2d.wq", "image_pooling_2d.q_proj"),
    "pooling.wk": ("image_pooling_2d.wk", "image_pooling_2d.k_proj"),
    "pooling.wv": ("image_pooling_2d.wv", "image_pooling_2d.v_proj"),
    "pooling.wo": ("image_pooling_2d.wo", "image_pooling_2d.o_proj"),
    "w1": ("image_projector.w1", "image_projector.gate_proj"),
    "w2": ("image_projector.w2", "image_projector.down_proj"),
    "w3": ("image_projector.w3", "image_projector.up_proj"),
}
_BLOCK_RELEASED = {
    "attn_norm": ("attention_norm",),
    "ff_norm": ("mlp_norm",),
    "self_attn.att_proj": ("wq", "wk", "wv"),
    "self_attn.attn_out": ("wo",),
    "self_attn.q_norm": ("q_norm",),
    "self_attn.k_norm": ("k_norm",),
    "mlp.ff_proj": ("w3", "w1"),
    "mlp.ff_out": ("w2",),
}
_BLOCK_MODULES = {
    "input_layernorm": ("attention_norm",),
    "post_attention_layernorm": ("mlp_norm",),
    "self_attn.q_proj": ("wq",),
    "self_attn.k_proj": ("wk",),
    "self_attn.v_proj": ("wv",),
    "self_attn.o_proj": ("wo",),
    "self_attn.q_norm": ("q_norm",),
    "self_attn.k_norm": ("k_norm",),
    "mlp.gate_proj": ("w1",),
    "mlp.up_proj": ("w3",),
    "mlp.down_proj": ("w2",),
}


def table(config: ModelConfig, layout: Layout) -> list[Rows]:
    """Every tensor of theirs, made of ours."""
    shapes = our_shapes(config)
    side = 0 if layout == "released" else 1
    pairs: list[tuple[str, tuple[str, ...]]] = []

    vision = ("model.vision_backbone.image_vit.", "model.vision_tower.")[side]
    pairs += [(f"{vision}positional_embedding", ("vision.position",))]
    pairs += [(f"{vision}patch_embedding.{kind}", (f"vision.patch_embedding.{kind}",)) for kind in ("weight", "bias")]
    blocks = ("transformer.resblocks.", "layers.")[side]
    for layer in range(max(layer % config.vision.layers for layer in config.vision.feature_layers) + 1):
        for ours, theirs in _VISION.items():
            pairs += [
                (f"{vision}{blocks}{layer}.{theirs[side]}.{kind}", (f"vision.blocks.{layer}.{ours}.{kind}",))
                for kind in ("weight", "bias")
            ]

    connector = ("model.vision_backbone.", "model.multi_modal_projector.")[side]
    for ours, theirs in _CONNECTOR.items():
        kinds = ("weight", "bias") if ours.startswith("pooling") else ("weight",)
        pairs += [(f"{connector}{theirs[side]}.{kind}", (f"connector.{ours}.{kind}",)) for kind in kinds]

    decoder = ("model.transformer.", "model.language_model.")[side]
    blocks = ("blocks.", "layers.")[side]
    for layer in range(config.decoder.layers):
        for their, parts in (_BLOCK_RELEASED, _BLOCK_MODULES)[side].items():
            names = tuple(f"decoder.blocks.{layer}.{part}.weight" for part in parts)
            if names[0] in shapes:  # a model without query-key norm has no such tensors
                pairs.append((f"{decoder}{blocks}{layer}.{their}.weight", names))
    pairs.append((f"{decoder}{('ln_f', 'norm')[side]}.weight", ("decoder.norm.weight",)))
    pairs += _embeddings(config, layout, decoder)

    rows = []
    for their, names in pairs:
        first = shapes[names[0]] if names else (0, config.decoder.width)
        rows.append(Rows(their, names, (sum(shapes[name][0] for name in names), *first[1:])))
    return rows


def _embeddings(config: ModelConfig, layout: Layout, prefix: str) -> list[tuple[str, tuple[str, ...]]]:
    base, extra = "decoder.embedding", "decoder.extra_embedding"
    predicted = config.decoder.predict_extra
    if layout == "modules":
        pairs: list[tuple[str, tuple[str, ...]]] = [(f"{prefix}embed_tokens.weight", (base, extra))]
    else:
        pairs = [
            (BASE, (base, extra) if predicted else (base,)),
            (EXTRA, () if predicted else (extra,)),
        ]
    if config.decoder.tied:
        return [*pairs, (HEAD, (base, extra) if predicted else (base,))]
    return [*pairs, (HEAD, ("decoder.head",))]
