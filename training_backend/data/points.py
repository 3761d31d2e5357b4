"""Grounding as text: points, tracks and counts in both syntaxes, written and read back.

Belongs here: the words and digits of an answer that points, their order, a parser that forgives cut-off answers. Does not belong
here: questions (`training_backend.encode.prompts`), scoring (`molmo2_assets.evaluation`), token ids.

`report` syntax: one tag a point, `<point x, y, id>`; `<point image, x, y, id>` with several images and `<point t, x, y, id>` in a
video; fractions of the picture with a fixed number of decimals, seconds with one, ids and images from 0.
`release` syntax: one element an answer, `<points coords="1 1 250 500;2 2 700 120">label</points>` (`tracks` for tracks): groups
joined by `;`, each a key (image number from 1, or seconds with one decimal) and repeated `id x y`, ids from 1, thousandths with
at least three digits (allenai/molmo2, olmo/preprocessing/point_formatter.py, format html-v2).

Order, so that there is one right answer: by image or time, then by (x, y) *as written*. Points are numbered through the whole
answer; tracks are numbered by first appearance (ties by x, y). Occluded samples are left out.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from training_backend.data.example import Count, Points, TimedPoints, Track, Tracks, TrackSample

Syntax = Literal["report", "release"]
Mode = Literal["point", "point_count", "count"]
Kind = Literal["image", "multi_image", "video"]
Grounding = Points | TimedPoints | Tracks | Count

POINT_OPEN = "<point"
NOTHING = "There are none."


class Special(str):
    """A literal of the formatter that the tokenizer encodes as one special token; equal text from anywhere else is plain text."""

    __slots__ = ()


@dataclass(frozen=True, slots=True)
class Grounded:
    """A point read from an answer, in storage units: fractions, seconds, ids and images from 0. `image` is None in a video, `t`
    is None in images."""

    id: int
    x: float
    y: float
    image: int | None
    t: float | None


@dataclass(frozen=True, slots=True)
class _Written:
    """A point with its digits: `key` orders groups, `group` is the key as text ("" for the only image in `report` syntax)."""

    key: float
    group: str
    x: str
    y: str
    id: int


def render(
    part: Grounding, syntax: Syntax, digits: int, *, n_images: int = 1, mode: Mode = "point", count: int | None = None
) -> str:
    """`part` as text. See `pieces`."""
    return "".join(pieces(part, syntax, digits, n_images=n_images, mode=mode, count=count))


def pieces(
    part: Grounding, syntax: Syntax, digits: int, *, n_images: int = 1, mode: Mode = "point", count: int | None = None
) -> list[str]:
    """`part` as text in pieces, of which some are `Special`.

    `digits` are the decimals of the `report` syntax. `n_images` > 1 writes image numbers. `mode` applies to points: pointing alone,
    pointing and then the total, or the number alone; the total is `count` where it is known to differ from the number of points.
    Raises ValueError for a coordinate outside [0, 1].
    """
    if isinstance(part, Count):
        return [str(part.count)]
    if isinstance(part, Tracks):
        label, written = part.query, _tracks(part, syntax, digits)
    else:
        label, written = part.label, _points(part, syntax, digits, n_images)
    total = len(part.points) if not isinstance(part, Tracks) and count is None else count
    if mode == "count" and not isinstance(part, Tracks):
        return [str(total)]
    if not written:
        return [NOTHING]
    if syntax == "release":
        element = _element(written, "tracks" if isinstance(part, Tracks) else "points", label)
        return [f"Counting the {element} shows a total of {total}." if mode == "point_count" else element]
    out = _tags(written)
    if mode == "point_count":
        out.append(f" Counting the {label} shows a total of {total}.")
    return out


def _points(part: Points | TimedPoints, syntax: Syntax, digits: int, n_images: int) -> list[_Written]:
    found: list[tuple[float, str, str, str]] = []
    if isinstance(part, TimedPoints):
        for timed in part.points:
            time = f"{timed.t:.1f}"
            found.append((float(time), time, *_place(timed.x, timed.y, syntax, digits)))
    else:
        several = n_images > 1
        for point in part.points:
            group = str(point.image + 1) if syntax == "release" else str(point.image) if several else ""
            found.append((float(point.image), group, *_place(point.x, point.y, syntax, digits)))
    found.sort(key=lambda item: (item[0], float(item[2]), float(item[3])))
    return [_Written(*item, id=number) for number, item in enumerate(found)]


def _tracks(part: Tracks, syntax: Syntax, digits: int) -> list[_Written]:
    found: list[tuple[float, str, str, str, int]] = []
    for number, track in enumerate(part.tracks):
        for sample in shown_samples(track, part.mode):
            time = f"{sample.t:.1f}"
            found.append((float(time), time, *_place(sample.x, sample.y, syntax, digits), number))
    found.sort(key=lambda item: (item[0], float(item[2]), float(item[3])))
    ids: dict[int, int] = {}
    for item in found:
        ids.setdefault(item[4], len(ids))
    written = [_Written(*item[:4], id=ids[item[4]]) for item in found]
    written.sort(key=lambda item: (item.key, item.id))
    return written


def shown_samples(track: Track, mode: Literal["track", "ground", "single_point"]) -> list[TrackSample]:
    """Samples of a track that an answer names: those that are seen; first and last of them in mode `ground`."""
    seen = [sample for sample in track.samples if not sample.occluded]
    return [seen[0], seen[-1]] if mode == "ground" and len(seen) > 2 else seen


def clip_tracks(part: Tracks, last: float) -> Tracks:
    """`part` without what happens after second `last`, for a video that is shown up to there only."""
    if all(track.samples[-1].t <= last for track in part.tracks if track.samples):
        return part
    tracks = (Track(id=item.id, samples=tuple(sample for sample in item.samples if sample.t <= last)) for item in part.tracks)
    return Tracks(query=part.query, tracks=tuple(item for item in tracks if item.samples), fps=part.fps, mode=part.mode)


def _place(x: float, y: float, syntax: Syntax, digits: int) -> tuple[str, str]:
    for value in (x, y):
        if not 0 <= value <= 1:
            raise ValueError(f"coordinate {value} lies outside [0, 1]: coordinates are fractions of the displayed picture")
    if syntax == "release":
        return f"{round(1000 * x):03d}", f"{round(1000 * y):03d}"
    return f"{x:.{digits}f}", f"{y:.{digits}f}"


def _tags(written: Iterable[_Written]) -> list[str]:
    out: list[str] = []
    for item in written:
        if out:
            out[-1] += " "
        fields = [item.group] if item.group else []
        out += [Special(POINT_OPEN), f" {', '.join([*fields, item.x, item.y, str(item.id)])}>"]
    return out


def _element(written: list[_Written], name: str, label: str) -> str:
    groups: dict[str, list[str]] = {}
    for item in written:
        groups.setdefault(item.group, []).append(f"{item.id + 1} {item.x} {item.y}")
    coords = ";".join(f"{group} {' '.join(places)}" for group, places in groups.items())
    return f'<{name} coords="{coords}">{label}</{name}>'


_TAG = re.compile(r"<point\s+([^<>]*)")
_COORDS = re.compile(r'<(?:points|tracks)\b[^<>]*?\bcoords="([0-9\t:;,. ]+)')
_GROUP = re.compile(r"([0-9]+(?:\.[0-9]*)?) ([0-9 ]+)")
_TRIPLE = re.compile(r"(?<![0-9])([0-9]+) ([0-9]{3,4}) ([0-9]{3,4})(?![0-9])")
_FIELD = re.compile(r"\s*[0-9]+(?:\.[0-9]*)?\s*")


def parse(text: str, syntax: Syntax, *, kind: Kind) -> list[Grounded]:
    """Points of an answer, in the order of the text.

    A tag that the token limit cut off counts if its fields are all there; points outside the picture and tags that make no sense
    are left out. Repeated ids stay: what they mean is the metric's business.
    """
    read = _parse_tags(text, kind) if syntax == "report" else _parse_elements(text, kind)
    return [point for point in read if 0 <= point.x <= 1 and 0 <= point.y <= 1]


def _parse_tags(text: str, kind: Kind) -> Iterable[Grounded]:
    for match in _TAG.finditer(text):
        fields = match.group(1).split(",")
        if len(fields) != (3 if kind == "image" else 4) or not all(_FIELD.fullmatch(field) for field in fields):
            continue
        first, number = fields[0].strip(), fields[-1].strip()
        if not number.isdecimal() or (kind == "multi_image" and not first.isdecimal()):
            continue
        image = 0 if kind == "image" else int(first) if kind == "multi_image" else None
        time = float(first) if kind == "video" else None
        yield Grounded(id=int(number), x=float(fields[-3]), y=float(fields[-2]), image=image, t=time)


def _parse_elements(text: str, kind: Kind) -> Iterable[Grounded]:
    for coords in _COORDS.finditer(text):
        for part in re.split(r"[\t:;,]", coords.group(1)):
            group = _GROUP.fullmatch(part.strip())
            if group is None or (kind != "video" and not group.group(1).isdecimal()):
                continue
            image = 0 if kind == "image" else int(group.group(1)) - 1 if kind == "multi_image" else None
            time = float(group.group(1)) if kind == "video" else None
            for number, x, y in _TRIPLE.findall(group.group(2)):
                yield Grounded(id=int(number) - 1, x=int(x) / 1000, y=int(y) / 1000, image=image, t=time)


_COUNTS = (
    re.compile(r"\btotal of ([0-9]+)\b"),
    re.compile(r"\btotal number\b[^.]*? is:? ([0-9]+)\b"),
    re.compile(r"\bthere (?:are|is) ([0-9]+)\b"),
)


def parse_count(text: str) -> int | None:
    """The number that an answer gives: the whole answer, "a total of N", "the total number … is N", "there are N"; 0 for "there are
    none" (which the released parser misses); else None. Digits elsewhere, such as coordinates, are no count."""
    lower = " ".join(text.lower().split())
    whole = re.fullmatch(r"([0-9]+)\.?", lower)
    if whole:
        return int(whole.group(1))
    for pattern in _COUNTS:
        found = pattern.search(lower)
        if found:
            return int(found.group(1))
    return 0 if re.match(r"(?:there (?:are|is) )?none\b", lower) else None
