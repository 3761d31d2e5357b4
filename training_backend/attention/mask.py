"""Who sees whom: one specification of four int vectors per position, and the predicate that every back end obeys.

Belongs here: the vectors, the predicate, its dense form for a range of queries. Does not belong here: computing attention
(`reference.py` and its siblings), building the vectors (`encode/`, `pack/`).

Position q sees position k iff both hold something, belong to the same example, and either

* k is in the prefix or in q's own branch, and does not come later (`position[k] <= position[q]`), or
* both are image positions that the mode joins: all images of the example (`image_tokens`) or the same image (`within_image`).

Branches restart counting after the prefix and packed examples at 0, so `position` orders a branch and its prefix and nothing
else. Four vectors of length S say all of it; a dense S×S mask is never built.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from training_backend.pack.batch import PREFIX

ImageAttention = Literal["causal", "image_tokens", "within_image"]


@dataclass(frozen=True, slots=True)
class MaskSpec:
    """The four vectors, each [B, S] int32, and how image positions see each other."""

    example: Tensor
    branch: Tensor
    image: Tensor
    position: Tensor
    mode: ImageAttention
    window: int | None = None
    """Text looks back over fewer than this many positions; None: over all."""

    def allowed(self, start: int, stop: int) -> Tensor:
        """Dense mask of queries [start, stop) against all keys: bool [B, stop-start, S], True where the query may look.

        A query of padding sees exactly itself, so that its softmax is a number; nothing ever reads the result.
        """
        rows = slice(start, stop)
        same_example = (self.example[:, rows, None] == self.example[:, None, :]) & (self.example[:, None, :] >= 0)
        branch_k = self.branch[:, None, :]
        visible_branch = (branch_k == PREFIX) | (branch_k == self.branch[:, rows, None])
        back = self.position[:, rows, None] - self.position[:, None, :]
        causal = visible_branch & (back >= 0)
        if self.window is not None:
            causal = causal & (back < self.window)
        mask = same_example & (causal | self._images(rows)) if self.mode != "causal" else same_example & causal
        index = torch.arange(self.example.shape[1], device=self.example.device)
        padding_self = (self.example[:, rows, None] < 0) & (index[None, rows, None] == index[None, None, :])
        return mask | padding_self

    def _images(self, rows: slice) -> Tensor:
        image_q, image_k = self.image[:, rows, None], self.image[:, None, :]
        if self.mode == "image_tokens":
            return (image_q >= 0) & (image_k >= 0)
        return (image_q >= 0) & (image_q == image_k)


def allowed(query: tuple[int, int, int, int], key: tuple[int, int, int, int], mode: ImageAttention) -> bool:
    """The predicate for one pair, each (example, branch, image, position): what every back end is tested against."""
    example_q, branch_q, image_q, position_q = query
    example_k, branch_k, image_k, position_k = key
    if example_q != example_k or example_k < 0:
        return False
    if branch_k in (PREFIX, branch_q) and position_k <= position_q:
        return True
    if mode == "image_tokens":
        return image_q >= 0 and image_k >= 0
    if mode == "within_image":
        return image_q >= 0 and image_q == image_k
    return False
