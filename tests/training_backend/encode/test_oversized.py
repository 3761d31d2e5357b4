"""What gives way when an example is more than its budgets hold: branches, frames, crops, fineness; all of it counted, none of it in
silence."""

from __future__ import annotations

import math

import numpy as np
import pytest

from tests.support.examples import (
    Pixels,
    asked,
    check_fields,
    clip,
    many,
    picture,
    pointing,
    row,
    tokenizer_at,
    tracking,
    worker,
)
from training_backend.data.example import Example
from training_backend.data.media import MediaFault
from training_backend.encode.draws import Draws
from training_backend.encode.preprocessor import OversizedError, Preprocessor
from training_backend.encode.tokens import Tokenizer
from training_backend.pack.batch import PREFIX, Encoded

EXAMPLES = many(60)


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Tokenizer:
    return tokenizer_at(tmp_path_factory.mktemp("tokenizer"))


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
