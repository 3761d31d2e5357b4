"""Attention document by document, where the mask is nothing but causal inside each: text without branches, or images that are
read like text.

Belongs here: recognising such a mask, and the call. Does not belong here: when to use it (`choose.py`): recognising takes a look at
the mask from the host, once a micro-batch, so nothing chooses it unasked. On a GPU in half precision torch's own flash kernel;
elsewhere plain attention over each document in turn.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor

from training_backend.attention.mask import MaskSpec
from training_backend.pack.batch import PREFIX


def documents(spec: MaskSpec) -> Tensor:
    """Where documents start in the flattened B·S, and the end: int32 [documents + 1]; runs of padding are documents too.

    Raises ValueError where the mask is not causal inside contiguous documents, naming the first position that is not.
    """
    batch, length = spec.example.shape
    held = spec.example >= 0
    if spec.mode != "causal":
        _refuse(spec, held & (spec.image >= 0), f"an image position, which {spec.mode} joins both ways")
    before = torch.roll(spec.example, 1, dims=1)
    starts = spec.example != before
    starts[:, 0] = True
    _refuse(spec, held & starts & (spec.position != 0), "a document that does not start at 0")
    inside = held & ~starts
    _refuse(spec, inside & (spec.position != torch.roll(spec.position, 1, dims=1) + 1), "a branch that counts again")
    last = torch.roll(spec.branch, 1, dims=1)
    _refuse(spec, inside & (spec.branch != last) & (last != PREFIX), "a branch after another")
    # An example that goes on after another one would be two documents here and one to the mask.
    for row in spec.example:
        runs = row.unique_consecutive()
        runs = runs[runs >= 0]
        if len(runs) != len(runs.unique()):
            raise ValueError("varlen attention needs whole documents; an example lies in two pieces.")
    flat = torch.nonzero(starts.reshape(-1)).flatten()
    return torch.cat([flat, flat.new_tensor([batch * length])]).to(torch.int32)


def _refuse(spec: MaskSpec, wrong: Tensor, what: str) -> None:
    if bool(wrong.any()):
        row, place = torch.nonzero(wrong)[0].tolist()
        raise ValueError(
            f"varlen attention needs a mask that is causal inside each document; position {place} of row {row} is {what}."
        )


def prepare(spec: MaskSpec) -> Callable[[Tensor, Tensor, Tensor], Tensor]:
    """Attention of one micro-batch: (query [B,H,S,D], key and value [B,G,S,D]) → [B,H,S,D]."""
    edges = documents(spec)
    bounds = edges.tolist()
    longest = max(stop - start for start, stop in pairwise(bounds))

    def attend(query_BHSD: Tensor, key_BGSD: Tensor, value_BGSD: Tensor) -> Tensor:
        batch, heads, length, width = query_BHSD.shape
        query, key, value = (x.transpose(1, 2).reshape(batch * length, -1, width) for x in (query_BHSD, key_BGSD, value_BGSD))
        if query.is_cuda and query.dtype in (torch.float16, torch.bfloat16):
            out = _flash(query, key, value, edges, longest, spec.window)
        else:
            out = torch.cat([_plain(query[a:b], key[a:b], value[a:b], spec.window) for a, b in pairwise(bounds)])
        return out.view(batch, length, heads, width).transpose(1, 2)

    return attend


def _flash(query_THD: Tensor, key_TGD: Tensor, value_TGD: Tensor, edges: Tensor, longest: int, window: int | None) -> Tensor:
    from torch.nn.attention.varlen import varlen_attn

    sight = (-1 if window is None else window - 1, 0)
    grouped = query_THD.shape[1] != key_TGD.shape[1]
    out = varlen_attn(
        query_THD, key_TGD, value_TGD, edges, edges, longest, longest, window_size=sight, enable_gqa=grouped
    )  # fmt: skip
    assert isinstance(out, Tensor)
    return out


def _plain(query_THD: Tensor, key_TGD: Tensor, value_TGD: Tensor, window: int | None) -> Tensor:
    query, key, value = (x.transpose(0, 1)[None] for x in (query_THD, key_TGD, value_TGD))
    grouped = query.shape[1] != key.shape[1]
    if window is None:
        out = F.scaled_dot_product_attention(query, key, value, is_causal=True, enable_gqa=grouped)
    else:
        place = torch.arange(query.shape[2], device=query.device)
        back = place[:, None] - place[None, :]
        out = F.scaled_dot_product_attention(query, key, value, attn_mask=(back >= 0) & (back < window), enable_gqa=grouped)
    return out[0].transpose(0, 1)
