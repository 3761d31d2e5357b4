from __future__ import annotations

import random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from molmo2_assets.sources.generated.scenes import (
    LEAST_VISIBLE,
    Scene,
    Thing,
    anchor,
    distinct_looks,
    draw_looks,
    make_scene,
    visible_share,
)
from molmo2_assets.sources.generated.seeds import balanced
from molmo2_assets.sources.generated.shapes import COLOURS, RADII, SHAPES, Label, Look, tile


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("radius", sorted({radius for pair in RADII.values() for radius in pair}))
def test_a_tile_holds_its_shape_whole_with_the_centre_well_inside(shape: str, radius: int) -> None:
    coverage, mask, white = tile(shape, radius)
    assert coverage.shape == mask.shape == (2 * radius + 1, 2 * radius + 1)
    assert mask[radius - 2 : radius + 3, radius - 2 : radius + 3].all()
    assert 0.2 < mask.mean() < 0.85
    assert np.array_equal(mask, coverage >= 0.5)
    assert bool(white.any()) is (shape == "ring")
    assert not (white > coverage).any()


def test_no_two_shapes_look_alike() -> None:
    masks = [tile(shape, 12)[1] for shape in SHAPES]
    for number, one in enumerate(masks):
        for other in masks[number + 1 :]:
            same = (one & other).sum() / (one | other).sum()
            ring_and_circle = same == 1.0  # told apart by the white middle
            assert same < 0.9 or ring_and_circle


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10**6), st.sampled_from([(1, 4), (2, 3), (5,), (3,)]), st.integers(0, 2), st.sampled_from([64, 84, 128]))
def test_labels_count_exactly_and_every_thing_is_seen_with_a_point_on_it(
    seed: int, counts: tuple[int, ...], distractors: int, side: int
) -> None:
    rng = random.Random(seed)
    looks, labels = draw_looks(rng, counts, distractors)
    scene = make_scene(rng, side, looks)
    if scene is None:
        return
    assert tuple(scene.count(label) for label in labels) == counts
    assert len(scene.things) == sum(counts) + distractors
    drawing = scene.draw()
    assert drawing.pixels.shape == (side, side, 3)
    masks = [drawing.mask(index) for index in range(len(scene.things))]
    assert (sum(mask.astype(int) for mask in masks) <= 1).all()
    for index, thing in enumerate(scene.things):
        assert LEAST_VISIBLE <= visible_share(drawing, index, thing) <= 1
        point = anchor(drawing, index, thing)
        assert point is not None
        for x, y in ((int(point[0]), int(point[1])), (round(point[0]), round(point[1]))):
            assert masks[index][y, x]
        assert np.hypot(point[0] - thing.x - 0.5, point[1] - thing.y - 0.5) <= thing.radius


def test_the_point_of_a_half_covered_thing_moves_to_what_is_seen() -> None:
    back = Thing(Look("red", "circle"), 12, 40, 40)
    front = Thing(Look("blue", "square"), 12, 44, 40)
    scene = Scene(84, "grey", None, (back, front))
    drawing = scene.draw()
    x, y = anchor(drawing, 0, back) or (0, 0)
    assert drawing.owner[int(y), int(x)] == 0
    assert x < back.x
    assert tuple(drawing.pixels[int(y), int(x)]) == COLOURS["red"]


def test_a_thing_outside_the_picture_has_no_point() -> None:
    away = Thing(Look("red", "circle"), 8, -20, 40)
    drawing = Scene(84, "grey", None, (away,)).draw()
    assert visible_share(drawing, 0, away) == 0
    assert anchor(drawing, 0, away) is None


def test_distinct_looks_share_nothing() -> None:
    looks, labels = distinct_looks(random.Random(3), 4)
    assert len({look.colour for look in looks}) == len({look.shape for look in looks}) == 4
    for label in labels:
        assert sum(label.matches(look) for look in looks) == 1


def test_words_of_labels() -> None:
    assert Label("red", "cross").plural == "red crosses"
    assert Label(None, "star").plural == "stars"
    assert Label("blue").singular == "blue shape"


@given(st.integers(1, 7), st.integers(1, 60))
@settings(max_examples=30, deadline=None)
def test_any_prefix_of_balanced_draws_is_balanced(choices: int, length: int) -> None:
    drawn = [balanced(range(choices), index, "key", 1) for index in range(length)]
    counts = [drawn.count(choice) for choice in range(choices)]
    assert max(counts) - min(counts) <= 1
