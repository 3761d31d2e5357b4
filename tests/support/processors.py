"""Transformers' Molmo2 processors with the released settings, built without a download.

Belongs here: a tokenizer that both sides read, the peer's arrays in our shapes. Does not belong here: importing the peer
(`transformers_peer.py`), what is compared (`tests/training_backend/encode/test_hf_peer.py`, `benchmarks/encode.py`).
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from training_backend.config import EncodeConfig
from training_backend.encode.tokens import EXTRA_TOKENS, Tokenizer, train_tokenizer

PATCH, SIDE = 14, 378


def released(**changes: object) -> EncodeConfig:
    """The encoding of the profile `release`."""
    fields: dict[str, object] = {
        "point_syntax": "release", "time": "text", "prompt_style": "release", "image_size": SIDE, "patch_size": PATCH,
        "max_crops": 8, "max_images": 5, "max_frames": 128, "frame_rate": 2.0,
    }  # fmt: skip
    return EncodeConfig(**(fields | changes))  # type: ignore[arg-type]


def full_tokenizer(folder: Path, texts: Sequence[str], vocab_size: int = 300) -> Tokenizer:
    """A tokenizer without unused rows, as transformers numbers added tokens from the end of the table."""
    train_tokenizer(texts, vocab_size, folder)
    body = json.loads((folder / "tokenizer.json").read_text())
    assert len({*body["model"]["vocab"], *(token["content"] for token in body["added_tokens"])}) == vocab_size
    return Tokenizer(folder)


def processor(folder: Path, **settings: Any) -> Any:
    """`Molmo2Processor` over the tokenizer in `folder`; `settings` go to its image processor."""
    from tokenizers import AddedToken
    from tokenizers import Tokenizer as Library
    from transformers import PreTrainedTokenizerFast
    from transformers.models.molmo2 import Molmo2ImageProcessor, Molmo2Processor, Molmo2VideoProcessor

    library = Library.from_file(str(folder / "tokenizer.json"))
    library.add_special_tokens([AddedToken(name, special=True, normalized=False) for name in EXTRA_TOKENS])
    specials = json.loads((folder / "specials.json").read_text())
    words = PreTrainedTokenizerFast(
        tokenizer_object=library, bos_token=specials["bos"], eos_token=specials["eos"], pad_token=specials["pad"]
    )
    pictures = Molmo2ImageProcessor(image_mean=[0.5] * 3, image_std=[0.5] * 3, **settings)
    films = Molmo2VideoProcessor(image_mean=[0.5] * 3, image_std=[0.5] * 3, do_rescale=True, do_normalize=True)
    # The released layout has no column tokens in the low-resolution picture.
    return Molmo2Processor(pictures, films, words, use_single_crop_col_tokens=False)


def grey(patches: Any) -> NDArray[np.float64]:
    """Normalised patches [N, P, 14*14*3] as grey levels of crops [N, 378, 378, 3]."""
    values = np.asarray(patches, dtype=np.float64) * 127.5 + 127.5
    side = SIDE // PATCH
    crops: NDArray[np.float64] = (
        values.reshape(-1, side, side, PATCH, PATCH, 3).transpose(0, 1, 3, 2, 4, 5).reshape(-1, SIDE, SIDE, 3)
    )
    return crops
