"""Which moments are shown, what stands before a frame, which subtitles come along."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from training_backend.data.example import Subtitle
from training_backend.data.points import Special
from training_backend.encode.images import Geometry
from training_backend.encode.video import (
    frame_layout,
    subtitle_text,
    time_pieces,
    tracking_times,
    transformers_times,
    uniform_times,
)


@pytest.mark.parametrize(
    ("duration", "most", "times"),
    [
        (2.0, 8, (0.0, 0.5, 1.0, 1.5, 2.0)),
        (2.2, 8, (0.0, 0.5, 1.0, 1.5, 2.0, 2.2)),
        (2.0, 5, (0.0, 0.5, 1.0, 1.5, 2.0)),
        (2.0, 3, (0.0, 1.0, 2.0)),
        (10.0, 3, (0.0, 5.0, 10.0)),
        (10.0, 1, (0.0,)),
        (0.1, 4, (0.0, 0.1)),
    ],
)
def test_uniform_with_the_last_frame(duration: float, most: int, times: tuple[float, ...]) -> None:
    assert uniform_times(duration, most, 2.0) == pytest.approx(times)


@settings(max_examples=80, deadline=None)
@given(st.floats(0.01, 500), st.integers(2, 400), st.sampled_from([1.0, 2.0, 3.0]))
def test_uniform_times_keep_their_promises(duration: float, most: int, rate: float) -> None:
    times = uniform_times(duration, most, rate)
    assert len(times) <= most
    assert times[0] == 0
    assert times[-1] == pytest.approx(duration)
    steps = [b - a for a, b in itertools.pairwise(times)]
    assert min(steps) > 0
    # No faster than the rate, except before the exact end.
    assert all(step >= 1 / rate - 1e-6 for step in steps[:-1])


@pytest.mark.parametrize(
    ("frames", "rate", "most", "numbers"),
    [
        (40, 8.0, 128, (0, 4, 8, 12, 16, 20, 24, 28, 32, 36)),
        (40, 8.0, 3, (0, 13, 26)),
        (15, 2.0, 13, (0, 1, 2, 3, 4, 5, 6, 8, 9, 10, 11, 12, 13)),
        (1, 30.0, 8, (0,)),
        (3, 1.0, 8, (0, 1, 2)),
    ],
)
def test_the_sampler_of_transformers(frames: int, rate: float, most: int, numbers: tuple[int, ...]) -> None:
    assert [time * rate for time in transformers_times(frames, rate, most, 2.0)] == pytest.approx(numbers)


@pytest.mark.parametrize(
    ("duration", "most", "annotation", "times"),
    [
        (2.0, 8, 1.0, (0.0, 0.5, 1.0, 1.5, 2.0)),
        (2.0, 4, 1.0, (0.0, 1.0, 2.0)),
        (2.0, 8, 2.0, (0.0, 0.5, 1.0, 1.5, 2.0)),
        (2.0, 3, 2.0, (0.0, 0.5, 1.0)),
        (0.9, 8, 1.0, (0.0, 0.5)),
        (1.0, 16, 6.0, tuple(n / 6 for n in range(7))),
    ],
)
def test_tracking_follows_the_annotation(duration: float, most: int, annotation: float, times: tuple[float, ...]) -> None:
    assert tracking_times(duration, most, 2.0, annotation) == pytest.approx(times)


@settings(max_examples=60, deadline=None)
@given(st.floats(0.1, 60), st.integers(1, 200), st.sampled_from([1.0, 2.0, 3.0, 6.0]))
def test_every_annotated_moment_is_shown_up_to_the_last(duration: float, most: int, annotation: float) -> None:
    times = tracking_times(duration, most, 6.0, annotation)
    assert 1 <= len(times) <= most
    assert times[-1] <= duration + 1e-6
    wanted = [n / annotation for n in range(int(times[-1] * annotation + 1e-6) + 1)]
    assert all(min(abs(moment - time) for time in times) < 1e-9 for moment in wanted)


def test_a_released_frame_takes_83_tokens() -> None:
    layout = frame_layout(3, Geometry(27, 14, (4, 4), True, True))
    assert len(layout.names) == 83
    assert (layout.names[0], layout.names[-1]) == ("<frame_start>", "<frame_end>")
    assert layout.pool.shape == (81, 9)
    assert sorted(layout.pool.ravel().tolist()) == list(range(729))
    assert len(frame_layout(3, Geometry(6, 14, (1, 1), True, True)).names) == 4 + 2


def test_times_in_words() -> None:
    assert time_pieces(0, True, False) == ["0.0 "]
    assert time_pieces(12.46, False, False) == [" 12.5 "]
    token = time_pieces(0.5, False, True)
    assert token == ["<timestamp>", "0.5"]
    assert isinstance(token[0], Special)


def test_subtitles_near_shown_frames_come_along() -> None:
    lines = [Subtitle(start=0, end=1, text="a"), Subtitle(start=3.05, end=4, text="b"), Subtitle(start=8, end=9, text="c")]
    assert subtitle_text(lines, [2.0, 7.2]) == "subtitle\n0.0 - 1.0 a\n8.0 - 9.0 c\n"
    assert subtitle_text(lines, [5.5]) == ""
