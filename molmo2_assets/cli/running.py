"""Commands about work: the whole graph, scores, runs, this machine.

Belongs here: what these commands print. Does not belong here: executing (`molmo2_assets.graph`, launchers), looking at the machine
(`molmo2_assets.doctor`).
"""

from __future__ import annotations

import json
import os
import sqlite3
from pathlib import Path
from typing import TYPE_CHECKING, Any

from molmo2_assets.cli.show import UserError, known, load, print_json, print_rows

if TYPE_CHECKING:
    from molmo2_assets.profile import Profile
    from training_backend.api import RunSpec


def demo(options: Any) -> int:
    """Materialise every asset of the profile; the exit code says whether all of it succeeded."""
    profile, home = load(options)
    _check_history(profile)
    from molmo2_assets.graph.demo import run_profile

    try:
        return run_profile(profile, home)
    except Exception as error:
        refusal = _refused_history(error)
        if refusal is None:
            raise
        raise UserError(
            f"cannot write Dagster's history in {os.environ.get('DAGSTER_HOME')}: {refusal}; free some space or set MOLMO2_HOME to "
            "a folder that you may write, and run again; nothing finished is lost."
        ) from None


def _refused_history(error: BaseException | None) -> str | None:
    """What SQLite said, if that is what stopped a run: a full disk meets Dagster's history before it meets any asset."""
    while error is not None:
        if isinstance(error, sqlite3.OperationalError):
            return str(error)
        error = error.__cause__ or error.__context__
    return None


def _check_history(profile: Profile) -> None:
    """A shell that was activated for one profile must not write another one's history into it."""
    from molmo2_assets.home import find_home
    from molmo2_assets.profile.load import DEFAULT_PROFILE, PROFILE_VARIABLE

    active = os.environ.get(PROFILE_VARIABLE) or DEFAULT_PROFILE
    if active != profile.name and os.environ.get("DAGSTER_HOME") == str(find_home(active).dagster):
        raise UserError(
            f"DAGSTER_HOME holds the history of profile {active}: `MOLMO2_PROFILE={profile.name} make demo`, "
            f"or `export MOLMO2_PROFILE={profile.name}` and source activate.sh again"
        )


def scoreboard(options: Any) -> None:
    """One line for each stage and benchmark."""
    _, home = load(options)
    current = home.store("scoreboard").current("scoreboard")
    if current is None:
        raise UserError("there is no scoreboard yet: run `make demo`, or materialise `scoreboard` with its upstream")
    rows = json.loads((current[0] / "scoreboard.json").read_text())["rows"]
    print_rows(options, rows, ("benchmark", "stage", "metric", "score", "baseline", "n"))


def runs(options: Any) -> None:
    """List runs, follow one, or stop one."""
    _, home = load(options)
    found = {path.parent.name: path.parent for path in sorted(home.runs.glob("*/spec.json"))}
    if options.action is None:
        rows = [_run_row(name, folder) for name, folder in found.items()]
        print_rows(options, rows, ("run", "kind", "what", "state", "folder"), "no run yet: run `make demo`")
        return
    if not options.name:
        raise UserError(f"which run? `molmo2 runs {options.action} RUN`; `molmo2 runs` lists them")
    name = known(options.name, found, "run")
    (_attach if options.action == "attach" else _stop)(name, found[name])


def _spec(folder: Path) -> RunSpec:
    import msgspec

    from training_backend.api import decode_spec

    try:
        return decode_spec((folder / "spec.json").read_bytes())
    except msgspec.MsgspecError as error:
        raise UserError(f"{folder / 'spec.json'} cannot be read ({error}); remove the folder, the run starts afresh") from None


def _run_row(name: str, folder: Path) -> dict[str, Any]:
    """A run whose spec is damaged is listed as such."""
    from training_backend.api import RunHandle
    from training_backend.registry import find_launcher

    try:
        spec = _spec(folder)
    except UserError as error:
        return {"run": name, "kind": None, "what": str(error), "state": "damaged", "folder": str(folder)}
    handle = RunHandle(launcher=spec.execution.launcher, run_dir=str(folder), fingerprint=spec.fingerprint)
    what = spec.identity.get("stage") or spec.identity.get("benchmark") or ""
    state = find_launcher(spec.execution.launcher).status(handle)
    return {"run": name, "kind": spec.kind, "what": what, "state": state, "folder": str(folder)}


def _attach(name: str, folder: Path) -> None:
    from training_backend.api import RunHandle
    from training_backend.registry import find_launcher

    spec = _spec(folder)
    launcher = find_launcher(spec.execution.launcher)
    handle = RunHandle(launcher=launcher.name, run_dir=str(folder), fingerprint=spec.fingerprint)
    for event in launcher.follow(handle):
        if event.name == "step":
            said = event.data
            print(f"step {said['step']}  loss {said['loss']:.4f}  {said['tokens_per_second']:.0f} tokens/s", flush=True)
        else:
            print(f"{event.name} {event.data or ''}".rstrip(), flush=True)
    print(f"{name}: {launcher.status(handle)}")


def _stop(name: str, folder: Path) -> None:
    from training_backend.api import RunHandle
    from training_backend.registry import find_launcher

    spec = _spec(folder)
    launcher = find_launcher(spec.execution.launcher)
    handle = RunHandle(launcher=launcher.name, run_dir=str(folder), fingerprint=spec.fingerprint)
    launcher.stop(handle, spec.execution.grace_seconds)
    print(f"{name}: {launcher.status(handle)}")


def doctor(options: Any) -> int:
    """Findings about this machine; exit code 1 where something is missing."""
    from molmo2_assets.doctor import examine

    _, home = load(options)
    findings = examine(home)
    if options.json:
        print_json([finding._asdict() for finding in findings])
    else:
        for finding in findings:
            print(f"{finding.state:>8}  {finding.text}")
    return int(any(finding.state == "missing" for finding in findings))


def sweep(options: Any) -> None:
    """Close abandoned runs and name them."""
    from molmo2_assets.graph.demo import sweep as close

    rows = [{"closed": run} for run in close()]
    print_rows(options, rows, ("closed",), "no run was left open by a process that is gone")
