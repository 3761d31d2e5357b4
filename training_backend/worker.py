"""`python -m training_backend.worker --spec FILE --run-dir DIR`: one rank of a run.

Belongs here: becoming a rank (identity, signals, events), dispatch on the kind, publishing the output. Does not belong here: what a
kind computes. Exit codes: 0 done, 75 saved and resumable, anything else failed; but only result.json says that a run is done.
"""

from __future__ import annotations

import argparse
import logging
import os
import shutil
import signal
import sys
import time
import traceback
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

import msgspec

from training_backend.api import RunFailed, RunResult, RunSpec, Stopped, decode_spec
from training_backend.checkpoint.disk import refusal
from training_backend.data.fingerprint import fingerprint
from training_backend.data.manifest import (
    Manifest,
    files_version,
    list_files,
    replace_file,
    sync_folder,
    sync_tree,
    write_manifest,
)
from training_backend.launch.local import EXIT_RESUMABLE, Exit, read_exit
from training_backend.launch.processes import register
from training_backend.train.events import EventWriter

CODE_VERSION = {"tokenizer": "1", "plan": "1", "train": "1", "predict": "1", "import": "1", "export": "1", "preview": "1"}
"""Bumped by hand when the meaning of a kind's output changes."""


class Interrupted(BaseException):
    """SIGTERM reached a kind that has no state to save."""


@dataclass(frozen=True)
class Job:
    """What a kind is given: its spec, the run's folder, the folder that its output goes to, and ways to speak and to be stopped."""

    spec: RunSpec
    run_dir: Path
    out: Path
    events: EventWriter
    stop: Callable[[], bool]
    log: Callable[[str], None]


def _tokenizer(job: Job) -> dict[str, Any]:
    from training_backend.encode.tokens import build_tokenizer

    return build_tokenizer(job.spec, job.out, job.log)


def _plan(job: Job) -> dict[str, Any]:
    from training_backend.pack.sequences import build_sequences

    return build_sequences(job.spec, job.out, job.log)


def _predict(job: Job) -> dict[str, Any]:
    from training_backend.predict import run_predict

    return run_predict(job.spec, job.out, job.log)


def _train(job: Job) -> dict[str, Any]:
    from training_backend.pack.sequences import open_batches
    from training_backend.train.loop import read_plan, train

    plan = read_plan(job.spec)
    return train(plan, job.run_dir, job.out, open_batches(job.spec, job.run_dir), job.events, job.stop, job.log)


def _import(job: Job) -> dict[str, Any]:
    from training_backend.convert import run_import

    return run_import(job.spec, job.out, job.log)


def _export(job: Job) -> dict[str, Any]:
    from training_backend.convert import run_export

    return run_export(job.spec, job.out, job.log)


def _preview(job: Job) -> dict[str, Any]:
    from training_backend.preview.build import build_preview

    return build_preview(job.spec, job.out, job.log)


KINDS: dict[str, Callable[[Job], dict[str, Any]]] = {
    "tokenizer": _tokenizer, "plan": _plan, "train": _train, "predict": _predict, "import": _import, "export": _export,
    "preview": _preview,
}  # fmt: skip
"""Kind → its computation, which returns {"counts", "facts"} of the result. Heavy imports happen inside."""


def main(arguments: list[str] | None = None) -> int:
    """Run one rank; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m training_backend.worker", description=__doc__)
    parser.add_argument("--spec", type=Path, required=True, help="a run spec, as `encode_spec` writes it")
    parser.add_argument("--run-dir", type=Path, required=True, help="the run's folder; everything it leaves lies there")
    options = parser.parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", datefmt="%H:%M:%S", stream=sys.stdout)
    run_dir, rank = options.run_dir.resolve(), int(os.environ.get("RANK", "0"))
    try:
        register(run_dir, rank)
    except (OSError, RunFailed) as error:
        # Not this process's run, so nothing is left in its folder.
        print(_sentence(error, run_dir), file=sys.stderr, flush=True)
        return 1
    try:
        spec = decode_spec(options.spec.read_bytes())
        with EventWriter(run_dir, silent=rank != 0) as events:
            ended = _run(spec, run_dir, events, rank)
    except (OSError, msgspec.MsgspecError) as error:
        about = f"{options.spec} cannot be read as a run spec: " if isinstance(error, msgspec.MsgspecError) else ""
        ended = Exit(code=1, message=about + _sentence(error, run_dir))
        with suppress(OSError):  # the log lies on the same disk
            print(ended.message, file=sys.stderr, flush=True)
    if ended.code:
        _leave(run_dir, ended)
    return ended.code


def _sentence(error: Exception, run_dir: Path) -> str:
    refused = refusal(error, run_dir)
    return str(refused.strerror if refused else error)


def _leave(run_dir: Path, ended: Exit) -> None:
    """Write exit.json. Where one rank failed the others are stopped, and save: that run failed all the same."""
    before = read_exit(run_dir)
    if before is not None and before.code != EXIT_RESUMABLE:
        return
    with suppress(OSError):
        replace_file(run_dir / "exit.json", msgspec.json.encode(ended))


def _run(spec: RunSpec, run_dir: Path, events: EventWriter, rank: int) -> Exit:
    asked: list[int] = []

    def on_term(number: int, _frame: FrameType | None) -> None:
        asked.append(number)
        if spec.kind != "train":
            raise Interrupted

    signal.signal(signal.SIGTERM, on_term)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C on the terminal is for whoever follows, not for the run

    def log(message: str) -> None:
        print(f"{time.strftime('%H:%M:%S')} {message}", flush=True)
        events.emit("log", message=message)

    out = run_dir / f"output.partial-{rank}-{os.getpid()}"
    try:
        for leftover in run_dir.glob(f"output.partial-{rank}-*"):
            shutil.rmtree(leftover)
        out.mkdir()
        started = time.monotonic()
        found = KINDS[spec.kind](Job(spec, run_dir, out, events, lambda: bool(asked) or (run_dir / "stop").exists(), log))
        signal.signal(signal.SIGTERM, signal.SIG_IGN)  # what is computed is kept, whoever asks now
        if rank == 0:
            _publish(spec, run_dir, out, found, time.monotonic() - started)
            events.emit("done")
    except (Interrupted, Stopped) as stopped:
        ended = Exit(code=EXIT_RESUMABLE, message=str(stopped) or "stopped as asked")
    except Exception as error:
        refused = refusal(error, run_dir)
        ended = Exit(code=1, message=str(refused.strerror) if refused else f"{type(error).__name__}: {error}")
        with suppress(OSError):
            if refused is None:
                traceback.print_exc()
            else:
                print(ended.message, file=sys.stderr, flush=True)
    else:
        ended = Exit(code=0)
    shutil.rmtree(out, ignore_errors=True)  # published by now, or nobody's
    if ended.code:
        with suppress(OSError):
            events.emit("stopped" if ended.code == EXIT_RESUMABLE else "failed", message=ended.message)
    return ended


def _publish(spec: RunSpec, run_dir: Path, out: Path, found: dict[str, Any], seconds: float) -> None:
    """Manifest, rename, result: in this order, each durable before the next."""
    files = list_files(out)
    # A checkpoint is its tensors; the time it took and its pictures are not part of what it is.
    content = tuple(entry for entry in files if entry.path.endswith(".safetensors")) if spec.kind == "train" else files
    recipe = {"kind": spec.kind, "identity": spec.identity}
    manifest = Manifest(
        kind=spec.kind, key=spec.run_name, recipe=recipe, recipe_fingerprint=fingerprint(recipe),
        data_version=files_version(content), code_version=CODE_VERSION[spec.kind], files=files, counts=found["counts"],
        run={"seconds": seconds, **found["facts"]},
    )  # fmt: skip
    sync_tree(out)
    write_manifest(out, manifest)
    final = run_dir / "output"
    shutil.rmtree(final, ignore_errors=True)
    out.rename(final)
    sync_folder(run_dir)
    result = RunResult(output=str(final), data_version=manifest.data_version, counts=found["counts"], facts=found["facts"])
    replace_file(run_dir / "result.json", msgspec.json.encode(result))


if __name__ == "__main__":
    sys.exit(main())
