"""Steps: what a step of the graph costs beyond its work, in one process.

The data layers of a profile are materialised in a fresh home, then again and again: later runs do nothing but look, and their wall
time over their steps is the graph's own cost. Beside it, in turn with it: bare Dagster assets with the same keys, dependencies and
checks, which return at once. Both write a history that is configured as activate.sh does it.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import dagster as dg

from benchmarks.report import Report
from molmo2_assets.graph.build import build_definitions
from molmo2_assets.home import Home
from molmo2_assets.profile import load_profile
from tests.support.homes import activated_instance

_QUIET = {"loggers": {"console": {"config": {"log_level": "ERROR"}}}}


def options(parser: argparse.ArgumentParser) -> None:
    """Which part of which profile."""
    parser.add_argument("--profile", default="demo")
    parser.add_argument("--layers", nargs="+", default=["raw", "media", "validated"], help="first segments of the keys to run")
    parser.add_argument("--repeats", type=int, default=3, help="runs after the first; the best counts")
    parser.add_argument("--datasets", nargs="+", help="only these; default all of the profile")


def run(arguments: argparse.Namespace) -> Report:
    """Rows: bare first and again, ours first and again."""
    with tempfile.TemporaryDirectory() as folder:
        ours = build_definitions(load_profile(arguments.profile), Home(Path(folder) / "home", arguments.profile))
        graph = ours.resolve_asset_graph()
        keys = [
            key
            for key in sorted(graph.get_all_asset_keys())
            if key.path[0] in arguments.layers and (not arguments.datasets or key.path[1] in arguments.datasets)
        ]
        if not keys:
            raise SystemExit(f"profile {arguments.profile} has no assets of layers {arguments.layers}")
        checks = [key for key in sorted(graph.asset_check_keys) if key.asset_key in set(keys)]
        graphs = {"bare assets": _bare(graph, keys, checks), f"profile {arguments.profile}": ours}
        seconds: dict[str, list[float]] = {name: [] for name in graphs}
        with ExitStack() as stack:
            instances = {}
            for name in graphs:
                instances[name] = stack.enter_context(activated_instance(Path(folder) / name))
            # In turn, so that a busy moment of the machine falls on both.
            for _ in range(1 + arguments.repeats):
                for name, defs in graphs.items():
                    seconds[name].append(_materialise(defs, keys, instances[name]))
    rows: list[dict[str, Any]] = [
        {
            "what": f"{name}, {turn}",
            "steps": len(keys),
            "checks": len(checks),
            "seconds": spent,
            "ms per step": 1e3 * spent / len(keys),
        }
        for name, runs in seconds.items()
        for turn, spent in (("first run", runs[0]), ("again, best", min(runs[1:])))
    ]
    overhead = rows[3]["ms per step"] - rows[1]["ms per step"]
    return Report(
        "steps", rows, {"layers": arguments.layers, "repeats": arguments.repeats, "ms per step beyond bare": round(overhead, 2)}
    )


def _materialise(defs: dg.Definitions, keys: Sequence[dg.AssetKey], instance: dg.DagsterInstance) -> float:
    job = defs.resolve_implicit_global_asset_job_def()
    started = time.perf_counter()
    result = job.execute_in_process(instance=instance, asset_selection=list(keys), run_config=_QUIET)
    seconds = time.perf_counter() - started
    if not result.success:
        raise SystemExit("a step failed; its error stands above")
    return seconds


def _bare(graph: Any, keys: Sequence[dg.AssetKey], checks: Sequence[dg.AssetCheckKey]) -> dg.Definitions:
    def one(key: dg.AssetKey) -> dg.AssetsDefinition:
        names = [check.name for check in checks if check.asset_key == key]

        @dg.asset(
            key=key,
            deps=sorted(graph.get(key).parent_keys & set(keys)),
            check_specs=[dg.AssetCheckSpec(name, asset=key) for name in names],
        )
        def asset() -> dg.MaterializeResult:  # type: ignore[type-arg]
            results = [dg.AssetCheckResult(passed=True, check_name=name) for name in names]
            return dg.MaterializeResult(metadata={"rows": 1}, data_version=dg.DataVersion("1"), check_results=results)

        return asset

    return dg.Definitions(assets=[one(key) for key in keys], executor=dg.in_process_executor)
