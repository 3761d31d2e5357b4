"""The local launcher: a run spec becomes processes of this host, and is found again from any other process.

Belongs here: starting, attaching, following, stopping. Does not belong here: what a run computes (`worker.py`). Nothing here
imports torch.

A run directory holds spec.json, agent.json (who runs it), ranks/<n>.json, events.jsonl, worker.log, heartbeat, stop (a request),
exit.json, checkpoints/, output/ with its manifest, and result.json, written last. Success is a result with a valid manifest,
never an exit code.
"""

from __future__ import annotations

import fcntl
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec

from training_backend.api import Event, RunFailed, RunHandle, RunResult, RunSpec, State, decode_spec, encode_spec
from training_backend.checkpoint.disk import refusal
from training_backend.data.manifest import ManifestError, read_manifest, replace_file, verify_files
from training_backend.launch.processes import (
    ATTEMPT_FILES,
    LAUNCHED,
    Identity,
    identify,
    is_alive,
    is_here,
    read_identity,
    send,
    wait_gone,
)

EXIT_RESUMABLE = 75
"""Exit code of a worker that saved its state and stopped when asked (EX_TEMPFAIL)."""
_REMOTE_SILENCE = 120.0
"""Seconds without heartbeat after which a run of another host counts as dead."""
_LOG_TAIL = 30
_POLL = 0.2


class Exit(msgspec.Struct, frozen=True, kw_only=True):
    """`exit.json`: how a worker ended that did not finish, in a code and a sentence."""

    code: int
    message: str = ""


class LocalLauncher:
    """Runs on this host. Safe to use from several processes at once: starting is guarded by a file lock.

    `worker` is the module that is run; it takes the command line of `training_backend.worker`.
    """

    name = "local"
    worker = "training_backend.worker"

    def __init__(self) -> None:
        self._children: dict[str, subprocess.Popen[bytes]] = {}

    def submit(self, spec: RunSpec, run_dir: Path) -> RunHandle:
        """Make sure the run is done or on its way. Done → reuse; alive → attach; partial → resume; absent → start."""
        run_dir = run_dir.absolute()
        handle = RunHandle(launcher=self.name, run_dir=str(run_dir), fingerprint=spec.fingerprint)
        stored = run_dir / "spec.json"
        try:
            run_dir.mkdir(parents=True, exist_ok=True)
            with _locked(run_dir):
                if stored.is_file() and _stored_fingerprint(stored) != spec.fingerprint:
                    raise RunFailed(f"{run_dir} belongs to another run; move it away or use another run directory.")
                if self.status(handle) not in ("done", "running", "stopping"):
                    replace_file(stored, encode_spec(spec))
                    self._start(spec, run_dir)
        except OSError as error:
            raise (refusal(error, run_dir) or error) from error
        return handle

    def _start(self, spec: RunSpec, run_dir: Path) -> None:
        for name in ATTEMPT_FILES:
            (run_dir / name).unlink(missing_ok=True)
        for rank in run_dir.glob("ranks/*.json"):
            rank.unlink()
        environment = {
            **os.environ,
            LAUNCHED: self.name,
            "OMP_NUM_THREADS": str(spec.execution.threads),
            "PYTHONPATH": os.pathsep.join([str(Path(__file__).resolve().parents[2]), *_python_path()]),
            "PYTHONSAFEPATH": "1",  # the folder that somebody happened to stand in is no place to import from
            "PYTHONUNBUFFERED": "1",
            **({"GLOO_SOCKET_IFNAME": _loopback()} if needs_torchrun(spec) else {}),
        }
        with (run_dir / "worker.log").open("ab") as log:
            child = subprocess.Popen(
                command(spec, run_dir, self.worker),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env=environment,
                start_new_session=True,  # the run outlives the terminal, the asset and the daemon that started it
            )
        try:
            replace_file(run_dir / "agent.json", msgspec.json.encode(identify(child.pid)))
            (run_dir / "heartbeat").touch()
        except BaseException:
            # Nobody would ever find it. A torchrun agent's ranks die with it.
            child.kill()
            child.wait()
            raise
        self._children[str(run_dir)] = child

    def status(self, handle: RunHandle) -> State:
        """What the run directory says; never trusts an exit code alone."""
        run_dir = Path(handle.run_dir)
        child = self._children.get(handle.run_dir)
        if child is not None:
            child.poll()  # reaps our own child, which would stay a zombie otherwise
        agent = read_identity(run_dir / "agent.json")
        # Looked at before the result: a worker that publishes and ends between the two must not seem to have died.
        alive = agent is not None and (any(map(is_alive, (agent, *_ranks(run_dir)))) or _alive_elsewhere(run_dir, agent))
        if _valid_result(run_dir) is not None:
            return "done"
        if agent is None:
            return "absent"
        if alive:
            return "stopping" if (run_dir / "stop").exists() else "running"
        ended = read_exit(run_dir)
        return "interrupted" if ended is None or ended.code == EXIT_RESUMABLE else "failed"

    def events(self, handle: RunHandle, cursor: int) -> tuple[list[Event], int]:
        """Whole lines of events.jsonl from byte `cursor` on; a line that is still being written waits for the next call."""
        path = Path(handle.run_dir) / "events.jsonl"
        try:
            with path.open("rb") as stream:
                stream.seek(cursor)
                data = stream.read()
        except FileNotFoundError:
            return [], cursor
        whole = data[: data.rfind(b"\n") + 1]
        found = []
        for line in whole.splitlines():
            try:
                found.append(msgspec.json.decode(line, type=Event))
            except msgspec.MsgspecError:
                # A killed writer leaves a torn line, which its successor closes with a newline.
                continue
        return found, cursor + len(whole)

    def follow(self, handle: RunHandle, cursor: int = 0) -> Iterator[Event]:
        """Events from byte `cursor` on as they come, until the run has ended."""
        while True:
            ended = self.status(handle) not in ("running", "stopping", "pending")
            found, cursor = self.events(handle, cursor)
            yield from found
            if ended:
                return
            if not found:
                time.sleep(_POLL)

    def stop(self, handle: RunHandle, grace_seconds: float) -> None:
        """Ask, then insist: request file → SIGTERM → after the grace SIGKILL to the group and to every rank by name."""
        run_dir = Path(handle.run_dir)
        agent = read_identity(run_dir / "agent.json")
        if agent is None or self.status(handle) not in ("running", "stopping"):
            return
        if not is_here(agent):
            raise RunFailed(f"{run_dir} runs on host {agent.host}; stop it there (`molmo2 runs stop {run_dir.name}`).")
        replace_file(run_dir / "stop", str(time.time()).encode())
        spec = decode_spec((run_dir / "spec.json").read_bytes())
        try:
            if needs_torchrun(spec):
                # torchrun kills its ranks 30 s after SIGTERM whatever they are doing, so the request file gets the whole grace.
                wait_gone([agent, *_ranks(run_dir)], grace_seconds)
            send(agent, signal.SIGTERM)
            if not wait_gone([agent, *_ranks(run_dir)], min(5.0, grace_seconds) if needs_torchrun(spec) else grace_seconds):
                send(agent, signal.SIGKILL, group=True)
                for rank in _ranks(run_dir):
                    send(rank, signal.SIGKILL)
                if not wait_gone([agent, *_ranks(run_dir)], 10.0):
                    raise RunFailed(f"{run_dir} was killed, but process {agent.pid} or a rank of it hangs in the kernel.")
        except PermissionError:
            raise RunFailed(f"{run_dir} belongs to another user, who must stop process {agent.pid}.") from None
        child = self._children.pop(handle.run_dir, None)
        if child is not None:
            child.wait(timeout=10)

    def result(self, handle: RunHandle) -> RunResult:
        """The result of a run that is done. Raises RunFailed with the end of the log."""
        run_dir = Path(handle.run_dir)
        found = _valid_result(run_dir)
        if found is not None:
            return found
        log = run_dir / "worker.log"
        lines = log.read_text(errors="replace").splitlines()[-_LOG_TAIL:] if log.is_file() else []
        state, ended = self.status(handle), read_exit(run_dir)
        why = {
            "absent": "was never started",
            "interrupted": "was interrupted; run it again and it resumes from its last checkpoint",
            "running": "is still running",
            "stopping": "is stopping",
        }.get(state) or f"failed: {ended.message if ended else 'no reason was left'}\nFix the cause and run it again"
        raise RunFailed(f"The run {run_dir.name} {why}. Log: {log}\n" + "\n".join(lines))


def needs_torchrun(spec: RunSpec) -> bool:
    """More than one rank: only training has them."""
    return spec.kind == "train" and spec.execution.processes > 1


def command(spec: RunSpec, run_dir: Path, worker: str = LocalLauncher.worker) -> list[str]:
    """The worker's command line."""
    rank = ["-m", worker, "--spec", str(run_dir / "spec.json"), "--run-dir", str(run_dir)]
    if not needs_torchrun(spec):
        return [sys.executable, *rank]
    ranks = ["--standalone", "--local-addr", "127.0.0.1", "--nproc-per-node", str(spec.execution.processes)]
    torchrun = ["-m", "torch.distributed.run", *ranks]
    return [sys.executable, *torchrun, *rank]


def _loopback() -> str:
    """The interface that ranks of one host talk through. Gloo would take that of the host's name, which may lead to the network, or
    nowhere."""
    return next(name for _, name in socket.if_nameindex() if name.startswith("lo"))


def _python_path() -> list[str]:
    return [part for part in os.environ.get("PYTHONPATH", "").split(os.pathsep) if part]


@contextmanager
def _locked(run_dir: Path) -> Iterator[None]:
    with (run_dir / "submit.lock").open("a") as stream:
        fcntl.flock(stream, fcntl.LOCK_EX)
        yield


def _stored_fingerprint(path: Path) -> str | None:
    """Whose run the folder is; None where the file says nothing that can be read."""
    try:
        return decode_spec(path.read_bytes()).fingerprint
    except msgspec.MsgspecError:
        return None


def _ranks(run_dir: Path) -> list[Identity]:
    found = (read_identity(path) for path in sorted(run_dir.glob("ranks/*.json")))
    return [identity for identity in found if identity is not None]


def _alive_elsewhere(run_dir: Path, agent: Identity) -> bool:
    heartbeat = run_dir / "heartbeat"
    if is_here(agent) or not heartbeat.exists():
        return False
    return time.time() - heartbeat.stat().st_mtime < _REMOTE_SILENCE


def read_exit(run_dir: Path) -> Exit | None:
    """How the last worker ended; None where it left nothing, as after a kill."""
    try:
        return msgspec.json.decode((run_dir / "exit.json").read_bytes(), type=Exit)
    except (FileNotFoundError, msgspec.MsgspecError):
        return None


def _valid_result(run_dir: Path) -> RunResult | None:
    output = run_dir / "output"
    try:
        result = msgspec.json.decode((run_dir / "result.json").read_bytes(), type=RunResult)
        manifest = read_manifest(output)
    except (FileNotFoundError, msgspec.MsgspecError, ManifestError):
        return None
    if manifest.data_version != result.data_version or verify_files(output, manifest, hashes=False):
        return None
    return msgspec.structs.replace(result, output=str(output))  # the home may have moved since
