"""Events of a run: one JSON object a line, appended and flushed, so that whoever follows sees a line whole or not at all.

Belongs here: writing, and the sign of life. Reading is the launcher's (`launch/local.py`).
"""

from __future__ import annotations

import os
import threading
import time
from pathlib import Path
from types import TracebackType
from typing import Any

import msgspec

from training_backend.api import Event
from training_backend.data.manifest import storage_error

HEARTBEAT_SECONDS = 5.0


class EventWriter:
    """Appends to `events.jsonl` and touches `heartbeat` every few seconds. A context manager.

    Only rank 0 writes; the others' writers are `silent`. Raises StorageError where the disk takes no more.
    """

    def __init__(self, run_dir: Path, *, silent: bool = False) -> None:
        self.run_dir, self.silent = run_dir, silent
        self._path = run_dir / "events.jsonl"
        self._ended = threading.Event()
        self._writing = threading.Lock()
        self._thread = threading.Thread(target=self._beat, daemon=True, name="heartbeat")

    def __enter__(self) -> EventWriter:
        if self.silent:
            return self
        try:
            self._stream = os.open(self._path, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o644)
            self._close_torn_line()
        except OSError as error:
            raise storage_error(error, self._path) from error
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None) -> None:
        if self.silent:
            return
        self._ended.set()
        self._thread.join()
        os.close(self._stream)

    def _close_torn_line(self) -> None:
        """A writer that was killed, or had no space, leaves half a line: the next one must not be glued to it."""
        size = os.fstat(self._stream).st_size
        if size and os.pread(self._stream, 1, size - 1) != b"\n":
            os.write(self._stream, b"\n")

    def _beat(self) -> None:
        while not self._ended.wait(HEARTBEAT_SECONDS):
            try:
                (self.run_dir / "heartbeat").touch()
            except OSError:
                continue  # a disk that is away for a while must not end the sign of life for good

    def emit(self, name: str, **data: Any) -> None:
        """Append one event. Safe to call from several threads."""
        if self.silent:
            return
        line = msgspec.json.encode(Event(time=time.time(), name=name, data=data)) + b"\n"
        try:
            with self._writing:
                self._close_torn_line()
                written = os.write(self._stream, line)
                if written < len(line):  # the disk became full inside the line: the rest of it says so
                    os.write(self._stream, line[written:])
        except OSError as error:
            raise storage_error(error, self._path) from error
