"""Examples as arrays: planned sizes are made sizes, fields of the mask, targets, weights, what gives way when too much is there."""

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
    clip,
    many,
    picture,
    pointing,
    recipe,
    row,
    tokenizer_at,
    tracking,
)
from training_backend.config import LossConfig, LossRule
from training_backend.data.example import TASKS, Choices, Example, Point, Points, Subtitle, Text
from training_backend.data.media import MediaFault
from training_backend.encode.draws import VARIANTS, Draws, position_keys, variant_of
from training_backend.encode.preprocessor import CODE_VERSION, OversizedError, Preprocessor
from training_backend.encode.prompts import speak
from training_backend.encode.tokens import Tokenizer, train_tokenizer
from training_backend.pack.batch import PREFIX, Encoded

EXAMPLES = many(60)
IMAGE_TOKENS = ("<im_start>", "<im_end>", "<im_patch>", "<im_col>", "<low_res_im_start>", "<frame_start>", "<frame_end>")


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Tokenizer:
    return tokenizer_at(tmp_path_factory.mktemp("tokenizer"))


def worker(tokenizer: Tokenizer, tokens: int = 700, visual: int = 24, **changes: object) -> Preprocessor:
    return Preprocessor(recipe(**changes), EVERY_RULE, tokenizer, tokens, visual)


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


def check_fields(encoded: Encoded, tokenizer: Tokenizer) -> None:
    """What `pack.batch` promises."""
    size = len(encoded.tokens)
    for field in (encoded.targets, encoded.weights, encoded.position, encoded.branch, encoded.image):
        assert field.shape == (size,)
    prefix = encoded.branch == PREFIX
    start = int(prefix.sum())
    assert prefix[:start].all()
    assert encoded.tokens[0] == tokenizer.bos
    assert (encoded.position[:start] == np.arange(start)).all()
    numbers = encoded.branch[start:]
    assert (np.diff(numbers) >= 0).all()
    assert not encoded.weights[:start].any()
    for number in np.unique(numbers):
        mine = np.flatnonzero(encoded.branch == number)
        assert (encoded.position[mine] == start + np.arange(len(mine))).all()
        assert (encoded.targets[mine[:-1]] == encoded.tokens[mine[1:]]).all()
        assert encoded.targets[mine[-1]] == tokenizer.eos
        assert encoded.weights[mine[-1]] > 0
    special = {tokenizer.special[name] for name in IMAGE_TOKENS}
    assert ((encoded.image >= 0) == np.isin(encoded.tokens, list(special))).all()
    patch = tokenizer.special["<im_patch>"]
    assert (np.flatnonzero(encoded.tokens == patch) == encoded.slot).all()
    assert not np.isin(encoded.targets[encoded.weights > 0], list(special)).any()
    assert len(encoded.pool) == len(encoded.slot)
    if len(encoded.pool):
        assert encoded.pool.max() < len(encoded.crops) * 36
        # A visual token looks at crops of its own image or frame only.
        crop_of = np.where(encoded.pool >= 0, encoded.pool // 36, -1)
        owner = encoded.image[encoded.slot]
        for crop in range(len(encoded.crops)):
            assert len(np.unique(owner[(crop_of == crop).any(axis=1)])) <= 1


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


# -- what gives way ---------------------------------------------------------------------------------------------------------


def test_whole_branches_are_left_out_and_counted(tokenizer: Tokenizer) -> None:
    tree = row(
        "image_qa", [picture()], *(asked("What is it?", "A large red square is at the top left.", str(n)) for n in range(12))
    )
    encoded = worker(tokenizer, 200).encode(tree, 0, Pixels())
    assert 0 < encoded.truncated_branches < 12
    assert encoded.branch.max() + 1 + encoded.truncated_branches == 12
    check_fields(encoded, tokenizer)


def test_videos_show_fewer_frames_and_say_so(tokenizer: Tokenizer) -> None:
    example = row("video_qa", [clip(7.0)], asked("Where?", "left"))
    full = worker(tokenizer).encode(example, 0, Pixels())
    assert (len(full.crops), full.dropped_frames) == (15, 0)
    small = worker(tokenizer, 100).encode(example, 0, Pixels())
    assert small.dropped_frames == 15 - len(small.crops) > 0
    assert small.truncated_branches == 0
    narrow = worker(tokenizer, 700, 5).encode(example, 0, Pixels())
    assert (len(narrow.crops), narrow.dropped_frames) == (5, 10)
    words = tokenizer.decode(narrow.tokens[narrow.branch == PREFIX])
    assert words.count("<timestamp>7.0") == 1, "the last frame stays"


def test_fewer_frames_waste_no_room(tokenizer: Tokenizer) -> None:
    """One more frame would not have fitted."""
    example = row("video_qa", [clip(7.0)], asked("Where?", "left"))
    for budget in range(60, 240, 7):
        made = worker(tokenizer, budget)
        shown = len(made.encode(example, 0, Pixels()).crops)
        if 0 < shown < 15:
            more = worker(tokenizer, 700, shown + 1)
            assert more.lengths(example, 0)[0] > budget


def pooled(made: Preprocessor, encoded: Encoded) -> int:
    """Side of the pooling windows."""
    assert len({*encoded.image[encoded.slot].tolist()}) == len(np.unique(encoded.image)) - 1, "every picture is looked at"
    return math.isqrt(encoded.pool.shape[1])


def test_coarser_pooling_keeps_every_frame_as_fine_as_it_fits(tokenizer: Tokenizer) -> None:
    example = row("video_qa", [clip(7.0)], asked("Where?", "left"))
    sides = []
    for budget in range(150, 500, 10):
        made = worker(tokenizer, budget, video_window=2, oversized="coarser_pooling")
        encoded = made.encode(example, 0, Pixels())
        check_fields(encoded, tokenizer)
        assert (len(encoded.crops), encoded.dropped_frames, encoded.truncated_branches) == (15, 0, 0)
        sides.append(pooled(made, encoded))
        assert encoded.coarser_pictures == (15 if sides[-1] > 2 else 0)
        # One window finer would not have fitted: these patches are all that decides.
        finer = worker(tokenizer, 900, video_window=sides[-1] - 1)
        assert sides[-1] == 2 or finer.lengths(example, 0)[0] > budget
        assert len(encoded.tokens) == worker(tokenizer, 900, video_window=sides[-1]).lengths(example, 0)[0]
        # Each patch of each frame still belongs to one window.
        assert np.sort(encoded.pool[encoded.pool >= 0]).tolist() == list(range(15 * 36))
    assert sides == sorted(sides, reverse=True)
    # Windows of 4 and 5 make as many tokens of six patches a side as those of 3, so the finer ones are taken.
    assert set(sides) == {2, 3, 6}


def test_what_even_the_coarsest_pooling_cannot_hold_shows_fewer_frames(tokenizer: Tokenizer) -> None:
    example = row("video_qa", [clip(7.0)], asked("Where?", "left"))
    made = worker(tokenizer, 100, oversized="coarser_pooling")
    encoded = made.encode(example, 0, Pixels())
    assert 0 < len(encoded.crops) == encoded.coarser_pictures == 15 - encoded.dropped_frames < 15
    assert pooled(made, encoded) == 6
    assert len(encoded.crops) > len(worker(tokenizer, 100).encode(example, 0, Pixels()).crops)
    # Crops and frames are no matter of pooling.
    narrow = worker(tokenizer, 700, 5, oversized="coarser_pooling").encode(example, 0, Pixels())
    assert (len(narrow.crops), narrow.dropped_frames, narrow.coarser_pictures) == (5, 10, 0)


def test_coarser_pooling_keeps_every_crop(tokenizer: Tokenizer) -> None:
    large = row("image_qa", [picture("big", 800, 800)], asked("Where?", "left"))
    made = worker(tokenizer, 60, oversized="coarser_pooling")
    encoded = made.encode(large, 0, Pixels())
    assert (len(encoded.crops), encoded.dropped_frames, encoded.coarser_pictures) == (5, 0, 1)
    assert pooled(made, encoded) > 2
    several = row("multi_image_qa", [picture(str(n), 100, 60) for n in range(3)], asked("Where?", "left"))
    assert worker(tokenizer, 120, oversized="coarser_pooling").encode(several, 0, Pixels()).coarser_pictures == 3


@pytest.mark.parametrize("policy", ["refuse", "fewer_frames", "coarser_pooling"])
def test_what_fits_is_the_same_under_every_policy(tokenizer: Tokenizer, policy: str) -> None:
    for number, example in enumerate(EXAMPLES):
        encoded = worker(tokenizer, 2000, 60, oversized=policy).encode(example, number, None)
        usual = worker(tokenizer, 2000, 60).encode(example, number, None)
        for name in ("tokens", "pool", "slot"):
            np.testing.assert_array_equal(getattr(encoded, name), getattr(usual, name))
        assert encoded.coarser_pictures == 0


def test_tracking_that_is_cut_off_answers_only_what_is_shown(tokenizer: Tokenizer) -> None:
    example = tracking(seconds=4.0)
    encoded = worker(tokenizer, 2000, 4).encode(example, 0, Pixels())
    words = tokenizer.decode(encoded.tokens)
    assert encoded.dropped_frames == 5
    assert words.count("<timestamp>") == 4
    assert "<point 1.5," in words
    assert "<point 2.0," not in words


def test_pictures_shrink_before_they_are_left_out(tokenizer: Tokenizer) -> None:
    large = row("image_qa", [picture("big", 800, 800)], asked("Where?", "left"))
    full = worker(tokenizer).encode(large, 0, Pixels())
    assert len(full.crops) == 5
    small = worker(tokenizer, 60).encode(large, 0, Pixels())
    assert (len(small.crops), small.dropped_frames) == (2, 3)
    least = worker(tokenizer, 700, 1).encode(large, 0, Pixels())
    assert (len(least.crops), least.dropped_frames) == (1, 4)


@pytest.mark.parametrize(
    ("example", "reason"),
    [
        (row("multi_image_qa", [picture(str(n)) for n in range(5)], asked("Where?", "left")), "too_many_images"),
        (row("video_qa", [picture(), clip()], asked("Where?", "left")), "mixed_media"),
        (row("image_qa", [picture()], asked("Where?", "x" * 3000)), "no_branch_fits"),
        (row("text", [], asked("Where?", "x" * 3000)), "no_branch_fits"),
        (row("multi_image_qa", [picture(str(n)) for n in range(4)], asked("Where?", "x" * 650)), "pictures_too_large"),
    ],
)
def test_rows_without_an_answer_take_one_position(tokenizer: Tokenizer, example: Example, reason: str) -> None:
    made = worker(tokenizer)
    assert made.plan(example, Draws(example.id, 0)).left_out == reason
    encoded = made.encode(example, 0, Pixels())
    assert (len(encoded.tokens), len(encoded.crops)) == (1, 0)
    assert encoded.truncated_branches == 1
    assert not encoded.weights.any()
    with pytest.raises(OversizedError, match="row"):
        worker(tokenizer, oversized="refuse").encode(example, 0, Pixels())


def test_refusing_recipes_name_the_row(tokenizer: Tokenizer) -> None:
    example = row("video_qa", [clip(7.0)], asked("Where?", "left"), name="demo/17")
    with pytest.raises(OversizedError, match="demo/17"):
        worker(tokenizer, 100, oversized="refuse").lengths(example, 0)
    assert worker(tokenizer, oversized="refuse").lengths(example, 0)[1] == 15


@pytest.mark.parametrize("size", [(1, 1), (1, 9), (1, 3000), (3000, 1), (7, 250)])
def test_pictures_as_thin_as_a_pixel(tokenizer: Tokenizer, size: tuple[int, int]) -> None:
    example = row("image_qa", [picture("thin", *size)], asked("Where?", "left"))
    made = worker(tokenizer)
    encoded = made.encode(example, 0, Pixels())
    assert (len(encoded.tokens), len(encoded.crops)) == made.lengths(example, 0)
    assert encoded.crops.std() > 0 or size == (1, 1), "its pixels are there"
    check_fields(encoded, tokenizer)


@pytest.mark.parametrize(("seconds", "times"), [(0.0, [0.0]), (0.125, [0.0, 0.125]), (0.001, [0.0, 0.001])])
@pytest.mark.parametrize("sampler", ["uniform_last_frame", "transformers"])
def test_films_of_one_frame_or_no_time(tokenizer: Tokenizer, seconds: float, times: list[float], sampler: str) -> None:
    example = row("video_qa", [clip(seconds)], asked("Where?", "left"))
    made = worker(tokenizer, sampler=sampler)
    encoded = made.encode(example, 0, Pixels())
    assert list(made.plan(example, Draws(example.id, 0)).times) == (times if sampler == "uniform_last_frame" else [0.0])
    assert (len(encoded.tokens), len(encoded.crops)) == made.lengths(example, 0)
    assert (encoded.dropped_frames, encoded.truncated_branches) == (0, 0)
    check_fields(encoded, tokenizer)


def test_wrong_pixels_are_a_media_fault(tokenizer: Tokenizer) -> None:
    class Wrong(Pixels):
        def image(self, media):  # type: ignore[no-untyped-def]
            return super().image(media)[:-1]

    with pytest.raises(MediaFault, match="its row says 84×84"):
        worker(tokenizer).encode(pointing(), 0, Wrong())


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
