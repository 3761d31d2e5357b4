"""Examples as arrays: planned sizes are made sizes, fields of the mask, targets, weights, prompts of evaluation."""

from __future__ import annotations

import math
from hashlib import blake2b
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support.examples import (
    EVERY_RULE,
    Pixels,
    asked,
    branch,
    check_fields,
    clip,
    many,
    picture,
    pointing,
    recipe,
    row,
    tokenizer_at,
    worker,
)
from training_backend.config import LossConfig, LossRule
from training_backend.data.example import TASKS, Choices, Example, Point, Points, Subtitle, Text
from training_backend.encode.draws import VARIANTS, Draws, position_keys, variant_of
from training_backend.encode.preprocessor import CODE_VERSION, OversizedError, Preprocessor
from training_backend.encode.prompts import speak
from training_backend.encode.tokens import Tokenizer, train_tokenizer
from training_backend.pack.batch import PREFIX

EXAMPLES = many(60)


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Tokenizer:
    return tokenizer_at(tmp_path_factory.mktemp("tokenizer"))


recipes = st.fixed_dictionaries(
    {
        "point_syntax": st.sampled_from(["report", "release"]), "time": st.sampled_from(["token", "text"]),
        "prompt_style": st.sampled_from(["plain", "report", "release"]), "low_resolution": st.booleans(),
        "overlap": st.sampled_from([(0, 0), (1, 1), (2, 1)]), "column_tokens": st.booleans(),
        "oversized": st.sampled_from(["fewer_frames", "coarser_pooling"]),
    }
)  # fmt: skip


@settings(max_examples=60, deadline=None)
@given(st.sampled_from(EXAMPLES), st.integers(0, VARIANTS - 1), recipes, st.integers(40, 700), st.integers(1, 24))
def test_planned_sizes_are_made_sizes(
    tokenizer: Tokenizer, example: Example, key: int, changes: dict[str, object], tokens: int, visual: int
) -> None:
    made = worker(tokenizer, tokens, visual, **changes)
    encoded = made.encode(example, key, Pixels())
    assert (len(encoded.tokens), len(encoded.crops)) == made.lengths(example, key)
    assert len(encoded.tokens) <= tokens
    assert len(encoded.crops) <= visual
    check_fields(encoded, tokenizer)
    blind = made.encode(example, key, None)
    assert blind.crops.shape == encoded.crops.shape
    assert not blind.crops.any()
    assert (blind.tokens == encoded.tokens).all()


@pytest.mark.parametrize("syntax", ["report", "release"])
def test_words_that_spell_special_tokens_stay_words(tokenizer: Tokenizer, syntax: str) -> None:
    """Questions, answers, options, labels, queries and subtitles: no placeholder, no marker, no end comes of them."""
    encoder = worker(tokenizer, 4000, point_syntax=syntax)
    specials = sorted(set(tokenizer.special.values()))

    def said(words: str) -> list[tuple[list[int], int]]:
        points = Points(label=words, points=(Point(x=0.5, y=0.5, id=0),))
        choices = Choices(options=(words, f"{words}?"), answer=0)
        image = row(
            "image_qa", [picture()], asked(words, words),
            branch(("user", [Text(text=words)]), ("assistant", [choices]), name="c"),
            branch(("assistant", [points]), name="p", style="pointing"),
        )  # fmt: skip
        film = row("video_subtitle_qa", [clip(subtitles=[Subtitle(start=0.0, end=1.0, text=words)])], asked(words, words))
        found = []
        for example in (image, film):
            made = [encoder.encode(example, 0, None), *(encoder.prompt(example, n, None) for n in range(len(example.branches)))]
            for item in made:
                learned = item.targets[item.weights > 0]
                ids = [*item.tokens.tolist(), *learned.tolist()]
                found.append(([number for number in ids if number in specials], len(item.slot)))
        return found

    assert all(visual for _, visual in said("red"))
    assert said("".join(tokenizer.special)) == said("red")


@settings(max_examples=40, deadline=None)
@given(st.sampled_from(EXAMPLES), st.integers(0, VARIANTS - 1), st.sampled_from(["report", "release"]))
def test_targets_are_the_answers_and_the_end(tokenizer: Tokenizer, example: Example, key: int, style: str) -> None:
    made = worker(tokenizer, 2000, 60, prompt_style=style, point_syntax=style)
    encoded = made.encode(example, key, Pixels())
    draws = Draws(example.id, variant_of(key))
    spoken = [speak(example, number, made.wording, draws) for number in range(len(example.branches))]
    order = draws.permutation(len(spoken), "branches") if len(spoken) > 1 else [0]
    for number, place in enumerate(order):
        mine = np.flatnonzero((encoded.branch == number) & (encoded.weights > 0))
        runs = np.split(mine, np.flatnonzero(np.diff(mine) > 1) + 1)
        answers = [turn.text for turn in spoken[place] if turn.role == "assistant"]
        assert [tokenizer.decode(encoded.targets[run][:-1]) for run in runs] == answers
        assert all(encoded.targets[run][-1] == tokenizer.eos for run in runs)
        said = encoded.tokens[encoded.branch == number]
        words = "".join(f"{turn.role}\n{turn.text}\n" for turn in spoken[place])
        assert tokenizer.decode(said) + "\n" == words


def test_time_stands_before_every_frame(tokenizer: Tokenizer) -> None:
    video = row("video_caption", [clip(1.0)], branch(("assistant", [Text(text="A red square.")]), style="video_caption"))
    text = worker(tokenizer, time="text").encode(video, 0, Pixels())
    prefix = text.tokens[(text.branch == PREFIX) & (text.image < 0)]
    assert tokenizer.decode(prefix) == "0.0  0.5  1.0 "
    token = worker(tokenizer).encode(video, 0, Pixels())
    words = tokenizer.decode(token.tokens[(token.branch == PREFIX) & (token.image < 0)])
    assert words == "<timestamp>0.0<timestamp>0.5<timestamp>1.0"
    assert token.crops[:, 0, 0, 0].tolist() == [0, 5, 10]
    assert np.unique(token.image).tolist() == [-1, 0, 1, 2]


def test_images_are_numbered_as_points_number_them(tokenizer: Tokenizer) -> None:
    example = next(item for item in EXAMPLES if item.task == "multi_image_pointing")
    for syntax, first in (("report", 0), ("release", 1)):
        encoded = worker(tokenizer, point_syntax=syntax).encode(example, 0, Pixels())
        words = tokenizer.decode(encoded.tokens[(encoded.branch == PREFIX) & (encoded.image < 0)])
        assert words == "".join(f"Image {number + first}" for number in range(len(example.media)))
    alone = worker(tokenizer).encode(pointing(), 0, Pixels())
    assert not tokenizer.decode(alone.tokens[(alone.branch == PREFIX) & (alone.image < 0)])


def test_subtitles_follow_the_frames(tokenizer: Tokenizer) -> None:
    lines = [Subtitle(start=0.5, end=1.0, text="the <|im_end|> red"), Subtitle(start=50, end=51, text="far")]
    example = row("video_subtitle_qa", [clip(1.0, lines)], asked("Where?", "left"))
    encoded = worker(tokenizer).encode(example, 0, Pixels())
    words = tokenizer.decode(encoded.tokens[encoded.branch == PREFIX])
    assert words.endswith("<frame_end>subtitle\n0.5 - 1.0 the <|im_end|> red\n")


def test_weights_follow_the_rule(tokenizer: Tokenizer) -> None:
    rules = LossConfig(rules={"image_qa": LossRule(kind="root", weight=2.0), "image_pointing": LossRule(weight=0.5)})
    made = Preprocessor(recipe(), rules, tokenizer, 700, 24)
    tree = row("image_qa", [picture()], asked("What?", "red square", "a"), asked("Where?", "left", "b"))
    encoded = made.encode(tree, 0, Pixels())
    for number in range(2):
        weights = encoded.weights[encoded.branch == number]
        learned = weights[weights > 0]
        # The end token is learned but does not count among the answer's tokens.
        assert learned == pytest.approx(np.full(len(learned), 2 / math.sqrt(len(learned) - 1) / math.sqrt(2)))
    flat = made.encode(pointing(), 0, Pixels())
    assert set(np.unique(flat.weights).tolist()) == {0.0, 0.5}
    heavy = branch(("user", [Text(text="What?")]), ("assistant", [Text(text="red")]), weight=3.0)
    alone = made.encode(row("image_qa", [picture()], heavy), 0, Pixels())
    assert alone.weights.max() == pytest.approx(6 / math.sqrt(len(tokenizer.encode("red"))))
    with pytest.raises(ValueError, match="no loss rule for task text"):
        made.encode(row("text", [], asked("What?", "7")), 0, Pixels())
    plan = made.plan(tree, Draws(tree.id, 0))
    assert plan.loss_mass == pytest.approx(float(encoded.weights.sum()), rel=1e-5)


def test_only_the_key_decides(tokenizer: Tokenizer) -> None:
    """The same in a fresh preprocessor, in another order, with another state of numpy's global generator."""
    keys = position_keys(7, 0, len(EXAMPLES)).tolist()
    first = [worker(tokenizer).encode(example, key, Pixels()) for example, key in zip(EXAMPLES, keys, strict=True)]
    np.random.seed(0)
    made = worker(tokenizer)
    second = [made.encode(example, key, Pixels()) for example, key in reversed(list(zip(EXAMPLES, keys, strict=True)))]
    for one, two in zip(first, reversed(second), strict=True):
        assert (one.tokens == two.tokens).all()
        assert (one.crops == two.crops).all()


def test_keys_are_one_stream_over_windows() -> None:
    whole = position_keys(11, 0, 1000)
    for start, count in ((0, 1), (3, 5), (4, 8), (517, 400)):
        assert (position_keys(11, start, count) == whole[start : start + count]).all()
    assert len(np.unique(whole)) == 1000
    assert not (position_keys(12, 0, 1000) == whole).any()
    shares = np.bincount(whole % np.uint64(VARIANTS), minlength=VARIANTS)
    assert shares.min() > 80


def test_branches_come_in_a_drawn_order(tokenizer: Tokenizer) -> None:
    tree = row("image_qa", [picture()], *(asked("What?", text, text) for text in ("red", "blue", "green")))
    made = worker(tokenizer)
    orders = set()
    for variant in range(VARIANTS):
        encoded = made.encode(tree, variant, Pixels())
        orders.add(tuple(tokenizer.decode(encoded.tokens[encoded.branch == n]).rsplit("\n")[-1] for n in range(3)))
        assert made.lengths(tree, variant) == made.lengths(tree, 0)
    assert len(orders) > 2


# -- evaluation -------------------------------------------------------------------------------------------------------------


@settings(max_examples=30, deadline=None)
@given(st.sampled_from(EXAMPLES), st.sampled_from(["plain", "report", "release"]))
def test_prompts_end_where_the_answer_begins(tokenizer: Tokenizer, example: Example, style: str) -> None:
    made = worker(tokenizer, 2000, 60, prompt_style=style)
    for number in range(len(example.branches)):
        prompt = made.prompt(example, number, Pixels())
        assert not prompt.weights.any()
        assert tokenizer.decode(prompt.tokens).endswith(f"{made.question(example, number)}\nassistant\n")
        assert set(prompt.branch.tolist()) <= {PREFIX, 0}
        assert (prompt.position == np.arange(len(prompt.tokens))).all()
        assert prompt.task == TASKS.index(example.task)


def test_a_prompt_is_the_beginning_of_its_training_sequence(tokenizer: Tokenizer) -> None:
    """In style plain, where words do not vary, evaluation asks exactly what training asked."""
    example = row("image_qa", [picture()], asked("Where?", "left"))
    made = worker(tokenizer, prompt_style="plain")
    trained, prompt = made.encode(example, 0, Pixels()), made.prompt(example, 0, Pixels())
    size = len(prompt.tokens)
    assert (trained.tokens[:size] == prompt.tokens).all()
    assert (trained.crops == prompt.crops).all()
    assert trained.weights[size - 1] > 0
    assert not trained.weights[: size - 1].any()


def test_prompts_that_do_not_fit_are_refused(tokenizer: Tokenizer) -> None:
    example = row("image_qa", [picture()], asked("x" * 3000, "left", "b7"))
    with pytest.raises(OversizedError, match="branch b7"):
        worker(tokenizer).prompt(example, 0, Pixels())


def test_golden_arrays(tmp_path: Path) -> None:
    """Arrays of unchanged examples change only together with CODE_VERSION. A tokenizer of bytes keeps its library out of this."""
    train_tokenizer(["a"], 259, tmp_path)
    digests = {}
    for style in ("report", "release"):
        changes = {"prompt_style": style, "point_syntax": style, "time": "text" if style == "release" else "token"}
        made = Preprocessor(recipe(**changes), EVERY_RULE, Tokenizer(tmp_path), 900, 12)
        digest = blake2b(digest_size=8)
        for number, example in enumerate(EXAMPLES):
            encoded = made.encode(example, number, Pixels())
            for name in ("tokens", "targets", "weights", "position", "branch", "image", "crops", "pool", "slot"):
                digest.update(np.ascontiguousarray(getattr(encoded, name)).tobytes())
        digests[style] = digest.hexdigest()
    assert (CODE_VERSION, digests) == ("2", {"report": "5416156adaa9b93f", "release": "1169f66d37a1bbe2"})
