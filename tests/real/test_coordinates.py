"""Published coordinates after our conversion, held against the pixels and masks that they were made on.

Every place here was looked at in its picture: marker poles are thin red lines on snow, the skier's jacket is red, the eyes of the
cat are dark in the middle, coins are brighter than their ground.
"""

from __future__ import annotations

import io

import numpy as np
import pytest
from numpy.typing import NDArray

from tests.support.real_sets import COLOURS, FPS, PEOPLE, REAL, SIZE, SKIER, TURNED, annotation, inside, masks, painted, skier
from tests.support.real_world import World
from training_backend.data.example import Branch, Count, Example, Points, Tracks


def points_of(example: Example, branch: str) -> Points:
    return next(part for part in parts_of(example, branch) if isinstance(part, Points))


def parts_of(example: Example, branch: str) -> list[object]:
    found: Branch = next(item for item in example.branches if item.id == branch)
    return [part for turn in found.turns for part in turn.parts]


def around(picture: NDArray[np.uint8], x: float, y: float, reach: int) -> NDArray[np.int64]:
    """The pixels about a point given in fractions."""
    row, column = int(y * picture.shape[0]), int(x * picture.shape[1])
    return picture[max(0, row - reach) : row + reach + 1, max(0, column - reach) : column + reach + 1].astype(np.int64)


def redness(pixels: NDArray[np.int64]) -> int:
    """How much redder than green the reddest pixel is."""
    return int((pixels[..., 0] - pixels[..., 1]).max())


def test_pixels_of_coco_become_fractions_inside_its_outline(world: World) -> None:
    from PIL import Image, ImageDraw

    example, truth = world.example("real_people", SKIER), skier()
    outline = Image.new("1", (640, 425))
    ImageDraw.Draw(outline).polygon(truth["segmentation"][0], fill=1, outline=1)
    person = np.asarray(outline)
    left, top, width, height = truth["bbox"]
    seen = 0
    for part in ("shoulder", "knee", "ankle", "nose"):
        found = points_of(example, f"{part} of the skier/point_count").points
        published = sorted(point for name, point in truth["points"].items() if name.endswith(part))
        assert len(found) == len(published)
        for point, (x, y) in zip(found, published, strict=True):
            assert (point.x * 640, point.y * 425) == pytest.approx((x, y), abs=0.01)
            assert left <= point.x * 640 <= left + width
            assert top <= point.y * 425 <= top + height
            assert person[int(point.y * 425), int(point.x * 640)], part
            seen += 1
    assert seen == 7
    picture = world.picture(example)
    for point in points_of(example, "shoulder of the skier/point_count").points:
        assert redness(around(picture, point.x, point.y, 6)) > 100  # the jacket
    (middle,) = points_of(example, "middle of the skier's box/point_count").points
    # 280.79 + 218.7 / 2 = 390.14 of 640 and 44.73 + 346.68 / 2 = 218.07 of 425
    assert (middle.x, middle.y) == (0.60959, 0.51311)


def test_a_label_and_its_count_say_the_same(world: World) -> None:
    parts = parts_of(world.example("real_people", SKIER), "knee of the skier/point_count")
    assert isinstance(parts[1], Count)
    assert (parts[1].label, parts[1].count) == ("knee of the skier", 2)


def test_fractions_of_photographs_hit_what_they_name(world: World) -> None:
    example = world.example("real_photos", f"images/{SKIER}")
    picture = world.picture(example)
    poles = points_of(example, "red marker pole/point_count").points
    assert [(point.x, point.y) for point in poles] == [(0.1938, 0.1812), (0.4328, 0.1812), (0.8297, 0.1929)]
    for pole in poles:
        assert redness(around(picture, pole.x, pole.y, 6)) > 60
        assert redness(around(picture, pole.x - 0.06, pole.y, 6)) < 30  # snow beside it

    coins = world.example("real_photos", "images/skimage_coins.png")
    grey = world.picture(coins)
    found = points_of(coins, "coin/point_count").points
    assert len(found) == 24
    assert all(around(grey, coin.x, coin.y, 6).mean() > 105 for coin in found)
    assert around(grey, 0.19, 0.5, 3).mean() < 90  # between four coins

    cat = world.example("real_photos", "images/skimage_chelsea.png")
    for eye in points_of(cat, "cat eye/point_count").points:
        assert around(world.picture(cat), eye.x, eye.y, 2).mean() < 60  # pupils

    sign = world.example("real_photos", "images/detectron_34501842524_3c858b3080_k.jpg")
    (stop,) = points_of(sign, "stop sign/point_count").points
    assert redness(around(world.picture(sign), stop.x, stop.y, 25)) > 60
    assert redness(around(world.picture(sign), 0.1, 0.1, 25)) < 30  # sky


def test_a_turned_photograph_is_shown_and_pointed_at_upright(world: World) -> None:
    from PIL import Image

    turned = world.example("real_photos", f"images/{TURNED}")
    assert (turned.media[0].width, turned.media[0].height) == (425, 640)
    picture = world.picture(turned)
    stored = np.asarray(Image.open(REAL / "images" / SKIER).convert("RGB"))
    # Turned clockwise: the lower left corner of what is stored is the upper left corner of what is shown.
    assert np.array_equal(picture[0, 0], stored[-1, 0])
    assert np.array_equal(picture, np.rot90(stored, -1))
    poles = points_of(turned, "red marker pole/point_count").points
    assert len(poles) == 3
    for pole in poles:
        assert redness(around(picture, pole.x, pole.y, 6)) > 60
        assert redness(around(picture, pole.x, pole.y - 0.06, 6)) < 30
    # What an annotator says whose viewer did not turn it would point at bare snow or the forest: such rows are set aside.
    wrong = annotation(SKIER)["points"][1]
    assert redness(around(picture, wrong["x"], wrong["y"], 6)) < 60


def test_tracks_lie_in_their_masks_at_every_moment(world: World) -> None:
    example = world.example("real_tracks", "sav_000001")
    reader = world.film(example)
    assert (reader.facts.width, reader.facts.height, reader.facts.n_frames) == (SIZE[1], SIZE[0], 121)
    (everyone,) = (part for part in parts_of(example, "every person/1") if isinstance(part, Tracks))
    # In order of first sight, then from the left: the near person, the second one, the third one who comes in frame 113.
    assert [len(track.samples) for track in everyone.tracks] == [21, 21, 2]
    assert everyone.tracks[2].samples[0].t == 19.0
    frames, shown = reader.frames_at([sample.t for sample in everyone.tracks[0].samples])
    assert shown == pytest.approx(np.arange(21.0), abs=1e-3)
    hidden = 0
    for number, track in zip(PEOPLE, everyone.tracks, strict=True):
        for sample in track.samples:
            frame = round(sample.t * FPS)
            row, column = int(sample.y * SIZE[0]), int(sample.x * SIZE[1])
            if sample.occluded:
                hidden += 1
                assert inside(frame, number) is None
                continue
            assert masks()[frame][number][row, column], (number, sample.t)
            colour = frames[round(sample.t)][row, column].astype(int)
            assert np.abs(colour - COLOURS[number]).max() < 40, (number, sample.t)
    assert hidden == sum(not masks()[FPS * second][2].any() for second in range(21))
    assert hidden > 0


def test_the_masks_and_their_colours_are_what_was_painted(world: World) -> None:
    """The film beside the masks is ours: its frames show the masks, apart from what the codec blurs along edges."""
    frames, _ = world.film(world.example("real_tracks", "sav_000001")).frames_at([10.0])
    difference = np.abs(frames[0].astype(int) - painted(60)).max(axis=2)
    assert np.mean(difference > 40) < 0.02


@pytest.mark.parametrize("name", ["real_photos", "real_people", "real_tracks", "real_signs", "real_film"])
def test_a_page_shows_samples(world: World, name: str) -> None:
    from PIL import Image

    data = (world.asset(f"validated/{name}")[0] / "samples.jpg").read_bytes()
    sheet = np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))
    assert sheet.shape[1] >= 3 * 168
    assert sheet[:168, :168].std() > 10
