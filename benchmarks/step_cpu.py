"""One training step on the CPU: supervised tokens a second, fp32, forward, backward and AdamW, of a mixed batch.

The batch: examples of 0 to 2 pictures with 1 to 8 answers of very unequal lengths. Ours packs them into sequences whose answers
share their pictures, each answer unseen by the others. Beside it in the same run: transformers' Molmo2 with the same weights, a row
for each picture-and-answer, padded to the longest.
The two take turns, the best of each counts; the run ends with an error where their losses before the first step differ. `ratio` is
ours over theirs.
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
from training_backend.config import ConnectorConfig, DecoderConfig, ModelConfig, VisionConfig
from training_backend.encode.images import pooling_windows
from training_backend.encode.tokens import EXTRA_TOKENS
from training_backend.model.hf import export_hf
from training_backend.model.molmo2 import Molmo2, TensorBatch
from training_backend.model.vision import patchify
from training_backend.model.weights import save_model
from training_backend.pack.batch import PREFIX, Encoded
from training_backend.pack.collate import collate
from training_backend.pack.plan import plan_window
from training_backend.train.loss import weighted_cross_entropy

SIDE, PATCH = 84, 14
_WINDOWS = pooling_windows(np.arange((SIDE // PATCH) ** 2).reshape(SIDE // PATCH, -1), 2)
_POOL = _WINDOWS.reshape(-1, 4)
Step = Callable[[], float]
"""Makes one step; the sum of the losses of all supervised tokens before it."""


def options(parser: argparse.ArgumentParser) -> None:
    """Sizes."""
    parser.add_argument("--width", type=int, default=128)
    parser.add_argument("--layers", type=int, default=4)
    parser.add_argument("--vocab", type=int, default=1024)
    parser.add_argument("--examples", type=int, default=12)
    parser.add_argument("--longest", type=int, default=120, help="tokens of the longest answer")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1)


def run(arguments: argparse.Namespace) -> Report:
    """One row an implementation."""
    transformers = load()
    if transformers is None:
        raise SystemExit(WHY_ABSENT)
    torch.set_num_threads(arguments.threads)
    ours = Molmo2(_config(arguments))
    ours.init_weights(0)
    with tempfile.TemporaryDirectory() as folder:
        save_model(Path(folder) / "ours", ours)
        export_hf(Path(folder) / "ours", Path(folder) / "theirs")
        theirs = transformers.AutoModelForImageTextToText.from_pretrained(Path(folder) / "theirs").train()
    rng = np.random.default_rng(0)
    examples = [_example(rng, arguments.vocab, arguments.longest) for _ in range(arguments.examples)]
    tokens = int(sum((example.weights > 0).sum() for example in examples))
    longest = max(len(example.tokens) for example in examples)
    packed, sequences = _ours(ours, examples, longest)
    padded, rows = _theirs(theirs, examples)
    steps = {"ours, packed": (packed, sequences), "transformers, padded": (padded, rows)}
    best, first = dict.fromkeys(steps, float("inf")), {}
    for turn in range(1 + arguments.repeats):
        for name, (step, _) in steps.items():
            started = time.perf_counter()
            loss = step() / tokens
            spent = time.perf_counter() - started
            first.setdefault(name, loss)
            if turn:  # the first one warms up
                best[name] = min(best[name], spent)
    losses = list(first.values())
    if abs(losses[0] - losses[1]) > 1e-4:
        raise SystemExit(f"the two losses differ ({losses}): nothing is compared")
    table = [
        {"what": name, "positions": shape[0] * shape[1], "seconds": best[name], "supervised tokens per second": tokens / best[name]}
        for name, (_, shape) in steps.items()
    ]
    facts = {
        "ratio": round(best["transformers, padded"] / best["ours, packed"], 3), "supervised tokens": tokens, "loss": losses[0],
        "parameters": sum(parameter.numel() for parameter in ours.parameters()), "threads": arguments.threads,
    }  # fmt: skip
    return Report("step_cpu", table, facts)


def _config(arguments: argparse.Namespace) -> ModelConfig:
    width, heads = arguments.width, max(2, arguments.width // 32)
    vision = VisionConfig(
        image_size=SIDE, patch_size=PATCH, width=96, layers=4, heads=4, mlp_width=192, feature_layers=(-1, -3)
    )  # fmt: skip
    decoder = DecoderConfig(
        width=width, layers=arguments.layers, heads=heads, kv_heads=heads // 2, head_dim=width // heads, mlp_width=3 * width,
        vocab_size=arguments.vocab, predict_extra=False,
    )  # fmt: skip
    connector = ConnectorConfig(heads=4, pool_width=96, mlp_width=192)
    return ModelConfig(name="benchmark", vision=vision, connector=connector, decoder=decoder)


def _example(rng: np.random.Generator, vocab: int, longest: int) -> Encoded:
    """Pictures and words, then answers; most are short, some are not, as in a mixture of captions and questions."""
    start, end, patch = (vocab + EXTRA_TOKENS.index(name) for name in ("<im_start>", "<im_end>", "<im_patch>"))
    pictures, branches = int(rng.integers(0, 3)), int(rng.integers(1, 9))
    tokens, image, slots = list(rng.integers(0, vocab, 3)), [-1] * 3, []
    for number in range(pictures):
        slots += range(len(tokens) + 1, len(tokens) + 1 + len(_POOL))
        tokens += [start, *[patch] * len(_POOL), end]
        image += [number] * (len(_POOL) + 2)
    prefix = len(tokens)
    position, branch, weights = list(range(prefix)), [PREFIX] * prefix, [0.0] * prefix
    for number in range(branches):
        size = int(np.clip(rng.lognormal(np.log(longest / 8), 0.8), 4, longest))
        tokens += list(rng.integers(0, vocab, size))
        position += range(prefix, prefix + size)
        branch += [number] * size
        weights += [1.0] * (size - 1) + [0.0]
    patches = (SIDE // PATCH) ** 2
    pool = [np.where(_POOL < 0, -1, _POOL + number * patches) for number in range(pictures)]
    return Encoded(
        tokens=np.array(tokens, np.int32), targets=np.array([*tokens[1:], 0], np.int32), weights=np.array(weights, np.float32),
        position=np.array(position, np.int32), branch=np.array(branch, np.int32),
        image=np.array(image + [-1] * (len(tokens) - prefix), np.int32),
        crops=rng.integers(0, 256, (pictures, SIDE, SIDE, 3), dtype=np.uint8),
        pool=np.concatenate(pool).astype(np.int32) if pool else np.zeros((0, 4), np.int32),
        slot=np.array(slots, np.int32), task=0,
    )  # fmt: skip


def _ours(model: Molmo2, examples: list[Encoded], longest: int) -> tuple[Step, tuple[int, int]]:
    sizes = np.array([len(example.tokens) for example in examples])
    crops = np.array([len(example.crops) for example in examples])
    packs = plan_window(sizes, crops, longest, max(1, int(crops.sum())), "portfolio")
    rows = [[examples[number] for number in pack] for pack in packs]
    optimiser = torch.optim.AdamW(model.parameters(), lr=1e-4)

    def step() -> float:
        batch = TensorBatch.from_numpy(collate(rows, longest, (SIDE // PATCH) ** 2))
        optimiser.zero_grad()
        total, _, _ = weighted_cross_entropy(
            model(batch), model.head_weight, batch.loss_index, batch.loss_target, batch.loss_weight, batch.loss_task, 1, 1024
        )
        (total / batch.loss_weight.sum()).backward()
        optimiser.step()
        return float(total.detach())

    return step, (len(rows), longest)


def _theirs(model: Any, examples: list[Encoded]) -> tuple[Step, tuple[int, int]]:
    rows = []
    for example in examples:
        for number in range(int(example.branch.max()) + 1):
            rows.append((example, np.flatnonzero((example.branch == PREFIX) | (example.branch == number))))
    shape = (len(rows), max(len(keep) for _, keep in rows))
    ids, mask, kinds = (torch.zeros(shape, dtype=torch.int64) for _ in range(3))
    labels = torch.full(shape, -100)
    pixels, pools, crops, patches = [], [], 0, (SIDE // PATCH) ** 2
    for row, (example, keep) in enumerate(rows):
        size = len(keep)
        ids[row, :size] = torch.from_numpy(example.tokens[keep])
        mask[row, :size] = 1
        kinds[row, :size] = torch.from_numpy((example.image[keep] >= 0).astype(np.int64))
        learned = np.flatnonzero(example.weights[keep])
        labels[row, learned + 1] = torch.from_numpy(example.targets[keep][learned]).long()
        pixels.append(patchify(torch.from_numpy(example.crops), PATCH))
        pools.append(torch.from_numpy(np.where(example.pool < 0, -1, example.pool + crops * patches)).long())
        crops += len(example.crops)
    inputs = {
        "input_ids": ids, "attention_mask": mask, "mm_token_type_ids": kinds, "labels": labels, "pixel_values": torch.cat(pixels),
        "image_token_pooling": torch.cat(pools), "image_num_crops": torch.ones(crops, dtype=torch.int64),
        "image_grids": torch.tensor([[*_WINDOWS.shape[:2], 0, 0]] * crops),
    }  # fmt: skip
    count = int((labels >= 0).sum())
    optimiser = torch.optim.AdamW(model.parameters(), lr=1e-4)

    def step() -> float:
        optimiser.zero_grad()
        loss = model(**inputs).loss
        loss.backward()
        optimiser.step()
        return float(loss.detach()) * count

    return step, shape
