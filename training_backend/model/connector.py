"""The connector: windows of patch features → visual tokens of the decoder's width.

Belongs here: masked attention pooling with the mean of the valid patches as query, and the SwiGLU projector. Which patches make a
window is data (`Batch.pool`): 2×2 of an image, 3×3 of a frame, fewer at an odd edge; the weights are the same for all.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from training_backend.config import ConnectorConfig


class AttentionPooling(nn.Module):
    """[V, K, in] patches with a validity mask [V, K] → [V, pool_width]; a window without any valid patch gives the output bias."""

    def __init__(self, config: ConnectorConfig, features: int) -> None:
        super().__init__()
        self.heads = config.heads
        self.wq = nn.Linear(features, config.pool_width)
        self.wk = nn.Linear(features, config.pool_width)
        self.wv = nn.Linear(features, config.pool_width)
        self.wo = nn.Linear(config.pool_width, config.pool_width)

    def forward(self, patches_VKD: Tensor, valid_VK: Tensor) -> Tensor:
        windows, size, _ = patches_VKD.shape
        weight = valid_VK.to(patches_VKD.dtype)
        count = weight.sum(dim=1, keepdim=True).clamp(min=1.0)
        query = (patches_VKD * weight[..., None]).sum(dim=1) / count

        def split(projected: Tensor, length: int) -> Tensor:
            return projected.view(windows, length, self.heads, -1).transpose(1, 2)

        # An empty window attends to everything, so that its softmax is a number, and is zeroed after.
        empty = ~valid_VK.any(dim=1)
        mask = (valid_VK | empty[:, None])[:, None, None, :]
        mixed = F.scaled_dot_product_attention(
            split(self.wq(query), 1), split(self.wk(patches_VKD), size), split(self.wv(patches_VKD), size), attn_mask=mask
        )
        pooled = mixed.transpose(1, 2).reshape(windows, -1) * (~empty)[:, None]
        return self.wo(pooled)


class Connector(nn.Module):
    """Patch features [N, P, F] and a pooling table [V, K] into N*P (-1: no patch) → visual tokens [V, width]."""

    def __init__(self, config: ConnectorConfig, features: int, width: int) -> None:
        super().__init__()
        self.pooling = AttentionPooling(config, features)
        self.w1 = nn.Linear(config.pool_width, config.mlp_width, bias=False)
        self.w2 = nn.Linear(config.mlp_width, width, bias=False)
        self.w3 = nn.Linear(config.pool_width, config.mlp_width, bias=False)

    def forward(self, features_NPF: Tensor, pool_VK: Tensor) -> Tensor:
        flat = features_NPF.reshape(-1, features_NPF.shape[-1])
        valid = pool_VK >= 0
        windows, size = pool_VK.shape
        patches = torch.index_select(flat, 0, pool_VK.clamp(min=0).reshape(-1)).view(windows, size, -1)
        pooled = self.pooling(patches, valid)
        return self.w2(F.silu(self.w1(pooled)) * self.w3(pooled))
