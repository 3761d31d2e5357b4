"""Canonical bytes and hashes of plain values: the one way that this project turns a configuration into an identity.

Belongs here: canonical JSON, digests of values, files and streams. Does not belong here: what a row hash covers (`example.py`)
and what a manifest holds (`manifest.py`).
"""

from __future__ import annotations

import hashlib
import math
from pathlib import Path
from typing import Any

import msgspec

SHORT = 12
_BLOCK = 1 << 20


def plain(value: Any) -> Any:
    """`value` as dicts, lists, strings, numbers, booleans and None; structs and tuples become dicts and lists.

    Raises ValueError for a number that JSON cannot carry, naming it.
    """
    value = msgspec.to_builtins(value)
    _refuse_non_finite(value)
    return value


def _refuse_non_finite(value: Any) -> None:
    if isinstance(value, float) and not math.isfinite(value):
        raise ValueError(f"{value} cannot be part of an identity: it is not a finite number")
    if isinstance(value, dict):
        for item in value.values():
            _refuse_non_finite(item)
    elif isinstance(value, list | tuple):
        for item in value:
            _refuse_non_finite(item)


def canonical_bytes(value: Any) -> bytes:
    """JSON with sorted keys and no spaces; equal values give equal bytes on every machine.

    An integral float is written with its point (`1.0`), so 1 and 1.0 differ: configurations are typed before they get here.
    """
    return msgspec.json.encode(plain(value), order="sorted")


def fingerprint(value: Any) -> str:
    """blake2b-256 of the canonical bytes, as 64 hex digits."""
    return hashlib.blake2b(canonical_bytes(value), digest_size=32).hexdigest()


def short(digest: str) -> str:
    """The first 12 digits: enough for a folder name, never used to compare."""
    return digest[:SHORT]


def file_sha256(path: Path) -> str:
    """sha256 of a file's bytes, read in blocks."""
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        while block := stream.read(_BLOCK):
            digest.update(block)
    return digest.hexdigest()
