"""Runs that a killed server or terminal left in state STARTED: recognised by the process that executed them, and closed.

Belongs here: marking a run with its process, and closing runs whose process is gone. Only runs marked on this boot of this host are
judged; what happens elsewhere is not ours to know.
"""

from __future__ import annotations

import os

import dagster as dg
import msgspec

from training_backend.launch.processes import Identity, identify, is_alive, is_here

TAG = ".dagster/molmo2-process"
"""Dagster's pages leave out tags that begin like this: an identity is a line long, and nothing that a person asks for."""
_marked: set[str] = set()


def mark_process(context: dg.AssetExecutionContext) -> None:
    """Write this process into the run's tags, once a run, after closing runs that others abandoned."""
    if context.run.run_id in _marked:
        return
    _marked.add(context.run.run_id)
    close_abandoned(context.instance)
    context.instance.add_run_tags(context.run.run_id, {TAG: msgspec.json.encode(identify(os.getpid())).decode()})


@dg.sensor(
    name="close_abandoned_runs",
    minimum_interval_seconds=15,
    default_status=dg.DefaultSensorStatus.RUNNING,
    description="Closes runs whose process was killed, and frees their places in pools. Starts nothing.",
)
def sweeper(context: dg.SensorEvaluationContext) -> dg.SkipReason:
    """The sweep of a server: a run that waits for a place that a dead one holds never comes to close it itself."""
    closed = close_abandoned(context.instance)
    return dg.SkipReason(f"closed {', '.join(closed)}" if closed else "no run was abandoned")


def close_abandoned(instance: dg.DagsterInstance) -> list[str]:
    """Mark runs as failed whose process has ended without saying so; returns their ids."""
    closed = []
    started = instance.get_runs(filters=dg.RunsFilter(statuses=[dg.DagsterRunStatus.STARTED, dg.DagsterRunStatus.CANCELING]))
    for run in started:
        tag = run.tags.get(TAG)
        if tag is None:
            continue
        try:
            process = msgspec.json.decode(tag, type=Identity)
        except msgspec.MsgspecError:
            continue  # somebody else's words under our name: not ours to judge, and no reason to stop every later run
        if is_here(process) and not is_alive(process):
            instance.report_run_failed(run, message=f"The process {process.pid} that executed this run is gone; run it again.")
            # Its pool slots would keep every later run of that pool in the queue.
            instance.event_log_storage.free_concurrency_slots_for_run(run.run_id)
            closed.append(run.run_id)
    return closed
