"""Packs of encoded examples → one micro-batch.

Belongs here: concatenation, padding, index shifts. Does not belong here: which examples share a pack (`plan.py`), what the
fields mean (`batch.py`).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from training_backend.pack.batch import PADDING, Batch, Encoded

LOSS_MULTIPLE = 128
"""The index of weighted positions is padded to a multiple of this, so that few shapes occur."""


def collate(packs: Sequence[Sequence[Encoded]], max_tokens: int, patches_per_crop: int, failures: int = 0) -> Batch:
    """B packs as one batch of sequences with `max_tokens` positions.

    Raises ValueError for a pack that does not fit, or whose pictures are not those that its tokens stand for. `failures` counts
    examples whose media failed; their weights are 0 already.
    """
    rows = len(packs)
    shape = (rows, max_tokens)
    tokens = np.zeros(shape, dtype=np.int64)
    position = np.zeros(shape, dtype=np.int32)
    branch = np.full(shape, PADDING, dtype=np.int32)
    image = np.full(shape, -1, dtype=np.int32)
    example = np.full(shape, PADDING, dtype=np.int32)
    targets = np.zeros(shape, dtype=np.int64)
    weights = np.zeros(shape, dtype=np.float32)
    task = np.zeros(shape, dtype=np.int64)
    every = [item for pack in packs for item in pack]
    width = max((item.pool.shape[1] for item in every if len(item.pool)), default=1)
    crops, pools, slots = [], [], []
    shown = filled = 0
    for row, pack in enumerate(packs):
        start = 0
        for number, item in enumerate(pack):
            end = start + len(item.tokens)
            if end > max_tokens:
                raise ValueError(f"pack {row} of the batch has more than {max_tokens} tokens: its plan was made for another budget")
            here = (row, slice(start, end))
            tokens[here], position[here], branch[here], image[here] = item.tokens, item.position, item.branch, item.image
            targets[here], weights[here], task[here], example[here] = item.targets, item.weights, item.task, number
            _check_visual(item, row, number, patches_per_crop)
            if len(item.pool):
                pool = np.full((len(item.pool), width), PADDING, dtype=np.int64)
                pool[:, : item.pool.shape[1]] = np.where(item.pool < 0, PADDING, item.pool + shown * patches_per_crop)
                pools.append(pool)
                slots.append(item.slot.astype(np.int64) + (row * max_tokens + start))
            if len(item.crops):
                crops.append(item.crops)
                shown += len(item.crops)
            start = end
        filled += start
    if not crops:
        # One black crop, and a visual token of weight 0 that looks at it, keep every module in every micro-batch.
        crops.append(np.zeros((1, *every[0].crops.shape[1:]), dtype=np.uint8))
    slot_weight = np.ones(sum(map(len, slots)), dtype=np.float32)
    if not pools:
        pools.append(np.zeros((1, width), dtype=np.int64))
        slots.append(np.zeros(1, dtype=np.int64))
        slot_weight = np.zeros(1, dtype=np.float32)
    learned = np.flatnonzero(weights)
    padding = (0, -len(learned) % LOSS_MULTIPLE if len(learned) else LOSS_MULTIPLE)
    return Batch(
        tokens=tokens,
        position=position,
        branch=branch,
        image=image,
        example=example,
        crops=crops[0] if len(crops) == 1 else np.concatenate(crops),
        pool=np.concatenate(pools),
        slot=np.concatenate(slots),
        slot_weight=slot_weight,
        loss_index=np.pad(learned, padding).astype(np.int64),
        loss_target=np.pad(targets.ravel()[learned], padding),
        loss_weight=np.pad(weights.ravel()[learned], padding),
        loss_task=np.pad(task.ravel()[learned], padding),
        response=(weights > 0).astype(np.float32),
        examples=len(every),
        filled=filled,
        failures=failures,
    )


def _check_visual(item: Encoded, row: int, number: int, patches_per_crop: int) -> None:
    """Every placeholder has its visual token, which looks at a picture that is there."""
    where = f"example {number} of pack {row}"
    if len(item.slot) != len(item.pool):
        raise ValueError(f"{where} has {len(item.slot)} placeholders for visual tokens and pictures for {len(item.pool)}.")
    held = len(item.crops) * patches_per_crop
    if len(item.pool) and int(item.pool.max()) >= held:
        raise ValueError(
            f"{where}: its placeholders stand for {int(item.pool.max()) // patches_per_crop + 1} crops or frames and it has "
            f"{len(item.crops)}."
        )
    if len(item.slot) and not 0 <= int(item.slot.min()) <= int(item.slot.max()) < len(item.tokens):
        raise ValueError(f"{where}: a visual token stands outside its {len(item.tokens)} tokens.")
