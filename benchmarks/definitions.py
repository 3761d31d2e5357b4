"""Definitions: how long every profile takes to load in a fresh interpreter, its peak memory, and that nothing heavy is imported.

A row a profile: the best of several fresh processes, wall seconds from the interpreter's start; `heavy` lists modules of the
forbidden list that were imported, and ends the run with an error if there are any. Beside it, in the same run, `import dagster`.

With `--graph` also, in one process: `observe seconds`, the job that observes all sets of the profile on a hub on this machine, and
`no-op seconds`, a second run over raw, media and validated of all its sets, in which nothing changes. The sets are real ones in
small: the fixture of each published layout with its pictures and films, so that nearly all (`sets ready`) hold rows.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.report import Report

if TYPE_CHECKING:
    from molmo2_assets.profile import Profile

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
    parser.add_argument("--graph", metavar="PROFILE", nargs="?", const="release", help="observe and re-run this profile's sets")
    parser.add_argument("--datasets", type=int, help="only the first so many of its sets")


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
    facts: dict[str, object] = {"repeats": arguments.repeats, "looked for": ", ".join(HEAVY)}
    if arguments.graph:
        facts |= _graph(arguments.graph, arguments.datasets)
    return Report("definitions", rows, facts)


def _graph(name: str, most: int | None) -> dict[str, object]:
    """Seconds of observing, and of a run in which nothing changes."""
    import dagster as dg

    from molmo2_assets.graph.hub import hub_definitions
    from molmo2_assets.profile import load_profile
    from tests.support.hub_server import serve_hub

    profile = load_profile(name)
    specs = [spec for spec in profile.datasets.values() if spec.source.kind == "hub"][:most]
    with serve_hub() as hub, dg.instance_for_test() as instance:
        for spec in specs:
            hub.add(str(spec.source.repo), {"README.md": b"#"})
        before = os.environ.get("HF_ENDPOINT")
        os.environ["HF_ENDPOINT"] = hub.url
        try:
            job = hub_definitions(specs).resolve_job_def("observe_hub_job")
            started = time.perf_counter()
            seen = job.execute_in_process(instance=instance).get_asset_observation_events()
            observed = time.perf_counter() - started
        finally:
            os.environ.pop("HF_ENDPOINT")
            if before is not None:
                os.environ["HF_ENDPOINT"] = before
    if len(seen) != len(specs):
        raise SystemExit(f"{len(seen)} of {len(specs)} sets were observed")
    return {"graph": name, "sets on the hub": len(specs), "observe seconds": round(observed, 2), **_again(profile, most)}


def _again(profile: Profile, most: int | None) -> dict[str, object]:
    """Seconds of a run over all sets of a profile, laid out on disk, and of the same run once more."""
    import dagster as dg

    from molmo2_assets.graph.datasets import dataset_assets
    from molmo2_assets.home import Home
    from tests.support.laid_out import lay_out

    spent, states = [], []
    with tempfile.TemporaryDirectory() as folder, dg.instance_for_test() as instance:
        home = Home(Path(folder) / "home", profile.name)
        own = [spec for spec in profile.datasets.values() if spec.source.kind not in ("generated", "package")][:most]
        specs = [lay_out(spec, Path(folder) / "kept") for spec in own]
        assets = [layer for spec in specs for layer in dataset_assets(home, profile, spec)]
        for _ in range(2):
            started, busy = time.perf_counter(), time.process_time()
            dg.materialize(assets, instance=instance, raise_on_error=False)  # a view of which a fixture has no row fails its check
            spent.append((time.perf_counter() - started, time.process_time() - busy))
            found = [home.store("validated").current(f"validated/{spec.name}") for spec in specs]
            states.append([(at, manifest.state, manifest.counts.get("examples", 0)) for at, manifest in filter(None, found)])
    if states[0] != states[1] or len(states[0]) != len(specs):
        raise SystemExit("the second run made something again")
    ready = sum(state == "ready" and examples > 0 for _, state, examples in states[0])
    return {
        "sets": len(specs), "sets ready": ready, "steps": len(assets), "first run seconds": round(spent[0][0], 2),
        "no-op seconds": round(spent[1][0], 2), "of them on the CPU": round(spent[1][1], 2),
    }  # fmt: skip


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
