"""The decoder: token embeddings in, hidden states out.

Belongs here: RMS norms, rotary positions (plain and YaRN, per layer), grouped-query attention with both kinds of query-key norm,
pre- and post-norm blocks, SwiGLU. Does not belong here: the mask and how attention is computed: a block is handed an `Attend`.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from training_backend.config import DecoderConfig, RopeScaling

Attend = Callable[[int, Tensor, Tensor, Tensor], Tensor]
"""(layer, query [B,H,S,D], key [B,G,S,D], value [B,G,S,D]) → [B,H,S,D]."""
Drop = Callable[[Tensor], Tensor]


class _RMSNorm(torch.autograd.Function):
    """Forward and backward in as few passes over memory as plain operations allow; keeps x alone, which the block holds anyway."""

    @staticmethod
    def forward(context: Any, x: Tensor, weight: Tensor, eps: float) -> Tensor:
        wide = x.float()
        scale = torch.rsqrt(wide.square().mean(dim=-1, keepdim=True) + eps)
        context.save_for_backward(x, weight, scale)
        return weight * (wide * scale).to(x.dtype)

    @staticmethod
    @once_differentiable
    def backward(context: Any, grad: Tensor) -> tuple[Tensor, Tensor, None]:
        x, weight, scale = context.saved_tensors
        normed, grad = x.float() * scale, grad.float()
        slope = grad * normed
        grad_weight = slope.reshape(-1, len(weight)).sum(dim=0).to(weight.dtype)
        wide = weight.float()
        share = (slope @ wide)[..., None] / -len(weight)
        return torch.mul(grad, wide).addcmul_(normed, share).mul_(scale).to(x.dtype), grad_weight, None


class RMSNorm(nn.Module):
    """Root-mean-square norm in fp32, scaled by a learned weight."""

    def __init__(self, width: int, eps: float) -> None:
        super().__init__()
        self.eps = eps
        self.weight = nn.Parameter(torch.ones(width))

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = _RMSNorm.apply(x, self.weight, self.eps)
        return out


def inverse_frequencies(head_dim: int, theta: float, scaling: RopeScaling | None) -> tuple[Tensor, float]:
    """Rotary inverse frequencies [head_dim/2] (fp32) and the factor on cosine and sine.

    YaRN (Peng et al., 2023, arXiv 2309.00071): frequencies that turn often within the original length stay, those that turn
    rarely are divided by `factor`, with a linear ramp between `beta_fast` and `beta_slow` turns.
    """
    exponents = torch.arange(0, head_dim, 2, dtype=torch.float32) / head_dim
    plain = 1.0 / theta**exponents
    if scaling is None:
        return plain, 1.0

    def dimension(turns: float) -> float:
        return head_dim * math.log(scaling.original_max_positions / (turns * 2 * math.pi)) / (2 * math.log(theta))

    low = max(math.floor(dimension(scaling.beta_fast)), 0)
    high = min(math.ceil(dimension(scaling.beta_slow)), head_dim - 1)
    ramp = ((torch.arange(head_dim // 2, dtype=torch.float32) - low) / max(high - low, 0.001)).clamp(0, 1)
    return plain / scaling.factor * ramp + plain * (1 - ramp), scaling.attention_factor


def _turn(x: Tensor, cosine: Tensor, sine: Tensor, back: bool) -> Tensor:
    """Each pair (i, i + D/2) of the last dimension turned by its angle, or back by it, in fp32."""
    half = cosine.shape[-1]
    first, second = x[..., :half].float(), x[..., half:].float()
    out = torch.empty_like(x, dtype=torch.promote_types(x.dtype, torch.float32))
    sign = -1 if back else 1
    torch.mul(first, cosine, out=out[..., :half]).addcmul_(second, sine, value=-sign)
    torch.mul(second, cosine, out=out[..., half:]).addcmul_(first, sine, value=sign)
    return out.to(x.dtype)


class _Rotate(torch.autograd.Function):
    """The gradient of a turn is the turn back: two passes over memory each way, and nothing kept but the tables."""

    @staticmethod
    def forward(context: Any, x: Tensor, cosine: Tensor, sine: Tensor) -> Tensor:
        context.save_for_backward(cosine, sine)
        return _turn(x, cosine, sine, back=False)

    @staticmethod
    @once_differentiable
    def backward(context: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        cosine, sine = context.saved_tensors
        return _turn(grad, cosine, sine, back=True), None, None


class Rope:
    """Cosine and sine of one micro-batch for every kind of layer; computed once, shared by all layers."""

    def __init__(self, config: DecoderConfig, position_BS: Tensor) -> None:
        scaling = config.rope_scaling
        self._scaled = set(range(config.layers)) if scaling and not scaling.layers else set(scaling.layers if scaling else ())
        self._plain = self._tables(config, position_BS, None)
        self._yarn = self._tables(config, position_BS, scaling) if scaling else self._plain

    @staticmethod
    def _tables(config: DecoderConfig, position_BS: Tensor, scaling: RopeScaling | None) -> tuple[Tensor, Tensor]:
        frequencies, factor = inverse_frequencies(config.head_dim, config.rope_theta, scaling)
        angles = position_BS[:, None, :, None].float() * frequencies.to(position_BS.device)
        return angles.cos() * factor, angles.sin() * factor

    def rotate(self, layer: int, x_BHSD: Tensor) -> Tensor:
        """Rotate pairs (i, i + D/2) of the last dimension by position."""
        out: Tensor = _Rotate.apply(x_BHSD, *(self._yarn if layer in self._scaled else self._plain))
        return out


class DecoderBlock(nn.Module):
    """Attention and SwiGLU. `pre`: x + f(norm(x)); `post`: x + norm(f(x)), as OLMo 2 does."""

    def __init__(self, config: DecoderConfig, layer: int) -> None:
        super().__init__()
        self.layer = layer
        self.post = config.norm_order == "post"
        self.heads, self.kv_heads, self.head_dim = config.heads, config.kv_heads, config.head_dim
        width, query, key = config.width, config.heads * config.head_dim, config.kv_heads * config.head_dim
        self.attention_norm = RMSNorm(width, config.norm_eps)
        self.wq = nn.Linear(width, query, bias=False)
        self.wk = nn.Linear(width, key, bias=False)
        self.wv = nn.Linear(width, key, bias=False)
        self.wo = nn.Linear(query, width, bias=False)
        self.qk_norm = config.qk_norm
        if config.qk_norm != "none":
            self.q_norm = RMSNorm(config.head_dim if config.qk_norm == "head" else query, config.norm_eps)
            self.k_norm = RMSNorm(config.head_dim if config.qk_norm == "head" else key, config.norm_eps)
        self.mlp_norm = RMSNorm(width, config.norm_eps)
        self.w1 = nn.Linear(width, config.mlp_width, bias=False)
        self.w2 = nn.Linear(config.mlp_width, width, bias=False)
        self.w3 = nn.Linear(width, config.mlp_width, bias=False)

    def _attention(self, x_BSD: Tensor, rope: Rope, attend: Attend) -> Tensor:
        batch, length, _ = x_BSD.shape
        query, key, value = self.wq(x_BSD), self.wk(x_BSD), self.wv(x_BSD)
        if self.qk_norm == "full":
            query, key = self.q_norm(query), self.k_norm(key)
        query = query.view(batch, length, self.heads, self.head_dim)
        key = key.view(batch, length, self.kv_heads, self.head_dim)
        value = value.view(batch, length, self.kv_heads, self.head_dim)
        if self.qk_norm == "head":
            query, key = self.q_norm(query), self.k_norm(key)
        query, key = rope.rotate(self.layer, query.transpose(1, 2)), rope.rotate(self.layer, key.transpose(1, 2))
        mixed = attend(self.layer, query, key, value.transpose(1, 2))
        return self.wo(mixed.transpose(1, 2).reshape(batch, length, -1))

    def _mlp(self, x_BSD: Tensor) -> Tensor:
        return self.w2(F.silu(self.w1(x_BSD)) * self.w3(x_BSD))

    def forward(self, x_BSD: Tensor, rope: Rope, attend: Attend, drop: Drop) -> Tensor:
        if self.post:
            x_BSD = x_BSD + drop(self.attention_norm(self._attention(x_BSD, rope, attend)))
            return x_BSD + drop(self.mlp_norm(self._mlp(x_BSD)))
        x_BSD = x_BSD + drop(self._attention(self.attention_norm(x_BSD), rope, attend))
        return x_BSD + drop(self._mlp(self.mlp_norm(x_BSD)))


class Decoder(nn.Module):
    """Embeddings (base table plus extra rows), blocks, final norm, head.

    `extra_embedding` are the rows of the visual special tokens; they train with the connector, as in the release.
    """

    def __init__(self, config: DecoderConfig) -> None:
        super().__init__()
        self.config = config
        self.embedding = nn.Parameter(torch.empty(config.vocab_size, config.width))
        self.extra_embedding = nn.Parameter(torch.empty(config.extra_tokens, config.width))
        self.blocks = nn.ModuleList(DecoderBlock(config, layer) for layer in range(config.layers))
        self.norm = RMSNorm(config.width, config.norm_eps)
        outputs = config.vocab_size + (config.extra_tokens if config.predict_extra else 0)
        self.head = None if config.tied else nn.Parameter(torch.empty(outputs, config.width))

    def table(self) -> Tensor:
        """All embedding rows, [vocab + extra, width]."""
        return torch.cat([self.embedding, self.extra_embedding])

    @property
    def head_weight(self) -> Tensor:
        """Output rows [vocab (+ extra), width]."""
        if self.head is not None:
            return self.head
        return self.table() if self.config.predict_extra else self.embedding

    def embed(self, tokens_BS: Tensor) -> Tensor:
        """Token embeddings [B, S, width]."""
        return F.embedding(tokens_BS, self.table())

    def forward(self, x_BSD: Tensor, position_BS: Tensor, attend: Attend, drop: Drop) -> Tensor:
        rope = Rope(self.config, position_BS)
        for block in self.blocks:
            x_BSD = block(x_BSD, rope, attend, drop)
        return self.norm(x_BSD)
