"""Floating-point operations of a micro-batch, counted honestly: vision, connector, decoder, head on learned positions only, and
attention over the pairs that the mask allows.

Belongs here: arithmetic over shapes. A multiply-add is 2; forward and backward together are 3 × the forward.
"""

from __future__ import annotations

import numpy as np

from training_backend.config import ModelConfig
from training_backend.pack.batch import PREFIX, Batch

PEAK_BF16 = {"H100": 989e12, "H200": 989e12, "A100": 312e12}
"""Dense bf16 peak of one device, FLOP/s, by a word of its name."""


def allowed_pairs(batch: Batch) -> int:
    """Pairs (query, key) that the mask of the batch allows."""
    pairs = 0
    for row in range(len(batch.tokens)):
        example = batch.example[row]
        for number in np.unique(example[example >= 0]):
            mine = example == number
            branch = batch.branch[row][mine]
            prefix = int((branch == PREFIX).sum())
            pairs += prefix * (prefix + 1) // 2
            images = int((batch.image[row][mine] >= 0).sum())
            pairs += images * (images - 1) // 2
            for size in np.unique(branch[branch != PREFIX], return_counts=True)[1]:
                pairs += int(size) * prefix + int(size) * (int(size) + 1) // 2
    return pairs


def batch_flops(config: ModelConfig, batch: Batch) -> float:
    """Forward and backward of one micro-batch."""
    vision, connector, decoder = config.vision, config.connector, config.decoder
    crops, patches = len(batch.crops), vision.patches_per_side**2
    layers = max(layer % vision.layers for layer in vision.feature_layers) + 1
    features = vision.width * len(vision.feature_layers)
    per_patch = vision.patch_size**2 * 3 * vision.width + layers * (4 * vision.width**2 + 2 * vision.width * vision.mlp_width)
    eye = crops * patches * per_patch + crops * layers * 2 * patches**2 * vision.width
    windows, size = batch.pool.shape
    pooling = windows * (features * connector.pool_width * (1 + 2 * size) + connector.pool_width**2)
    pooling += windows * connector.mlp_width * (2 * connector.pool_width + decoder.width)
    query, key = decoder.heads * decoder.head_dim, decoder.kv_heads * decoder.head_dim
    per_token = decoder.layers * (decoder.width * (2 * query + 2 * key) + 3 * decoder.width * decoder.mlp_width)
    attention = decoder.layers * 2 * query * allowed_pairs(batch)
    outputs = decoder.vocab_size + (decoder.extra_tokens if decoder.predict_extra else 0)
    head = int((batch.loss_weight > 0).sum()) * decoder.width * outputs
    return 3 * 2 * (eye + pooling + batch.filled * per_token + attention + head)


def peak_flops(device_name: str) -> float | None:
    """Peak of a device by its name; None where it is not known (a CPU has none worth dividing by)."""
    return next((peak for word, peak in PEAK_BF16.items() if word in device_name), None)
