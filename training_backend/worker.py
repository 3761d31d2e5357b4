"""`python -m training_backend.worker --spec FILE --run-dir DIR`: one rank of a run.

Belongs here: becoming a rank (identity, signals, events), dispatch on the kind, publishing the output. Does not belong here: what a
kind computes. Exit codes: 0 done, 75 saved and resumable, anything else failed; but only result.json says that a run is done.
"""

from __future__ import annotations

import argparse
import os
import shutil
import signal
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any

import msgspec

from training_backend.api import RunResult, RunSpec, decode_spec
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
from training_backend.launch.local import EXIT_RESUMABLE
from training_backend.launch.processes import die_with_parent, identify
from training_backend.train.events import EventWriter

CODE_VERSION = {"tokenizer": "1", "plan": "1", "train": "1", "predict": "1"}
"""Bumped by hand when the meaning of a kind's output changes."""


class Interrupted(BaseException):
    """SIGTERM reached a kind that has no state to save."""


def main(arguments: list[str] | None = None) -> int:
    """Run one rank; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m training_backend.worker", description=__doc__)
    parser.add_argument("--spec", type=Path, required=True, help="a run spec, as `encode_spec` writes it")
    parser.add_argument("--run-dir", type=Path, required=True, help="the run's folder; everything it leaves lies there")
    options = parser.parse_args(arguments)
    spec, run_dir = decode_spec(options.spec.read_bytes()), options.run_dir
    rank = int(os.environ.get("RANK", "0"))
    if "TORCHELASTIC_RUN_ID" in os.environ:
        die_with_parent()
    replace_file(run_dir / "ranks" / f"{rank}.json", msgspec.json.encode(identify(os.getpid())))
    with EventWriter(run_dir) as events:
        code = _run(spec, run_dir, events)
    if code:
        replace_file(run_dir / "exit.json", msgspec.json.encode({"code": code}))
    return code


def _run(spec: RunSpec, run_dir: Path, events: EventWriter) -> int:
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

    for leftover in run_dir.glob("output.partial-*"):
        shutil.rmtree(leftover)
    out = run_dir / f"output.partial-{os.getpid()}"
    out.mkdir()
    try:
        started = time.monotonic()
        found = _dispatch(spec, run_dir, out, events, lambda: bool(asked) or (run_dir / "stop").exists(), log)
        _publish(spec, run_dir, out, found, time.monotonic() - started)
    except Interrupted:
        events.emit("stopped", message="stopped as asked")
        return EXIT_RESUMABLE
    except Exception as error:
        from training_backend.train.loop import Stopped

        if isinstance(error, Stopped):
            events.emit("stopped", message=str(error))
            return EXIT_RESUMABLE
        traceback.print_exc()
        events.emit("failed", message=f"{type(error).__name__}: {error}")
        return 1
    events.emit("done")
    return 0


def _dispatch(spec: RunSpec, run_dir: Path, out: Path, events: EventWriter, stop: Callable[[], bool],
              log: Callable[[str], None]) -> dict[str, Any]:  # fmt: skip
    """Compute one kind into `out`; returns {"counts", "facts"}. Heavy imports happen here."""
    if spec.kind == "tokenizer":
        from training_backend.encode.tokens import build_tokenizer

        return build_tokenizer(spec, out, log)
    if spec.kind == "plan":
        from training_backend.pack.sequences import build_sequences

        return build_sequences(spec, out, log)
    if spec.kind == "predict":
        from training_backend.predict import run_predict

        return run_predict(spec, out, log)
    if spec.kind == "train":
        from training_backend.pack.sequences import open_batches
        from training_backend.train.loop import read_plan, train

        plan = read_plan(spec)
        return train(plan, run_dir, out, open_batches(spec, run_dir), events, stop, log)
    raise ValueError(f"run kind {spec.kind!r} is not built yet; available: tokenizer, plan, train, predict")


def _publish(spec: RunSpec, run_dir: Path, out: Path, found: dict[str, Any], seconds: float) -> None:
    """Manifest, rename, result: in this order, each durable before the next."""
    files = list_files(out)
    # A checkpoint is its tensors; the time it took and its pictures are not part of what it is.
    content = tuple(entry for entry in files if entry.path.endswith(".safetensors")) if spec.kind == "train" else files
    recipe = {"kind": spec.kind, "identity": spec.identity}
    manifest = Manifest(
        kind=spec.kind, key=spec.run_name, recipe=recipe, recipe_fingerprint=fingerprint(recipe), data_version=files_version(content),
        code_version=CODE_VERSION[spec.kind], files=files, counts=found["counts"], run={"seconds": seconds, **found["facts"]},
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
