"""`ModelConfig` ↔ `config.json` of a Hugging Face Molmo2 checkpoint.

Belongs here: which of their keys means which of our fields, and what each side cannot say. Does not belong here: tensors (`hf.py`),
base models' configurations (`base_weights.py`), processor and tokenizer files.

Two dialects are read: that of the released checkpoints (`vit_config`, `vit_layers`, `rope_theta`, `rope_scaling`, `layer_norm_eps`)
and the one that transformers ≥ 5.23 writes (`vision_config`, `vision_feature_layer`, `rope_parameters`, `rms_norm_eps`). The
released one is written, because every reader knows it. An absent key has the default of transformers' `Molmo2*Config` classes.
What their keys cannot say (our name, initialisation, pooling windows, rows of the head for extra tokens) travels in a section of
our own, `nanomolmo2`.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import msgspec

from training_backend.config import ConnectorConfig, DecoderConfig, ModelConfig, QkNorm, RopeScaling, VisionConfig
from training_backend.encode.tokens import EXTRA_TOKENS
from training_backend.model.config_json import LARGEST, Section, read_json
from training_backend.model.tensor_files import WeightsError
from training_backend.model.weights import unequal_fields

OWN_SECTION = "nanomolmo2"
MODEL_TYPE = "molmo2"
_QK_NORM: dict[str, QkNorm] = {"qwen3": "head", "olmo": "full"}
_SPECIALS = {
    "image_start_token_id": "<im_start>",
    "image_end_token_id": "<im_end>",
    "image_patch_id": "<im_patch>",
    "image_col_id": "<im_col>",
    "low_res_image_start_token_id": "<low_res_im_start>",
    "image_low_res_id": "<im_low>",
    "frame_start_token_id": "<frame_start>",
    "frame_end_token_id": "<frame_end>",
}


def from_hf(path: Path) -> ModelConfig:
    """The model that a `config.json` describes.

    `decoder.tied` is what the file says; released files never tie, also where the model was trained so (`hf.import_hf` looks).
    """
    raw = read_json(path)
    config = _parse(path, raw)
    if OWN_SECTION in raw:
        own, said = _own(path, raw[OWN_SECTION])
        if different := differences(said, config):
            raise WeightsError(f"{path}: its {OWN_SECTION} section describes another model; they differ in {', '.join(different)}.")
        config = own
    for key, token in _SPECIALS.items():
        place = config.decoder.vocab_size + EXTRA_TOKENS.index(token)
        if raw.get(key, place) != place:
            raise WeightsError(f"{path}: {key} is {raw[key]!r}, {token} is {place} here: another vocabulary.")
    return config


def _own(path: Path, section: object) -> tuple[ModelConfig, ModelConfig]:
    """Our section, and the model that it is in their words."""
    try:
        own = msgspec.convert(section, type=ModelConfig)
        for part in ("vision", "connector", "decoder"):
            table = Section(path, f"{OWN_SECTION}.{part}", msgspec.to_builtins(getattr(own, part)))
            for field, value in table.table.items():
                if type(value) is int and field != "extra_tokens":
                    table.get(field, int)
        return own, _parse(path, to_hf(own))
    except msgspec.ValidationError as error:
        raise WeightsError(f"{path}: {OWN_SECTION} cannot be read: {error}") from None
    except WeightsError as error:
        said = str(error).removeprefix(f"{path}: ")
        raise WeightsError(f"{path}: its {OWN_SECTION} section describes no model that there is: {said}") from None


def _parse(path: Path, raw: dict[str, Any]) -> ModelConfig:
    if raw.get("model_type") != MODEL_TYPE:
        raise WeightsError(f"{path}: model_type is {raw.get('model_type')!r}, not {MODEL_TYPE!r}: another architecture.")
    vision = _vision(Section(path, "vit_config", raw["vit_config"]) if "vit_config" in raw else _part(path, raw, "vision_config"))
    adapter = _part(path, raw, "adapter_config")
    decoder = _decoder(_part(path, raw, "text_config"))
    layers = adapter.get("vision_feature_layer", list, [24, 18], "vit_layers")
    if not layers or not all(type(layer) is int and -vision.layers <= layer < vision.layers for layer in layers):
        raise WeightsError(f"{path}: {adapter.key('vision_feature_layer')} is {layers!r} of {vision.layers} layers.")
    connector = _connector(adapter, vision, decoder)
    vision = msgspec.structs.replace(vision, feature_layers=tuple(layers))
    return ModelConfig(name="imported", vision=vision, connector=connector, decoder=decoder, image_attention="image_tokens")


def _part(path: Path, raw: dict[str, Any], name: str) -> Section:
    return Section(path, name, raw.get(name))


def _vision(part: Section) -> VisionConfig:
    heads, width = part.get("num_attention_heads", int, 16), part.get("hidden_size", int, 1152)
    part.divides(heads, width, "num_attention_heads")
    part.expect("num_key_value_heads", heads, 16)
    part.expect("head_dim", width // heads, 72)
    part.expect("hidden_act", "gelu_pytorch_tanh", "gelu_pytorch_tanh")
    size = part.get("image_size", list, [378, 378], "image_default_input_size")
    if len(size) != 2 or size[0] != size[1] or type(size[0]) is not int or not 0 < size[0] <= LARGEST:
        raise WeightsError(f"{part.path}: {part.key('image_size')} is {size!r}; pictures are square here.")
    patch = part.get("patch_size", int, 14, "image_patch_size")
    part.expect("num_position_embeddings", (size[0] // patch) ** 2, (size[0] // patch) ** 2, "image_num_pos")
    return VisionConfig(
        image_size=size[0],
        patch_size=patch,
        width=width,
        layers=part.layers(25),
        heads=heads,
        mlp_width=part.get("intermediate_size", int, 4304),
        feature_layers=(),
        norm_eps=part.number("layer_norm_eps", 1e-6),
    )


def _connector(part: Section, vision: VisionConfig, decoder: DecoderConfig) -> ConnectorConfig:
    heads = part.get("num_attention_heads", int, 16)
    part.divides(heads, vision.width, "num_attention_heads")
    part.expect("hidden_size", vision.width, 1152)
    part.expect("num_key_value_heads", heads, 16)
    part.expect("head_dim", vision.width // heads, 72)
    part.expect("hidden_act", "silu", "silu")
    part.expect("mlp_bias", False, False)
    part.expect("pooling_attention_mask", True, True)
    part.expect("text_hidden_size", decoder.width, 3584)
    return ConnectorConfig(heads=heads, pool_width=vision.width, mlp_width=part.get("intermediate_size", int, 18944))


def _decoder(part: Section) -> DecoderConfig:
    part.expect("attention_bias", False, False, "qkv_bias")
    part.expect("hidden_act", "silu", "silu")
    layers = part.layers(36)
    kind = part.get("qk_norm_type", str, "qwen3")
    if kind not in _QK_NORM:
        raise WeightsError(f"{part.path}: {part.key('qk_norm_type')} is {kind!r}; known are {sorted(_QK_NORM)}.")
    theta, scaling = rope(part, layers)
    heads, kv_heads = part.get("num_attention_heads", int, 32), part.get("num_key_value_heads", int, 8)
    part.divides(kv_heads, heads, "num_key_value_heads")
    return DecoderConfig(
        width=part.get("hidden_size", int, 4096),
        layers=layers,
        heads=heads,
        kv_heads=kv_heads,
        head_dim=part.get("head_dim", int, 128),
        mlp_width=part.get("intermediate_size", int, 12288),
        vocab_size=part.get("vocab_size", int, 151936),
        extra_tokens=part.get("additional_vocab_size", int, 128),
        rope_theta=theta,
        rope_scaling=scaling,
        qk_norm=_QK_NORM[kind] if part.get("use_qk_norm", bool, True) else "none",
        norm_order="post" if part.get("norm_after", bool, False) else "pre",
        norm_eps=part.number("rms_norm_eps", 1e-6, "layer_norm_eps"),
        tied=part.get("tie_word_embeddings", bool, False),
        predict_extra=False,
    )


def rope(part: Section, layers: int) -> tuple[float, RopeScaling | None]:
    """θ and scaling; transformers' own default for θ is 10,000, which no Molmo2 has, so an absent one is refused."""
    table = part.get("rope_parameters", dict, None, "rope_scaling")
    named = Section(part.path, part.key("rope_parameters"), table or {})
    theta = named.number("rope_theta", None) if "rope_theta" in named.table else part.number("rope_theta", None)
    kind = named.get("rope_type", str, "default", "type")
    if kind == "default":
        return theta, None
    if kind != "yarn":
        raise WeightsError(f"{part.path}: {named.key('rope_type')} is {kind!r}; known are 'default' and 'yarn'.")
    named.expect("truncate", True, True)
    for key in ("mscale", "mscale_all_dim"):
        named.expect(key, None, None)
    factor = named.number("factor", None)
    chosen = tuple(part.get("rope_scaling_layers", list, list(range(layers))))
    if not all(type(layer) is int and 0 <= layer < layers for layer in chosen) or not chosen:
        raise WeightsError(f"{part.path}: {part.key('rope_scaling_layers')} is {list(chosen)!r} of {layers} layers.")
    # Without a factor on cosine and sine, that of the YaRN paper.
    plain = 0.1 * math.log(factor) + 1.0 if factor > 1 else 1.0
    return theta, RopeScaling(
        factor=factor,
        original_max_positions=named.get("original_max_position_embeddings", int),
        attention_factor=named.number("attention_factor", plain),
        beta_fast=named.number("beta_fast", 32.0),
        beta_slow=named.number("beta_slow", 1.0),
        layers=() if chosen == tuple(range(layers)) else chosen,
    )


def differences(a: ModelConfig, b: ModelConfig) -> list[str]:
    """Fields in which two models compute differently; names, initialisation, windows and ways to write the same layers aside."""
    return unequal_fields(canonical(a), canonical(b))


def canonical(config: ModelConfig) -> ModelConfig:
    """One way to write every model: no blocks that are never built, feature layers counted from the start."""
    read = tuple(layer % config.vision.layers for layer in config.vision.feature_layers)
    decoder, scaling = config.decoder, config.decoder.rope_scaling
    if scaling and scaling.layers == tuple(range(decoder.layers)):
        scaling = msgspec.structs.replace(scaling, layers=())
    every = decoder.full_attention_every if decoder.sliding_window else 1
    return msgspec.structs.replace(
        config,
        vision=msgspec.structs.replace(config.vision, layers=max(read) + 1, feature_layers=read),
        connector=msgspec.structs.replace(config.connector, image_window=2, video_window=3, dropout=0.0),
        decoder=msgspec.structs.replace(decoder, rope_scaling=scaling, full_attention_every=every),
    )


def to_hf(config: ModelConfig, max_positions: int = 36_864, dtype: str = "float32") -> dict[str, Any]:
    """The `config.json` of a model. Raises WeightsError for what the Hugging Face architecture cannot say.

    A model whose head has rows for the extra tokens (`predict_extra`) is written as one whose base table holds them all: the
    Hugging Face head has as many rows as the base table.
    """
    vision, connector, decoder = config.vision, config.connector, config.decoder
    wrong = {
        "image_attention": config.image_attention != "image_tokens",
        "decoder.sliding_window": decoder.sliding_window is not None,
        "decoder.qk_norm": decoder.qk_norm == "none",
        "connector.pool_width": connector.pool_width != vision.width,
    }
    if any(wrong.values()):
        names = [name for name, unsayable in wrong.items() if unsayable]
        raise WeightsError(f"model {config.name!r} cannot be a Hugging Face Molmo2, which has no such {', '.join(names)}.")
    extra = decoder.extra_tokens if decoder.predict_extra else 0
    scaling = decoder.rope_scaling
    norm = next(theirs for theirs, ours in _QK_NORM.items() if ours == decoder.qk_norm)
    return {
        "model_type": MODEL_TYPE,
        "architectures": ["Molmo2ForConditionalGeneration"],
        "dtype": dtype,
        "tie_word_embeddings": False,
        **{key: decoder.vocab_size + EXTRA_TOKENS.index(token) for key, token in _SPECIALS.items()},
        "vit_config": {
            "model_type": MODEL_TYPE,
            "hidden_size": vision.width,
            "intermediate_size": vision.mlp_width,
            "num_hidden_layers": vision.layers,
            "num_attention_heads": vision.heads,
            "num_key_value_heads": vision.heads,
            "head_dim": vision.width // vision.heads,
            "hidden_act": "gelu_pytorch_tanh",
            "layer_norm_eps": vision.norm_eps,
            "image_default_input_size": [vision.image_size, vision.image_size],
            "image_patch_size": vision.patch_size,
            "image_num_pos": vision.patches_per_side**2,
        },
        "adapter_config": {
            "model_type": MODEL_TYPE,
            "vit_layers": list(vision.feature_layers),
            "pooling_attention_mask": True,
            "hidden_size": connector.pool_width,
            "num_attention_heads": connector.heads,
            "num_key_value_heads": connector.heads,
            "head_dim": connector.pool_width // connector.heads,
            "hidden_act": "silu",
            "intermediate_size": connector.mlp_width,
            "text_hidden_size": decoder.width,
        },
        "text_config": {
            "model_type": "molmo2_text",
            "hidden_size": decoder.width,
            "num_hidden_layers": decoder.layers,
            "num_attention_heads": decoder.heads,
            "num_key_value_heads": decoder.kv_heads,
            "head_dim": decoder.head_dim,
            "intermediate_size": decoder.mlp_width,
            "hidden_act": "silu",
            "vocab_size": decoder.vocab_size + extra,
            "additional_vocab_size": decoder.extra_tokens - extra,
            "qkv_bias": False,
            "use_qk_norm": True,
            "qk_norm_type": norm,
            "layer_norm_eps": decoder.norm_eps,
            "norm_after": decoder.norm_order == "post",
            "max_position_embeddings": max_positions,
            "rope_theta": decoder.rope_theta,
            "rope_scaling": _yarn(scaling) if scaling else None,
            "rope_scaling_layers": list(scaling.layers) if scaling and scaling.layers else None,
            "tie_word_embeddings": False,
        },
        OWN_SECTION: msgspec.to_builtins(config),
    }


def _yarn(scaling: RopeScaling) -> dict[str, Any]:
    return {
        "rope_type": "yarn",
        "factor": scaling.factor,
        "original_max_position_embeddings": scaling.original_max_positions,
        "attention_factor": scaling.attention_factor,
        "beta_fast": scaling.beta_fast,
        "beta_slow": scaling.beta_slow,
    }
