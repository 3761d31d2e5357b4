"""Every back end against the predicate, pair by pair, and against the reference; which one is chosen."""

from __future__ import annotations

import logging

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support.models import pack, random_example, small_config
from training_backend.attention import blocks, choose, flex, reference, varlen
from training_backend.attention.mask import ImageAttention, MaskSpec, allowed
from training_backend.model.molmo2 import Molmo2, TensorBatch

pytestmark = pytest.mark.filterwarnings("ignore:flex_attention called without")
MODES = ["causal", "image_tokens", "within_image"]
Vector = tuple[int, int, int, int]
position_vectors = st.lists(
    st.tuples(st.integers(-1, 2), st.integers(-1, 2), st.integers(-1, 2), st.integers(0, 6)), min_size=1, max_size=20
)


def _spec(vectors: list[Vector], mode: ImageAttention, window: int | None = None) -> MaskSpec:
    columns = torch.tensor(vectors, dtype=torch.int32).T
    return MaskSpec(*(column[None] for column in columns), mode=mode, window=window)


def _brute(vectors: list[Vector], mode: ImageAttention) -> torch.Tensor:
    rows = [[allowed(q, k, mode) or (q[0] < 0 and i == j) for j, k in enumerate(vectors)] for i, q in enumerate(vectors)]
    return torch.tensor(rows)


def _seen(prepared: choose.Prepared, length: int) -> torch.Tensor:
    """Which keys a back end lets each query see: equal scores, and values that are unit vectors."""
    query = torch.zeros(1, 1, length, 32)
    value = torch.eye(length, 32)[None, None]
    return prepared(query, query, value)[0, 0, :, :length] > 0


@settings(max_examples=40, deadline=None)
@given(position_vectors, st.sampled_from(MODES))
def test_flex_sees_what_the_predicate_allows(vectors: list[Vector], mode: ImageAttention) -> None:
    seen = _seen(flex.prepare(_spec(vectors, mode)), len(vectors))
    assert torch.equal(seen, _brute(vectors, mode))


@pytest.mark.parametrize("window", [None, 5])
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("length", [40, 128, 300])
def test_flex_is_the_reference(length: int, mode: ImageAttention, window: int | None) -> None:
    """Packed trees over several blocks of 128, grouped heads, padding at the end."""
    rng = np.random.default_rng(length)
    rows: list[list[dict[str, np.ndarray]]] = [[], []]
    for row in rows:
        left = length - 5
        while left > 0:
            row.append(random_example(rng, int(rng.integers(0, 3)), int(rng.integers(1, 4))))
            left -= len(row[-1]["tokens"])
        row.pop()
    batch = TensorBatch.from_numpy(pack(rows, length))
    spec = MaskSpec(batch.example, batch.branch, batch.image, batch.position, mode, window)
    generator = torch.Generator().manual_seed(0)
    query, key, value = (torch.randn(2, heads, length, 16, generator=generator) for heads in (4, 2, 2))
    torch.testing.assert_close(
        flex.prepare(spec)(query, key, value), reference.attend(query, key, value, spec), rtol=1e-5, atol=1e-5
    )


def _inputs(batch: int, length: int) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    shapes = [(batch, heads, length, 8) for heads in (4, 2, 2)]
    return [torch.randn(shape, generator=generator, dtype=torch.float64, requires_grad=True) for shape in shapes]


@settings(max_examples=60, deadline=None)
@given(position_vectors, st.sampled_from(MODES))
def test_blocks_see_what_the_predicate_allows(vectors: list[Vector], mode: ImageAttention) -> None:
    """Also where an example lies in two pieces."""
    assert torch.equal(_seen(blocks.prepare(_spec(vectors, mode)), len(vectors)), _brute(vectors, mode))


@pytest.mark.parametrize("chunk", [16, reference.CHUNK])
@pytest.mark.parametrize("mode", MODES)
def test_blocks_are_the_reference_with_its_gradients(mode: ImageAttention, chunk: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Packed trees in two rows, some longer than a chunk, padding at the end of one."""
    monkeypatch.setattr(reference, "CHUNK", chunk)
    rng = np.random.default_rng(0)
    rows = [[random_example(rng, 2, 3), random_example(rng, 0, 1), random_example(rng, 1, 4)], [random_example(rng, 1, 2)]]
    batch = TensorBatch.from_numpy(pack(rows, 80))
    spec = MaskSpec(batch.example, batch.branch, batch.image, batch.position, mode, 7)
    assert [row for row, _, _ in blocks.blocks(spec)] == [0, 0, 0, 0, 1, 1]
    inputs = _inputs(2, 80)
    seed = torch.randn(2, 4, 80, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    actual, expected = blocks.prepare(spec)(*inputs), reference.attend(inputs[0], inputs[1], inputs[2], spec)
    torch.testing.assert_close(actual, expected, rtol=1e-12, atol=1e-12)
    for mine, theirs in zip(torch.autograd.grad(actual, inputs, seed), torch.autograd.grad(expected, inputs, seed), strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-10, atol=1e-12)


def _documents(rng: np.random.Generator, lengths: list[int], padding: int) -> list[Vector]:
    vectors = []
    for number, length in enumerate(lengths):
        prefix = int(rng.integers(0, length + 1))
        vectors += [(number, -1 if i < prefix else 0, -1, i) for i in range(length)]
    return vectors + [(-1, -1, -1, 0)] * padding


@pytest.mark.parametrize("window", [None, 3])
@pytest.mark.parametrize("padding", [0, 4])
def test_varlen_is_the_reference_with_its_gradients(padding: int, window: int | None) -> None:
    rng = np.random.default_rng(2)
    vectors = _documents(rng, [1, 7, 12, 4], padding)
    spec = _spec(vectors, "image_tokens", window)
    held = len(vectors) - padding
    assert varlen.documents(spec).tolist() == [0, 1, 8, 20, 24, *([28] if padding else [])]
    if window is None:
        assert torch.equal(_seen(varlen.prepare(spec), len(vectors))[:held], _brute(vectors, "image_tokens")[:held])
    inputs = _inputs(1, len(vectors))
    seed = torch.randn(1, 4, held, 8, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    actual = varlen.prepare(spec)(*inputs)[:, :, :held]
    expected = reference.attend(inputs[0], inputs[1], inputs[2], spec)[:, :, :held]
    torch.testing.assert_close(actual, expected, rtol=1e-12, atol=1e-12)
    for mine, theirs in zip(torch.autograd.grad(actual, inputs, seed), torch.autograd.grad(expected, inputs, seed), strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize(
    ("vectors", "mode", "message"),
    [
        ([(0, -1, -1, 0), (0, -1, 0, 1)], "image_tokens", "position 1 of row 0 is an image position, which image_tokens joins"),
        ([(0, -1, -1, 0), (0, 0, -1, 1), (0, 1, -1, 1)], "causal", "position 2 of row 0 is a branch that counts again"),
        ([(0, -1, -1, 0), (0, 0, -1, 1), (0, 1, -1, 2)], "causal", "position 2 of row 0 is a branch after another"),
        ([(0, -1, -1, 3)], "causal", "position 0 of row 0 is a document that does not start at 0"),
        ([(0, -1, -1, 0), (1, -1, -1, 0), (0, -1, -1, 0)], "causal", "an example lies in two pieces"),
        ([(0, -1, -1, 0), (-1, -1, -1, 0), (0, -1, -1, 0)], "causal", "an example lies in two pieces"),
    ],
)
def test_varlen_refuses_other_masks(vectors: list[Vector], mode: ImageAttention, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        varlen.prepare(_spec(vectors, mode))


@settings(max_examples=60, deadline=None)
@given(position_vectors)
def test_varlen_never_takes_a_mask_that_it_would_change(vectors: list[Vector]) -> None:
    spec = _spec(vectors, "causal")
    try:
        prepared = varlen.prepare(spec)
    except ValueError:
        return
    held = torch.tensor([vector[0] >= 0 for vector in vectors])
    assert torch.equal(_seen(prepared, len(vectors))[held], _brute(vectors, "causal")[held])


def test_the_choice_is_logged_and_can_be_forced(caplog: pytest.LogCaptureFixture) -> None:
    choose.choose.cache_clear()
    heads = (4, 2, 16)
    with caplog.at_level(logging.INFO):
        assert choose.choose("auto", "cpu", torch.float32, heads, True) == "blocks"
        assert choose.choose("flex", "cpu", torch.float32, heads, False) == "flex"
        assert choose.choose("varlen", "cpu", torch.float32, heads, True) == "varlen"
    assert [record.message.split(",")[0] for record in caplog.records] == [
        "attention: blocks", "attention: flex", "attention: varlen",
    ]  # fmt: skip
    with pytest.raises(ValueError, match=r"'flex' does not work here.*it has no backward on the CPU"):
        choose.choose("flex", "cpu", torch.float32, heads, True)
    with pytest.raises(ValueError, match="attention 'fast' is unknown; known are auto, reference, blocks, flex, varlen"):
        choose.choose("fast", "cpu", torch.float32, heads, False)  # type: ignore[arg-type]


def test_a_broken_back_end_is_found_out(monkeypatch: pytest.MonkeyPatch) -> None:
    choose.probe.cache_clear()
    monkeypatch.setattr(flex, "prepare", lambda spec: lambda query, key, value: query * 0)
    assert "differs from the reference by" in str(choose.probe("flex", "cpu", torch.float32, (4, 2, 16), False))
    choose.probe.cache_clear()

    def missing(spec: MaskSpec) -> choose.Prepared:
        raise RuntimeError("no kernel\nfor this")

    monkeypatch.setattr(flex, "prepare", missing)
    assert choose.probe("flex", "cpu", torch.float32, (4, 2, 16), False) == "RuntimeError: no kernel"
    choose.probe.cache_clear()


@pytest.mark.parametrize(("decoder", "built"), [({}, 1), ({"sliding_window": 4, "full_attention_every": 2}, 2)])
def test_a_block_mask_is_built_once_a_micro_batch(decoder: dict[str, int], built: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """One for all layers; where some look back over a window only, one for those and one for the others."""
    choose.choose("flex", "cpu", torch.float32, (4, 2, 16), False)  # the probe builds one of its own
    specs = []
    build = flex.block_mask
    monkeypatch.setattr(flex, "block_mask", lambda spec: specs.append(spec) or build(spec))
    batch = TensorBatch.from_numpy(pack([[random_example(np.random.default_rng(0), 1, 2)]], 48))
    model = Molmo2(small_config(head_dim=16, layers=4, **decoder))
    model.init_weights(0)
    model.attention = "flex"
    with torch.no_grad():
        model(batch)
    assert len(specs) == built


def test_the_model_says_the_same_with_either() -> None:
    rng = np.random.default_rng(0)
    batch = TensorBatch.from_numpy(pack([[random_example(rng, 1, 2), random_example(rng, 0, 1)]], 48))
    model = Molmo2(small_config(head_dim=16, sliding_window=4, full_attention_every=2))
    model.init_weights(0)
    with torch.no_grad():
        plain = model(batch)
        model.attention = "flex"
        torch.testing.assert_close(model(batch), plain, rtol=1e-4, atol=1e-5)
        model.attention = "reference"
        torch.testing.assert_close(model(batch), plain, rtol=1e-5, atol=1e-6)
    model.attention = "varlen"
    with pytest.raises(ValueError, match="an image position"):
        model(batch)
