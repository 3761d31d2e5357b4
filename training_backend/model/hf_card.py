"""The model card of an exported folder: what it is, how it is opened, and everything that it was made from.

Belongs here: the text. Does not belong here: collecting the bill of materials (`molmo2_assets.lineage.bom`), which arrives as data.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import msgspec

from training_backend.config import Config, ModelConfig, Recipe

CARD_FILE = "README.md"
_USE = """\
## Use

```python
from transformers import AutoModelForImageTextToText, AutoProcessor

processor = AutoProcessor.from_pretrained(".")
model = AutoModelForImageTextToText.from_pretrained(".")
messages = [{"role": "user", "content": [{"type": "image", "image": "picture.png"}, {"type": "text", "text": "What is this?"}]}]
inputs = processor.apply_chat_template(messages, add_generation_prompt=True, tokenize=True, return_dict=True, return_tensors="pt")
print(processor.decode(model.generate(**inputs, max_new_tokens=64)[0, inputs["input_ids"].shape[1] :]))
```
"""


class Card(Config, frozen=True, kw_only=True):
    """What the card says beyond the model itself. `materials`: a row for each version that the weights were made from."""

    title: str
    materials: tuple[dict[str, Any], ...] = ()
    facts: dict[str, Any] = msgspec.field(default_factory=dict)
    licence: str | None = None


def model_card(card: Card, config: ModelConfig, recipe: Recipe, parameters: int) -> str:
    """The card as Markdown with the front matter that the Hub reads."""
    front = ["library_name: transformers", "pipeline_tag: image-text-to-text", "tags: [molmo2]"]
    if card.licence:
        front.append(f"license: {card.licence}")
    decoder, encode = config.decoder, recipe.encode
    facts = {
        "model": config.name,
        "parameters": f"{parameters:,}",
        "decoder": f"{decoder.layers} layers of width {decoder.width}, {decoder.vocab_size + decoder.extra_tokens} tokens",
        "pictures": f"{config.vision.image_size} pixels, up to {encode.max_crops} crops; {encode.max_frames} frames of a video",
        "points": f"syntax `{encode.point_syntax}`",
        **card.facts,
    }
    parts = ["---", *front, "---", "", f"# {_one_line(card.title)}", "", *(f"- {name}: {_one_line(facts[name])}" for name in facts)]
    parts += ["", _USE, "## Bill of materials", ""]
    if card.materials:
        parts += _table(card.materials)
    else:
        parts.append("Nothing is recorded of what these weights were made from.")
    return "\n".join(parts) + "\n"


def _table(rows: Iterable[Mapping[str, Any]]) -> list[str]:
    rows = list(rows)
    columns = list(dict.fromkeys(column for row in rows for column in row))
    lines = [columns, ["---"] * len(columns), *([_one_line(row.get(column, "")) for column in columns] for row in rows)]
    return [f"| {' | '.join(line)} |" for line in lines]


def _one_line(value: Any) -> str:
    return " ".join(str(value).split()).replace("|", "\\|")
