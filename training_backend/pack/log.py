"""The plan log: which pack of its window every position went to, and how many packs there were before.

Belongs here: the file. Does not belong here: planning (`plan.py`). It makes a global pack number an O(log n) look-up, and later
answers "which step saw this row".

`plan.log` = a header line of JSON {schema, plan, window}, then one record a window, in order: 4 bytes number of packs, 2 bytes a
position (its pack), 4 bytes crc32 of the two, all little-endian. A record that is cut off or damaged ends the log: it is written
anew.
"""

from __future__ import annotations

import os
import zlib
from bisect import bisect_right
from collections.abc import Sequence
from pathlib import Path

import msgspec
import numpy as np
from numpy.typing import NDArray

from training_backend.data.manifest import storage_error

LOG_FILE = "plan.log"
LOG_SCHEMA = "molmo2-plan-log/1"


class PlanLogError(ValueError):
    """A log of other packs than those that are asked for; the message names the file and the way out."""


class _Header(msgspec.Struct, frozen=True, kw_only=True):
    plan: str
    window: int
    schema: str = LOG_SCHEMA


class PlanLog:
    """Windows planned so far. `plan` identifies everything that decides packs.

    `folder` None keeps counts in memory only; of several ranks one has `write`, the others only read what is there.
    """

    def __init__(self, folder: Path | None, plan: str, window: int, *, write: bool = True) -> None:
        self.path = None if folder is None else folder / LOG_FILE
        self._window, self._write = window, write
        self._starts = [0]  # first global pack of each window, and of the next one
        self._header = msgspec.json.encode(_Header(plan=plan, window=window)) + b"\n"
        if self.path is not None:
            self._open()

    def __len__(self) -> int:
        """Windows known."""
        return len(self._starts) - 1

    def _open(self) -> None:
        assert self.path is not None
        try:
            data = self.path.read_bytes() if self.path.exists() else b""
            good = len(self._header) if data.startswith(self._header) else 0
            if not good and b"\n" in data:
                raise PlanLogError(f"{self.path} belongs to other sequences; remove it, or give the run a fresh folder.")
            size = 8 + 2 * self._window
            while good and good + size <= len(data):
                record = data[good : good + size]
                if zlib.crc32(record[:-4]) != int.from_bytes(record[-4:], "little"):
                    break
                self._starts.append(self._starts[-1] + int.from_bytes(record[:4], "little"))
                good += size
            if self._write and not good:
                self.path.parent.mkdir(parents=True, exist_ok=True)
                self.path.write_bytes(self._header)
            elif self._write and good < len(data):
                os.truncate(self.path, good)
        except OSError as error:
            raise storage_error(error, self.path) from error

    def append(self, number: int, packs: Sequence[Sequence[int]]) -> None:
        """Record window `number`; windows that are known already, or not yet due, are not written."""
        if number != len(self):
            return
        self._starts.append(self._starts[-1] + len(packs))
        if self.path is None or not self._write:
            return
        slots = np.zeros(self._window, dtype="<u2")
        for place, pack in enumerate(packs):
            slots[np.asarray(pack)] = place
        body = len(packs).to_bytes(4, "little") + slots.tobytes()
        try:
            with self.path.open("ab") as stream:
                stream.write(body + zlib.crc32(body).to_bytes(4, "little"))
        except OSError as error:
            raise storage_error(error, self.path) from error

    def find(self, pack: int) -> tuple[int, int] | None:
        """(window, slot) of a global pack number; None where its window is not known yet."""
        if pack >= self._starts[-1]:
            return None
        window = bisect_right(self._starts, pack) - 1
        return window, pack - self._starts[window]

    def first_pack(self, window: int) -> int:
        """Global number of a known window's first pack; of the next window's too."""
        return self._starts[window]

    def slots(self, window: int) -> NDArray[np.uint16]:
        """Pack within the window of each of its positions, as the file has it. Raises PlanLogError where it is not on disk."""
        if self.path is None or not 0 <= window < len(self):
            raise PlanLogError(f"window {window} is not in the plan log")
        size = 8 + 2 * self._window
        with self.path.open("rb") as stream:
            stream.seek(len(self._header) + window * size)
            return np.frombuffer(stream.read(size)[4:-4], dtype="<u2")
