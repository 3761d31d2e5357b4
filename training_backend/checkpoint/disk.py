"""What a disk that refuses looks like in each library, as one sentence.

Belongs here: recognising. Imports no torch, so that the worker can ask for any kind of run.
"""

from __future__ import annotations

import errno
import os
import re
from pathlib import Path

from training_backend.data.manifest import StorageError, storage_error

_REFUSALS = {errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EPERM, errno.EROFS, errno.EIO}
_SAFETENSORS = re.compile(r"\(os error (\d+)\)")
"""safetensors raises its own error, no OSError, with the number in the text."""


def refusal(error: BaseException, path: Path) -> StorageError | None:
    """`error` as a StorageError about `path` where the disk refused to take something; None where it is anything else."""
    if isinstance(error, StorageError):
        return error
    number: int | None = None
    if isinstance(error, OSError):
        number = error.errno
    elif type(error).__name__ == "SafetensorError" and (found := _SAFETENSORS.search(str(error))):
        number = int(found[1])
    if number not in _REFUSALS:
        return None
    assert number is not None
    return storage_error(OSError(errno.ENOSPC if number == errno.EDQUOT else number, os.strerror(number)), path)
