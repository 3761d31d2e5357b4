"""Attention example by example: a packed sequence's mask is block-diagonal, and what lies between the blocks is never computed.

Belongs here: finding the blocks, the call. Does not belong here: when to use it (`choose.py`), attention inside a block
(`reference.py`, whose numbers these are, up to the order of sums). Finding the blocks takes a look at the mask from the host, which
costs nothing on the CPU and one wait a micro-batch elsewhere.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

import numpy as np
import torch
from torch import Tensor

from training_backend.attention import reference
from training_backend.attention.mask import MaskSpec


def blocks(spec: MaskSpec) -> list[tuple[int, int, int]]:
    """(row, start, stop) of each run of one example or of padding, in order. A row with an example in two pieces is one block."""
    found = []
    for row, example in enumerate(spec.example.cpu().numpy()):
        edges = np.flatnonzero(np.diff(example)) + 1
        bounds = [0, *edges.tolist(), len(example)]
        held = [number for number in example[bounds[:-1]].tolist() if number >= 0]
        if len(held) != len(set(held)):
            bounds = [0, len(example)]
        found += [(row, start, stop) for start, stop in pairwise(bounds)]
    return found


def _cut(spec: MaskSpec, row: int, start: int, stop: int) -> MaskSpec:
    here = (slice(row, row + 1), slice(start, stop))
    return MaskSpec(spec.example[here], spec.branch[here], spec.image[here], spec.position[here], spec.mode, spec.window)


def prepare(spec: MaskSpec) -> Callable[[Tensor, Tensor, Tensor], Tensor]:
    """Attention of one micro-batch: (query [B,H,S,D], key and value [B,G,S,D]) → [B,H,S,D]."""
    parts = [_cut(spec, *block) for block in blocks(spec)]
    sizes = [part.example.shape[1] for part in parts]
    masks = [reference.whole_mask(part) for part in parts]

    def attend(query_BHSD: Tensor, key_BGSD: Tensor, value_BGSD: Tensor) -> Tensor:
        batch, heads, length, width = query_BHSD.shape
        # One split of B·S positions: its backward is one concatenation, where slices would each add into a tensor of zeros.
        split = (x.transpose(1, 2).reshape(batch * length, -1, width).split(sizes) for x in (query_BHSD, key_BGSD, value_BGSD))
        out = []
        for part, mask, inputs in zip(parts, masks, zip(*split, strict=True), strict=True):
            query, key, value = (x.transpose(0, 1)[None] for x in inputs)
            out.append(reference.attend(query, key, value, part, mask)[0].transpose(0, 1))
        return torch.cat(out).view(batch, length, heads, width).transpose(1, 2)

    return attend
