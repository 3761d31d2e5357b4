"""Where the file of a medium is: templates of an entry over a row, in the raw folder or in one that a person keeps.

Belongs here: finding, and refusing what would lie elsewhere. Does not belong here: reading the file (`media.py`), addresses.
"""

from __future__ import annotations

import glob
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from molmo2_assets.sources.manual import ROOT_VARIABLE
from training_backend.data.fingerprint import fingerprint
from training_backend.data.media import MediaFault

if TYPE_CHECKING:
    from molmo2_assets.ingest.adapters import Reference
    from molmo2_assets.ingest.rows import RawRow
    from molmo2_assets.profile import MediaSpec


def folder_of(media: MediaSpec) -> Path | None:
    """The folder in which a person keeps the media of a set; None where it is the raw folder, or cannot be known."""
    if media.path is None:
        return None
    path = Path(media.path).expanduser()
    root = os.environ.get(ROOT_VARIABLE)
    if path.is_absolute():
        return path
    return Path(root).expanduser() / path if root else None


_DEPTH = 3
"""Directories below a person's folder whose times are looked at: films stand one or two below it, and some sets have 200,000."""


def listing_of(media: MediaSpec) -> str | None:
    """What changes when files come to or leave a person's folder: the times of its upper directories. None where there is none."""
    folder = folder_of(media)
    if folder is None or not folder.is_dir():
        return None
    times = []
    for where, below, _ in os.walk(folder, followlinks=True):
        relative = Path(where).relative_to(folder)
        times.append([relative.as_posix(), os.stat(where).st_mtime_ns])
        if len(relative.parts) >= _DEPTH:
            below.clear()
    return fingerprint(sorted(times))


def file_of(media: MediaSpec, row: RawRow, reference: Reference, raw: Path) -> Path:
    """The file of a medium. Raises MediaFault where it is missing or would lie outside its folder."""
    kept = folder_of(media)
    if media.path is not None and kept is None:
        raise MediaFault("missing", f"the media are in the folder {media.path} below {ROOT_VARIABLE}, which is not set")
    templates = (media.layout, *media.also) if media.layout else (f"media/{_plain(reference.uri.rsplit('/', 1)[-1])}",)
    looked = []
    for template in templates:
        relative = _filled(template, {**row.data, "uri": reference.uri})
        found = _inside(relative, kept or raw, own=kept is not None, wild="*" in template)
        if found is not None:
            return found
        looked.append(relative)
    raise MediaFault("missing", f"{' or '.join(looked)} is not there")


def _plain(text: str) -> str:
    return text.replace("{", "{{").replace("}", "}}")


def _filled(template: str, data: dict[str, Any]) -> str:
    """A template with the row's values; where it has wildcards, those of a value are its own characters."""
    if "*" in template:
        data = {name: glob.escape(value) if isinstance(value, str) else value for name, value in data.items()}
    try:
        return template.format(**data)
    except (KeyError, IndexError, AttributeError, TypeError, ValueError) as error:
        raise MediaFault("missing", f"the row lacks what {template!r} names: {error}") from None


def _inside(relative: str, base: Path, *, own: bool, wild: bool) -> Path | None:
    """The file at a path below `base`, the first by name where it has wildcards; None where there is none.

    Links are followed in a person's `own` folder only: media often lie on another disk. Raises MediaFault.
    """
    if ".." in Path(relative).parts or Path(relative).is_absolute():
        raise MediaFault("escapes", f"{relative} leaves its folder")
    try:
        found = sorted(base.glob(relative)) if wild else [base / relative]
        for path in found:
            if not own and (path.is_symlink() or not path.resolve().is_relative_to(base.resolve())):
                raise MediaFault("escapes", f"{relative} leaves its folder")
            if path.is_file():
                return path
    except MediaFault:
        raise
    except (OSError, ValueError, RuntimeError) as error:  # a name too long, a NUL in it, links in a circle
        raise MediaFault("missing", f"{relative[:80]!r} is no file: {error}") from None
    return None
