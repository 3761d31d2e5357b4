"""Media and moments that rows name in many ways, read by declared column names.

Belongs here: pictures as paths, addresses, bytes or lists of those; films; clips given as seconds, clocks or a text of both;
subtitles. Does not belong here: what is asked about them (`questions.py` and the other layouts).
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from typing import Any, Literal

import msgspec

from molmo2_assets.ingest.adapters.base import Reference, clip_of, maybe_digest, need, number, words
from molmo2_assets.ingest.pluck import pluck
from molmo2_assets.ingest.reasons import RowFault
from molmo2_assets.ingest.rows import RawRow
from training_backend.data.example import Media, Subtitle

_CLOCK = re.compile(r"(?:(\d+):)?(\d+):(\d+(?:\.\d+)?)")
_SECONDS = re.compile(r"\[?\s*(\d+(?:\.\d+)?)\s*[-:,]\s*(\d+(?:\.\d+)?)\s*\]?")


def first_part(name: str) -> str:
    """The column of a dotted name."""
    return name.partition(".")[0]


def columns_of(*names: str | Sequence[str] | None) -> tuple[str, ...]:
    """Columns that names, lists of names and templates mention, each once."""
    found: list[str] = []
    for given in names:
        for name in (given,) if isinstance(given, str) else given or ():
            found += re.findall(r"{(\w+)", name) if "{" in name else [first_part(name)]
    return tuple(dict.fromkeys(found))


def fill(template: str, data: dict[str, Any]) -> str:
    """A template over a row's columns. Raises RowFault naming a column that is not there."""
    for name in re.findall(r"{(\w+)", template):
        if data.get(name) is None:
            raise RowFault("missing_field", name, "absent or null")
    try:
        return template.format(**data)
    except (KeyError, IndexError, AttributeError, TypeError, ValueError) as error:
        raise RowFault("wrong_type", template, str(error)) from None


def references(
    row: RawRow, names: str | Sequence[str] | None, kind: Literal["image", "video"], sha256: str | None = None
) -> list[Reference]:
    """The media that columns or a template name; a column may hold a list of them, and one of several may be empty.

    Raises RowFault.
    """
    if names is None:
        return []
    several = not isinstance(names, str)
    found: list[Reference] = []
    for name in (names,) if isinstance(names, str) else names:
        value: Any = fill(name, row.data) if "{" in name else pluck(row.data, name)
        if value is None and several:
            continue
        for item in value if isinstance(value, list) else [value]:
            found.append(_reference(row, name, item, kind, maybe_digest(row.data.get(sha256), sha256) if sha256 else None))
    if not found:
        raise RowFault("no_media", str(names), "names no picture or video")
    return found


def _reference(row: RawRow, name: str, value: Any, kind: Literal["image", "video"], digest: str | None) -> Reference:
    if isinstance(value, dict):
        return embedded(row, name, value, kind)
    return Reference(words({name: str(value) if isinstance(value, int) else value}, name), kind, digest)


def embedded(row: RawRow, name: str, value: dict[str, Any], kind: Literal["image", "video"] = "image") -> Reference:
    """A medium whose bytes stand in the row, as `datasets` writes them: {bytes, path}."""
    data = value.get("bytes")
    if not isinstance(data, bytes | None):
        raise RowFault("wrong_type", f"{name}.bytes", type(data).__name__)
    # Named by content: rows that claim the same path may hold different bytes, and only the broken ones are to be set aside.
    content = hashlib.sha256(data).hexdigest()[:16] if data else "no-bytes"
    return Reference(f"embedded:{value.get('path') or row.file}#{content}", kind, data=data)


def key_of(media: Sequence[Media]) -> str:
    """What pieces about the same media share: their uris, with the clip."""
    return " ".join(item.uri if item.clip is None else f"{item.uri}@{item.clip[0]:g}-{item.clip[1]:g}" for item in media)


# -- moments ----------------------------------------------------------------------------------------------------------------


def seconds(value: Any, name: str) -> float | None:
    """Seconds from a number, the text of one, or a clock (`00:01:02.5`). Raises RowFault."""
    if value is None or value == "":
        return None
    if isinstance(value, str):
        clock = _CLOCK.fullmatch(value.strip())
        if clock is not None:
            hours, minutes, rest = clock.groups()
            return 3600 * int(hours or 0) + 60 * int(minutes) + float(rest)
        try:
            return float(value)
        except ValueError:
            raise RowFault("wrong_type", name, f"{value[:40]!r} is no time") from None
    return number({name: value}, name)


def window(value: Any, name: str) -> tuple[float, float]:
    """From and to, in seconds, of a pair or of a text such as `[12.5:14]`. Raises RowFault."""
    if isinstance(value, str):
        found = _SECONDS.fullmatch(value.strip())
        if found is None:
            raise RowFault("wrong_type", name, f"{value[:40]!r} is no span of time")
        return float(found[1]), float(found[2])
    pair = need({name: value}, name, list)
    if len(pair) != 2:
        raise RowFault("length_mismatch", name, f"a span of {len(pair)} numbers")
    return number({name: pair[0]}, name), number({name: pair[1]}, name)


def clipped(media: Media, data: dict[str, Any], columns: Sequence[str], *, whole: bool) -> Media:
    """The film cut to what one column (a span) or two (from, to) say; with `whole`, rows that say nothing are about all of it.

    Raises RowFault.
    """
    for name in columns:
        if not whole and pluck(data, name) in (None, ""):
            raise RowFault("missing_field", name, "absent or null")
    if len(columns) == 1:
        value = pluck(data, columns[0])
        return media if value is None else clip_of(media, *window(value, columns[0]))
    start, end = (seconds(pluck(data, name), name) for name in columns)
    return clip_of(media, start, end)


def subtitled(media: Media, lines: Any, name: str, begin: float = 0.0) -> Media:
    """The film with its subtitles, a list or an object of {start, end, text}, {start, end, line} or {timestamp: [from, to], text};
    `begin` is the second of their times at which the file starts.

    Lines outside of what is shown do not belong to it: sets publish those of a whole film beside clips of it. One that reaches into
    it is shown from its start. Raises RowFault.
    """
    if isinstance(lines, dict):
        lines = list(lines.values())
    low, length = (media.clip[0] if media.clip else 0.0) + begin, media.seconds or 0.0
    found = []
    for line in need({name: lines}, name, list):
        start, end = _times(line, name, low + length)
        if not 0 <= start < end:
            raise RowFault("time_order", name, f"from {start} to {end}")
        if end <= low or start >= low + length:
            continue
        text = words(line, "line" if "line" in line else "text")
        found.append(Subtitle(start=round(max(0.0, start - low), 3), end=round(end - low, 3), text=text))
    return msgspec.structs.replace(media, subtitles=tuple(found))


def _times(line: Any, name: str, last: float) -> tuple[float, float]:
    if not isinstance(line, dict):
        raise RowFault("wrong_type", name, f"{type(line).__name__} where a line belongs")
    pair = line.get("timestamp")
    first, end = (pair[0], pair[1]) if isinstance(pair, list) and len(pair) == 2 else (line.get("start"), line.get("end"))
    start = seconds(first, "start")
    if start is None:
        raise RowFault("missing_field", "start", "absent or null")
    last_second = seconds(end, "end")
    return start, max(last, start + 1) if last_second is None else last_second  # the last line may be open
