"""An exported folder in transformers' own hands: AutoProcessor lays out what our encoder does, AutoModel says what ours says."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from tests.support.examples import EVERY_RULE, asked, branch, clip, picture, row
from tests.support.models import SIDE
from tests.support.published import RECIPE, checkpoint_at, export_spec
from tests.support.transformers_peer import need_transformers
from training_backend.config import GenerateConfig, LossConfig, Recipe
from training_backend.convert import run_export
from training_backend.data.example import Example, Text
from training_backend.encode.images import Geometry, choose_tiling, crop_image
from training_backend.encode.preprocessor import Preprocessor
from training_backend.encode.tokens import Tokenizer
from training_backend.encode.video import uniform_times
from training_backend.model.generate import StopTexts, generate
from training_backend.model.molmo2 import TensorBatch
from training_backend.model.vision import patchify
from training_backend.model.weights import load_model
from training_backend.pack.collate import collate

need_transformers(processors=True)
SIZES = {1: [(28, 49)], 2: [(28, 49), (28, 28)]}
"""Pictures that no resizing rounds: where a value falls half-way between two, theirs and ours may round to either."""
QUESTION = "Point to the red circles, or not."


class Noise:
    """Pixels by the name of a picture; a film whose frames are numbered by their second."""

    def image(self, media: Any) -> NDArray[np.uint8]:
        return np.random.default_rng(media.height).integers(0, 256, (media.height, media.width, 3), dtype=np.uint8)

    def frames(self, media: Any, times: Any, size: Any = None) -> NDArray[np.uint8]:
        return np.stack([np.random.default_rng(round(8 * t)).integers(0, 256, (SIDE, SIDE, 3), dtype=np.uint8) for t in times])


@pytest.fixture(scope="module", params=["release", "report"])
def opened(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Recipe, Any, Any]:
    """Home of a checkpoint, its recipe, and transformers' processor and model of the exported folder."""
    from transformers import AutoModelForImageTextToText, AutoProcessor

    home = checkpoint_at(tmp_path_factory.mktemp("home"))
    encode = msgspec.structs.replace(RECIPE.encode, point_syntax=request.param, prompt_style="plain")
    recipe = msgspec.structs.replace(RECIPE, encode=encode)
    run_export(export_spec(home, recipe), home / "hf", lambda message: None)
    processor = AutoProcessor.from_pretrained(home / "hf")
    model, report = AutoModelForImageTextToText.from_pretrained(home / "hf", output_loading_info=True)
    assert {name: keys for name, keys in report.items() if keys} == {}
    return home, recipe, processor, model.eval()


def _inputs(processor: Any, question: str, **media: Any) -> Any:
    kinds = [{"type": "image"}] * len(media.get("images", ())) + [{"type": "video"}] * len(media.get("videos", ()))
    messages = [{"role": "user", "content": [*kinds, {"type": "text", "text": question}]}]
    text = processor.apply_chat_template(messages, add_generation_prompt=True, tokenize=False)
    return processor(text=[text], return_tensors="pt", **media)


def _ours(home: Path, recipe: Recipe, example: Example) -> tuple[Any, Any, Any, Tokenizer]:
    model = load_model(home / "checkpoint").eval()
    tokenizer = Tokenizer(home / "tokenizer", model.config.decoder.extra_tokens)
    encoder = Preprocessor(recipe.encode, LossConfig(rules={}), tokenizer, recipe.max_tokens, recipe.max_visual)
    prompt = encoder.prompt(example, 0, Noise())
    return model, prompt, collate([[prompt]], len(prompt.tokens), model.config.vision.patches_per_side**2), tokenizer


def test_pixels_differ_by_a_rounding_at_most(opened: tuple[Path, Recipe, Any, Any]) -> None:
    _, recipe, processor, _ = opened
    geometry = Geometry.of(recipe.encode)
    for height, width in ((50, 70), (28, 90), (56, 84)):
        pixels = Noise().image(picture("m", width, height))
        tiling = choose_tiling(height, width, recipe.encode.max_crops, geometry)
        ours = patchify(torch.from_numpy(crop_image(pixels, tiling, geometry)), recipe.encode.patch_size)
        away = (processor.image_processor(pixels, return_tensors="pt")["pixel_values"] - ours).abs() * 127.5
        assert float(away.max()) < 1.001
        assert float((away > 0.001).float().mean()) < 1e-3


@pytest.mark.parametrize("count", [0, 1, 2])
def test_pictures_and_words(opened: tuple[Path, Recipe, Any, Any], count: int) -> None:
    home, recipe, processor, theirs = opened
    media = [picture(f"m{n}", width, height) for n, (height, width) in enumerate(SIZES.get(count, []))]
    example = row("image_qa" if media else "text", media, asked(QUESTION, "none"))
    model, prompt, batch, tokenizer = _ours(home, recipe, example)
    images = {"images": [Noise().image(item) for item in media]} if media else {}
    inputs = _inputs(processor, QUESTION, **images)
    assert inputs["input_ids"][0].tolist() == prompt.tokens.tolist()
    assert ((inputs["mm_token_type_ids"][0] == 1).numpy() == (prompt.image >= 0)).all()
    if media:
        assert (inputs["image_token_pooling"].numpy() == prompt.pool).all()
    with torch.no_grad():
        expected = theirs(**inputs).logits
        actual = model(TensorBatch.from_numpy(batch)) @ model.head_weight.T
    assert expected.std() > 0.3
    assert (actual - expected).abs().max() <= 1e-4
    answer = generate(model, batch, [prompt], GenerateConfig(max_new_tokens=12), stop=[tokenizer.eos])[0]
    said = theirs.generate(**inputs, max_new_tokens=12, do_sample=False)[0, len(prompt.tokens) :].tolist()
    assert answer == said[: len(answer)]
    assert set(said[len(answer) :]) <= {tokenizer.eos}
    # A text that lies across two tokens ends it in both.
    text = tokenizer.decode(answer[2:4])[1:]
    texts = StopTexts([text], tokenizer.decode)
    ended = theirs.generate(**inputs, max_new_tokens=12, do_sample=False, stop_strings=[text], tokenizer=processor.tokenizer)
    cut = generate(model, batch, [prompt], GenerateConfig(max_new_tokens=12), [tokenizer.eos], texts)[0]
    assert cut == ended[0, len(prompt.tokens) :].tolist()
    assert len(cut) < 12


def test_a_video_and_words(opened: tuple[Path, Recipe, Any, Any]) -> None:
    from transformers.video_utils import VideoMetadata

    home, recipe, processor, theirs = opened
    example = row("video_qa", [clip(2.0)], asked("What colour is it?", "red"))
    model, prompt, batch, _ = _ours(home, recipe, example)
    times = uniform_times(2.0, recipe.encode.max_frames, recipe.encode.frame_rate)
    frames = torch.from_numpy(Noise().frames(None, times)).permute(0, 3, 1, 2)
    # The frames that ours shows, at their times: which ones a processor would choose is its own affair.
    metadata = VideoMetadata(total_num_frames=len(times), fps=1000.0, frames_indices=[round(1000 * t) for t in times])
    inputs = _inputs(processor, "What colour is it?", videos=[frames], video_metadata=[metadata], do_sample_frames=False)
    assert inputs["input_ids"][0].tolist() == prompt.tokens.tolist()
    with torch.no_grad():
        expected = theirs(**inputs).logits
        actual = model(TensorBatch.from_numpy(batch)) @ model.head_weight.T
    assert (actual - expected).abs().max() <= 1e-4


def test_a_conversation_is_laid_out_as_in_training(opened: tuple[Path, Recipe, Any, Any]) -> None:
    home, recipe, processor, _ = opened
    said = [("user", "What is it?"), ("assistant", "A red circle."), ("user", "How many are there?"), ("assistant", "3")]
    example = row("text", [], branch(*((role, [Text(text=text)]) for role, text in said)))
    model = load_model(home / "checkpoint")
    tokenizer = Tokenizer(home / "tokenizer", model.config.decoder.extra_tokens)
    messages = [{"role": role, "content": text} for role, text in said]
    theirs = processor.tokenizer(processor.apply_chat_template(messages, tokenize=False), add_special_tokens=False)["input_ids"]
    encoder = Preprocessor(recipe.encode, EVERY_RULE, tokenizer, 512, 24)
    ours = encoder.encode(example, 0, None)
    assert theirs == [*ours.tokens.tolist(), tokenizer.eos]
