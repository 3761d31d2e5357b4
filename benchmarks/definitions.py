"""Definitions: how long every profile takes to load in a fresh interpreter, its peak memory, and that nothing heavy is imported.

A row a profile: the best of several fresh processes, wall seconds from the interpreter's start; `heavy` lists modules of the
forbidden list that were imported, and ends the run with an error if there are any. Beside it, in the same run, `import dagster`.

With `--graph` also, in one process: `observe seconds`, the job that observes all sets of the profile on a hub on this machine,
`no-op seconds`, a second run over raw, media and validated of all its sets, in which nothing changes, and the same of `validated
alone`. The sets are real ones in small: the fixture of each published layout with its pictures and films, so that nearly all (`sets
ready`) hold rows. History is kept as activate.sh configures it. `CPU` beside each tells how much of it is not waiting for the disk.
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
    from molmo2_assets.graph.hub import hub_definitions
    from molmo2_assets.profile import load_profile
    from tests.support.homes import activated_instance
    from tests.support.hub_server import serve_hub

    profile = load_profile(name)
    specs = [spec for spec in profile.datasets.values() if spec.source.kind == "hub"][:most]
    with serve_hub() as hub, tempfile.TemporaryDirectory() as folder, activated_instance(Path(folder)) as instance:
        for spec in specs:
            hub.add(str(spec.source.repo), {"README.md": b"#"})
        before = os.environ.get("HF_ENDPOINT")
        os.environ["HF_ENDPOINT"] = hub.url
        try:
            job = hub_definitions(specs).resolve_job_def("observe_hub_job")
            started, busy = time.perf_counter(), time.process_time()
            seen = job.execute_in_process(instance=instance).get_asset_observation_events()
            observed, busy = time.perf_counter() - started, time.process_time() - busy
        finally:
            os.environ.pop("HF_ENDPOINT")
            if before is not None:
                os.environ["HF_ENDPOINT"] = before
    if len(seen) != len(specs):
        raise SystemExit(f"{len(seen)} of {len(specs)} sets were observed")
    return {
        "graph": name, "sets on the hub": len(specs), "observe seconds": round(observed, 2), "observe CPU": round(busy, 2),
        **_again(profile, most),
    }  # fmt: skip


def _again(profile: Profile, most: int | None) -> dict[str, object]:
    """Seconds of a run over all sets of a profile, laid out on disk, of the same run once more, and of its last layer alone."""
    import dagster as dg

    from molmo2_assets.graph.datasets import dataset_assets
    from molmo2_assets.home import Home
    from tests.support.homes import activated_instance
    from tests.support.laid_out import lay_out

    facts: dict[str, object] = {}
    with tempfile.TemporaryDirectory() as folder, activated_instance(Path(folder) / "dagster") as instance:
        home = Home(Path(folder) / "home", profile.name)
        own = [spec for spec in profile.datasets.values() if spec.source.kind not in ("generated", "package")][:most]
        specs = [lay_out(spec, Path(folder) / "kept") for spec in own]
        assets = [layer for spec in specs for layer in dataset_assets(home, profile, spec)]
        last = [key for asset in assets for key in asset.keys if key.path[0] == "validated"]

        def run(name: str, *layers: dg.AssetKey) -> list[str]:
            started, busy = time.perf_counter(), time.process_time()
            # A view of which a fixture has no row fails its check.
            done = dg.materialize(assets, selection=list(layers) or None, instance=instance, raise_on_error=False)
            facts[f"{name} seconds"] = round(time.perf_counter() - started, 2)
            facts[f"{name} CPU"] = round(time.process_time() - busy, 2)
            return [str(event.materialization.metadata["cache"].value) for event in done.get_asset_materialization_events()]

        run("first run")
        found = [home.store("validated").current(f"validated/{spec.name}") for spec in specs]
        states = [(manifest.state, manifest.counts.get("examples", 0)) for _, manifest in filter(None, found)]
        if run("no-op") != ["hit"] * len(assets) or run("validated alone", *last) != ["hit"] * len(specs):
            raise SystemExit("a later run made something again")
    ready = sum(state == "ready" and examples > 0 for state, examples in states)
    return {"sets": len(specs), "sets ready": ready, "steps": len(assets), **facts}


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
