"""The vision transformer: crops in, features of chosen layers out.

Belongs here: patches, positions, pre-norm blocks. Does not belong here: pooling and projection (`connector.py`), tiling and
resizing (`encode/images.py`). Layout and names follow the released model: SigLIP-class, no class token, learned positions,
GELU-tanh.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from training_backend.config import VisionConfig


def patchify(crops_NHWC: Tensor, patch: int) -> Tensor:
    """uint8 crops [N, H, W, 3] → float patches [N, P, patch*patch*3] in [-1, 1], rows of patches first, (row, column, channel)
    inside a patch."""
    crops, height, width, channels = crops_NHWC.shape
    pixels = crops_NHWC.to(torch.float32).mul(2.0 / 255.0).sub(1.0)
    grid = pixels.reshape(crops, height // patch, patch, width // patch, patch, channels)
    return grid.permute(0, 1, 3, 2, 4, 5).reshape(crops, (height // patch) * (width // patch), patch * patch * channels)


class VisionBlock(nn.Module):
    """Pre-norm attention and MLP, both with biases."""

    def __init__(self, config: VisionConfig) -> None:
        super().__init__()
        width = config.width
        self.heads = config.heads
        self.attention_norm = nn.LayerNorm(width, eps=config.norm_eps)
        self.wq = nn.Linear(width, width)
        self.wk = nn.Linear(width, width)
        self.wv = nn.Linear(width, width)
        self.wo = nn.Linear(width, width)
        self.mlp_norm = nn.LayerNorm(width, eps=config.norm_eps)
        self.w1 = nn.Linear(width, config.mlp_width)
        self.w2 = nn.Linear(config.mlp_width, width)

    def forward(self, x_NPD: Tensor) -> Tensor:
        crops, patches, width = x_NPD.shape
        normed = self.attention_norm(x_NPD)

        def split(projected: Tensor) -> Tensor:
            return projected.view(crops, patches, self.heads, width // self.heads).transpose(1, 2)

        mixed = F.scaled_dot_product_attention(split(self.wq(normed)), split(self.wk(normed)), split(self.wv(normed)))
        x_NPD = x_NPD + self.wo(mixed.transpose(1, 2).reshape(crops, patches, width))
        return x_NPD + self.w2(F.gelu(self.w1(self.mlp_norm(x_NPD)), approximate="tanh"))


class VisionTransformer(nn.Module):
    """Crops [N, H, W, 3] uint8 → features [N, P, width * len(feature_layers)], concatenated in the order of `feature_layers`.

    Blocks after the last one that is read are not built.
    """

    def __init__(self, config: VisionConfig) -> None:
        super().__init__()
        self.config = config
        self.read = [layer % config.layers for layer in config.feature_layers]
        patch_values = config.patch_size * config.patch_size * 3
        self.patch_embedding = nn.Linear(patch_values, config.width)
        self.position = nn.Parameter(torch.empty(config.patches_per_side**2, config.width))
        self.blocks = nn.ModuleList(VisionBlock(config) for _ in range(max(self.read) + 1))

    def forward(self, crops_NHWC: Tensor) -> Tensor:
        x = self.patch_embedding(patchify(crops_NHWC, self.config.patch_size)) + self.position
        outputs = []
        for block in self.blocks:
            x = block(x)
            outputs.append(x)
        return torch.cat([outputs[layer] for layer in self.read], dim=-1)
