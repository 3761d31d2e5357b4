"""Mixture: nanoseconds an example of `Mixture.window`, and the time to seek far into the run.

Beside it in the same process: drawing datasets independently at random and rows from one permutation a dataset, as a plain loader
would do in numpy, which can only reach a position by drawing everything before it. In the peers' own environment (`make peers`), on
the same weights and sizes: the sample numbers of mosaicml-streaming, and `datasets.interleave_datasets`. Both make an order of
`--peer-positions` whole, so their seek is their time for that; `--seek` positions would take them its multiple. `ratio` is the
faster peer's nanoseconds ÷ ours. Nanoseconds are of processor time.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.peers import PeersAbsent, ask
from benchmarks.report import Report
from training_backend.data.order import Mixture, MixtureEntry, integer_weights

PEERS = {"mosaicml-streaming": "streaming_order", "datasets.interleave_datasets": "interleave"}
Window = Callable[[int, int], Any]
"""(start, count) → arrays of that length."""


def options(parser: argparse.ArgumentParser) -> None:
    """Sizes of what is measured."""
    parser.add_argument("--datasets", type=int, default=100)
    parser.add_argument("--positions", type=int, default=1_000_000)
    parser.add_argument("--window", type=int, default=4096)
    parser.add_argument("--peer-positions", type=int, default=100_000)
    parser.add_argument("--seek", type=int, default=1_000_000_000)


def run(arguments: argparse.Namespace) -> Report:
    """One row a method."""
    sizes = [1_000 + 37 * number * number for number in range(arguments.datasets)]
    roots = np.sqrt(np.array(sizes, dtype=np.float64))
    weights = (roots / roots.sum()).tolist()
    started = time.perf_counter()
    whole = integer_weights(weights)
    entries = [MixtureEntry(dataset=f"d{n}", rows=sizes[n], data_version="v", weight=whole[n]) for n in range(len(sizes))]
    mixture = Mixture.build(0, entries)
    build = time.perf_counter() - started
    started = time.perf_counter()
    mixture.window(0, arguments.window)
    first = time.perf_counter() - started

    ours = _per_position(mixture.window, arguments.positions, arguments.window)
    started = time.perf_counter()
    mixture.window(arguments.seek, arguments.window)
    seek = time.perf_counter() - started
    counts = np.bincount(mixture.window(0, arguments.positions)[0], minlength=len(sizes))
    error = float(np.abs(counts - np.array(whole) / sum(whole) * arguments.positions).max())

    draw = _independent(np.array(weights), np.array(sizes))
    plain = _per_position(draw, arguments.positions, arguments.window)
    drawn = np.random.default_rng(0).multinomial(arguments.positions, weights)
    rows = [
        {"method": "Mixture.window", "ns per example": ours, "seek ms": 1e3 * seek, "worst count error": error},
        {
            "method": "independent draws",
            "ns per example": plain,
            "seek ms": plain * arguments.seek / 1e6,
            "worst count error": float(np.abs(drawn - np.array(weights) * arguments.positions).max()),
        },
    ]
    theirs = {}
    facts: dict[str, Any] = {}
    for name, question in PEERS.items():
        try:
            answer = ask(question, weights=weights, sizes=sizes, positions=arguments.peer_positions)
        except PeersAbsent as absent:
            facts["peers"] = str(absent)
            break
        counts = np.array(answer["counts"]) - np.array(weights) * answer["positions"]
        theirs[name] = 1e9 * answer["seconds"] / answer["positions"]
        rows.append(
            {"method": name, "ns per example": theirs[name], "seek ms": 1e3 * answer["seek"],
             "worst count error": float(np.abs(counts).max())}
        )  # fmt: skip
    facts |= {
        "datasets": arguments.datasets,
        "positions": arguments.positions,
        "window": arguments.window,
        "seek to": arguments.seek,
        "build seconds": round(build, 3),
        "first window ms": round(1e3 * first, 1),
        "seek of independent draws": "extrapolated from its cost per example",
    }
    return Report("mixture", rows, facts, min(theirs.values()) / ours if theirs else None)


def _per_position(window: Window, positions: int, size: int) -> float:
    window(0, size)
    started = time.process_time()
    for start in range(0, positions, size):
        window(start, size)
    return 1e9 * (time.process_time() - started) / (-(-positions // size) * size)


def _independent(weights: NDArray[np.float64], sizes: NDArray[np.int64]) -> Window:
    rng = np.random.default_rng(0)
    orders = [rng.permutation(size) for size in sizes]
    taken = np.zeros(len(sizes), dtype=np.int64)

    def window(start: int, count: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        datasets = rng.choice(len(sizes), size=count, p=weights)
        rows = np.empty(count, dtype=np.int64)
        for dataset in np.unique(datasets):
            places = np.flatnonzero(datasets == dataset)
            rows[places] = orders[dataset][(taken[dataset] + np.arange(len(places))) % sizes[dataset]]
            taken[dataset] += len(places)
        return datasets, rows

    return window
