"""Generation with its cache against computing everything again for every token."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np
import pytest
import torch

from tests.support import peers
from tests.support.models import pack, random_example, small_config
from training_backend.config import GenerateConfig
from training_backend.model.generate import StopTexts, generate
from training_backend.model.molmo2 import Molmo2, TensorBatch
from training_backend.pack.batch import Encoded

EMPTY = np.zeros(0, np.float32)


def _prompt(item: dict[str, np.ndarray]) -> Encoded:
    return Encoded(
        tokens=item["tokens"], targets=item["targets"], weights=item["weights"], position=item["position"], branch=item["branch"],
        image=item["image"], crops=item["crops"], pool=EMPTY, slot=item["slots"], task=0,
    )  # fmt: skip


def _slow(model: Molmo2, item: dict[str, np.ndarray], count: int) -> list[int]:
    item = {name: value.copy() for name, value in item.items()}
    out = []
    for _ in range(count):
        batch = TensorBatch.from_numpy(pack([[item]], len(item["tokens"])))
        with torch.no_grad():
            token = int((model(batch)[0, -1] @ model.head_weight.T).argmax())
        out.append(token)
        added = {"tokens": token, "position": item["position"][-1] + 1, "branch": item["branch"][-1], "image": -1}
        for name, value in {**added, "targets": 0, "weights": 0.0}.items():
            item[name] = np.append(item[name], value)
    return out


@pytest.mark.parametrize(
    "variant", [{}, {"norm_order": "post", "qk_norm": "full"}, {"sliding_window": 3, "full_attention_every": 2}]
)
def test_greedy_equals_recomputing(variant: dict[str, object]) -> None:
    rng = np.random.default_rng(5)
    model = Molmo2(small_config(**variant))
    model.init_weights(1)
    items = [random_example(rng, images, 1) for images in (0, 1, 2)]
    batch = pack([[item] for item in items], max(len(item["tokens"]) for item in items))
    answers = generate(model, batch, [_prompt(item) for item in items], GenerateConfig(max_new_tokens=8), stop=[-5])
    assert answers == [_slow(model, item, 8) for item in items]


def test_rows_stop_alone_and_sampling_follows_its_seed() -> None:
    rng = np.random.default_rng(6)
    model = Molmo2(small_config())
    model.init_weights(2)
    items = [random_example(rng, 1, 1) for _ in range(3)]
    batch = pack([[item] for item in items], max(len(item["tokens"]) for item in items))
    prompts = [_prompt(item) for item in items]
    free = generate(model, batch, prompts, GenerateConfig(max_new_tokens=6), stop=[-5])
    stop = free[0][2]
    cut = generate(model, batch, prompts, GenerateConfig(max_new_tokens=6), stop=[stop])
    for long, short in zip(free, cut, strict=True):
        assert short == (long[: long.index(stop)] if stop in long else long)
    hot = GenerateConfig(max_new_tokens=6, temperature=1.0, top_p=0.9, seed=1)
    first = generate(model, batch, prompts, hot, stop=[-5])
    assert first == generate(model, batch, prompts, hot, stop=[-5])
    assert first != generate(model, batch, prompts, GenerateConfig(max_new_tokens=6, temperature=1.0, seed=2), stop=[-5])


def test_a_text_ends_its_row_with_the_token_that_completes_it() -> None:
    """Texts lie across tokens as they like: here a token says two letters, and a text begins in the middle of one."""

    def spell(ids: Sequence[int]) -> str:
        return "".join(f"{chr(97 + number // 8)}{chr(97 + number % 8)}" for number in ids)

    rng = np.random.default_rng(6)
    model = Molmo2(small_config())
    peers.randomise(model, 2)
    items = [random_example(rng, 1, 1) for _ in range(3)]
    batch = pack([[item] for item in items], max(len(item["tokens"]) for item in items))
    prompts = [_prompt(item) for item in items]
    settings = GenerateConfig(max_new_tokens=10)
    free = generate(model, batch, prompts, settings, stop=[-5])
    wanted = spell(free[0])[5:8]
    texts = StopTexts(["never said", wanted], spell)
    cut = generate(model, batch, prompts, settings, [-5], texts)
    for long, short in zip(free, cut, strict=True):
        said = spell(long)
        expected = -(-(said.index(wanted) + len(wanted)) // 2) if wanted in said else len(long)
        assert short == long[:expected]
    assert len(cut[0]) == 4 < len(free[0])
    assert texts.cut(spell(cut[0])) == spell(free[0])[:5]
    assert texts.cut("nothing of it") == "nothing of it"
    assert not StopTexts([], spell).ended(free[0])


def test_padding_rows_of_the_batch_changes_nothing() -> None:
    rng = np.random.default_rng(7)
    model = Molmo2(small_config())
    model.init_weights(2)
    item = random_example(rng, 1, 1)
    tight, wide = pack([[item]], len(item["tokens"])), pack([[item]], len(item["tokens"]) + 9)
    assert dataclasses.replace(tight).filled == wide.filled
    settings = GenerateConfig(max_new_tokens=5)
    assert generate(model, tight, [_prompt(item)], settings, [-5]) == generate(model, wide, [_prompt(item)], settings, [-5])
