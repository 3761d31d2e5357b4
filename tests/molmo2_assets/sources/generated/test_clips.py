from __future__ import annotations

import random
from fractions import Fraction
from itertools import pairwise
from pathlib import Path

import av
import numpy as np
import pytest

from molmo2_assets.sources.generated.clips import FPS, GRID, SEEN, Clip, Mover, make_clip
from molmo2_assets.sources.generated.clips import Path as Way
from molmo2_assets.sources.generated.scenes import distinct_looks
from molmo2_assets.sources.generated.shapes import Look
from molmo2_assets.sources.generated.video import write_h264

KINDS = ("still", "slide", "bounce", "enter", "leave")


def drawn_clip(seed: int, *kinds: str) -> Clip:
    rng = random.Random(seed)
    while True:
        clip = make_clip(rng, 84, distinct_looks(rng, len(kinds))[0], kinds)
        if clip is not None:
            return clip


@pytest.mark.parametrize("seed", range(6))
def test_each_path_does_what_its_name_says(seed: int) -> None:
    for kind in KINDS:
        clip = drawn_clip(seed, kind)
        assert clip.frames == clip.seconds * FPS
        assert 3 <= clip.seconds <= 6
        assert clip.seconds % GRID == 0
        first, last = clip.seen(0, 0), clip.seen(0, clip.frames - 1)
        places = [clip.things(frame)[0] for frame in range(clip.frames)]
        steps = [abs(a.x - b.x) + abs(a.y - b.y) for a, b in pairwise(places)]
        assert max(steps) <= 5
        if kind == "enter":
            assert first == 0
            assert last == 1
        elif kind == "leave":
            assert first == 1
            assert last == 0
        else:
            assert min(clip.seen(0, frame) for frame in range(clip.frames)) == 1
            assert (sum(steps) > 0) is (kind != "still")


def test_the_direction_of_a_slide_is_where_it_goes() -> None:
    for seed in range(12):
        clip = drawn_clip(seed, "slide")
        start, end = clip.things(0)[0], clip.things(clip.frames - 1)[0]
        moved = (end.x - start.x, end.y - start.y)
        expected = {"left": (-1, 0), "right": (1, 0), "up": (0, -1), "down": (0, 1)}[clip.movers[0].path.direction]
        assert tuple(int(np.sign(value)) for value in moved) == expected


def test_the_first_sight_of_an_entering_thing_is_on_the_grid_and_not_earlier() -> None:
    clip = drawn_clip(4, "enter", "still")
    index = next(index for index, mover in enumerate(clip.movers) if mover.path.kind == "enter")
    time = clip.first_seen(index)
    assert time is not None
    assert time > 0
    assert time % GRID == 0
    assert clip.seen(index, round(time * FPS)) >= SEEN > clip.seen(index, round((time - GRID) * FPS))
    assert clip.first_seen(index, 0.0, time) is None


def test_a_thing_behind_another_is_unseen_while_it_is_covered() -> None:
    back = Mover(Look("red", "circle", "small"), 8, Way("slide", 20, 40, 10.0, 0.0))
    front = Mover(Look("blue", "square"), 13, Way("still", 40, 40))
    clip = Clip(84, 32, "grey", None, (back, front))
    assert clip.seen(0, 0) > 0.9
    assert clip.seen(0, 16) == 0
    assert clip.point(0, 16) is None


def test_a_film_holds_its_frames_at_their_times(tmp_path: Path) -> None:
    clip = drawn_clip(1, "slide", "bounce", "still")
    write_h264(tmp_path / "film.mp4", clip.film(), FPS)
    write_h264(tmp_path / "again.mp4", clip.film(), FPS)
    assert (tmp_path / "film.mp4").read_bytes() == (tmp_path / "again.mp4").read_bytes()
    with av.open(str(tmp_path / "film.mp4")) as container:
        stream = container.streams.video[0]
        assert stream.codec_context.name == "h264"
        assert stream.average_rate == FPS
        frames = list(container.decode(stream))
    assert [Fraction(frame.pts) * frame.time_base for frame in frames] == [Fraction(k, FPS) for k in range(clip.frames)]
    for number, frame in enumerate(frames):
        error = np.abs(frame.to_ndarray(format="rgb24").astype(int) - clip.drawing(number).pixels)
        assert error.mean() < 6


def test_the_index_stands_before_the_pictures(tmp_path: Path) -> None:
    write_h264(tmp_path / "film.mp4", drawn_clip(2, "still").film(), FPS)
    data = (tmp_path / "film.mp4").read_bytes()
    assert data.index(b"moov") < data.index(b"mdat")
