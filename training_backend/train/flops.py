"""Floating-point operations of a micro-batch, counted honestly: vision, connector, decoder, head on learned positions only, and
attention over the pairs that the mask allows.

Belongs here: arithmetic over shapes. A multiply-add is 2; forward and backward together are 3 × the forward.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from training_backend.attention.mask import ImageAttention
from training_backend.config import ModelConfig
from training_backend.model.molmo2 import is_full_layer
from training_backend.pack.batch import Batch

PEAK_BF16 = {"H100": 989e12, "H200": 989e12, "A100": 312e12}
"""Dense bf16 peak of one device, FLOP/s, by a word of its name."""


def allowed_pairs(batch: Batch, mode: ImageAttention, window: int | None = None) -> int:
    """Pairs (query, key) of the batch that `attention.mask.MaskSpec` allows, padding aside, without building the mask."""
    pairs = 0
    for row in range(len(batch.tokens)):
        example = batch.example[row]
        for number in np.unique(example[example >= 0]):
            mine = example == number
            # Positions count through prefix and branch without a gap, so a query sees all that is not later, and itself.
            position = batch.position[row][mine].astype(np.int64)
            pairs += int((position + 1 if window is None else np.minimum(position + 1, window)).sum())
            pairs += _image_pairs(position, batch.image[row][mine], mode, window)
    return pairs


def _image_pairs(position: NDArray[np.int64], image: NDArray[np.int32], mode: ImageAttention, window: int | None) -> int:
    """Pairs of image positions beyond the causal ones: those that look ahead, and those that look back past the window."""
    if mode == "causal":
        return 0
    pairs = 0
    shown = image[image >= 0]
    for group in np.unique(shown) if mode == "within_image" else [None]:
        places = np.sort(position[image >= 0 if group is None else image == group])
        pairs += len(places) * (len(places) - 1) // 2
        if window is not None:
            pairs += int(np.searchsorted(places, places - window, side="right").sum())
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
    pooling = windows * (
        features * connector.pool_width * (1 + 2 * size) + connector.pool_width * (2 * size + connector.pool_width)
    )
    pooling += windows * connector.mlp_width * (2 * connector.pool_width + decoder.width)
    query, key = decoder.heads * decoder.head_dim, decoder.kv_heads * decoder.head_dim
    per_token = decoder.layers * (decoder.width * (2 * query + 2 * key) + 3 * decoder.width * decoder.mlp_width)
    full = sum(is_full_layer(config, layer) for layer in range(decoder.layers))
    pairs = full * allowed_pairs(batch, config.image_attention) if full else 0
    if full < decoder.layers:
        pairs += (decoder.layers - full) * allowed_pairs(batch, config.image_attention, decoder.sliding_window)
    attention = 2 * query * pairs
    outputs = decoder.vocab_size + (decoder.extra_tokens if decoder.predict_extra else 0)
    head = int((batch.loss_weight > 0).sum()) * decoder.width * outputs
    return 3 * 2 * (eye + pooling + batch.filled * per_token + attention + head)


def peak_flops(device_name: str) -> float | None:
    """Peak of a device by its name; None where it is not known (a CPU has none worth dividing by)."""
    return next((peak for word, peak in PEAK_BF16.items() if word in device_name), None)
