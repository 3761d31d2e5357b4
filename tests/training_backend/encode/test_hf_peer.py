"""Transformers' Molmo2 processors beside our encoder under the recipe `release`: pixels, pooling indices, token ids, frame times.

Needs transformers and torchvision, which `make venv` installs and nothing but tests and benchmarks uses.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from tests.support.examples import EVERY_RULE, WORDS, Pixels, asked, branch, clip, picture, row
from tests.support.processors import full_tokenizer, grey, processor, released
from tests.support.transformers_peer import need_transformers
from training_backend.data.example import Example, Media, Subtitle, Text
from training_backend.encode import video
from training_backend.encode.images import Geometry, choose_tiling
from training_backend.encode.preprocessor import Preprocessor
from training_backend.encode.tokens import Tokenizer
from training_backend.pack.batch import Encoded

need_transformers(processors=True)
QUESTION, ANSWER = "How many red circles are there?", "Counting the red circles shows a total of 3."
ASKED = f"<|im_start|>user\n{QUESTION}<|im_end|>\n<|im_start|>assistant\n"
SIZES = [
    (378, 378), (377, 379), (1, 1), (1, 900), (900, 1), (111, 700), (112, 112), (112, 900), (113, 900), (900, 113), (300, 500),
    (1080, 1920), (1333, 801), (60, 4000), (4000, 150), (645, 911), (2, 3), (400, 3000),
]  # fmt: skip
ARRAYS = {"return_tensors": "np", "input_data_format": "channels_last"}
RELEASED = Geometry.of(released())


class Noise(Pixels):
    """Frames of noise, a different one each eighth of a second."""

    def frames(self, media: Media, times: Sequence[float], size: tuple[int, int] | None = None) -> NDArray[np.uint8]:
        shape = (media.height, media.width, 3)
        return np.stack([np.random.default_rng(round(8 * time)).integers(0, 256, shape, dtype=np.uint8) for time in times])


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("tokenizer")


@pytest.fixture(scope="module")
def tokenizer(folder: Path) -> Tokenizer:
    return full_tokenizer(folder, WORDS * 20)


@pytest.fixture(scope="module")
def peer(folder: Path, tokenizer: Tokenizer) -> Any:
    return processor(folder)


def encoder(tokenizer: Tokenizer, **changes: object) -> Preprocessor:
    return Preprocessor(released(**changes), EVERY_RULE, tokenizer, 64_000, 512)


def agree(ours: Encoded, theirs: Any, tokenizer: Tokenizer, kind: str = "image") -> int:
    """Everything both sides have; the largest difference of a pixel in grey levels."""
    pixels, pooling = ("pixel_values", "image_token_pooling") if kind == "image" else ("pixel_values_videos", "video_token_pooling")
    assert ours.tokens.tolist() == theirs["input_ids"][0].tolist()
    assert (ours.image >= 0).tolist() == (np.asarray(theirs["mm_token_type_ids"][0]) != 0).tolist()
    assert (ours.pool == np.asarray(theirs[pooling])).all()
    assert (ours.slot == np.flatnonzero(ours.tokens == tokenizer.special["<im_patch>"])).all()
    levels = grey(theirs[pixels])
    assert levels.shape == ours.crops.shape
    worst = float(np.abs(levels - ours.crops).max())
    # Theirs went through a float32 normalisation and back.
    assert worst < 1 + 1e-3
    return round(worst)


def pictures(sizes: Sequence[tuple[int, int]]) -> Example:
    media = [picture(f"m{number}", width, height) for number, (height, width) in enumerate(sizes)]
    return row("image_qa", media, asked(QUESTION, ANSWER))


@pytest.mark.parametrize("size", SIZES)
def test_one_image(tokenizer: Tokenizer, peer: Any, size: tuple[int, int]) -> None:
    example = pictures([size])
    theirs = peer(text=f"<|image|>{ASKED}", images=[Pixels().image(example.media[0])], **ARRAYS)
    agree(encoder(tokenizer).prompt(example, 0, Pixels()), theirs, tokenizer)


@settings(max_examples=15, deadline=None)
@given(st.integers(1, 1200), st.integers(1, 1200), st.sampled_from([1, 2, 5, 8, 24]))
def test_one_image_of_any_size(tokenizer: Tokenizer, peer: Any, height: int, width: int, crops: int) -> None:
    example = pictures([(height, width)])
    image = Pixels().image(example.media[0])
    theirs = peer(text=f"<|image|>{ASKED}", images=[image], max_crops=crops, **ARRAYS)
    agree(encoder(tokenizer, max_crops=crops).prompt(example, 0, Pixels()), theirs, tokenizer)


@settings(max_examples=500, deadline=None)
@given(st.integers(1, 20_000), st.integers(1, 20_000), st.integers(1, 24))
def test_tiling_of_any_size(height: int, width: int, crops: int) -> None:
    from transformers.models.molmo2.image_processing_molmo2 import select_tiling

    assert choose_tiling(height, width, crops, RELEASED) == select_tiling(height - 112, width - 112, 266, crops)


@pytest.mark.parametrize("side", range(1, 240))
def test_tiling_of_small_sides(side: int) -> None:
    from transformers.models.molmo2.image_processing_molmo2 import select_tiling

    for other in (1, 111, 112, 113, 378, 379, 644, 5000):
        for height, width in ((side, other), (other, side)):
            assert choose_tiling(height, width, 8, RELEASED) == select_tiling(height - 112, width - 112, 266, 8)


@pytest.mark.parametrize("sizes", [[(300, 500), (120, 90)], [(1, 400), (378, 378), (700, 700)], [(500, 300)] * 5])
def test_several_images_are_numbered_from_one(tokenizer: Tokenizer, peer: Any, sizes: list[tuple[int, int]]) -> None:
    example = pictures(sizes)
    images = [Pixels().image(media) for media in example.media]
    text = "".join(f"Image {number + 1}<|image|>" for number in range(len(sizes)))
    agree(encoder(tokenizer).prompt(example, 0, Pixels()), peer(text=text + ASKED, images=images, **ARRAYS), tokenizer)


def test_a_whole_training_example(tokenizer: Tokenizer, peer: Any) -> None:
    example = pictures([(300, 500)])
    ours = encoder(tokenizer).encode(example, 0, Pixels())
    theirs = peer(text=f"<|image|>{ASKED}{ANSWER}", images=[Pixels().image(example.media[0])], **ARRAYS)
    agree(ours, theirs, tokenizer)
    closed = peer(text=f"<|image|>{ASKED}{ANSWER}<|im_end|>", images=[Pixels().image(example.media[0])], **ARRAYS)
    assert ours.targets[:-1].tolist() == closed["input_ids"][0][1:-1].tolist()
    assert ours.targets[-1] == closed["input_ids"][0][-1]


def test_chat_of_several_turns(tokenizer: Tokenizer, peer: Any) -> None:
    said = [("system", "Be brief."), ("user", "How many?"), ("assistant", "3"), ("user", QUESTION), ("assistant", ANSWER)]
    talk = branch(*((role, [Text(text=text)]) for role, text in said), style="text_sft")
    ours = encoder(tokenizer).encode(row("text", [], talk), 0, None)
    text = "".join(f"<|im_start|>{role}\n{words}<|im_end|>\n" for role, words in said).removesuffix("<|im_end|>\n")
    assert ours.tokens.tolist() == peer(text=text, return_tensors="np")["input_ids"][0].tolist()


@pytest.mark.parametrize("seconds", [0.5, 3.0, 10.25])
@pytest.mark.parametrize("subtitles", [(), (Subtitle(start=0.5, end=1.25, text="the red square"),)], ids=["silent", "subtitles"])
def test_a_video_of_the_same_frames(tokenizer: Tokenizer, peer: Any, seconds: float, subtitles: tuple[Subtitle, ...]) -> None:
    example = row("video_qa", [clip(seconds, subtitles)], asked(QUESTION, ANSWER))
    times = video.uniform_times(seconds, 128, 2.0)
    indices = [round(8 * time) for time in times]
    assert [index / 8 for index in indices] == list(times)
    theirs = film(peer, Noise().frames(example.media[0], times), indices, video.subtitle_text(subtitles, times))
    agree(encoder(tokenizer).prompt(example, 0, Noise()), theirs, tokenizer, "video")


def film(peer: Any, frames: NDArray[np.uint8], indices: list[int], words: str = "") -> Any:
    """The peer's arrays of a film of 8 frames a second, of which these frames are shown."""
    facts = {"total_num_frames": indices[-1] + 1, "fps": 8.0, "frames_indices": indices}
    shown = torch.from_numpy(frames).permute(0, 3, 1, 2)
    return peer(
        text=f"<|video|>{words}{ASKED}", videos=[shown], video_metadata=[facts], do_sample_frames=False, return_tensors="np"
    )


@settings(max_examples=200, deadline=None)
@given(st.integers(1, 5000), st.sampled_from([1.0, 2.0, 6.0, 8.0, 23.976, 24.0, 25.0, 29.97, 30.0, 60.0]), st.integers(1, 384))
def test_their_sampler_by_name(peer: Any, frames: int, rate: float, most: int) -> None:
    from transformers.video_utils import VideoMetadata

    facts = VideoMetadata(total_num_frames=frames, fps=rate, duration=frames / rate)
    theirs = peer.video_processor.sample_frames(facts, num_frames=most).tolist()
    ours = [round(time * rate) for time in video.transformers_times(frames, rate, most, 2.0)]
    # Upstream: rounding may add one frame, with a number that the film does not have.
    assert ours == theirs[: len(ours)]
    assert all(number >= frames for number in theirs[len(ours) :])
    assert max(ours) < frames


def test_a_video_by_their_sampler(tokenizer: Tokenizer, peer: Any) -> None:
    example = row("video_qa", [clip(5.0)], asked(QUESTION, ANSWER))
    made = encoder(tokenizer, sampler="transformers", max_frames=7)
    whole = torch.from_numpy(Noise().frames(example.media[0], [number / 8 for number in range(40)])).permute(0, 3, 1, 2)
    facts = {"total_num_frames": 40, "fps": 8.0, "duration": 5.0}
    settings_of = {"do_sample_frames": True, "num_frames": 7, "return_tensors": "np"}
    theirs = peer(text=f"<|video|>{ASKED}", videos=[whole], video_metadata=[facts], **settings_of)
    agree(made.prompt(example, 0, Noise()), theirs, tokenizer, "video")
