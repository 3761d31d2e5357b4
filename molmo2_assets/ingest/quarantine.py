"""Rows that were set aside: what, where, why; deterministic, so that equal input gives equal bytes.

Belongs here: the record and its file. Does not belong here: deciding (`validate.py`), the codes (`reasons.py`).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Literal

import msgspec

QUARANTINE_FILE = "quarantine.jsonl"
_PREVIEW = 200
_DEPTH = 6
"""Levels of a row that are shown: a hostile row may be nested as deeply as the interpreter allows."""


class Quarantined(msgspec.Struct, frozen=True, kw_only=True):
    """One row. `byte_offset` and `byte_length` locate it in text files; None in Parquet, where `row` does."""

    dataset: str
    file: str
    row: int
    stage: Literal["parse", "layout", "media", "contract", "cross"]
    reason: str
    field: str
    detail: str
    byte_offset: int | None
    byte_length: int | None
    preview: str


def preview(data: object) -> str:
    """The first characters of a row, for a person's eye; bytes and long lists are named, not shown."""

    def short(value: object, depth: int = 0) -> object:
        if isinstance(value, bytes):
            return f"<{len(value)} bytes>"
        if isinstance(value, dict | list) and depth == _DEPTH:
            return "…"
        if isinstance(value, dict):
            return {str(key): short(item, depth + 1) for key, item in value.items()}
        if isinstance(value, list):
            return [short(item, depth + 1) for item in value[:4]] + (["…"] if len(value) > 4 else [])
        if isinstance(value, str):
            return value[:_PREVIEW]
        return value if isinstance(value, int | bool | type(None)) else str(value)

    return msgspec.json.encode(short(data)).decode()[:_PREVIEW]


def write_quarantine(folder: Path, rows: Sequence[Quarantined]) -> None:
    """Write `quarantine.jsonl`, sorted by file and row."""
    ordered = sorted(rows, key=lambda item: (item.file, item.row))
    (folder / QUARANTINE_FILE).write_bytes(b"".join(msgspec.json.encode(item) + b"\n" for item in ordered))


def read_quarantine(folder: Path) -> Iterator[Quarantined]:
    """Records of a validated asset's folder."""
    with (folder / QUARANTINE_FILE).open("rb") as stream:
        for line in stream:
            yield msgspec.json.decode(line, type=Quarantined)


def by_reason(rows: Sequence[Quarantined]) -> dict[str, int]:
    """Counts by reason, most frequent first."""
    return dict(sorted(Counter(item.reason for item in rows).items(), key=lambda item: (-item[1], item[0])))
