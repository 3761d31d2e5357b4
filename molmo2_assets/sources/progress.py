"""How far something long has come: a bar on a terminal, elsewhere a line in thirty seconds.

Belongs here: showing. Does not belong here: what is counted.
"""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable
from types import TracebackType
from typing import Any

LOG_SECONDS = 30.0
"""Between two lines in a log, which people read afterwards; a bar is drawn as often as it likes."""


class Progress:
    """Counts up to `total` (bytes, media, rows). Safe to use from several threads; use as a context manager."""

    def __init__(self, name: str, total: int | None, unit: str, log: Callable[[str], None]) -> None:
        self.name, self.total, self.unit, self.log = name, total, unit, log
        self.done = 0
        self._lock = threading.Lock()
        self._spoke = time.monotonic()
        self._bar: Any = None

    def __enter__(self) -> Progress:
        if sys.stderr.isatty():
            from tqdm import tqdm

            self._bar = tqdm(
                total=self.total, desc=self.name, unit=self.unit, unit_scale=self.unit == "B", leave=False, file=sys.stderr
            )
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None) -> None:
        if self._bar is not None:
            self._bar.close()

    def add(self, count: int = 1) -> None:
        """So many more are done."""
        with self._lock:
            self.done += count
            if self._bar is not None:
                self._bar.update(count)
            elif time.monotonic() - self._spoke > LOG_SECONDS:
                self._spoke = time.monotonic()
                of = f" of {self.total}" if self.total is not None else ""
                self.log(f"{self.name}: {self.done}{of} {'bytes' if self.unit == 'B' else self.unit}")
