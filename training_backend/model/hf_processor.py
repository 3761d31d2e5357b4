"""Processor files, chat template and generation settings of a Hugging Face Molmo2 folder ↔ our recipe.

Belongs here: which of their settings means which of ours, and what their processor cannot do. Does not belong here: tokens
(`hf_tokenizer.py`), the model's `config.json` (`hf_config.py`).
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from training_backend.config import EncodeConfig, ModelConfig, PointSyntax, Recipe
from training_backend.encode.tokens import Tokenizer
from training_backend.model.config_json import CONFIG_FILE, Section, read_json
from training_backend.model.tensor_files import WeightsError

IMAGES, VIDEOS, PROCESSOR = "preprocessor_config.json", "video_preprocessor_config.json", "processor_config.json"
TEMPLATE, GENERATION = "chat_template.jinja", "generation_config.json"
_HALF = [0.5, 0.5, 0.5]
_TEMPLATE = """\
{%- set seen = namespace(images=0, videos=0) -%}
{%- for message in messages -%}
  {%- if message['content'] is not string -%}
    {%- for part in message['content'] -%}
      {%- if part['type'] == 'image' -%}{%- set seen.images = seen.images + 1 -%}
      {%- elif part['type'] == 'video' -%}{%- set seen.videos = seen.videos + 1 -%}{%- endif -%}
    {%- endfor -%}
  {%- endif -%}
{%- endfor -%}
{{- bos_token -}}
{%- for number in range(seen.images) -%}
  {%- if seen.images > 1 -%}{{- 'Image ' ~ (number + FIRST) -}}{%- endif -%}{{- '<|image|>' -}}
{%- endfor -%}
{%- for number in range(seen.videos) -%}{{- '<|video|>' -}}{%- endfor -%}
{%- for message in messages -%}
  {{- '<|im_start|>' ~ message['role'] ~ '\\n' -}}
  {%- if message['content'] is string -%}{{- message['content'] -}}
  {%- else -%}
    {%- for part in message['content'] -%}{%- if part['type'] == 'text' -%}{{- part['text'] -}}{%- endif -%}{%- endfor -%}
  {%- endif -%}
  {{- eos_token if message['role'] == 'assistant' else '<|im_end|>' -}}
  {%- if message['role'] != 'assistant' or not loop.last -%}{{- '\\n' -}}{%- endif -%}
{%- endfor -%}
{%- if add_generation_prompt -%}{{- '<|im_start|>assistant\\n' -}}{%- endif -%}
"""
"""Pictures behind the beginning, before the first question; the last answer is closed by the end token alone (`encode/tree.py`)."""


def check_recipe(encode: EncodeConfig, config: ModelConfig) -> None:
    """Raise WeightsError for a recipe that transformers' Molmo2Processor cannot follow, naming what it cannot."""
    wrong = {
        f"time: {encode.time} (it writes times as text)": encode.time != "text",
        "low_resolution: false (it always shows the overview)": not encode.low_resolution,
        "max_crops: 0 (it always tiles)": encode.max_crops < 1,
        f"frame_rate: {encode.frame_rate} (it takes whole numbers)": encode.frame_rate != int(encode.frame_rate),
        f"image_size and patch_size {encode.image_size}/{encode.patch_size} (the model has {config.vision.image_size}/"
        f"{config.vision.patch_size})": (encode.image_size, encode.patch_size)
        != (config.vision.image_size, config.vision.patch_size),
    }  # fmt: skip
    if names := [name for name, unsayable in wrong.items() if unsayable]:
        raise WeightsError(
            f"the recipe cannot be a Hugging Face Molmo2Processor's, because of {'; '.join(names)}. Train with a recipe "
            "that it knows (`release` is one) to publish a checkpoint."
        )


def write_processor(out: Path, encode: EncodeConfig, config: ModelConfig, tokenizer: Tokenizer) -> list[str]:
    """Write the files of a processor that lays out pictures and words as `encode` does; returns their names.

    Raises WeightsError for a recipe that it cannot follow.
    """
    check_recipe(encode, config)
    common = {
        "do_convert_rgb": True, "do_resize": True, "resample": 2, "do_rescale": True, "do_normalize": True,
        "image_mean": _HALF, "image_std": _HALF, "patch_size": encode.patch_size,
        "size": {"height": encode.image_size, "width": encode.image_size}, "processor_class": "Molmo2Processor",
    }  # fmt: skip
    layout = {
        "image_use_col_tokens": encode.column_tokens,
        "use_single_crop_col_tokens": False,
        "use_single_crop_start_token": True,
        "video_use_col_tokens": False,
        "use_frame_special_tokens": True,
    }
    bodies: dict[str, dict[str, Any]] = {
        IMAGES: {
            "image_processor_type": "Molmo2ImageProcessor", **common, "max_crops": encode.max_crops,
            "overlap_margins": list(encode.overlap), "pooling_size": [encode.image_window] * 2,
        },
        VIDEOS: {
            "video_processor_type": "Molmo2VideoProcessor", **common, "pooling_size": [encode.video_window] * 2,
            "num_frames": encode.max_frames, "max_fps": int(encode.frame_rate), "do_sample_frames": True,
        },
        PROCESSOR: {"processor_class": "Molmo2Processor", **layout},
        GENERATION: {"bos_token_id": tokenizer.bos, "eos_token_id": tokenizer.eos, "pad_token_id": tokenizer.pad},
    }  # fmt: skip
    for name, body in bodies.items():
        (out / name).write_text(json.dumps(body, indent=2) + "\n")
    (out / TEMPLATE).write_text(chat_template(encode.point_syntax))
    return [*bodies, TEMPLATE]


def chat_template(syntax: PointSyntax) -> str:
    """Our chat layout in jinja; image numbers follow those in points: from 0 in the report's syntax, from 1 in the release's."""
    return _TEMPLATE.replace("FIRST", "1" if syntax == "release" else "0")


def read_processor(folder: Path, config: ModelConfig) -> Recipe:
    """The recipe of a Hugging Face Molmo2 folder; absent files and keys mean what the release does.

    Raises WeightsError for a layout that ours cannot be, naming file and key.
    """
    images, videos = _settings(folder, IMAGES, "image_processor"), _settings(folder, VIDEOS, "video_processor")
    layout = _settings(folder, PROCESSOR, "")
    columns = layout.get("image_use_col_tokens", bool, True)
    # Where their file leaves it open, the overview has columns as the crops have; without a file it is as released.
    layout.expect("use_single_crop_col_tokens", False, columns and layout.path.is_file())
    layout.expect("use_single_crop_start_token", True, True)
    layout.expect("video_use_col_tokens", False, False)
    layout.expect("use_frame_special_tokens", True, True)
    side, patch = config.vision.image_size, config.vision.patch_size
    for part in (images, videos):
        part.expect("size", {"height": side, "width": side}, {"height": side, "width": side})
        part.expect("patch_size", patch, patch)
        part.expect("image_mean", _HALF, _HALF)
        part.expect("image_std", _HALF, _HALF)
    margins = images.get("overlap_margins", list, [4, 4])
    if len(margins) != 2 or not all(type(margin) is int and margin >= 0 for margin in margins):
        raise WeightsError(f"{images.path}: {images.key('overlap_margins')} is {margins!r}.")
    encode = EncodeConfig(
        point_syntax="release",
        time="text",
        prompt_style="release",
        image_size=side,
        patch_size=patch,
        image_window=_window(images, [2, 2]),
        video_window=_window(videos, [3, 3]),
        max_crops=images.get("max_crops", int, 8),
        overlap=(margins[0], margins[1]),
        column_tokens=columns,
        max_frames=videos.get("num_frames", int, 128),
        frame_rate=videos.number("max_fps", 2.0),
    )
    text = Section(folder / CONFIG_FILE, "text_config", read_json(folder / CONFIG_FILE).get("text_config"))
    visual = max(encode.max_frames, encode.max_images * (encode.max_crops + 1))
    return Recipe(encode=encode, max_tokens=text.get("max_position_embeddings", int, 36_864), max_visual=visual)


def _settings(folder: Path, name: str, section: str) -> Section:
    """A file of its own, or the section of the processor's file where newer versions write it."""
    whole = folder / PROCESSOR
    if section and whole.is_file() and isinstance(found := read_json(whole).get(section), dict):
        return Section(whole, section, found)
    return Section(folder / name, "", read_json(folder / name) if (folder / name).is_file() else {})


def _window(part: Section, usual: list[int]) -> int:
    sides = part.get("pooling_size", list, usual)
    if len(sides) != 2 or sides[0] != sides[1] or type(sides[0]) is not int or sides[0] < 1:
        raise WeightsError(f"{part.path}: {part.key('pooling_size')} is {sides!r}; windows are square here.")
    return int(sides[0])
