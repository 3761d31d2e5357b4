"""Archives among fetched files: unpacked member by member, however hostile they are.

Belongs here: zip, tar (also with gzip, bzip2, xz) and single gzipped files, their limits. Does not belong here: fetching, what the
files mean.

`a/set.zip` becomes the folder `a/set`; where its members stand in a folder `set` already, it is not doubled. Only plain files are
written, each under its own name and nothing over another: links, devices, sparse files and names that leave the folder are refused,
counted and named, and the rest of the archive stays usable. An archive that is damaged, locked, or larger than the limits is one
error. Archives in several parts are not read.
"""

from __future__ import annotations

import errno
import gzip
import stat
import tarfile
import zipfile
import zlib
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from fnmatch import fnmatch
from functools import partial
from pathlib import Path, PurePosixPath
from typing import IO

from molmo2_assets.sources.outcome import SourceError
from molmo2_assets.sources.progress import Progress
from training_backend.data.manifest import MANIFEST_FILE, StorageError, storage_error

CODE_VERSION = 1
PACKED_ROWS = ("*.json.gz", "*.jsonl.gz", "*.csv.gz", "*.tsv.gz")
"""Annotations that are unpacked without being asked for: rows are read from plain files."""
_ZIP, _TAR = (".zip",), (".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tar.xz")
_BLOCK = 1 << 20
_MAX_HEADER = 1 << 20
"""Bytes of a name or of a tar's extended header, which are read into memory whole."""
_NO_NAME = (errno.ENAMETOOLONG, errno.EINVAL, errno.EILSEQ)
_BROKEN = (OSError, EOFError, ValueError, RuntimeError, NotImplementedError, zlib.error, zipfile.BadZipFile, tarfile.TarError)


@dataclass(frozen=True)
class UnpackLimits:
    """What one archive may become: members, bytes of one, and bytes of all: `ratio` times the archive's own, but `floor` always."""

    max_members: int = 2_000_000
    max_member_bytes: int = 64 << 30
    ratio: int = 100
    floor: int = 256 << 20


DEFAULT_LIMITS = UnpackLimits()


@dataclass(frozen=True)
class _Member:
    """`refusal` says why it is not written. `size` is what the archive says; `open` gives the bytes."""

    name: str
    size: int
    refusal: str | None
    open: Callable[[], IO[bytes]]


def unpack(name: str, folder: Path, patterns: tuple[str, ...], log: Callable[[str], None],
           limits: UnpackLimits = DEFAULT_LIMITS) -> dict[str, int]:  # fmt: skip
    """Put the members of every archive in `folder` that matches one of `patterns` in its place; returns refused members by reason.

    `name` is that of the set. Raises SourceError naming set, archive and member.
    """
    refused: Counter[str] = Counter()
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        relative = path.relative_to(folder).as_posix()
        if any(fnmatch(relative, pattern) for pattern in patterns):
            refused += _one(name, path, relative, log, limits)
            path.unlink()
    return dict(sorted(refused.items()))


def _one(name: str, path: Path, relative: str, log: Callable[[str], None], limits: UnpackLimits) -> Counter[str]:
    where = f"{name}: {relative}"
    suffix = next((suffix for suffix in (*_ZIP, *_TAR, ".gz") if path.name.endswith(suffix)), None)
    if suffix is None:
        raise SourceError(f"{where} is no kind of archive that is unpacked ({', '.join((*_ZIP, *_TAR, '.gz'))}).")
    stem = path.name.removesuffix(suffix)
    single = suffix == ".gz"
    members = _gzipped(path) if single else _zipped(path) if suffix in _ZIP else _tarred(path)
    target = path.parent if single else path.with_name(stem)
    most = max(limits.floor, limits.ratio * path.stat().st_size)
    refused: Counter[str] = Counter()
    written, number, inside = 0, 0, ""
    try:
        with Progress(where, None, "B", log) as progress:
            for number, member in enumerate(members, 1):
                inside = member.name
                if number > limits.max_members:
                    raise SourceError(f"{where} has more than {limits.max_members} members; nothing of it is used.")
                room = min(most - written, limits.max_member_bytes)
                if member.size > room:
                    raise _too_large(where, member.name, limits, most)
                refusal = member.refusal or _write(member, target, "" if single else stem, room, progress)
                if isinstance(refusal, str):
                    refused[refusal] += 1
                    if refused.total() <= 3:
                        log(f"{where}: member {member.name[:80]!r} is refused ({refusal})")
                else:
                    written += refusal
    except _TooLarge:
        raise _too_large(where, inside, limits, most) from None
    except (SourceError, StorageError):
        raise
    except _BROKEN as error:
        after = f" after member {inside[:80]!r}" if inside else ""
        raise SourceError(f"{where} cannot be unpacked{after}: {type(error).__name__}: {error}") from None
    log(f"{where}: {number - refused.total()} files, {written} bytes" + (f", {refused.total()} refused" if refused else ""))
    return refused


class _TooLarge(Exception):
    pass


def _too_large(where: str, member: str, limits: UnpackLimits, most: int) -> SourceError:
    return SourceError(
        f"{where} unpacks to too much at member {member[:80]!r}: the limit is {limits.max_member_bytes} bytes a member and {most} "
        f"bytes in all ({limits.ratio} times the archive); nothing of it is used."
    )


def _write(member: _Member, target: Path, stem: str, room: int, progress: Progress) -> int | str:
    """Bytes written, or why the member is refused. Raises _TooLarge where it is larger than it said."""
    parts = PurePosixPath(member.name).parts
    if not parts or PurePosixPath(member.name).is_absolute() or ".." in parts or "\\" in member.name or "\0" in member.name:
        return "leaves its folder"
    if parts[0] == stem:
        parts = parts[1:]
    if not parts:
        return "has no name of its own"
    if parts[-1] == MANIFEST_FILE:
        return "has a name that is taken"
    path = target.joinpath(*parts)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        out = path.open("xb")
    except (FileExistsError, NotADirectoryError):
        return "has a name that is taken"
    except OSError as error:
        if error.errno not in _NO_NAME:
            raise storage_error(error, path) from error
        return "has a name that no file can have"
    size = 0
    with out, member.open() as stream:
        while block := stream.read(_BLOCK):
            size += len(block)
            if size > room:
                raise _TooLarge
            try:
                out.write(block)
            except OSError as error:
                raise storage_error(error, path) from error
            progress.add(len(block))
    return size


# -- kinds ------------------------------------------------------------------------------------------------------------------


def _zipped(path: Path) -> Iterator[_Member]:
    with zipfile.ZipFile(path) as archive:
        for info in archive.infolist():
            kind = stat.S_IFMT(info.external_attr >> 16)
            if info.is_dir():
                continue
            refusal = None if kind in (0, stat.S_IFREG) else "is no plain file"
            yield _Member(info.filename, info.file_size, refusal, partial(archive.open, info))


class _Header(tarfile.TarInfo):
    """A tar's header; Python would read extended ones of any size into memory."""

    def _proc_member(self, archive: tarfile.TarFile) -> tarfile.TarInfo:
        extended = (tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.SOLARIS_XHDTYPE, tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK)
        if self.type in extended and self.size > _MAX_HEADER:
            raise tarfile.ReadError(f"a header of {self.size} bytes, the limit is {_MAX_HEADER}")
        return super()._proc_member(archive)  # type: ignore[misc,no-any-return]


def _tarred(path: Path) -> Iterator[_Member]:
    with tarfile.open(path, "r|*", tarinfo=_Header) as archive:
        for info in archive:
            archive.members.clear()  # type: ignore[attr-defined]  # or it keeps every header
            if info.isdir():
                continue
            refusal = "is sparse" if info.issparse() else None if info.isreg() else "is no plain file"
            yield _Member(info.name, info.size, refusal, partial(_bytes_of, archive, info))


def _bytes_of(archive: tarfile.TarFile, info: tarfile.TarInfo) -> IO[bytes]:
    stream = archive.extractfile(info)
    assert stream is not None, "a plain file has bytes"
    return stream


def _gzipped(path: Path) -> Iterator[_Member]:
    """Nothing says how large it is: that is seen when it is."""
    yield _Member(path.name.removesuffix(".gz"), 0, None, partial(gzip.GzipFile, path))  # type: ignore[arg-type]
