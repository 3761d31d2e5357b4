"""`molmo2`: looking at things, from a shell.

Belongs here: arguments and printing. Every listing takes `--json`. Does not belong here: any work; each command calls the room that
does it, imported when it is asked for.
"""

from __future__ import annotations

import argparse
import difflib
import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from molmo2_assets.home import Home
    from molmo2_assets.profile import Profile


class UserError(Exception):
    """Something a person can put right; printed as one line, exit code 2."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit code."""
    options = _parser().parse_args(arguments)
    try:
        return int(options.run(options) or 0)
    except UserError as error:
        print(f"molmo2: {error}", file=sys.stderr)
        return 2
    except (ValueError, OSError) as error:
        print(f"molmo2: {error}", file=sys.stderr)
        return 2
    except BrokenPipeError:
        return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="molmo2", description="Datasets, mixtures, checkpoints and scores of a Molmo2-class model."
    )
    parser.add_argument("--profile", help="profile to look at (default: MOLMO2_PROFILE, else demo)")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)

    def command(name: str, run: Callable[[Any], Any], text: str, *, listing: bool = True) -> argparse.ArgumentParser:
        sub = commands.add_parser(name, help=text, description=text)
        sub.set_defaults(run=run)
        sub.add_argument("--profile", default=argparse.SUPPRESS, help=argparse.SUPPRESS)
        if listing:
            sub.add_argument("--json", action="store_true", help="print JSON")
        return sub

    command("demo", _demo, "materialise every asset of the profile, then print the scoreboard", listing=False)
    command("profiles", _profiles, "list profiles")
    datasets = command("datasets", _datasets, "list the profile's datasets and their state; or show one")
    datasets.add_argument("action", nargs="?", choices=["show"], help="show one dataset")
    datasets.add_argument("name", nargs="?")
    quarantine = command("quarantine", _quarantine, "rows of a dataset that were set aside")
    quarantine.add_argument("action", choices=["show"])
    quarantine.add_argument("name")
    quarantine.add_argument("--reason", help="only rows with this reason")
    mixture = command("mixture", _mixture, "weights of a mixture")
    mixture.add_argument("action", choices=["show"])
    mixture.add_argument("name")
    command("scoreboard", _scoreboard, "scores of every stage beside their blind baselines")
    runs = command("runs", _runs, "list runs; follow (attach) or stop one")
    runs.add_argument("action", nargs="?", choices=["attach", "stop"])
    runs.add_argument("name", nargs="?")
    command("stale", _stale, "assets that are out of date, and why")
    why = command("why", _why, "why one asset is out of date")
    why.add_argument("name", metavar="ASSET")
    bom = command("bom", _bom, "everything an asset was made from")
    bom.add_argument("name", metavar="ASSET")
    diff = command("diff", _diff, "rows that changed between the last two versions of a dataset")
    diff.add_argument("name", metavar="DATASET")
    command("doctor", _doctor, "what this machine has and lacks")
    command("sweep", _sweep, "close runs that a killed process left open in Dagster's history", listing=False)
    return parser


# -- shared -----------------------------------------------------------------------------------------------------------------


def _load(options: Any) -> tuple[Profile, Home]:
    from molmo2_assets.home import find_home
    from molmo2_assets.profile import load_profile

    profile = load_profile(options.profile)
    return profile, find_home(profile.name)


def _known(name: str, known: Sequence[str], what: str) -> str:
    if name in known:
        return name
    near = difflib.get_close_matches(name, known, n=1)
    hint = f"; did you mean {near[0]!r}?" if near else ""
    listed = ", ".join(known[:12]) + (" …" if len(known) > 12 else "")
    raise UserError(f"there is no {what} {name!r}{hint} Known: {listed or 'none yet'}")


def _print(options: Any, rows: Sequence[dict[str, Any]], columns: Sequence[str], empty: str = "nothing to list") -> None:
    if options.json:
        print(json.dumps(list(rows), indent=1, default=str))
        return
    if not rows:
        print(empty)
        return
    cells = [[_cell(row.get(column)) for column in columns] for row in rows]
    widths = [max(len(column), *(len(row[place]) for row in cells)) for place, column in enumerate(columns)]
    print("  ".join(column.ljust(width) for column, width in zip(columns, widths, strict=True)).rstrip())
    for row in cells:
        print("  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)).rstrip())


def _cell(value: Any) -> str:
    if value is None:
        return "–"
    if isinstance(value, float):
        return f"{value:.4g}"
    text = str(value).replace("\n", " ")
    return text if len(text) <= 72 else text[:71] + "…"


# -- commands ---------------------------------------------------------------------------------------------------------------


def _demo(options: Any) -> int:
    from molmo2_assets.graph.demo import run_profile

    profile, home = _load(options)
    return run_profile(profile, home)


def _profiles(options: Any) -> None:
    from molmo2_assets.profile import load_profile, profile_names

    rows = []
    for name in profile_names():
        profile = load_profile(name)
        rows.append(
            {"profile": name, "model": profile.model.name, "datasets": len(profile.datasets), "description": profile.description}
        )
    _print(options, rows, ("profile", "model", "datasets", "description"))


def _datasets(options: Any) -> None:
    import msgspec

    profile, home = _load(options)
    if options.action == "show":
        if not options.name:
            raise UserError("which dataset? `molmo2 datasets show NAME`")
        spec = profile.datasets[_known(options.name, sorted(profile.datasets), "dataset")]
        body = msgspec.to_builtins(spec)
        print(
            json.dumps(body, indent=1) if options.json else "\n".join(f"{key:>18}  {_full(value)}" for key, value in body.items())
        )
        return
    rows = []
    for name, spec in profile.datasets.items():
        current = home.store("validated").current(f"validated/{name}")
        state = current[1].state if current else ("no adapter yet" if spec.adapter is None else "not materialised")
        counts = current[1].counts if current else {}
        rows.append({"dataset": name, "task": spec.task, "role": spec.role, "access": spec.access, "state": state,
                     "rows": counts.get("rows_ok", spec.rows), "set_aside": sum((counts.get("quarantined") or {}).values()) or None,
                     "licence": spec.licence})  # fmt: skip
    _print(options, rows, ("dataset", "task", "role", "access", "state", "rows", "set_aside", "licence"))


def _full(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def _quarantine(options: Any) -> None:
    import msgspec

    from molmo2_assets.ingest.quarantine import read_quarantine

    profile, home = _load(options)
    name = _known(options.name, sorted(profile.datasets), "dataset")
    current = home.store("validated").current(f"validated/{name}")
    if current is None:
        raise UserError(f"validated/{name} was never materialised: run `make demo`")
    rows = [msgspec.to_builtins(row) for row in read_quarantine(current[0])]
    rows = [row for row in rows if options.reason in (None, row["reason"])]
    _print(options, rows, ("file", "row", "stage", "reason", "field", "detail"), "no row was set aside")


def _mixture(options: Any) -> None:
    from molmo2_assets.mixtures.weights import mixture_weights

    profile, home = _load(options)
    name = _known(options.name, sorted(profile.mixtures), "mixture")
    current = home.store(name).current(name)
    if current is not None:
        rows = json.loads((current[0] / "weights.json").read_text())["rows"]
        _print(options, rows, ("dataset", "task", "rows", "size", "factor", "before", "weight", "repeats"))
        return
    spec = profile.mixtures[name]
    declared = {entry: profile.datasets[entry].weight_rows or profile.datasets[entry].rows or 0 for entry in spec.datasets}
    unknown = sorted(entry for entry, rows in declared.items() if not rows)
    if unknown and not options.json:
        print(f"(declared sizes; unknown and left out of this preview: {', '.join(unknown)})")
    table = mixture_weights(spec, {entry: rows for entry, rows in declared.items() if rows})
    rows = [
        {"dataset": row.dataset, "group": row.group, "rows": row.rows, "factor": row.factor, "weight": row.weight} for row in table
    ]
    _print(options, rows, ("dataset", "group", "rows", "factor", "weight"))


def _scoreboard(options: Any) -> None:
    _, home = _load(options)
    current = home.store("scoreboard").current("scoreboard")
    if current is None:
        raise UserError("there is no scoreboard yet: run `make demo`, or materialise `scoreboard` with its upstream")
    rows = json.loads((current[0] / "scoreboard.json").read_text())["rows"]
    _print(options, rows, ("benchmark", "stage", "metric", "score", "baseline", "n"))


def _runs(options: Any) -> None:
    from training_backend.api import RunHandle, decode_spec
    from training_backend.registry import find_launcher

    _, home = _load(options)
    found = {path.parent.name: path.parent for path in sorted(home.runs.glob("*/spec.json"))}
    specs = {name: decode_spec((folder / "spec.json").read_bytes()) for name, folder in found.items()}

    def handle(name: str) -> RunHandle:
        return RunHandle(launcher=specs[name].execution.launcher, run_dir=str(found[name]), fingerprint=specs[name].fingerprint)

    if options.action is None:
        rows = [
            {"run": name, "kind": spec.kind, "what": spec.identity.get("stage") or spec.identity.get("benchmark") or "",
             "state": find_launcher(spec.execution.launcher).status(handle(name)), "folder": str(found[name])}
            for name, spec in specs.items()
        ]  # fmt: skip
        _print(options, rows, ("run", "kind", "what", "state", "folder"), "no run yet")
        return
    name = _known(options.name or "", sorted(found), "run")
    launcher = find_launcher(specs[name].execution.launcher)
    if options.action == "stop":
        launcher.stop(handle(name), specs[name].execution.grace_seconds)
        print(f"{name}: {launcher.status(handle(name))}")
        return
    for event in launcher.follow(handle(name)):
        if event.name == "step":
            print(
                f"step {event.data['step']}  loss {event.data['loss']:.4f}  {event.data['tokens_per_second']:.0f} tokens/s",
                flush=True,
            )
        else:
            print(f"{event.name} {event.data or ''}", flush=True)
    print(f"{name}: {launcher.status(handle(name))}")


def _stale(options: Any) -> None:
    from molmo2_assets.lineage.walk import current_assets

    _, home = _load(options)
    rows = [
        {"asset": key, "because": reason.root, "was": reason.was, "now": reason.now, "through": " → ".join(reason.path),
         "seconds": node.seconds}
        for key, node in current_assets(home).items()
        for reason in node.reasons
    ]  # fmt: skip
    _print(options, rows, ("asset", "because", "was", "now", "seconds"), "everything that was materialised is up to date")


def _why(options: Any) -> None:
    from molmo2_assets.lineage.walk import current_assets

    _, home = _load(options)
    nodes = current_assets(home)
    node = nodes[_known(options.name, sorted(nodes), "materialised asset")]
    rows = [{"because": r.root, "was": r.was, "now": r.now, "through": " → ".join(r.path)} for r in node.reasons]
    _print(options, rows, ("because", "was", "now", "through"), f"{options.name} is up to date")


def _bom(options: Any) -> None:
    from molmo2_assets.lineage.bom import bill_of_materials

    _, home = _load(options)
    _print(options, bill_of_materials(home, options.name), ("asset", "data_version", "recipe", "revision", "rows"))


def _diff(options: Any) -> None:
    import dataclasses

    from molmo2_assets.lineage.diff import diff_stores
    from training_backend.data.manifest import MANIFEST_FILE, read_manifest

    profile, home = _load(options)
    key = f"validated/{_known(options.name, sorted(profile.datasets), 'dataset')}"
    folder = home.store(key).folder(key)
    versions = [path.parent for path in folder.glob(f"*/{MANIFEST_FILE}") if not path.parent.name.startswith(".")]
    versions = sorted(
        (v for v in versions if read_manifest(v).state == "ready"), key=lambda v: read_manifest(v).run.get("finished", 0)
    )
    if len(versions) < 2:
        raise UserError(f"{key} has {len(versions)} version(s) on disk; a difference needs two")
    found = dataclasses.asdict(diff_stores(versions[-2], versions[-1]))
    if options.json:
        print(json.dumps(found, indent=1))
        return
    counts = f"+{found['added']} −{found['removed']} ~{found['changed']} ={found['unchanged']}"
    print(f"{versions[-2].name} → {versions[-1].name}: {counts}")
    for name, count in found["fields"].items():
        if count:
            print(f"  {name} differs in {count} rows")
    for kind, ids in found["examples"].items():
        for identifier in ids:
            print(f"  {kind}: {identifier}")


def _doctor(options: Any) -> int:
    from molmo2_assets.doctor import examine
    from molmo2_assets.home import find_home

    findings = examine(find_home(options.profile or "demo"))
    if options.json:
        print(json.dumps([finding._asdict() for finding in findings], indent=1))
    else:
        for finding in findings:
            print(f"{finding.state:>8}  {finding.text}")
    return int(any(finding.state == "missing" for finding in findings))


def _sweep(options: Any) -> None:
    from molmo2_assets.graph.demo import sweep

    for run in sweep():
        print(f"closed {run}")


if __name__ == "__main__":
    sys.path.insert(0, str(Path.cwd()))
    sys.exit(main())
