"""Norms and rotations have gradients of their own: against what autograd makes of the plain formulas."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from tests.support.models import small_config
from training_backend.config import RopeScaling
from training_backend.model.decoder import RMSNorm, Rope, inverse_frequencies


def _plain_norm(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    wide = x.float()
    return weight * (wide * torch.rsqrt(wide.square().mean(dim=-1, keepdim=True) + eps)).to(x.dtype)


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.bfloat16, 2e-2)])
def test_the_norm_and_its_gradients(dtype: torch.dtype, tolerance: float) -> None:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(3, 5, 4, 16, generator=generator).mul(3).to(dtype).transpose(1, 2).requires_grad_()
    norm = RMSNorm(16, 1e-3)
    torch.nn.init.normal_(norm.weight, generator=generator)
    actual, expected = norm(x), _plain_norm(x, norm.weight, 1e-3)
    assert torch.equal(actual, expected)
    seed = torch.randn(actual.shape, generator=generator)
    for mine, plain in zip(*(torch.autograd.grad(out, (x, norm.weight), seed) for out in (actual, expected)), strict=True):
        assert mine.dtype == plain.dtype
        scale = plain.abs().max()
        torch.testing.assert_close(mine / scale, plain / scale, rtol=0, atol=tolerance)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_rotation_and_its_gradient(dtype: torch.dtype) -> None:
    """Layer 1 is scaled, with a factor on cosine and sine; layer 0 is plain. Pairs are (i, i + D/2)."""
    scaling = RopeScaling(factor=4.0, original_max_positions=64, attention_factor=1.3, layers=(1,))
    config = small_config(rope_scaling=scaling).decoder
    position = torch.tensor([[0, 1, 5, 90, 3], [7, 8, 2, 0, 1]])
    rope = Rope(config, position)
    generator = torch.Generator().manual_seed(0)
    for layer, kind in ((0, None), (1, scaling)):
        x = torch.randn(2, 3, 5, config.head_dim, generator=generator).to(dtype).requires_grad_()
        frequencies, factor = inverse_frequencies(config.head_dim, config.rope_theta, kind)
        angle = (position[:, None, :, None] * frequencies).repeat(1, 1, 1, 2)
        first, second = x.chunk(2, dim=-1)
        expected = ((x * angle.cos() + torch.cat([-second, first], dim=-1) * angle.sin()) * factor).to(dtype)
        actual = rope.rotate(layer, x)
        tolerance = {"rtol": 1e-5, "atol": 1e-5} if dtype == torch.float32 else {"rtol": 2e-2, "atol": 2e-2}
        assert actual.dtype == dtype
        torch.testing.assert_close(actual, expected, **tolerance)
        seed = torch.randn(x.shape, generator=generator).to(dtype)
        mine, plain = (torch.autograd.grad(out, x, seed)[0] for out in (actual, expected))
        torch.testing.assert_close(mine, plain, **tolerance)
