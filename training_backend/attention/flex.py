"""FlexAttention: the mask's predicate compiled into the kernel, whole blocks of it skipped.

Belongs here: the predicate as FlexAttention wants it, the block mask of a micro-batch (built once, shared by all layers), the call.
Does not belong here: when to use it (`choose.py`). Compiled on a GPU. On the CPU it runs unfused and forward only, which is enough
to check it: torch has no backward for it there (pytorch #148752).
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import torch
from torch import Tensor
from torch.nn.attention.flex_attention import BlockMask, create_block_mask, flex_attention

from training_backend.attention.mask import MaskSpec
from training_backend.pack.batch import PREFIX

BLOCK = 128
"""Queries and keys of a block."""


def predicate(spec: MaskSpec) -> Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]:
    """`mask.MaskSpec.allowed` for single indexes: (batch, head, query, key) → bool, as FlexAttention traces it."""
    example, branch, image, position, window = spec.example, spec.branch, spec.image, spec.position, spec.window

    def sees(b: Tensor, _head: Tensor, q: Tensor, k: Tensor) -> Tensor:
        back = position[b, q] - position[b, k]
        causal = ((branch[b, k] == PREFIX) | (branch[b, k] == branch[b, q])) & (back >= 0)
        if window is not None:
            causal = causal & (back < window)
        if spec.mode == "image_tokens":
            causal = causal | ((image[b, q] >= 0) & (image[b, k] >= 0))
        elif spec.mode == "within_image":
            causal = causal | ((image[b, q] >= 0) & (image[b, q] == image[b, k]))
        same = (example[b, q] == example[b, k]) & (example[b, k] >= 0)
        return (same & causal) | ((example[b, q] < 0) & (q == k))

    return sees


def block_mask(spec: MaskSpec) -> BlockMask:
    """Which blocks of 128×128 are empty, full or mixed. Compiled on a GPU: uncompiled it holds S×S once (7 GB at 24k)."""
    batch, length = spec.example.shape
    device = spec.example.device
    return create_block_mask(
        predicate(spec), batch, None, length, length, device=str(device), BLOCK_SIZE=BLOCK, _compile=device.type != "cpu"
    )


@cache
def _compiled() -> Any:
    return torch.compile(flex_attention, dynamic=False)


def prepare(spec: MaskSpec) -> Callable[[Tensor, Tensor, Tensor], Tensor]:
    """Attention of one micro-batch: (query [B,H,S,D], key and value [B,G,S,D]) → [B,H,S,D]."""
    blocks = block_mask(spec)
    call = flex_attention if spec.example.device.type == "cpu" else _compiled()

    def attend(query_BHSD: Tensor, key_BGSD: Tensor, value_BGSD: Tensor) -> Tensor:
        grouped = query_BHSD.shape[1] != key_BGSD.shape[1]
        out: Tensor = call(query_BHSD, key_BGSD, value_BGSD, block_mask=blocks, enable_gqa=grouped)
        return out

    return attend
