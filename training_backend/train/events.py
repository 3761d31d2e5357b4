"""Events of a run: one JSON object a line, appended and flushed, so that whoever follows sees a line whole or not at all.

Belongs here: writing. Reading is the launcher's (`launch/local.py`).
"""

from __future__ import annotations

import threading
import time
from pathlib import Path
from types import TracebackType
from typing import Any

import msgspec

from training_backend.api import Event

_HEARTBEAT_SECONDS = 5.0


class EventWriter:
    """Appends to `events.jsonl` and touches `heartbeat` every few seconds. A context manager; only rank 0 has one."""

    def __init__(self, run_dir: Path) -> None:
        self.run_dir = run_dir
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._beat, daemon=True, name="heartbeat")

    def __enter__(self) -> EventWriter:
        path = self.run_dir / "events.jsonl"
        torn = path.is_file() and path.stat().st_size > 0 and not path.read_bytes().endswith(b"\n")
        self._stream = path.open("ab", buffering=0)
        if torn:
            self._stream.write(b"\n")
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None) -> None:
        self._ended.set()
        self._stream.close()

    def _beat(self) -> None:
        while not self._ended.wait(_HEARTBEAT_SECONDS):
            (self.run_dir / "heartbeat").touch()

    def emit(self, name: str, **data: Any) -> None:
        """Append one event."""
        self._stream.write(msgspec.json.encode(Event(time=time.time(), name=name, data=data)) + b"\n")
