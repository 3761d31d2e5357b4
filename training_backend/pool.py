"""Processes for what Python itself computes: a pool that ends with whoever made it.

Belongs here: how such processes begin and end. Does not belong here: the ranks of a run (`launch/`), what is computed.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from typing import Any


def processors() -> int:
    """How many processes can compute at a time: the processors that this one may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@contextmanager
def processes(count: int, prepare: Callable[..., None] | None = None, *arguments: Any) -> Iterator[ProcessPoolExecutor]:
    """A pool of `count` processes, each of which calls `prepare(*arguments)` first. After an error inside of the block, what has
    not begun never does.

    They are spawned, because a process that has threads must not be forked. They end when this process does, however it ends,
    and leave Ctrl-C to it. Raises RuntimeError where one of them was ended from outside.
    """
    with ProcessPoolExecutor(
        count, multiprocessing.get_context("spawn"), initializer=_begin, initargs=(prepare, arguments)
    ) as pool:
        try:
            yield pool
        except BrokenProcessPool as error:
            raise RuntimeError(
                f"one of {count} processes that this one had started could not begin, or was ended from outside, perhaps because "
                "memory ran out; close what else takes memory and run again."
            ) from error
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def _begin(prepare: Callable[..., None] | None, arguments: tuple[Any, ...]) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, name="parent", daemon=True).start()
    if prepare is not None:
        prepare(*arguments)


def _end_with_parent() -> None:
    """A process that waits for work is not told that nobody will send any."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)
