"""Small models and batches for tests of the model, its loss and generation."""

from __future__ import annotations

import numpy as np

from training_backend.config import ConnectorConfig, DecoderConfig, InitConfig, ModelConfig, VisionConfig
from training_backend.pack.batch import PREFIX, Batch

SIDE, PATCH = 28, 7


def small_config(**decoder: object) -> ModelConfig:
    """A model of a few thousand parameters; keyword arguments replace decoder fields."""
    fields: dict[str, object] = {
        "width": 32, "layers": 3, "heads": 4, "kv_heads": 2, "head_dim": 8, "mlp_width": 48, "vocab_size": 50, "extra_tokens": 16,
        "rope_theta": 10_000.0,
    }  # fmt: skip
    fields.update(decoder)
    return ModelConfig(
        name="small",
        vision=VisionConfig(image_size=SIDE, patch_size=PATCH, width=24, layers=3, heads=2, mlp_width=32, feature_layers=(-1, -3)),
        connector=ConnectorConfig(heads=2, pool_width=24, mlp_width=32),
        decoder=DecoderConfig(**fields),
        init=InitConfig(scheme="fan_in", std=0.2, position_std=0.3),
    )


def random_example(rng: np.random.Generator, images: int, branches: int) -> dict[str, np.ndarray]:
    """Vectors of one example: a prefix with `images` blocks of 4 visual tokens between words, then branches of 2–6 tokens."""
    prefix = 2 + images * 6
    image = np.full(prefix, -1)
    slots = []
    for number in range(images):
        start = 1 + number * 6
        image[start : start + 6] = number
        slots += list(range(start + 1, start + 5))
    position = list(range(prefix))
    branch = [PREFIX] * prefix
    weights = [0.0] * prefix
    for number in range(branches):
        length = int(rng.integers(2, 7))
        position += list(range(prefix, prefix + length))
        branch += [number] * length
        weights += [0.0] + [float(rng.uniform(0.2, 2.0)) for _ in range(length - 1)]
    length = len(position)
    return {
        "tokens": rng.integers(0, 60, length),
        "targets": rng.integers(0, 60, length),
        "weights": np.array(weights, dtype=np.float32),
        "position": np.array(position),
        "branch": np.array(branch),
        "image": np.concatenate([image, np.full(length - prefix, -1)]),
        "slots": np.array(slots, dtype=np.int64),
        "crops": rng.integers(0, 256, (images, SIDE, SIDE, 3), dtype=np.uint8),
    }


def pack(rows: list[list[dict[str, np.ndarray]]], length: int) -> Batch:
    """Pack examples into rows of `length` positions, 2×2 windows over a 4×4 grid of patches."""
    patches = (SIDE // PATCH) ** 2
    shape = (len(rows), length)
    tokens, position = np.zeros(shape, np.int64), np.zeros(shape, np.int32)
    branch, image, example = (np.full(shape, -1, np.int32) for _ in range(3))
    crops, pool, slot, index, target, weight, task = [], [], [], [], [], [], []
    grid = np.arange(patches).reshape(4, 4)
    windows = np.stack([grid[r : r + 2, c : c + 2].ravel() for r in (0, 2) for c in (0, 2)])
    count = 0
    for row, examples in enumerate(rows):
        start = 0
        for number, item in enumerate(examples):
            span = slice(start, start + len(item["tokens"]))
            tokens[row, span], position[row, span] = item["tokens"], item["position"]
            branch[row, span], image[row, span], example[row, span] = item["branch"], item["image"], number
            for crop in item["crops"]:
                pool.append(windows + count * patches)
                crops.append(crop)
                count += 1
            slot.append(item["slots"] + start + row * length)
            learned = np.flatnonzero(item["weights"])
            index.append(learned + start + row * length)
            target.append(item["targets"][learned])
            weight.append(item["weights"][learned])
            task.append(np.full(len(learned), (row + number) % 3))
            start = span.stop
    if not crops:
        crops.append(np.zeros((SIDE, SIDE, 3), np.uint8))
        pool.append(np.full((1, 4), -1))
        slot.append(np.zeros(1, np.int64))
    pools, slots = np.concatenate(pool), np.concatenate(slot)
    return Batch(
        tokens=tokens, position=position, branch=branch, image=image, example=example,
        crops=np.stack(crops), pool=pools.astype(np.int64), slot=slots.astype(np.int64),
        slot_weight=(pools >= 0).any(axis=1).astype(np.float32),
        loss_index=np.concatenate(index).astype(np.int64), loss_target=np.concatenate(target).astype(np.int64),
        loss_weight=np.concatenate(weight).astype(np.float32), loss_task=np.concatenate(task).astype(np.int64),
        response=(example >= 0).astype(np.float32), examples=sum(map(len, rows)), filled=int((example >= 0).sum()),
    )  # fmt: skip
