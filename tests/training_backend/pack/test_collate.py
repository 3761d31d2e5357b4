"""Micro-batches: every example where its plan put it, indices into the whole batch, always a crop."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from tests.support.examples import EVERY_RULE, Pixels, asked, many, recipe, row, tokenizer_at
from training_backend.encode.preprocessor import Preprocessor
from training_backend.encode.tokens import Tokenizer
from training_backend.pack.batch import PADDING, PREFIX
from training_backend.pack.collate import LOSS_MULTIPLE, collate


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Tokenizer:
    return tokenizer_at(tmp_path_factory.mktemp("tokenizer"))


def test_examples_keep_their_arrays(tokenizer: Tokenizer) -> None:
    made = Preprocessor(recipe(), EVERY_RULE, tokenizer, 700, 40)
    encoded = [made.encode(example, 0, Pixels()) for example in many(9)]
    packs = [encoded[:2], encoded[2:3], encoded[3:9]]
    size = max(sum(len(item.tokens) for item in pack) for pack in packs) + 7
    batch = collate(packs, size, 36)
    crops_before = visual_before = 0
    for row_number, pack in enumerate(packs):
        start = 0
        for number, item in enumerate(pack):
            here = slice(start, start + len(item.tokens))
            for name in ("tokens", "position", "branch", "image"):
                np.testing.assert_array_equal(getattr(batch, name)[row_number, here], getattr(item, name))
            assert (batch.example[row_number, here] == number).all()
            visual = slice(visual_before, visual_before + len(item.pool))
            assert (batch.slot[visual] == item.slot + row_number * size + start).all()
            width = item.pool.shape[1]
            shifted = np.where(item.pool < 0, PADDING, item.pool + crops_before * 36)
            np.testing.assert_array_equal(batch.pool[visual, :width], shifted)
            assert (batch.pool[visual, width:] == PADDING).all()
            np.testing.assert_array_equal(batch.crops[crops_before : crops_before + len(item.crops)], item.crops)
            crops_before += len(item.crops)
            visual_before += len(item.pool)
            start = here.stop
        assert (batch.example[row_number, start:] == PADDING).all()
        assert (batch.branch[row_number, start:] == PREFIX).all()
    assert (crops_before, visual_before) == (len(batch.crops), len(batch.pool))
    assert (batch.slot_weight == 1).all()
    assert batch.examples == 9
    assert batch.filled == sum(len(item.tokens) for item in encoded) == int((batch.example >= 0).sum())


def test_the_loss_index_holds_every_weight_once(tokenizer: Tokenizer) -> None:
    made = Preprocessor(recipe(), EVERY_RULE, tokenizer, 700, 40)
    encoded = [made.encode(example, 0, Pixels()) for example in many(6, seed=2)]
    batch = collate([encoded[:3], encoded[3:]], 2000, 36)
    assert len(batch.loss_index) % LOSS_MULTIPLE == 0
    used = batch.loss_weight > 0
    assert batch.loss_weight.sum() == pytest.approx(sum(item.weights.sum() for item in encoded), rel=1e-5)
    assert len(np.unique(batch.loss_index[used])) == used.sum()
    wanted = {}
    for row_number, pack in enumerate((encoded[:3], encoded[3:])):
        start = row_number * 2000
        for item in pack:
            for place in np.flatnonzero(item.weights):
                wanted[start + int(place)] = (int(item.targets[place]), float(item.weights[place]), item.task)
            start += len(item.tokens)
    found = zip(batch.loss_index[used], batch.loss_target[used], batch.loss_weight[used], batch.loss_task[used], strict=True)
    assert {int(i): (int(t), float(w), int(k)) for i, t, w, k in found} == wanted
    assert (batch.response.ravel()[sorted(wanted)] == 1).all()
    assert batch.response.sum() == len(wanted)


def test_a_batch_without_pictures_carries_a_black_crop(tokenizer: Tokenizer) -> None:
    made = Preprocessor(recipe(), EVERY_RULE, tokenizer, 700, 40)
    text = made.encode(row("text", [], asked("What?", "7")), 0, Pixels())
    batch = collate([[text]], 100, 36)
    assert batch.crops.shape == (1, 84, 84, 3)
    assert not batch.crops.any()
    assert batch.slot_weight.tolist() == [0.0]
    assert batch.pool.shape[0] == batch.slot.shape[0] == 1


def test_nothing_learned_still_has_a_shape(tokenizer: Tokenizer) -> None:
    made = Preprocessor(recipe(), EVERY_RULE, tokenizer, 700, 40)
    prompt = made.prompt(row("text", [], asked("What?", "7")), 0, Pixels())
    batch = collate([[prompt]], len(prompt.tokens), 36)
    assert len(batch.loss_index) == LOSS_MULTIPLE
    assert not batch.loss_weight.any()


def test_a_pack_that_does_not_fit_is_refused(tokenizer: Tokenizer) -> None:
    made = Preprocessor(recipe(), EVERY_RULE, tokenizer, 700, 40)
    text = made.encode(row("text", [], asked("What?", "7")), 0, Pixels())
    with pytest.raises(ValueError, match="another budget"):
        collate([[text, text]], len(text.tokens) + 1, 36)


def test_pictures_that_are_not_those_of_the_placeholders(tokenizer: Tokenizer) -> None:
    made = Preprocessor(recipe(), EVERY_RULE, tokenizer, 700, 40)
    good = next(item for item in (made.encode(example, 0, Pixels()) for example in many(9)) if len(item.crops) > 1)
    text = made.encode(row("text", [], asked("What?", "7")), 0, Pixels())
    for bad, words in (
        (
            replace(good, slot=good.slot[:-1]),
            f"has {len(good.slot) - 1} placeholders for visual tokens and pictures for {len(good.pool)}",
        ),
        (replace(good, crops=good.crops[:1]), f"its placeholders stand for {len(good.crops)} crops or frames and it has 1"),
        (replace(good, slot=good.slot + len(good.tokens)), f"a visual token stands outside its {len(good.tokens)} tokens"),
    ):
        with pytest.raises(ValueError, match=f"^example 1 of pack 0:? {words}"):
            collate([[text, bad]], 2000, 36)
