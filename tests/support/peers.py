"""Transformers' own models beside ours: the same random weights, the same picture, the same words.

Transformers is imported inside the functions: a test that uses them starts with
`transformers_peer.need_transformers()`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from tests.support.models import PATCH, SIDE, pack, small_config
from training_backend.config import ModelConfig, RopeScaling
from training_backend.model.hf_config import to_hf
from training_backend.model.vision import patchify
from training_backend.pack.batch import PREFIX, Batch

GRID = np.arange((SIDE // PATCH) ** 2).reshape(SIDE // PATCH, SIDE // PATCH)
YARN = RopeScaling(factor=8.0, original_max_positions=16, attention_factor=1.2079441541679836)
VARIANTS: dict[str, dict[str, Any]] = {
    "pre-norm, per head": {},
    "post-norm, whole": {"norm_order": "post", "qk_norm": "full", "kv_heads": 4},
    "pre-norm, whole": {"qk_norm": "full"},
    "post-norm, per head": {"norm_order": "post"},
    "scaled everywhere": {"rope_scaling": YARN},
    "scaled on some layers": {
        "norm_order": "post", "qk_norm": "full", "kv_heads": 4,
        "rope_scaling": RopeScaling(factor=8.0, original_max_positions=16, attention_factor=1.2, layers=(1,)),
    },
    "tied": {"tied": True},
}  # fmt: skip
"""Decoders whose head has rows for the base table alone, as the released ones."""


def released_config(**decoder: Any) -> ModelConfig:
    """`small_config` as a released model: no head rows for the extra tokens."""
    return small_config(**{"predict_extra": False, **decoder})


def peer(config: ModelConfig, seed: int = 0) -> Any:
    """`Molmo2ForConditionalGeneration` of the same architecture, every weight random: none is zero or one."""
    from transformers import Molmo2Config, Molmo2ForConditionalGeneration

    model = Molmo2ForConditionalGeneration(Molmo2Config(**to_hf(config)))
    randomise(model, seed)
    if config.decoder.tied:
        with torch.no_grad():
            model.lm_head.weight.copy_(model.model.language_model.embed_tokens.weight[: config.decoder.vocab_size])
    return model.eval()


@torch.no_grad()
def randomise(model: torch.nn.Module, seed: int) -> None:
    """Draw every parameter: matrices at a scale that keeps activations near one, norms around one."""
    generator = torch.Generator().manual_seed(seed)
    for name, parameter in sorted(model.named_parameters()):
        noise = torch.randn(parameter.shape, generator=generator)
        if parameter.dim() > 1:
            parameter.copy_(noise * 0.7 / parameter.shape[-1] ** 0.5 if "embed" not in name else noise)
        else:
            parameter.copy_(1 + 0.2 * noise if "norm" in name and name.endswith("weight") else 0.2 * noise)


def windows(size: int) -> np.ndarray:
    """Pooling windows of size×size over a crop's patches, short ones at the edge: [V, size²]."""
    side = len(GRID)
    padded = np.full((-(-side // size) * size,) * 2, -1)
    padded[:side, :side] = GRID
    starts = range(0, len(padded), size)
    return np.stack([padded[r : r + size, c : c + size].ravel() for r in starts for c in starts])


def prompt(
    rng: np.random.Generator, config: ModelConfig, pictures: int, kind: str = "image", branches: int = 1
) -> dict[str, np.ndarray]:
    """An example as `tests.support.models.pack` takes it, of the released layout's kind.

    `image`: pictures of 2×2 windows between words. `video`: frames of 3×3 windows, each after a few words (its time).
    """
    first, vocab = config.decoder.vocab_size, config.decoder.vocab_size
    opening, closing = (first, first + 1) if kind == "image" else (first + 7, first + 8)
    visual = len(windows(2 if kind == "image" else 3))
    tokens, image, slots = list(rng.integers(0, vocab, 2)), [-1, -1], []
    for number in range(pictures):
        tokens += [*rng.integers(0, vocab, 2), opening] + [first + 2] * visual + [closing]
        image += [-1, -1] + [number] * (visual + 2)
        slots += range(len(tokens) - visual - 1, len(tokens) - 1)
    tokens += list(rng.integers(0, vocab, 3))
    image += [-1] * 3
    prefix = len(tokens)
    position, branch, weights = list(range(prefix)), [PREFIX] * prefix, [0.0] * prefix
    for number in range(branches):
        length = int(rng.integers(4, 9))
        tokens += list(rng.integers(0, vocab, length))
        position += range(prefix, prefix + length)
        branch += [number] * length
        weights += [1.0] * (length - 1) + [0.0]
    image += [-1] * (len(tokens) - prefix)
    targets = np.append(np.array(tokens[1:]), 0)
    return {
        "tokens": np.array(tokens), "targets": targets, "weights": np.array(weights, np.float32), "position": np.array(position),
        "branch": np.array(branch), "image": np.array(image), "slots": np.array(slots, np.int64),
        "crops": rng.integers(0, 256, (pictures, SIDE, SIDE, 3), dtype=np.uint8),
    }  # fmt: skip


def peer_inputs(item: dict[str, np.ndarray], kind: str = "image", keep: Sequence[int] | slice = slice(None)) -> dict[str, Tensor]:
    """The same example in the words of transformers' processor; `keep` chooses positions (a prefix and one branch)."""
    tokens = torch.from_numpy(item["tokens"][keep])[None]
    inputs = {
        "input_ids": tokens,
        "attention_mask": torch.ones_like(tokens),
        "mm_token_type_ids": torch.from_numpy((item["image"][keep] >= 0).astype(np.int64))[None],
    }
    count = len(item["crops"])
    if not count:
        return inputs
    pixels = patchify(torch.from_numpy(item["crops"]), PATCH)
    table = windows(2 if kind == "image" else 3)
    pool = torch.from_numpy(np.concatenate([np.where(table < 0, -1, table + crop * GRID.size) for crop in range(count)]))
    if kind == "image":
        grids = torch.tensor([[2, 2, 0, 0]] * count)
        return {**inputs, "pixel_values": pixels, "image_token_pooling": pool, "image_grids": grids,
                "image_num_crops": torch.ones(count, dtype=torch.int64)}  # fmt: skip
    return {**inputs, "pixel_values_videos": pixels, "video_token_pooling": pool, "video_grids": torch.tensor([[count, 2, 2]])}


def our_batch(rows: list[list[dict[str, np.ndarray]]], length: int, kind: str = "image") -> Batch:
    """`pack`, with the windows of `kind`."""
    batch = pack(rows, length)
    crops = sum(len(item["crops"]) for row in rows for item in row)
    if kind == "image" or not crops:
        return batch
    table = windows(3)
    pool = np.concatenate([np.where(table < 0, -1, table + crop * GRID.size) for crop in range(crops)])
    return dataclasses.replace(batch, pool=pool.astype(np.int64))


def saved_peer(model: Any, folder: Path, **options: Any) -> Path:
    """The peer's folder, in several shards."""
    model.save_pretrained(folder, **{"max_shard_size": "20KB", **options})
    return folder
