"""Packing: how full planned sequences are in the dimension that binds, and what planning costs an example.

Fill = max(sum of tokens / budget, sum of visual units / budget) / sequences, everything packed and drained: 1 is the best that any
packer could reach, and it cannot always be reached. Beside the planner, on the same examples in the same run: the release's packer,
a knapsack over a pool of 48 (`pool.py`), and first-fit with 64 open sequences, the oldest sent off when nothing fits. `ratio` is
the smallest over profiles of our portfolio's fill ÷ the release's. `--sequences FOLDER --mixture FOLDER` measure the lengths of
materialised `<stage>_sequences` and `<stage>_mixture` assets instead of the synthetic profiles, whose shapes stand in `PROFILES`.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.pool import POOL, pool_knapsack
from benchmarks.report import Report
from training_backend.data.order import Mixture
from training_backend.encode.draws import VARIANTS, position_keys
from training_backend.pack.lengths import Lengths as LengthTable
from training_backend.pack.plan import PLANNER_VERSION, Method, binding_fill, plan_window
from training_backend.pack.sequences import read_sequences

Lengths = tuple[NDArray[np.int64], NDArray[np.int64]]
OPEN = 64
RELEASED = f"knapsack, pool of {POOL}"

TOKENS_PER_CROP, TOKENS_PER_FRAME = 205, 89
"""Of the released layout: an image's crops with columns, a frame with its time."""
PROFILES: dict[str, tuple[int, int, int]] = {
    # tokens, visual units (crops or frames), most frames of a video
    "pretrain": (2_536, 16, 0),
    "sft": (16_384, 128, 128),
    "long": (36_864, 384, 384),
}


def options(parser: argparse.ArgumentParser) -> None:
    """How much is packed."""
    parser.add_argument("--examples", type=int, default=8192)
    parser.add_argument("--window", type=int, default=1024)
    parser.add_argument("--sequences", type=Path, help="folder of a <stage>_sequences asset")
    parser.add_argument("--mixture", type=Path, help="folder of the <stage>_mixture asset that it was made from")


def run(arguments: argparse.Namespace) -> Report:
    """One row a profile and planner."""
    rows: list[dict[str, Any]] = []
    facts: dict[str, object] = {"window": arguments.window, "planner": PLANNER_VERSION}
    if arguments.sequences:
        if not arguments.mixture:
            raise SystemExit("--sequences needs --mixture: lengths come in the mixture's order")
        cases = {arguments.sequences.parent.name: stored(arguments.sequences, arguments.mixture, arguments.examples)}
    else:
        cases = {name: (synthetic(name, arguments.examples), PROFILES[name][:2]) for name in PROFILES}
    for name, (lengths, budgets) in cases.items():
        for planner, plan in planners(arguments.window, 1.0 if name == "pretrain" else 30.0).items():
            started = time.perf_counter()
            packs = plan(*lengths, *budgets)
            spent = time.perf_counter() - started
            check(packs, *lengths, *budgets)
            rows.append(
                {
                    "profile": name,
                    "planner": planner,
                    "examples": len(lengths[0]),
                    "sequences": len(packs),
                    "fill": binding_fill(int(lengths[0].sum()), int(lengths[1].sum()), len(packs), *budgets),
                    "us per example": 1e6 * spent / len(lengths[0]),
                }
            )
    fill = {(row["profile"], row["planner"]): row["fill"] for row in rows}
    return Report("packing", rows, facts, min(fill[name, "portfolio"] / fill[name, RELEASED] for name in cases))


def check(packs: list[list[int]], tokens: NDArray[np.int64], visual: NDArray[np.int64], max_tokens: int, max_visual: int) -> None:
    """Every example exactly once, no budget exceeded: a fill reached otherwise would be worth nothing."""
    if sorted(index for pack in packs for index in pack) != list(range(len(tokens))):
        raise SystemExit("the planner lost or repeated examples")
    if any(tokens[pack].sum() > max_tokens or visual[pack].sum() > max_visual for pack in packs):
        raise SystemExit("the planner exceeded a budget")


def planners(window: int, crop_value: float = 30.0) -> dict[str, Callable[..., list[list[int]]]]:
    """Our planner in both methods, window by window; the release's and first-fit over the whole stream.

    `crop_value`: what a crop is worth to the release's, in tokens: 1 in pre-training, 30 after."""

    def windows(method: Method) -> Callable[..., list[list[int]]]:
        def plan(tokens: NDArray[np.int64], visual: NDArray[np.int64], max_tokens: int, max_visual: int) -> list[list[int]]:
            packs = []
            for start in range(0, len(tokens), window):
                part = slice(start, start + window)
                for pack in plan_window(tokens[part], visual[part], max_tokens, max_visual, method):
                    packs.append([start + index for index in pack])
            return packs

        return plan

    return {
        "portfolio": windows("portfolio"),
        "cheap": windows("cheap"),
        RELEASED: partial(pool_knapsack, crop_value=crop_value),
        f"first-fit, {OPEN} open": first_fit,
    }


def first_fit(tokens: NDArray[np.int64], visual: NDArray[np.int64], max_tokens: int, max_visual: int) -> list[list[int]]:
    """Each example into the oldest open sequence that has room; the oldest leaves when none has."""
    done: list[list[int]] = []
    space: list[list[int]] = []
    held: list[list[int]] = []
    for index, (length, units) in enumerate(zip(tokens.tolist(), visual.tolist(), strict=True)):
        for room, pack in zip(space, held, strict=True):
            if room[0] >= length and room[1] >= units:
                room[0] -= length
                room[1] -= units
                pack.append(index)
                break
        else:
            if len(held) == OPEN:
                space.pop(0)
                done.append(held.pop(0))
            space.append([max_tokens - length, max_visual - units])
            held.append([index])
    return done + held


def synthetic(profile: str, count: int, seed: int = 0) -> Lengths:
    """(tokens, visual units) of `count` examples.

    pretrain: images of 2 to 9 crops with captions. sft and long: 55 % images (2 to 9 crops), 10 % text, 35 % video of 8 frames to
    the most, of which a sixth sit exactly at the most, as long videos do.
    """
    rng = np.random.default_rng(seed)
    max_tokens, _, frames = PROFILES[profile]
    kind = rng.random(count)
    crops = rng.integers(2, 10, count)
    words = rng.lognormal(5.0, 0.8, count).astype(np.int64) + 8
    tokens, visual = crops * TOKENS_PER_CROP + words, crops
    if frames:
        shown = np.where(rng.random(count) < 1 / 6, frames, rng.integers(8, frames + 1, count))
        tokens = np.where(kind < 0.35, shown * TOKENS_PER_FRAME + words, tokens)
        visual = np.where(kind < 0.35, shown, visual)
        tokens = np.where(kind >= 0.9, words, tokens)
        visual = np.where(kind >= 0.9, 0, visual)
    return np.minimum(tokens, max_tokens), visual


def stored(sequences: Path, mixture: Path, count: int) -> tuple[Lengths, tuple[int, int]]:
    """Lengths of the mixture's first `count` positions as the loader sees them, and the sequences' budgets."""
    made = read_sequences(sequences)
    order = Mixture.load(mixture)
    datasets, _, rows = order.window(0, count)
    variants = (position_keys(made.settings.seed, 0, count) % np.uint64(VARIANTS)).astype(np.int64)
    tokens, visual = np.empty(count, dtype=np.int64), np.empty(count, dtype=np.int64)
    for number, name in enumerate(order.datasets):
        mine = np.flatnonzero(datasets == number)
        table = LengthTable.load(sequences / "lengths" / f"{name}.npz", made.datasets[name].rows)
        tokens[mine] = table.tokens[rows[mine], variants[mine]]
        visual[mine] = table.visual[rows[mine], variants[mine]]
    return (tokens, visual), (made.settings.pack.max_tokens, made.settings.pack.max_visual)
