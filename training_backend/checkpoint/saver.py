"""Saving beside training: the state is copied, then written by a thread of its own while the next steps are taken.

Belongs here: when to copy, when to wait, whose error it is. Does not belong here: what is written, and that it exists whole or not
at all (`state.py`).
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from types import TracebackType

from training_backend.checkpoint.state import TrainState, snapshot, write_state


class Saver:
    """One write at a time. A context manager: on the way out what is under way is finished.

    `announce(step)` is called once a state is published, by the writing thread.
    """

    def __init__(self, root: Path, fingerprint: str, keep: int, announce: Callable[[int], None]) -> None:
        self.root, self.fingerprint, self.keep, self.announce = root, fingerprint, keep, announce
        self._pool = ThreadPoolExecutor(1, "checkpoint")
        self._writing: Future[None] | None = None

    def __enter__(self) -> Saver:
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None) -> None:
        self._pool.shutdown()
        if kind is None:
            self.wait()  # else the error that is on its way out is the one to hear of

    def save(self, state: TrainState) -> None:
        """Copy the state and begin to write it, after the write before has ended. Raises what that one met."""
        self.wait()
        self._writing = self._pool.submit(self._write, snapshot(state))

    def _write(self, state: TrainState) -> None:
        write_state(self.root, state, self.fingerprint, self.keep)
        self.announce(state.step)

    def check(self) -> None:
        """Raise what a write that has ended met; never waits."""
        if self._writing is not None and self._writing.done():
            self.wait()

    def wait(self) -> None:
        """Until nothing is being written. Raises StorageError, or whatever the write met."""
        writing, self._writing = self._writing, None
        if writing is not None:
            writing.result()
