"""What the model is given of real files, in the packed batches of the training run, against sums done by hand.

The recipe of `tests/profiles/real.yaml`: crops of 84 × 84 pixels are 6 × 6 patches of 14; one patch is shared on each side, so a
crop adds 4 patches (56 pixels) to a side of the joined grid and the outer margins add 2 (28 pixels). Pictures pool 2 × 2 patches,
frames 3 × 3. At most 6 crops beside the overview, at most 12 frames, 2 a second.
"""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
from numpy.typing import NDArray

from tests.support.real_sets import FPS, REAL, SIGNS, SIZE, SKIER, TURNED, annotation, inside, rows_of
from tests.support.real_world import Seen, World
from training_backend.pack.batch import PREFIX

EXTRA = 128


def prefix_text(world: World, item: Seen) -> str:
    """What every branch sees, special tokens spelled out."""
    shared = item.batch.branch[0, item.at] == PREFIX
    return world.loader.preprocessor.tokenizer.decode(item.tokens[shared])


def answers(world: World, item: Seen) -> list[str]:
    """Learned words of every branch."""
    index, target, _ = item.learned()
    branch = item.batch.branch[0, item.at][index]
    return [world.loader.preprocessor.tokenizer.decode(target[branch == number]) for number in range(int(branch.max()) + 1)]


def resized(pixels: NDArray[np.uint8], width: int, height: int) -> NDArray[np.int64]:
    """PIL's bilinear sampling at the middle of each new pixel, without the blur that its `resize` adds when shrinking."""
    from PIL import Image

    picture = Image.fromarray(pixels)
    across, down = picture.width / width, picture.height / height
    grid = (across, 0, 0, 0, down, 0)
    made = picture.transform((width, height), Image.Transform.AFFINE, grid, Image.Resampling.BILINEAR)
    return np.asarray(made).astype(np.int64)


# 640 × 425: without margins 612 × 397. Of all tilings with up to six crops, 2 rows of 3 (168 × 112 pixels) shrink it least: to
# 27 % of its width; 1 × 3 would leave 14 % of its height, 3 × 2 18 % of its width. Turned it is the other way round. 384 × 303 and
# 448 × 172 take 2 × 3 too (41 and 40 %; 1 × 3 would leave 20 and 39 %).
PICTURES = [(SKIER, (2, 3)), (TURNED, (3, 2)), ("skimage_coins.png", (2, 3)), ("skimage_text.png", (2, 3))]


@pytest.mark.parametrize(("name", "tiling"), PICTURES)
def test_a_photograph_has_the_crops_and_tokens_of_its_size(world: World, name: str, tiling: tuple[int, int]) -> None:
    item = world.seen("real_photos", f"images/{name}")
    rows, columns = tiling[0] * 4 + 2, tiling[1] * 4 + 2  # patches of the joined grid: 10 × 14, or 14 × 10
    overview = "<low_res_im_start>" + 9 * "<im_patch>" + "<im_end>"
    detail = "<im_start>" + rows // 2 * (columns // 2 * "<im_patch>" + "<im_col>") + "<im_end>"
    assert prefix_text(world, item) == overview + detail
    assert len(item.crops) == 1 + 6
    assert len(item.slots) == 9 + 35
    tokens = item.tokens
    patch = world.loader.preprocessor.tokenizer.special["<im_patch>"]
    assert np.flatnonzero(tokens == patch).tolist() == item.slots.tolist()
    shared = int(np.count_nonzero(item.batch.branch[0, item.at] == PREFIX))
    # beginning, 11 of the overview, 2 marks and 35 patches, a mark for each of 5 (turned: 7) rows of them
    assert shared == 1 + 11 + 2 + 35 + rows // 2
    assert set(item.batch.image[0, item.at][1:shared].tolist()) == {0}
    assert (item.batch.image[0, item.at][shared:] == -1).all()


@pytest.mark.parametrize(("name", "tiling"), PICTURES)
def test_crops_are_the_photograph_as_pil_resizes_it(world: World, name: str, tiling: tuple[int, int]) -> None:
    from PIL import Image, ImageOps

    item = world.seen("real_photos", f"images/{name}")
    path = world.asset("raw/real_photos")[0] / "images" / name
    shown = np.asarray(ImageOps.exif_transpose(Image.open(path)).convert("RGB"))
    overview = resized(shown, 84, 84)
    assert np.abs(item.crops[0] - overview).max() <= 1
    height, width = tiling[0] * 56 + 28, tiling[1] * 56 + 28
    large = resized(shown, width, height)
    crops = iter(item.crops[1:].astype(np.int64))
    for row in range(tiling[0]):
        for column in range(tiling[1]):
            part = large[56 * row : 56 * row + 84, 56 * column : 56 * column + 84]
            assert np.abs(next(crops) - part).max() <= 1
    # PIL's own resize blurs before it shrinks; over a crop the mean stays.
    soft = np.asarray(Image.fromarray(shown).resize((width, height), Image.Resampling.BILINEAR)).astype(np.int64)
    for number in range(6):
        row, column = divmod(number, tiling[1])
        there = soft[56 * row : 56 * row + 84, 56 * column : 56 * column + 84]
        assert item.crops[1 + number].mean() == pytest.approx(there.mean(), abs=2)


@pytest.mark.parametrize(("name", "tiling"), PICTURES)
def test_each_visual_token_pools_the_square_at_its_place(world: World, name: str, tiling: tuple[int, int]) -> None:
    """Visual tokens read in order are the picture in squares of 28 pixels, each shown once, whatever crop it comes from."""
    item = world.seen("real_photos", f"images/{name}")
    columns = (tiling[1] * 4 + 2) // 2
    first = item.shown.start * 36
    joined = np.zeros((tiling[0] * 56 + 28, tiling[1] * 56 + 28, 3), dtype=np.int64)
    for number, window in enumerate(item.pool[9:]):
        patches = window[window >= 0] - first
        assert len(patches) == 4
        for place, patch in enumerate(patches):
            crop, inner = divmod(int(patch), 36)
            top, left = 14 * (inner // 6), 14 * (inner % 6)
            y, x = 28 * (number // columns) + 14 * (place // 2), 28 * (number % columns) + 14 * (place % 2)
            joined[y : y + 14, x : x + 14] = item.crops[crop, top : top + 14, left : left + 14]
    picture = world.picture(item.example)
    assert np.abs(joined - resized(picture, joined.shape[1], joined.shape[0])).max() <= 1


def test_answers_are_the_annotators_words_and_points(world: World) -> None:
    item = world.seen("real_photos", f"images/{SKIER}")
    row = annotation(SKIER)
    assert sorted(answers(world, item)) == sorted(
        [
            row["caption"],
            "Red",
            "Sunglasses",
            "<point 0.194, 0.181, 0> <point 0.433, 0.181, 1> <point 0.830, 0.193, 2> "
            "Counting the red marker pole shows a total of 3.",
            "2",
        ]
    )


@pytest.mark.parametrize("name", ["real_photos", "real_people", "real_signs", "real_film", "real_tracks", "real_problems"])
def test_labels_are_shifted_and_weighted_by_the_rule_of_the_task(world: World, name: str) -> None:
    item = world.seen(name)
    tokens, branch = item.tokens, item.batch.branch[0, item.at]
    eos = world.loader.preprocessor.tokenizer.eos
    index, target, weight = item.learned()
    branches = int(branch.max()) + 1
    assert branches == len(item.example.branches)
    for number in range(branches):
        mine = np.flatnonzero(branch == number)
        said = index[branch[index] == number]
        # One answer behind one question: its tokens are learned without a gap up to the end token behind the branch.
        assert said.tolist() == list(range(said[0], mine[-1] + 1))
        following = [*tokens[said[:-1] + 1].tolist(), eos]
        assert target[branch[index] == number].tolist() == following
        rule = {"real_photos": 1 / math.sqrt(len(said) - 1) / math.sqrt(branches), "real_people": 1.5, "real_signs": 1.0,
                "real_film": 1.0, "real_tracks": 2.0, "real_problems": 0.5}[name]  # fmt: skip
        assert weight[branch[index] == number] == pytest.approx(rule, rel=1e-6)
    # Branches restart behind what they share.
    shared = int(np.count_nonzero(branch == PREFIX))
    position = item.batch.position[0, item.at]
    assert position[:shared].tolist() == list(range(shared))
    for number in range(branches):
        mine = position[branch == number]
        assert mine.tolist() == list(range(shared, shared + len(mine)))


def frames_of(path: str) -> list[NDArray[np.uint8]]:
    """Every frame of a film in order."""
    import av

    with av.open(str(REAL / "videos" / path)) as container:
        return [frame.to_ndarray(format="rgb24") for frame in container.decode(container.streams.best("video"))]


def frame_words(times: list[str]) -> str:
    """Overview of a film: a frame has 6 × 6 patches, pooled 3 × 3 to four tokens."""
    return "".join(f"<timestamp>{time}<frame_start>{4 * '<im_patch>'}<frame_end>" for time in times)


def test_the_film_is_shown_at_its_times_with_its_narration(world: World) -> None:
    # 13.013 s at 2 a second would be 28 frames; 12 are allowed, so one each 13.013 / 11 = 1.183 s, the end included.
    times = ["0.0", "1.2", "2.4", "3.5", "4.7", "5.9", "7.1", "8.3", "9.5", "10.6", "11.8", "13.0"]
    item = world.seen("real_film")
    assert item.example.media[0].duration == 13.013
    spoken = (
        "subtitle\n"
        "0.2 - 4.3 NAR: This is the optical and science segment of the Webb\n"
        "4.3 - 8.3 space telescope in one of the largest cleanrooms in the world\n"
        "8.3 - 12.5 at NASA\N{RIGHT SINGLE QUOTATION MARK}s Goddard Space Flight Center in Greenbelt, Maryland.\n"
        "12.5 - 16.6 This half of the observatory element successfully\n"
    )
    assert prefix_text(world, item) == frame_words(times) + spoken
    assert (len(item.crops), len(item.slots)) == (12, 48)
    image = item.batch.image[0, item.at]
    assert [int(np.count_nonzero(image == number)) for number in range(12)] == [6] * 12

    published = json.loads((REAL / "videos" / "nasa_13013.mp4.stream3.all_frames_info.json").read_text())
    stamps = [float(frame["pts_time"]) for frame in published]
    frames = frames_of("nasa_13013.mp4")
    assert len(stamps) == len(frames) == 390
    for number, crop in enumerate(item.crops):
        shown = max(place for place, stamp in enumerate(stamps) if stamp <= number * 1.183 + 1e-4)
        assert np.abs(crop - resized(frames[shown], 84, 84)).max() <= 1, (number, shown)


@pytest.mark.parametrize("word", SIGNS)
def test_a_sign_is_shown_from_its_first_to_its_last_frame(world: World, word: str) -> None:
    item = world.seen("real_signs", f"videos/asl_{word}.mkv")
    frames = frames_of(f"asl_{word}.mkv")
    last = {"eat": 46, "hungry": 48, "milk": 50, "thanks": 50}[word]
    assert len(frames) == last + 1
    end = {"eat": "1.6", "hungry": "1.6", "milk": "1.7", "thanks": "1.7"}[word]
    # 30 frames a second: each half second is 15 frames on.
    assert prefix_text(world, item) == frame_words(["0.0", "0.5", "1.0", "1.5", end])
    for crop, number in zip(item.crops, (0, 15, 30, 45, last), strict=True):
        assert np.abs(crop - resized(frames[number], 84, 84)).max() <= 1
    assert answers(world, item) == [word]
    assert "Which word does the person sign?" in world.loader.preprocessor.tokenizer.decode(item.tokens)


def test_tracks_are_answered_for_the_frames_that_are_shown(world: World) -> None:
    # One moment a second over 20.17 s are 21; 12 frames reach second 11, and the answers end there.
    item = world.seen("real_tracks")
    assert prefix_text(world, item) == frame_words([f"{second}.0" for second in range(12)])

    def said(objects: tuple[int, ...]) -> str:
        tags = []
        for second in range(12):
            for number, thing in enumerate(objects):
                place = inside(FPS * second, thing)
                if place is not None:
                    tags.append(f"<point {second}.0, {place[0] / SIZE[1]:.3f}, {place[1] / SIZE[0]:.3f}, {number}>")
        return " ".join(tags)

    # The third person comes in second 19, so an answer about everybody names two.
    assert sorted(answers(world, item)) == sorted([said((1,)), said((1, 2))])


def test_a_problem_is_its_question_and_its_answer(world: World) -> None:
    item = world.seen("real_problems")
    row = rows_of(REAL / "text" / "gsm8k_test_first200.jsonl")[item.example.source.row]
    assert world.loader.preprocessor.tokenizer.decode(item.tokens) == f"user\n{row['question']}\nassistant\n{row['answer']}"
    assert answers(world, item) == [row["answer"]]
    assert item.example.media == ()
    assert len(item.crops) == 0


def test_packs_hold_several_examples_that_do_not_see_each_other(world: World) -> None:
    batch = world.seen("real_tracks").batch
    assert batch.examples > 1
    assert batch.filled <= 1280
    example, position = batch.example[0], batch.position[0]
    assert np.count_nonzero(example >= 0) == batch.filled
    starts = [int(np.flatnonzero(example == number)[0]) for number in range(batch.examples)]
    assert position[starts].tolist() == [0] * batch.examples
    assert (batch.tokens < 1024 + EXTRA).all()
    # Every crop of the batch is pooled by visual tokens of its own example alone.
    owner = example[batch.slot]
    for number in range(batch.examples):
        pool = batch.pool[owner == number]
        others = batch.pool[owner != number]
        assert not set((pool[pool >= 0] // 36).tolist()) & set((others[others >= 0] // 36).tolist())
