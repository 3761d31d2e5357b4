"""Generation on the CPU: new tokens a second for a batch of unequal prompts of words, greedy, fp32.

Beside it in the same run: `generate` of transformers' Molmo2 with the same weights, prompts padded on the left. The two take turns
and the best of each counts; the run ends with an error where the tokens differ. `ratio` is ours over theirs.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.report import Report
from tests.support.transformers_peer import WHY_ABSENT, load
from training_backend.config import ConnectorConfig, DecoderConfig, GenerateConfig, ModelConfig, VisionConfig
from training_backend.model.generate import generate
from training_backend.model.hf import export_hf
from training_backend.model.molmo2 import Molmo2
from training_backend.model.weights import save_model
from training_backend.pack.batch import PREFIX, Encoded
from training_backend.pack.collate import collate

_NEVER = -5
"""No token: every row runs to the last step, in both."""


def options(parser: argparse.ArgumentParser) -> None:
    """Sizes."""
    parser.add_argument("--width", type=int, default=256)
    parser.add_argument("--layers", type=int, default=6)
    parser.add_argument("--vocab", type=int, default=4096)
    parser.add_argument("--prompts", type=int, default=8)
    parser.add_argument("--longest", type=int, default=256, help="tokens; prompts have from a quarter of it up to all of it")
    parser.add_argument("--new", type=int, default=64, help="tokens generated for each prompt")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1)


def run(arguments: argparse.Namespace) -> Report:
    """One row an implementation."""
    transformers = load()
    if transformers is None:
        raise SystemExit(WHY_ABSENT)
    torch.set_num_threads(arguments.threads)
    ours = Molmo2(_config(arguments)).eval()
    ours.init_weights(0)
    with tempfile.TemporaryDirectory() as folder:
        save_model(Path(folder) / "ours", ours)
        export_hf(Path(folder) / "ours", Path(folder) / "theirs")
        theirs = transformers.AutoModelForImageTextToText.from_pretrained(Path(folder) / "theirs").eval()
    rng = np.random.default_rng(0)
    lengths = np.linspace(max(2, arguments.longest // 4), arguments.longest, arguments.prompts).astype(int)
    prompts = [rng.integers(0, arguments.vocab, length) for length in lengths]
    ways = {"ours": _ours(ours, prompts, arguments.new), "transformers": _theirs(theirs, prompts, arguments.new)}
    best, said = dict.fromkeys(ways, float("inf")), {}
    for turn in range(1 + arguments.repeats):
        for name, way in ways.items():
            started = time.perf_counter()
            said[name] = way()
            spent = time.perf_counter() - started
            if turn:  # the first one warms up
                best[name] = min(best[name], spent)
    if said["ours"] != said["transformers"]:
        raise SystemExit("the two say different tokens: nothing is compared")
    tokens = arguments.prompts * arguments.new
    rows = [{"what": name, "seconds": best[name], "new tokens per second": tokens / best[name]} for name in ways]
    facts = {
        "ratio": round(best["transformers"] / best["ours"], 3), "prompts": arguments.prompts, "new": arguments.new,
        "parameters": sum(parameter.numel() for parameter in ours.parameters()), "threads": arguments.threads,
        "prompt tokens": int(lengths.sum()),
    }  # fmt: skip
    return Report("generate_cpu", rows, facts)


def _config(arguments: argparse.Namespace) -> ModelConfig:
    width, heads = arguments.width, max(2, arguments.width // 64)
    vision = VisionConfig(image_size=28, patch_size=14, width=32, layers=1, heads=2, mlp_width=64, feature_layers=(-1,))
    decoder = DecoderConfig(
        width=width, layers=arguments.layers, heads=heads, kv_heads=heads // 2, head_dim=width // heads, mlp_width=3 * width,
        vocab_size=arguments.vocab, predict_extra=False,
    )  # fmt: skip
    connector = ConnectorConfig(heads=2, pool_width=32, mlp_width=64)
    return ModelConfig(name="benchmark", vision=vision, connector=connector, decoder=decoder)


def _ours(model: Molmo2, prompts: list[Any], new: int) -> Callable[[], list[list[int]]]:
    encoded = [_encoded(prompt) for prompt in prompts]

    def way() -> list[list[int]]:
        # Putting the batch together counts, as it does for whoever asks.
        batch = collate([[item] for item in encoded], max(map(len, prompts)), model.config.vision.patches_per_side**2)
        return generate(model, batch, encoded, GenerateConfig(max_new_tokens=new), stop=[_NEVER])

    return way


def _encoded(tokens: Any) -> Encoded:
    size = len(tokens)
    nothing, ints = np.full(size, -1, np.int32), np.arange(size, dtype=np.int32)
    return Encoded(
        tokens=tokens.astype(np.int32), targets=nothing, weights=np.zeros(size, np.float32), position=ints,
        branch=np.full(size, PREFIX, np.int32), image=nothing, crops=np.zeros((0, 28, 28, 3), np.uint8),
        pool=np.zeros((0, 4), np.int32), slot=np.zeros(0, np.int32), task=0,
    )  # fmt: skip


def _theirs(model: Any, prompts: list[Any], new: int) -> Callable[[], list[list[int]]]:
    longest = max(map(len, prompts))
    ids = torch.zeros(len(prompts), longest, dtype=torch.int64)
    mask = torch.zeros_like(ids)
    for row, prompt in enumerate(prompts):
        ids[row, longest - len(prompt) :] = torch.from_numpy(prompt)
        mask[row, longest - len(prompt) :] = 1

    def way() -> list[list[int]]:
        made = model.generate(
            input_ids=ids, attention_mask=mask, max_new_tokens=new, min_new_tokens=new, do_sample=False, eos_token_id=None,
            pad_token_id=0,
        )  # fmt: skip
        return [row[longest:].tolist() for row in made]

    return way
