"""The folder in which downloads arrive: kept when a fetch breaks off, used by one process at a time.

Belongs here: that folder and its lock. Does not belong here: any protocol (`hub.py`, `url.py`).
"""

from __future__ import annotations

import fcntl
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def arriving(downloads: Path | None, dest: Path, name: str, log: Callable[[str], None]) -> Iterator[Path]:
    """A folder to download version `name` into. What it holds at the end is moved to `dest`; after an error it stays, and the next
    fetch of the same version goes on there.

    A second process that fetches the same version waits, and then fetches for itself: both publish, neither reads half a file. With
    `downloads` None the folder is `dest` itself.
    """
    if downloads is None:
        yield dest
        return
    folder = downloads / name
    folder.mkdir(parents=True, exist_ok=True)
    # The lock's file stays: one that is removed while somebody waits for it locks nothing.
    with (downloads / f"{name}.lock").open("a") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            log(f"another process is fetching the same files ({name[:12]}); waiting for it")
            fcntl.flock(lock, fcntl.LOCK_EX)
        folder.mkdir(exist_ok=True)  # whoever was here before moved it away
        yield folder
        for path in sorted(folder.rglob("*")):
            if path.is_file():
                to = dest / path.relative_to(folder)
                to.parent.mkdir(parents=True, exist_ok=True)
                shutil.move(path, to)
        shutil.rmtree(folder)
