"""`molmo2 demo`: materialise every asset of the profile in this process, say what happens in one line a step, end with a summary.

Belongs here: the terminal view of one whole run. Does not belong here: what steps do (`step.py` and the layers), the command line
(`cli.py`).
"""

from __future__ import annotations

import logging
import os
import signal
import sys
import time
from typing import Any

import dagster as dg

from molmo2_assets.graph.sweep import close_abandoned
from molmo2_assets.home import Home
from molmo2_assets.profile import Profile


class _StepLines(logging.Handler):
    """One line when a step ends, its own progress lines in between on a terminal."""

    def __init__(self, total: int, stream: Any) -> None:
        super().__init__()
        self.total = total
        self.stream = stream
        self.done = 0
        self.started: dict[str, float] = {}
        self.hits = 0
        self.built: list[tuple[str, float]] = []
        self.failed: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        meta = getattr(record, "dagster_meta", {})
        event = meta.get("dagster_event")
        step = meta.get("step_key") or ""
        if event is None:
            message = str(meta.get("orig_message", record.getMessage()))
            if message.startswith("Dependencies for step"):
                return  # what could not run because of a failure: the failure itself has its line
            if record.levelno >= logging.WARNING or self.stream.isatty():
                self._line(f"          {message}")
            return
        if event.event_type_value == "STEP_START":
            self.started[step] = time.monotonic()
        elif event.event_type_value == "ASSET_MATERIALIZATION":
            self._materialised(step, event)
        elif event.event_type_value == "STEP_FAILURE":
            self.failed.append(step.replace("__", "/"))
            self._line(f"  FAILED  {step.replace('__', '/')}: {_reason(event)}")

    def _materialised(self, step: str, event: Any) -> None:
        self.done += 1
        seconds = time.monotonic() - self.started.get(step, time.monotonic())
        materialisation = event.event_specific_data.materialization
        key = "/".join(materialisation.asset_key.path)
        cache = materialisation.metadata.get("cache")
        hit = cache is not None and str(cache.value) == "hit"
        if hit:
            self.hits += 1
        else:
            self.built.append((key, seconds))
        self._line(f"  [{self.done:3d}/{self.total}] {key:<58} {'cache: hit' if hit else f'{seconds:6.1f} s'}")

    def _line(self, text: str) -> None:
        print(text, file=self.stream, flush=True)


def _reason(event: Any) -> str:
    error = event.event_specific_data.error
    while error.cause is not None:
        error = error.cause
    failure = event.event_specific_data.user_failure_data
    if failure is not None and failure.description:
        return str(failure.description)
    return " ".join(error.message.split())


def run_all(defs: dg.Definitions, instance: dg.DagsterInstance) -> tuple[bool, _StepLines, float]:
    """Materialise everything in `defs` in this process; returns success, what was seen, and the seconds it took."""
    keys = defs.resolve_implicit_global_asset_job_def().asset_layer.selected_asset_keys
    lines = _StepLines(total=len(keys), stream=sys.stdout)

    @dg.logger(config_schema={})
    def terminal(_context: dg.InitLoggerContext) -> logging.Logger:
        logger = logging.Logger("molmo2.terminal")
        logger.addHandler(lines)
        return logger

    started = time.monotonic()
    job = dg.Definitions.merge(defs, dg.Definitions(loggers={"terminal": terminal})).resolve_implicit_global_asset_job_def()
    result = job.execute_in_process(instance=instance, raise_on_error=False, run_config={"loggers": {"terminal": {"config": {}}}})
    return result.success, lines, time.monotonic() - started


def run_profile(profile: Profile, home: Home) -> int:
    """Materialise a whole profile and print a summary; returns the exit code."""
    from molmo2_assets.graph.build import build_definitions

    _heed_sigterm()
    print(f"{profile.name}: {profile.description}")
    with _instance() as instance:
        close_abandoned(instance)
        success, lines, seconds = run_all(build_definitions(profile, home), instance)
    print()
    if not success:
        print(f"Not finished: {len(lines.failed)} failed ({', '.join(lines.failed[:5])}). Put right what it says and run again;")
        print("everything that was finished is kept (`cache: hit`).")
        return 1
    slowest = sorted(lines.built, key=lambda item: -item[1])[:3]
    named = ", ".join(f"{key} {took:.0f} s" for key, took in slowest)
    built = f"{len(lines.built)} built" + (f": {named}" if named else ".")
    print(f"{lines.done} assets in {seconds:.0f} s: {lines.hits} unchanged (cache: hit), {built}")
    current = home.store("scoreboard").current("scoreboard")
    if current is not None:
        from molmo2_assets.evaluation.scoreboard import read_scoreboard, table

        print()
        print(table(read_scoreboard(current[0])))
    print(
        f"""
What to look at next:
  source activate.sh
  dagster dev                       the graph, with pictures on every asset page, on http://127.0.0.1:3000
  molmo2 datasets                   what was kept and what was set aside; `molmo2 quarantine show shapes_points`
  molmo2 bom long_context_checkpoint   everything the last checkpoint was made from
  make demo                         again: nothing changed, so nothing is trained
Files: {home.root}"""
    )
    return 0


def _heed_sigterm() -> None:
    """A shell without job control starts `command &` with SIGINT ignored, and Dagster gives SIGTERM whatever SIGINT has."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def _instance() -> dg.DagsterInstance:
    """Dagster's history of this profile. Without DAGSTER_HOME it would vanish with this process, so that is an error."""
    if "DAGSTER_HOME" not in os.environ:
        raise ValueError(
            "DAGSTER_HOME is not set, so Dagster would forget this run: `source activate.sh` first, or use `make demo`."
        )
    return dg.DagsterInstance.get()


def sweep() -> list[str]:
    """Close runs that a killed process left open; returns their ids."""
    with _instance() as instance:
        return close_abandoned(instance)
