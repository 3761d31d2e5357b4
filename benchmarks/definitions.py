"""Definitions: how long every profile takes to load in a fresh interpreter, its peak memory, and that nothing heavy is imported.

A row a profile: the best of several fresh processes, wall seconds from the interpreter's start; `heavy` lists modules of the
forbidden list that were imported, and ends the run with an error if there are any. Beside it, in the same run, `import dagster`.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from pathlib import Path

from benchmarks.report import Report

HEAVY = ("torch", "polars", "duckdb", "pandera", "pyarrow", "PIL", "av", "matplotlib", "scipy", "tokenizers", "lightning_fabric")

_LOAD = """
import json, resource, sys
{body}
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
heavy = [name for name in {heavy!r} if name in sys.modules]
print(json.dumps({{"assets": assets, "checks": checks, "peak": peak, "heavy": heavy, "modules": len(sys.modules)}}))
"""
_BODY = """
from molmo2_assets.graph.build import build_definitions
from molmo2_assets.profile import load_profile
defs = build_definitions(load_profile({profile!r}))
graph = defs.resolve_asset_graph()
assets, checks = len(graph.get_all_asset_keys()), len(graph.asset_check_keys)
"""
_DAGSTER = """
import dagster
assets = checks = 0
"""


def options(parser: argparse.ArgumentParser) -> None:
    """Which profiles, how often."""
    parser.add_argument("--profile", action="append", help="may be repeated; default every profile of the catalogue")
    parser.add_argument("--repeats", type=int, default=3)


def profiles() -> list[str]:
    """Names of the profiles that ship with the catalogue."""
    import molmo2_assets

    folder = Path(molmo2_assets.__path__[0]) / "catalog" / "profiles"
    return sorted(path.stem for path in folder.glob("*.yaml"))


def run(arguments: argparse.Namespace) -> Report:
    """One row a profile. Exits with an error naming heavy modules that loading imported."""
    rows = [_measure("(import dagster)", _DAGSTER, arguments.repeats)]
    for profile in arguments.profile or profiles():
        rows.append(_measure(profile, _BODY.format(profile=profile), arguments.repeats))
    dirty = {str(row["profile"]): str(row["heavy"]) for row in rows[1:] if row["heavy"] != "-"}
    if dirty:
        raise SystemExit(f"loading definitions imported what it must not: {dirty}")
    return Report("definitions", rows, {"repeats": arguments.repeats, "looked for": ", ".join(HEAVY)})


def _measure(name: str, body: str, repeats: int) -> dict[str, object]:
    best, seen = float("inf"), {}
    for _ in range(repeats):
        started = time.perf_counter()
        done = subprocess.run(
            [sys.executable, "-c", _LOAD.format(body=body, heavy=HEAVY)],
            cwd=Path(__file__).parents[1],
            env={**os.environ, "PYTHONDONTWRITEBYTECODE": "0"},
            capture_output=True,
            text=True,
            check=False,
        )
        wall = time.perf_counter() - started
        if done.returncode:
            raise SystemExit(f"loading {name} failed:\n{done.stderr}")
        seen = json.loads(done.stdout.splitlines()[-1])
        best = min(best, wall)
    return {
        "profile": name,
        "assets": seen["assets"],
        "checks": seen["checks"],
        "seconds": round(best, 3),
        "peak MiB": round(seen["peak"], 1),
        "modules": seen["modules"],
        "heavy": ", ".join(seen["heavy"]) or "-",
    }
