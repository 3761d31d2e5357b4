"""Packing: how full planned sequences are in the dimension that binds, how long an example waits, and what planning costs.

Lengths are those of a profile's three stages by the catalogue's own length model (`length_model.py`): its datasets, weights and
recipe, the encoder's arithmetic. Fill = max(sum of tokens / budget, sum of visual units / budget) / sequences, everything packed
and drained: 1 is the best that any packer could reach, `bound` what no plan of the whole stream can exceed (Martello and Toth's
L2). Wait = the most examples that are handed out before one which came earlier. Microseconds are of processor time. `restart` is
what a stopped run needs to find a pack again, behind thousands of windows (`restart.py`).

Beside the planner, on the same examples in the same run: the release's packer, a knapsack over a pool of 48 (`pool.py`); TRL's
best-fit decreasing, in its own environment (`peers.py`), and a greedy knapsack in the way of Energon, which brings none of its own
(`token_packers.py`). These two know tokens alone, so their fill is of tokens, and `over crops` counts the sequences that break the
other budget. `ratio` is the smallest over stages of our fill, by the stage's own method, ÷ the release's.
`--sequences FOLDER --mixture FOLDER` measure the lengths of materialised `<stage>_sequences` and `<stage>_mixture` assets instead.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from benchmarks.length_model import LengthModel
from benchmarks.peers import PeersAbsent, ask
from benchmarks.pool import POOL, pool_knapsack
from benchmarks.report import Report
from benchmarks.restart import restart
from benchmarks.token_packers import greedy_knapsack
from molmo2_assets.profile import load_profile
from tests.support.examples import tokenizer_at
from training_backend.config import PackConfig
from training_backend.data.order import Mixture
from training_backend.encode.draws import VARIANTS, position_keys
from training_backend.pack.lengths import Lengths as LengthTable
from training_backend.pack.plan import PLANNER_VERSIONS, Method, binding_fill, lower_bound, plan_window
from training_backend.pack.sequences import read_sequences

Lengths = tuple[NDArray[np.int64], NDArray[np.int64]]
RELEASED = f"knapsack, pool of {POOL}"
TRL, ENERGON = "TRL, tokens alone", "greedy, tokens alone"


def options(parser: argparse.ArgumentParser) -> None:
    """How much is packed."""
    parser.add_argument("--profile", default="report", help="profile whose stages, mixtures and recipes are modelled")
    parser.add_argument("--stages", nargs="+", default=["pretrain", "sft", "long_context"])
    parser.add_argument("--examples", type=int, default=8192)
    parser.add_argument("--window", type=int, help="default: the stage's own")
    parser.add_argument("--sequences", type=Path, help="folder of a <stage>_sequences asset")
    parser.add_argument("--mixture", type=Path, help="folder of the <stage>_mixture asset that it was made from")


def run(arguments: argparse.Namespace) -> Report:
    """One row a stage and planner."""
    rows: list[dict[str, Any]] = []
    facts: dict[str, object] = {"planners": PLANNER_VERSIONS}
    if arguments.sequences:
        if not arguments.mixture:
            raise SystemExit("--sequences needs --mixture: lengths come in the mixture's order")
        cases = {arguments.sequences.parent.name: stored(arguments.sequences, arguments.mixture, arguments.examples)}
    else:
        facts["profile"] = arguments.profile
        cases = modelled(arguments.profile, arguments.stages, arguments.examples)
    for name, (lengths, pack) in cases.items():
        pack = msgspec.structs.replace(pack, window=arguments.window or pack.window)
        budgets = (pack.max_tokens, pack.max_visual)
        left_out = int((lengths[0] <= 1).sum())
        if left_out:
            facts[f"{name}, left out by the recipe"] = left_out
        facts[f"{name}, method and window"] = f"{pack.method}, {pack.window}"
        facts[f"{name}, restart"] = restart(lengths, pack)
        for planner, plan in planners(pack.window, 1.0 if name == "pretrain" else 30.0).items():
            started = time.process_time()
            packs = plan(*lengths, *budgets)
            rows.append(_row(name, planner, packs, time.process_time() - started, lengths, budgets))
        # The others know tokens alone: crops have no limit for them.
        blind = (budgets[0], int(lengths[1].sum()) + 1)
        started = time.process_time()
        packs = greedy_knapsack(lengths[0], budgets[0], pack.window)
        rows.append(_row(name, ENERGON, packs, time.process_time() - started, lengths, blind, budgets))
        try:
            answer = ask("trl_bfd", lengths=lengths[0].tolist(), budget=budgets[0])
            rows.append(_row(name, TRL, answer["packs"], answer["seconds"], lengths, blind, budgets))
        except PeersAbsent as absent:
            facts["TRL"] = str(absent)
    fill = {(row["stage"], row["planner"]): row["fill"] for row in rows}
    return Report("packing", rows, facts, min(fill[name, pack.method] / fill[name, RELEASED] for name, (_, pack) in cases.items()))


def _row(
    name: str,
    planner: str,
    packs: list[list[int]],
    seconds: float,
    lengths: Lengths,
    limits: tuple[int, int],
    budgets: tuple[int, int] | None = None,
) -> dict[str, Any]:
    """`limits` are the budgets that this planner keeps; what exceeds one of `budgets` is counted."""
    check(packs, *lengths, *limits)
    tokens, visual = lengths
    budgets = budgets or limits
    token_blind = budgets is not limits
    used = (int(tokens.sum()), 0 if token_blind else int(visual.sum()))
    return {
        "stage": name,
        "planner": planner,
        "examples": len(tokens),
        "sequences": len(packs),
        "fill": binding_fill(*used, len(packs), *budgets),
        "bound": binding_fill(*used, lower_bound(tokens, visual, *limits), *budgets),
        "over crops": sum(int(visual[pack].sum()) > budgets[1] for pack in packs),
        "longest wait": longest_wait(packs),
        "us per example": 1e6 * seconds / len(tokens),
    }


def longest_wait(packs: list[list[int]]) -> int:
    """Examples handed out before one that came earlier in the stream, at worst."""
    order = np.array([index for pack in packs for index in pack])
    return int(np.maximum(np.arange(len(order)) - order, 0).max())


def check(packs: list[list[int]], tokens: NDArray[np.int64], visual: NDArray[np.int64], max_tokens: int, max_visual: int) -> None:
    """Every example exactly once, no budget exceeded: a fill reached otherwise would be worth nothing."""
    if sorted(index for pack in packs for index in pack) != list(range(len(tokens))):
        raise SystemExit("the planner lost or repeated examples")
    if any(tokens[pack].sum() > max_tokens or visual[pack].sum() > max_visual for pack in packs):
        raise SystemExit("the planner exceeded a budget")


def planners(window: int, crop_value: float = 30.0) -> dict[str, Callable[..., list[list[int]]]]:
    """Our planner in both methods, window by window; the release's over the whole stream.

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
    }


def modelled(profile_name: str, stages: list[str], count: int) -> dict[str, tuple[Lengths, PackConfig]]:
    """Lengths of the first `count` positions of each stage's mixture by the catalogue's model, and how the stage packs."""
    profile = load_profile(profile_name)
    found = {}
    with tempfile.TemporaryDirectory() as folder:
        tokenizer = tokenizer_at(Path(folder))
        for name in stages:
            if name not in profile.stages:
                raise SystemExit(f"profile {profile_name} has no stage {name}; known: {', '.join(profile.stages)}")
            stage = profile.stages[name]  # type: ignore[index]
            found[name] = (LengthModel(profile, stage, tokenizer).lengths(count), stage.pack)
    return found


def stored(sequences: Path, mixture: Path, count: int) -> tuple[Lengths, PackConfig]:
    """Lengths of the mixture's first `count` positions as the loader sees them, and how the sequences are packed."""
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
    return (tokens, visual), made.settings.pack
