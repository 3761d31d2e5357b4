"""Sets that a person has put in place: annotations or media that no program may fetch.

Belongs here: finding the folder, linking its files into the raw asset, their checksums. Does not belong here: reading them.

The folder is `source.path`: absolute, or relative to the folder named by MOLMO2_MANUAL. `source.files` are patterns of what is
taken (default: everything but hidden files).
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from fnmatch import fnmatch
from pathlib import Path
from typing import TYPE_CHECKING, Any

from molmo2_assets.sources.outcome import FetchResult, SourceUnavailable, how_to_get
from training_backend.data.fingerprint import file_sha256, fingerprint, short

if TYPE_CHECKING:
    from molmo2_assets.profile import DatasetSpec

ROOT_VARIABLE = "MOLMO2_MANUAL"


def folder_of(spec: DatasetSpec) -> Path:
    """The folder that should hold the set. Raises SourceUnavailable where it is not there or cannot be named."""
    given = spec.source.path
    instructions = how_to_get(spec)
    if not given:
        raise SourceUnavailable(f"{spec.name} must be put in place by hand and its entry names no source.path.", instructions)
    path = Path(given).expanduser()
    if not path.is_absolute():
        root = os.environ.get(ROOT_VARIABLE)
        if not root:
            raise SourceUnavailable(
                f"{spec.name} must be put in place by hand, in the folder {given} below {ROOT_VARIABLE}, which is not set.",
                instructions,
            )
        path = Path(root).expanduser() / path
    if not path.is_dir():
        raise SourceUnavailable(f"{spec.name} must be put in place by hand: there is no folder {path}.", instructions)
    return path


def files_of(spec: DatasetSpec, folder: Path) -> list[Path]:
    """Files that are taken, relative to the folder, sorted. Hidden ones only where a pattern names them."""
    patterns = tuple(spec.source.files)
    found = []
    for path in sorted(folder.rglob("*")):
        relative = path.relative_to(folder)
        wanted = any(fnmatch(relative.as_posix(), pattern) for pattern in patterns) if patterns else not _hidden(relative)
        if wanted and path.is_file():
            found.append(relative)
    return found


def _hidden(relative: Path) -> bool:
    return any(part.startswith(".") for part in relative.parts)


def identity(spec: DatasetSpec) -> dict[str, Any]:
    """Path, patterns, and the names and sizes of what is there now: enough to see that files came, went or grew.

    A file replaced by another of the same size is not seen here (hashing terabytes at every look would be); force the asset then.
    """
    try:
        folder = folder_of(spec)
    except SourceUnavailable:
        listing = None
    else:
        listing = fingerprint([[path.as_posix(), (folder / path).stat().st_size] for path in files_of(spec, folder)])
    return {"path": spec.source.path, "files": list(spec.source.files), "listing": listing}


def fetch_manual(spec: DatasetSpec, dest: Path, log: Callable[[str], None]) -> FetchResult:
    """Hard-link (else copy) the files into `dest` and hash them. Raises SourceUnavailable where there are none."""
    folder = folder_of(spec)
    files = files_of(spec, folder)
    if not files:
        wanted = ", ".join(spec.source.files) or "any file"
        raise SourceUnavailable(
            f"{spec.name}: the folder {folder} holds nothing that matches {wanted}.",
            how_to_get(spec),
        )
    checksums: dict[str, str] = {}
    total = 0
    for relative in files:
        source, target = folder / relative, dest / relative
        target.parent.mkdir(parents=True, exist_ok=True)
        target.unlink(missing_ok=True)
        try:
            os.link(source.resolve(), target)
        except OSError:
            shutil.copyfile(source, target)
        checksums[relative.as_posix()] = file_sha256(target)
        total += target.stat().st_size
    log(f"{spec.name}: {len(files)} files, {total} bytes from the folder put in place by hand")
    return FetchResult(revision=f"manual-{short(fingerprint(checksums))}", facts={"files": len(files), "bytes": total})
