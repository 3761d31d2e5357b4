"""Sets that a person has put in place: annotations or media that no program may fetch.

Belongs here: finding the folder, linking its files into the raw asset, their checksums. Does not belong here: reading them.

The folder is `source.path`: absolute, or relative to the folder named by MOLMO2_MANUAL. `source.files` are patterns of what is
taken (default: everything but hidden files), with the archives of `source.unpack`; `source.params.sha256` maps some of the names to
their published hashes.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from fnmatch import fnmatch
from pathlib import Path
from typing import TYPE_CHECKING, Any

from molmo2_assets.sources.outcome import FetchResult, SourceUnavailable, how_to_get
from training_backend.data.fingerprint import file_sha256, fingerprint, short

if TYPE_CHECKING:
    from molmo2_assets.profile import DatasetSpec

ROOT_VARIABLE = "MOLMO2_MANUAL"
HASHED_BYTES = 64 << 20
"""Files up to this size are told apart by content whenever somebody looks."""


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
    patterns = (*spec.source.files, *spec.source.unpack) if spec.source.files else ()
    found = []
    for path in sorted(_walk(folder)):
        relative = path.relative_to(folder)
        wanted = any(fnmatch(relative.as_posix(), pattern) for pattern in patterns) if patterns else not _hidden(relative)
        if wanted:
            found.append(relative)
    return found


def _walk(folder: Path, above: tuple[Path, ...] = ()) -> Iterator[Path]:
    """Every file below a folder, also behind links: media often lie on another disk, and `rglob` passes over linked folders. A link
    back to a folder `above` is not entered."""
    real = folder.resolve()
    if real in above:
        return
    for path in folder.iterdir():
        if path.is_dir():
            yield from _walk(path, (*above, real))
        elif path.is_file():
            yield path


def _hidden(relative: Path) -> bool:
    return any(part.startswith(".") for part in relative.parts)


def identity(spec: DatasetSpec) -> dict[str, Any]:
    """Path, patterns, and what is there now: name and content of every file, or, above `HASHED_BYTES`, name, size and time of
    change (hashing terabytes at every look would take hours). A file that was only touched is fetched again and found the same.
    """
    try:
        folder = folder_of(spec)
    except SourceUnavailable:
        listing = None
    else:
        listing = fingerprint([[path.as_posix(), *_content(folder / path)] for path in files_of(spec, folder)])
    published = {"sha256": spec.source.params["sha256"]} if "sha256" in spec.source.params else {}
    return {"path": spec.source.path, "files": list(spec.source.files), "listing": listing, **published}


def _content(path: Path) -> list[str | int]:
    facts = path.stat()
    return [file_sha256(path)] if facts.st_size <= HASHED_BYTES else [facts.st_size, facts.st_mtime_ns]


def _take(source: Path, target: Path) -> None:
    if not source.stat().st_mode & 0o222:
        try:
            os.link(source, target)
        except OSError:  # another disk, or one without links
            pass
        else:
            return
    shutil.copyfile(source, target)


def fetch_manual(spec: DatasetSpec, dest: Path, log: Callable[[str], None]) -> FetchResult:
    """Copy the files into `dest` and hash them. Raises SourceUnavailable where there are none.

    A file that nobody may write (`chmod a-w`) is hard-linked instead, which costs no space. Others are not: an editor that writes
    in place would change a version that is already published.
    """
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
        _take(source.resolve(), target)
        checksums[relative.as_posix()] = file_sha256(target)
        published = spec.source.params.get("sha256", {}).get(relative.as_posix())
        if published not in (None, checksums[relative.as_posix()]):
            raise SourceUnavailable(
                f"{spec.name}: {relative} in {folder} is not the published file (sha256 {checksums[relative.as_posix()][:12]}…, "
                f"published {published[:12]}…).",
                how_to_get(spec),
            )
        total += target.stat().st_size
    log(f"{spec.name}: {len(files)} files, {total} bytes from the folder put in place by hand")
    return FetchResult(revision=f"manual-{short(fingerprint(checksums))}", facts={"files": len(files), "bytes": total})
