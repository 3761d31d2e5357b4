"""The mask in chunks against the predicate, pair by pair."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from training_backend.attention import reference
from training_backend.attention.mask import MaskSpec, allowed

position_vectors = st.lists(
    st.tuples(st.integers(-1, 2), st.integers(-1, 2), st.integers(-1, 2), st.integers(0, 6)), min_size=1, max_size=24
)


def _spec(vectors: list[tuple[int, int, int, int]], mode: str) -> MaskSpec:
    columns = torch.tensor(vectors, dtype=torch.int32).T
    return MaskSpec(*(column[None] for column in columns), mode=mode)


@settings(max_examples=60, deadline=None)
@given(position_vectors, st.sampled_from(["causal", "image_tokens", "within_image"]), st.integers(1, 9))
def test_chunks_agree_with_the_predicate(vectors: list[tuple[int, int, int, int]], mode: str, chunk: int) -> None:
    spec = _spec(vectors, mode)
    dense = torch.cat([mask[:, 0] for mask in reference.chunk_masks(spec, chunk)], dim=1)[0]
    for q, query in enumerate(vectors):
        for k, key in enumerate(vectors):
            expected = allowed(query, key, mode) or (query[0] < 0 and q == k)
            assert bool(dense[q, k]) == expected, (query, key)


def test_a_window_limits_how_far_text_looks_back() -> None:
    spec = MaskSpec(*(torch.tensor([row], dtype=torch.int32) for row in ([0] * 5, [0] * 5, [-1] * 5, list(range(5)))), "causal", 2)
    assert spec.allowed(0, 5)[0].int().sum(dim=1).tolist() == [1, 2, 2, 2, 2]


@pytest.mark.parametrize("kv_heads", [1, 2, 4])
def test_chunked_attention_is_plain_attention(kv_heads: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reference, "CHUNK", 5)
    rng = np.random.default_rng(0)
    length = 17
    vectors = [(0, -1, -1, i) for i in range(8)] + [(0, 0, -1, 8 + i) for i in range(5)] + [(0, 1, -1, 8 + i) for i in range(4)]
    spec = _spec(vectors, "image_tokens")
    query = torch.tensor(rng.normal(size=(1, 4, length, 8)), dtype=torch.float64, requires_grad=True)
    key, value = (torch.tensor(rng.normal(size=(1, kv_heads, length, 8)), dtype=torch.float64) for _ in range(2))
    plain = F.scaled_dot_product_attention(query, key, value, attn_mask=spec.allowed(0, length)[:, None], enable_gqa=True)
    chunked = reference.attend(query, key, value, spec)
    torch.testing.assert_close(chunked, plain, rtol=1e-12, atol=1e-12)
    seed = torch.tensor(rng.normal(size=plain.shape))
    (expected,) = torch.autograd.grad(plain, query, seed, retain_graph=True)
    (actual,) = torch.autograd.grad(chunked, query, seed)
    torch.testing.assert_close(actual, expected, rtol=1e-10, atol=1e-12)
