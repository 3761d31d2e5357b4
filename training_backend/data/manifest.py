"""Manifests and asset folders: how a finished piece of work lies on disk, and how it gets there without ever being half there.

Belongs here: the manifest's fields, reading and writing it, the folder of one asset (`<root>/<key>/<recipe12>/`), publishing by
rename, the `current` pointer. Does not belong here: what a recipe contains (the caller), walking parents
(`molmo2_assets.lineage`), collecting old versions (`molmo2 gc`).

No manifest, no version: a folder without one is somebody's unfinished work and is never read.
"""

from __future__ import annotations

import errno
import os
import shutil
import uuid
from pathlib import Path
from typing import Any, Literal

import msgspec

from training_backend.data.fingerprint import canonical_bytes, file_sha256, fingerprint, short

MANIFEST_SCHEMA = "molmo2-manifest/1"
MANIFEST_FILE = "manifest.json"
CURRENT_FILE = "current"
_PARTIAL = ".partial-"

AssetState = Literal["ready", "unavailable", "rejected"]


class ManifestError(ValueError):
    """A folder that should hold a finished asset does not; the message names the folder, what is wrong and the way out."""


class StorageError(OSError):
    """The disk refused: full, read-only or without permission; the message says which folder and what to do."""

    def __str__(self) -> str:
        return str(self.strerror)  # without the number that OSError writes before it


class FileEntry(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One file of the asset, path relative to its folder, with `/`."""

    path: str
    bytes: int
    sha256: str


class ParentEntry(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The version of a parent that was read."""

    data_version: str
    recipe: str
    manifest_sha256: str


class Manifest(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Everything that is known of one version of one asset.

    `recipe` is the canonical configuration that it was made from and `recipe_fingerprint` its hash; `data_version` identifies the
    content. `counts` and `facts` describe the content. `run` (times, tool versions, seconds, peak bytes) is outside every hash.
    """

    kind: str
    key: str
    recipe: dict[str, Any]
    recipe_fingerprint: str
    data_version: str
    code_version: str
    parents: dict[str, ParentEntry] = {}
    files: tuple[FileEntry, ...] = ()
    counts: dict[str, Any] = {}
    facts: dict[str, Any] = {}
    state: AssetState = "ready"
    run: dict[str, Any] = {}
    schema: str = MANIFEST_SCHEMA


def manifest_sha256(manifest: Manifest) -> str:
    """Hash of a manifest without its `run` part: equal for equal work done at another time or on another machine."""
    body = msgspec.to_builtins(manifest)
    del body["run"]
    return fingerprint(body)


def parent_entry(manifest: Manifest) -> ParentEntry:
    """What a child records of this asset."""
    return ParentEntry(
        data_version=manifest.data_version, recipe=manifest.recipe_fingerprint, manifest_sha256=manifest_sha256(manifest)
    )


def list_files(folder: Path) -> tuple[FileEntry, ...]:
    """All files below `folder` except its manifest, sorted by path, hashed."""
    entries = []
    for path in sorted(folder.rglob("*")):
        if path.is_file() and path.name != MANIFEST_FILE:
            relative = path.relative_to(folder).as_posix()
            entries.append(FileEntry(path=relative, bytes=path.stat().st_size, sha256=file_sha256(path)))
    return tuple(entries)


def files_version(entries: tuple[FileEntry, ...]) -> str:
    """Data version of an asset whose content is its files: hash of sorted (path, sha256)."""
    return short(fingerprint(sorted((entry.path, entry.sha256) for entry in entries)))


def read_manifest(folder: Path) -> Manifest:
    """The manifest of `folder`. Raises ManifestError where it is missing, torn or of another schema."""
    path = folder / MANIFEST_FILE
    try:
        manifest = msgspec.json.decode(path.read_bytes(), type=Manifest)
    except FileNotFoundError:
        raise ManifestError(f"{folder} has no {MANIFEST_FILE}: it was never finished; materialise the asset again.") from None
    except (msgspec.DecodeError, msgspec.ValidationError) as error:
        raise ManifestError(f"{path} cannot be read ({error}); remove the folder and materialise the asset again.") from None
    if manifest.schema != MANIFEST_SCHEMA:
        raise ManifestError(f"{path} has schema {manifest.schema}, this version reads {MANIFEST_SCHEMA}.")
    return manifest


def write_manifest(folder: Path, manifest: Manifest) -> None:
    """Write `manifest.json` into `folder`: to a temporary file, fsync, rename."""
    data = msgspec.json.format(msgspec.json.encode(manifest, order="sorted"), indent=1) + b"\n"
    replace_file(folder / MANIFEST_FILE, data)


def verify_files(folder: Path, manifest: Manifest, *, hashes: bool = True) -> list[str]:
    """What differs between `folder` and its manifest, one sentence each; sizes only when `hashes` is False."""
    problems = []
    for entry in manifest.files:
        path = folder / entry.path
        if not path.is_file():
            problems.append(f"{path} is missing")
        elif path.stat().st_size != entry.bytes:
            problems.append(f"{path} has {path.stat().st_size} bytes, its manifest says {entry.bytes}")
        elif hashes and file_sha256(path) != entry.sha256:
            problems.append(f"{path} differs from the sha256 in its manifest")
    return problems


def replace_file(path: Path, data: bytes) -> None:
    """Atomically replace the content of `path`: readers see the old bytes or the new ones. Raises StorageError."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.{uuid.uuid4().hex[:8]}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with temporary.open("wb") as stream:
            stream.write(data)
            stream.flush()
            os.fsync(stream.fileno())
        os.replace(temporary, path)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise storage_error(error, path) from error
    sync_folder(path.parent)


def storage_error(error: OSError, path: Path) -> StorageError:
    """`error` in words a person can act on."""
    if isinstance(error, StorageError):
        return error
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        why, way_out = "the disk is full", "free some space and run again; nothing finished is lost"
    elif error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        why, way_out = "no permission to write", "choose another MOLMO2_HOME or give yourself access"
    elif error.errno in (errno.ENOTDIR, errno.EEXIST):
        why, way_out = "a file lies where a folder is needed", "move it away or choose another MOLMO2_HOME"
    else:
        why, way_out = error.strerror or str(error), "check the disk and run again"
    return StorageError(error.errno or 0, f"cannot write {path}: {why}; {way_out}.")


def sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sync_tree(folder: Path) -> None:
    for path in folder.rglob("*"):
        if path.is_file():
            with path.open("rb") as stream:
                os.fsync(stream.fileno())


class AssetStore:
    """The assets below one root, by key. Keys may have several segments (`raw/shapes_points`).

    `pointers` holds the `current` files where they do not lie beside the versions: several readers may share the versions of one
    root and each have its own idea of which is current.
    """

    def __init__(self, root: Path, pointers: Path | None = None) -> None:
        self.root = root
        self.pointers = pointers or root

    def folder(self, key: str) -> Path:
        """Where the versions of `key` lie."""
        return self.root / _checked(key)

    def _pointer(self, key: str) -> Path:
        return self.pointers / _checked(key) / CURRENT_FILE

    def find(self, key: str, recipe_fingerprint: str) -> Path | None:
        """The newest complete folder that was made from this recipe, or None.

        A forced rebuild lies beside the first one as `<recipe12>.attempt-N`; the highest complete attempt wins.
        """
        best: tuple[int, Path] | None = None
        base = short(recipe_fingerprint)
        for path in self.folder(key).glob(f"{base}*"):
            attempt = _attempt(path.name, base)
            if attempt is None or not (path / MANIFEST_FILE).is_file():
                continue
            if read_manifest(path).recipe_fingerprint == recipe_fingerprint and (best is None or attempt > best[0]):
                best = (attempt, path)
        return best[1] if best else None

    def current(self, key: str) -> tuple[Path, Manifest] | None:
        """The folder that `current` names, with its manifest; None where the asset was never made."""
        pointer = self._pointer(key)
        try:
            name = msgspec.json.decode(pointer.read_bytes())["folder"]
        except (FileNotFoundError, NotADirectoryError):
            return None
        except (msgspec.DecodeError, KeyError, TypeError):
            raise ManifestError(f"{pointer} cannot be read; remove it and materialise the asset again.") from None
        folder = self.folder(key) / name
        return folder, read_manifest(folder)

    def stage(self, key: str, recipe_fingerprint: str) -> Path:
        """A fresh folder to build in. Leftovers of builders that no longer live are removed."""
        folder = self.folder(key)
        for leftover in folder.glob(f"{_PARTIAL}*"):
            if not _alive(leftover.name):
                shutil.rmtree(leftover, ignore_errors=True)
        staged = folder / f"{_PARTIAL}{short(recipe_fingerprint)}-{os.getpid()}-{_start_ticks(os.getpid())}-{uuid.uuid4().hex[:6]}"
        try:
            staged.mkdir(parents=True)
        except OSError as error:
            raise storage_error(error, staged) from error
        return staged

    def publish(self, key: str, staged: Path, manifest: Manifest) -> Path:
        """Write the manifest into `staged`, make it durable, rename it to its final name and point `current` at it.

        Where another builder published the same recipe meanwhile, both stay: this one becomes the next attempt.
        """
        try:
            sync_tree(staged)
        except OSError as error:
            raise storage_error(error, staged) from error
        write_manifest(staged, manifest)
        base = short(manifest.recipe_fingerprint)
        attempt = 1
        while True:
            final = self.folder(key) / (base if attempt == 1 else f"{base}.attempt-{attempt}")
            try:
                os.rename(staged, final)
                break
            except OSError as error:
                if error.errno not in (errno.EEXIST, errno.ENOTEMPTY, errno.ENOTDIR):
                    raise storage_error(error, final) from error
                if not (final / MANIFEST_FILE).exists():
                    shutil.rmtree(final)
                else:
                    attempt += 1
        sync_folder(final.parent)
        self.set_current(key, final)
        return final

    def set_current(self, key: str, folder: Path) -> None:
        """Point `current` at a complete folder of this key."""
        manifest = read_manifest(folder)
        pointer = {"folder": folder.name, "recipe": manifest.recipe_fingerprint, "data_version": manifest.data_version}
        replace_file(self._pointer(key), canonical_bytes(pointer) + b"\n")

    def keys(self) -> list[str]:
        """All keys that have a current version, sorted."""
        if not self.pointers.is_dir():
            return []
        return sorted(path.parent.relative_to(self.pointers).as_posix() for path in self.pointers.rglob(CURRENT_FILE))


def _checked(key: str) -> str:
    if any(part in ("", ".", "..") for part in key.split("/")):
        raise ValueError(f"{key!r} is not an asset key")
    return key


def _attempt(name: str, base: str) -> int | None:
    if name == base:
        return 1
    prefix = f"{base}.attempt-"
    number = name.removeprefix(prefix)
    return int(number) if name.startswith(prefix) and number.isdigit() else None


def _start_ticks(pid: int) -> int:
    """Start time of a process in clock ticks since boot: a pid alone is reused."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0
    return int(fields[19])


def _alive(name: str) -> bool:
    parts = name.removeprefix(_PARTIAL).split("-")
    if len(parts) < 3 or not (parts[1].isdigit() and parts[2].isdigit()):
        return False
    return Path(f"/proc/{parts[1]}").exists() and _start_ticks(int(parts[1])) == int(parts[2])
