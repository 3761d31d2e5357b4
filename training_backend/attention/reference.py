"""The reference back end: scaled dot-product attention over chunks of queries, exact on every device.

Belongs here: attention with a mask specification through `torch.nn.functional.scaled_dot_product_attention`. The mask of a chunk is
built, used and forgotten, so memory is chunk×S and never S×S.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from training_backend.attention.mask import MaskSpec

CHUNK = 1024
"""Queries at a time."""


def chunk_masks(spec: MaskSpec, chunk: int = CHUNK) -> list[Tensor]:
    """The masks of consecutive query chunks, bool [B, 1, chunk, S]; built once a micro-batch when one chunk holds everything."""
    length = spec.example.shape[1]
    return [spec.allowed(start, min(start + chunk, length))[:, None] for start in range(0, length, chunk)]


def whole_mask(spec: MaskSpec) -> Tensor | None:
    """The mask of a sequence that is one chunk, bool [B, 1, S, S], to keep for all layers; None for a longer one."""
    return chunk_masks(spec)[0] if spec.example.shape[1] <= CHUNK else None


def attend(query_BHSD: Tensor, key_BGSD: Tensor, value_BGSD: Tensor, spec: MaskSpec, mask: Tensor | None = None) -> Tensor:
    """Attention output [B, H, S, D]. Fewer key/value heads G than query heads H are shared (grouped queries).

    `mask` is that of `whole_mask`, where the caller keeps it for all layers.
    """
    grouped = query_BHSD.shape[1] != key_BGSD.shape[1]
    length = query_BHSD.shape[2]
    if length <= CHUNK:
        mask = spec.allowed(0, length)[:, None] if mask is None else mask
        return F.scaled_dot_product_attention(query_BHSD, key_BGSD, value_BGSD, attn_mask=mask, enable_gqa=grouped)
    out = []
    for start in range(0, length, CHUNK):
        stop = min(start + CHUNK, length)
        part = spec.allowed(start, stop)[:, None]
        out.append(
            F.scaled_dot_product_attention(query_BHSD[:, :, start:stop], key_BGSD, value_BGSD, attn_mask=part, enable_gqa=grouped)
        )
    return torch.cat(out, dim=2)
