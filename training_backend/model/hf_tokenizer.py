"""The tokenizer of a Hugging Face Molmo2 folder ↔ ours.

Belongs here: where the extra tokens stand in each. Ours keeps them out of the file, so that no text can spell one; theirs lists
them as added tokens behind the base table, whose unused rows are filled up because the library numbers tokens one by one. Does not
belong here: processors and chat templates (`hf_processor.py`), training a tokenizer (`encode/tokens.py`).
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import msgspec
from tokenizers import Tokenizer as _Library

from training_backend.config import DecoderConfig
from training_backend.data.points import POINT_OPEN
from training_backend.encode.tokens import (
    EXTRA_TOKENS,
    SPECIALS_FILE,
    TOKENIZER_FILE,
    Specials,
    Tokenizer,
    TokenizerError,
    check_tokenizer,
)
from training_backend.model.config_json import read_json
from training_backend.model.tensor_files import WeightsError

TOKENIZER_CONFIG = "tokenizer_config.json"
RELEASED = EXTRA_TOKENS[:14]
"""Those that every Molmo2 has."""
_SPOKEN = {POINT_OPEN, "<timestamp>"}
"""Extra tokens that answers hold: decoding leaves them in."""
_FILLER = re.compile(r"\|<EXTRA_TOKENS_\d+>\|")


def write_tokenizer(folder: Path, out: Path, config: DecoderConfig, max_positions: int) -> list[str]:
    """The tokenizer in `folder` (ours) as files of a Hugging Face folder; returns their names.

    Raises WeightsError where it belongs to another model, or cannot be written down so that every token keeps its number.
    """
    tokenizer = Tokenizer(folder, config.extra_tokens)
    if tokenizer.vocab_size != config.vocab_size:
        raise WeightsError(
            f"{folder / SPECIALS_FILE}: another vocabulary: {tokenizer.vocab_size} rows, the model's base table has "
            f"{config.vocab_size}."
        )
    body = json.loads((folder / TOKENIZER_FILE).read_text())
    taken = max([*body["model"]["vocab"].values(), *(token["id"] for token in body["added_tokens"])])
    fillers = [_added(number, f"|<EXTRA_TOKENS_{place}>|") for place, number in enumerate(range(taken + 1, config.vocab_size))]
    extras = [_added(config.vocab_size + number, name, name not in _SPOKEN) for number, name in enumerate(EXTRA_TOKENS)]
    body["added_tokens"] = [*sorted(body["added_tokens"], key=lambda token: token["id"]), *fillers, *extras]
    text = json.dumps(body, ensure_ascii=False, indent=1) + "\n"
    library = _Library.from_str(text)
    moved = [token["content"] for token in body["added_tokens"] if library.token_to_id(token["content"]) != token["id"]]
    if moved:
        raise WeightsError(f"{folder / TOKENIZER_FILE}: {moved[0]!r} would get another number in a Hugging Face folder.")
    names = {number: name for name, number in library.get_vocab(with_added_tokens=True).items()}
    settings = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": names[tokenizer.bos],
        "eos_token": names[tokenizer.eos],
        "pad_token": names[tokenizer.pad],
        "model_max_length": max_positions,
        "clean_up_tokenization_spaces": False,
    }
    (out / TOKENIZER_FILE).write_text(text)
    (out / TOKENIZER_CONFIG).write_text(json.dumps(settings, indent=2) + "\n")
    return [TOKENIZER_FILE, TOKENIZER_CONFIG]


def _added(number: int, content: str, special: bool = True) -> dict[str, Any]:
    flags = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False}
    return {"id": number, "content": content, **flags, "special": special}


def read_tokenizer(folder: Path, out: Path, config: DecoderConfig) -> bool:
    """Write the tokenizer of a Hugging Face Molmo2 folder as ours into `out`; False where the folder has none.

    Raises WeightsError naming file and token where the extra tokens stand elsewhere than in the model, TokenizerError for a file
    that cannot be used.
    """
    path = folder / TOKENIZER_FILE
    if not path.is_file():
        return False
    body = read_json(path)
    check_tokenizer(path, body)
    added = body["added_tokens"]
    places = {item["content"]: item["id"] for item in added}
    for number, name in enumerate(EXTRA_TOKENS):
        place = config.vocab_size + number
        if places.get(name) != place and (name in RELEASED[:10] or name in places):
            raise WeightsError(f"{path}: {name} is {places.get(name)}, the model has it at {place}: another vocabulary.")
    kept = [item for item in added if item["id"] < config.vocab_size and not _FILLER.fullmatch(item["content"])]
    body["added_tokens"] = kept
    settings = read_json(folder / TOKENIZER_CONFIG) if (folder / TOKENIZER_CONFIG).is_file() else {}
    known = {item["content"] for item in kept}
    eos = _marker(settings, "eos_token") or "<|im_end|>"
    # Qwen's tokenizers have no token for the beginning: the end stands there too, as in the release.
    bos = _marker(settings, "bos_token") or eos
    pad = _marker(settings, "pad_token") or ("<|endoftext|>" if "<|endoftext|>" in known else eos)
    out.mkdir(parents=True, exist_ok=True)
    (out / TOKENIZER_FILE).write_text(json.dumps(body, ensure_ascii=False, indent=1, sort_keys=True) + "\n")
    specials = Specials(vocab_size=config.vocab_size, bos=bos, eos=eos, pad=pad)
    (out / SPECIALS_FILE).write_bytes(msgspec.json.format(msgspec.json.encode(specials, order="sorted"), indent=1) + b"\n")
    try:
        Tokenizer(out, config.extra_tokens)
    except TokenizerError as error:
        # What a person can look at is theirs; ours goes with the run.
        raise TokenizerError(str(error).replace(str(out), str(folder))) from None
    return True


def _marker(settings: dict[str, Any], key: str) -> str | None:
    value = settings.get(key)
    return value.get("content") if isinstance(value, dict) else value
