"""A kill at a chosen moment: the process that calls this dies at its n-th change of the disk."""

from __future__ import annotations

import os
import signal
import sys
from typing import Any

CHANGES = {"open", "os.rename", "os.remove", "os.rmdir", "os.mkdir", "os.truncate"}


def die_at_change(number: int) -> None:
    """SIGKILL to this process at its `number`-th change of the disk from now on (of those that Python makes)."""
    seen = 0

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        nonlocal seen
        if event not in CHANGES or (event == "open" and not arguments[2] & (os.O_WRONLY | os.O_RDWR)):
            return
        seen += 1
        if seen == number:
            os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(hook)
