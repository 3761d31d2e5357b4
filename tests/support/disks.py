"""Disks that are full or refuse to be written, for real: small file systems in memory."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest


def _mount(*arguments: str) -> bool:
    return subprocess.run(["mount", *arguments], capture_output=True).returncode == 0


@contextmanager
def small_disk(folder: Path, kilobytes: int) -> Iterator[Path]:
    """`folder` as a disk of that size. Skips the test where this user may not mount."""
    folder.mkdir(parents=True, exist_ok=True)
    if not _mount("-t", "tmpfs", "-o", f"size={kilobytes}k", "tmpfs", str(folder)):
        pytest.skip("a small disk needs the right to mount a tmpfs")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


def fill(folder: Path) -> Path:
    """Leave no space on the disk of `folder`; returns the file to remove."""
    path = folder / "filler"
    with path.open("wb", buffering=0) as stream:
        for size in (1 << 16, 1 << 12, 1):
            try:
                while stream.write(b"x" * size):
                    pass
            except OSError:
                continue
    return path


@contextmanager
def unwritable(folder: Path) -> Iterator[Path]:
    """`folder` (a small disk, for root) while nothing may be written to it."""
    if os.geteuid() == 0:
        end = time.monotonic() + 10
        while not _mount("-o", "remount,ro", str(folder)):  # a process that is just ending may still hold a file open
            assert time.monotonic() < end
            time.sleep(0.05)
    else:
        folder.chmod(0o500)
    try:
        yield folder
    finally:
        if os.geteuid() == 0:
            assert _mount("-o", "remount,rw", str(folder))
        else:
            folder.chmod(0o700)
