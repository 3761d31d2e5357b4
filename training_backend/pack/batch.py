"""The arrays that travel from encoding to the model: one encoded example, and one micro-batch of packed sequences.

Belongs here: field names, shapes, dtypes and their meaning; every other module agrees with this page. No torch: the training loop
turns the arrays into tensors.

Letters: S positions of a sequence, B sequences, N crops (or frames), P patches of a crop, V visual tokens, K patches in a pooling
window (the largest in the batch), L weighted positions.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

PREFIX = -1
"""`branch` of positions that every branch of the example sees (system words, images, frames)."""
PADDING = -1
"""`example` of positions that hold nothing, and entries of a pooling window that hold no patch."""


@dataclass(frozen=True, slots=True)
class Encoded:
    """One example.

    Targets are already shifted, branch by branch: `targets[s]` is the token that follows position s in its branch (the last
    position of a branch that ends in an answer predicts the end token), `weights[s]` the loss weight of that prediction; 0 where
    nothing is learned. Positions count through the prefix and restart after it in every branch.
    """

    tokens: NDArray[np.int32]  # [S]
    targets: NDArray[np.int32]  # [S]
    weights: NDArray[np.float32]  # [S]
    position: NDArray[np.int32]  # [S]
    branch: NDArray[np.int32]  # [S] PREFIX or 0..
    image: NDArray[np.int32]  # [S] index of the image or frame that the position belongs to, -1 for text
    crops: NDArray[np.uint8]  # [N, H, W, 3]
    pool: NDArray[np.int32]  # [V, K] index into N*P of this example, PADDING where missing
    slot: NDArray[np.int32]  # [V] position in S that the visual token is added to
    task: int  # index into data.example.TASKS
    truncated_branches: int = 0  # whole branches left out because the budget was full
    dropped_frames: int = 0  # frames or crops left out because the budget was full
    coarser_pictures: int = 0  # images or frames in larger pooling windows than the recipe's, for the same reason


@dataclass(frozen=True, slots=True)
class Batch:
    """B packed sequences of equal padded length, flattened where the model gathers.

    The mask of DESIGN: position q may see position k iff `example[q] == example[k] >= 0` and
    ((`branch[k]` is PREFIX or equals `branch[q]`) and `position[k] <= position[q]`, or both are image positions that the model's
    image-attention mode joins). Packed examples restart `position` at 0. There is always at least one crop: a batch without
    images carries a black one that no visual token refers to (`slot_weight` 0), so that every rank runs the same modules.
    """

    tokens: NDArray[np.int64]  # [B, S]
    position: NDArray[np.int32]  # [B, S]
    branch: NDArray[np.int32]  # [B, S]
    image: NDArray[np.int32]  # [B, S]
    example: NDArray[np.int32]  # [B, S]
    crops: NDArray[np.uint8]  # [N, H, W, 3]
    pool: NDArray[np.int64]  # [V, K] into N*P of the whole batch, PADDING where missing
    slot: NDArray[np.int64]  # [V] into B*S
    slot_weight: NDArray[np.float32]  # [V] 1, or 0 for padding
    loss_index: NDArray[np.int64]  # [L] into B*S, padded with 0
    loss_target: NDArray[np.int64]  # [L]
    loss_weight: NDArray[np.float32]  # [L] 0 for padding
    loss_task: NDArray[np.int64]  # [L] index into data.example.TASKS
    response: NDArray[np.float32]  # [B, S] 1 where residual "response" dropout applies (positions of assistant turns)
    examples: int  # examples in the batch
    filled: int  # positions that hold something
    failures: int = 0  # examples whose media failed at run time: geometry kept, loss zero
