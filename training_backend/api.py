"""What the outside sees of the backend: run specs in, handles, events and results out.

Belongs here: the plain, JSON-serialisable contract between whoever starts a run (an asset, a script, a person with a file) and
whatever executes it. Does not belong here: how processes are started (`launch/`), what a run computes (`worker.py` and below).
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal, Protocol

import msgspec

from training_backend.data.fingerprint import fingerprint, short

SPEC_SCHEMA = "molmo2-run/1"

Kind = Literal["tokenizer", "plan", "train", "predict", "import", "export", "preview"]
State = Literal["absent", "pending", "running", "stopping", "interrupted", "failed", "done"]


class Execution(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Where and how a run is computed; changes nothing of what it computes, so it is not part of its identity.

    `processes` ranks on this host, `threads` per rank, `workers` of the loader per rank. `micro_batch` sequences at a time.
    `checkpoint_every` steps; `keep` newest checkpoints stay in the run directory. `grace_seconds` between the request to stop and
    the kill.
    """

    launcher: str = "local"
    device: Literal["cpu", "cuda", "auto"] = "auto"
    strategy: Literal["single", "ddp", "fsdp2", "deepspeed"] = "single"
    processes: int = 1
    threads: int = 1
    workers: int = 0
    micro_batch: int = 1
    activation_checkpointing: bool = False
    compile: bool = False
    checkpoint_every: int = 1000
    keep: int = 1
    log_every: int = 10
    grace_seconds: float = 120.0
    attention: Literal["auto", "reference", "blocks", "flex", "varlen"] = "auto"
    wandb_project: str | None = None


class RunSpec(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One run.

    `identity` says what is computed: typed configuration as plain values and the data versions of everything read. `inputs` says
    where those things lie now: name → absolute path of an asset folder. Two specs with equal kind and identity are the same run,
    whatever their execution and paths.
    """

    kind: Kind
    identity: dict[str, Any]
    inputs: dict[str, str] = {}
    execution: Execution = Execution()
    schema: str = SPEC_SCHEMA

    @property
    def fingerprint(self) -> str:
        """64 hex digits over schema, kind and identity alone."""
        return fingerprint({"schema": self.schema, "kind": self.kind, "identity": self.identity})

    @property
    def run_name(self) -> str:
        """Name of the run's folder under `<profile>/runs/`."""
        return f"{self.kind}-{short(self.fingerprint)}"


def encode_spec(spec: RunSpec) -> bytes:
    """A run spec as indented JSON, as it stands in `spec.json`."""
    return msgspec.json.format(msgspec.json.encode(spec, order="sorted"), indent=1) + b"\n"


def decode_spec(data: bytes) -> RunSpec:
    """Inverse of `encode_spec`. Raises msgspec.ValidationError naming the field."""
    return msgspec.json.decode(data, type=RunSpec)


class RunHandle(msgspec.Struct, frozen=True, kw_only=True):
    """What a launcher hands out: enough to find the run again from another process."""

    launcher: str
    run_dir: str
    fingerprint: str


class Event(msgspec.Struct, frozen=True, kw_only=True):
    """One line of `events.jsonl`: wall-clock seconds since the epoch, a name, and numbers or words."""

    time: float
    name: str
    data: dict[str, Any] = {}


class RunResult(msgspec.Struct, frozen=True, kw_only=True):
    """A finished run: `output` is the folder that holds its manifest; its files are the result."""

    output: str
    data_version: str
    counts: dict[str, Any]
    facts: dict[str, Any]


class RunFailed(RuntimeError):
    """A run ended without a valid manifest; the message says where, why and what to do, with the end of its log."""


class Stopped(Exception):
    """A run saved its state and stopped because it was asked to."""


class Launcher(Protocol):
    """Starts runs and finds them again. `submit` is idempotent: done → reuse, alive → attach, partial → resume, absent → start."""

    name: str

    def submit(self, spec: RunSpec, run_dir: Path) -> RunHandle: ...

    def status(self, handle: RunHandle) -> State: ...

    def events(self, handle: RunHandle, cursor: int) -> tuple[list[Event], int]:
        """Events from byte `cursor` on, and the next cursor."""
        ...

    def follow(self, handle: RunHandle) -> Iterator[Event]:
        """Events as they come, until the run has ended."""
        ...

    def stop(self, handle: RunHandle, grace_seconds: float) -> None: ...

    def result(self, handle: RunHandle) -> RunResult:
        """The result of a run that is done. Raises RunFailed."""
        ...
