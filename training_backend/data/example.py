"""What an example is: one media set plus a message tree, and the hashes that identify its content.

Belongs here: the row schema, its canonical bytes, row and field hashes, the task list. Does not belong here: text syntax of
grounding (`points.py`), checks (`molmo2_assets.ingest.contracts`), files (`store.py`).

Units. x and y are fractions of the displayed frame in [0, 1] from the top left; times are seconds from the clip's start; image
indexes and object ids start at 0. The text a model reads or writes is chosen by the recipe at encoding, so a change of format
rewrites no data.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from typing import Any, Generic, Literal, TypeVar

import msgspec

_F = TypeVar("_F")
_K = TypeVar("_K")
_V = TypeVar("_V")
_T = TypeVar("_T")
Sealed = tuple[bytes, bytes, float, _F]
"""What a Sealer says of a line: see `Sealer.seal`."""

SCHEMA = "molmo2/1"

Task = Literal[
    "image_caption",
    "image_qa",
    "document_qa",
    "multi_image_qa",
    "image_pointing",
    "multi_image_pointing",
    "counting",
    "video_caption",
    "video_qa",
    "video_subtitle_qa",
    "video_pointing",
    "video_tracking",
    "text",
]
Family = Literal["caption", "qa", "pointing", "tracking", "counting", "text"]

FAMILY_OF_TASK: dict[str, Family] = {
    "image_caption": "caption",
    "video_caption": "caption",
    "image_qa": "qa",
    "document_qa": "qa",
    "multi_image_qa": "qa",
    "video_qa": "qa",
    "video_subtitle_qa": "qa",
    "image_pointing": "pointing",
    "multi_image_pointing": "pointing",
    "video_pointing": "pointing",
    "counting": "counting",
    "video_tracking": "tracking",
    "text": "text",
}
TASKS: tuple[str, ...] = tuple(FAMILY_OF_TASK)


class _Row(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, gc=False):
    """Base of the row structs. They hold no cycles, so the collector need not look at them."""


class Source(_Row, frozen=True, kw_only=True):
    """Where a row came from: file relative to the raw asset, row number in it from 0."""

    file: str
    row: int


class Subtitle(_Row, frozen=True, kw_only=True):
    """One line of subtitles; seconds from the clip's start."""

    start: float
    end: float
    text: str


class Media(_Row, frozen=True, kw_only=True):
    """One image, video or folder of frames. `uri` finds it, `sha256` is it; `clip` is [start, end) in the file's own seconds.

    `width` and `height` are those of the displayed picture (after rotation). `duration`, `fps` and `n_frames` are of the whole
    file; None for images.
    """

    id: str
    kind: Literal["image", "video", "frames"]
    uri: str
    sha256: str
    width: int
    height: int
    duration: float | None = None
    fps: float | None = None
    n_frames: int | None = None
    clip: tuple[float, float] | None = None
    subtitles: tuple[Subtitle, ...] = ()

    @property
    def seconds(self) -> float | None:
        """Length of what is shown: the clip where there is one, else the file; None for an image."""
        if self.clip is not None:
            return self.clip[1] - self.clip[0]
        return self.duration


class Text(_Row, tag="text", frozen=True, kw_only=True):
    """Plain words."""

    text: str


class Point(_Row, frozen=True, kw_only=True):
    """A point in image number `image` of the example."""

    x: float
    y: float
    id: int
    image: int = 0


class Points(_Row, tag="points", frozen=True, kw_only=True):
    """Points of `label` in one or several images; empty means "there are none"."""

    label: str
    points: tuple[Point, ...]


class TimedPoint(_Row, frozen=True, kw_only=True):
    """A point in a video at second `t` of the clip."""

    t: float
    x: float
    y: float
    id: int


class TimedPoints(_Row, tag="timed_points", frozen=True, kw_only=True):
    """Points of `label` in a video; each object once, at a moment when it is seen."""

    label: str
    points: tuple[TimedPoint, ...]


class TrackSample(_Row, frozen=True, kw_only=True):
    """One sampled moment of a track; an occluded object has a place but is not answered."""

    t: float
    x: float
    y: float
    occluded: bool = False


class Track(_Row, frozen=True, kw_only=True):
    """One object through time; samples strictly increasing in `t`."""

    id: int
    samples: tuple[TrackSample, ...]


class Tracks(_Row, tag="tracks", frozen=True, kw_only=True):
    """Tracks of everything that `query` names, sampled at `fps`.

    `mode`: every sampled moment (`track`), first and last sight only (`ground`), or one object from a given first point.
    """

    query: str
    tracks: tuple[Track, ...]
    fps: float
    mode: Literal["track", "ground", "single_point"] = "track"


class Count(_Row, tag="count", frozen=True, kw_only=True):
    """A number of `label`; the points, where known, stand in a `Points` part before it."""

    label: str
    count: int


class Choices(_Row, tag="choices", frozen=True, kw_only=True):
    """Multiple choice, in an assistant turn: the encoder puts the options into the question, in an order of its own seed."""

    options: tuple[str, ...]
    answer: int


Part = Text | Points | TimedPoints | Tracks | Count | Choices


class Turn(_Row, frozen=True, kw_only=True):
    """What one side says."""

    role: Literal["system", "user", "assistant"]
    parts: tuple[Part, ...]


class Branch(_Row, frozen=True, kw_only=True):
    """One conversation about the media; branches of an example do not see each other. `weight` multiplies the loss rule."""

    id: str
    style: str
    turns: tuple[Turn, ...]
    weight: float = 1.0


class Example(_Row, frozen=True, kw_only=True):
    """One row of `data.jsonl`. `meta` is free and never read by training."""

    id: str
    schema: str
    task: Task
    source: Source
    media: tuple[Media, ...]
    branches: tuple[Branch, ...]
    meta: dict[str, Any] = {}

    @property
    def family(self) -> Family:
        return FAMILY_OF_TASK[self.task]


_ENCODER = msgspec.json.Encoder(order="deterministic")
_DECODER = msgspec.json.Decoder(Example)
_WORDS = (Text, Choices)
_NO_GROUNDING = blake2b(b"[]", digest_size=8).digest()
_REMEMBERED = 50_000
_NO_META = blake2b(b"{}", digest_size=8).digest()


_length = struct.Struct("<Q").pack


def _framed(piece: bytes) -> bytes:
    return _length(len(piece)) + piece


class RowHashes(msgspec.Struct, frozen=True):
    """`id_hash` and `row_hash` are 16 bytes; the four field hashes are 8 bytes each."""

    id_hash: bytes
    row_hash: bytes
    text: bytes
    grounding: bytes
    media: bytes
    meta: bytes


def encode_row(example: Example) -> bytes:
    """The line of `data.jsonl`, without its newline."""
    return _ENCODER.encode(example)


def decode_row(line: bytes | memoryview) -> Example:
    """Inverse of `encode_row`. Raises msgspec.ValidationError naming the field path, or msgspec.DecodeError."""
    return _DECODER.decode(line)


def id_hash(example_id: str) -> bytes:
    """blake2b-128 of the id."""
    return blake2b(example_id.encode(), digest_size=16).digest()


def _media_identity(media: Media) -> tuple[Any, ...]:
    return (
        media.id,
        media.kind,
        media.sha256,
        media.width,
        media.height,
        media.duration,
        media.fps,
        media.n_frames,
        media.clip,
        media.subtitles,
    )


def hash_row(example: Example) -> RowHashes:
    """The identity of a row's content.

    `row_hash` (blake2b-128) covers id, schema, task, media (content, geometry, clip, subtitles; not the uri) and branches; never
    `source` or `meta`, so that a moved file or a new revision of untouched rows changes nothing. The four 64-bit hashes say
    which side of a row changed.
    """
    return seal(example)[1]


def seal(example: Example) -> tuple[bytes, RowHashes]:
    """The line of `data.jsonl` (`encode_row`) and the hashes (`hash_row`) of one row, with nothing encoded twice."""
    encode = _ENCODER.encode
    name = example.id.encode()
    media = encode([_media_identity(item) for item in example.media])
    branches = encode(example.branches)
    meta = encode(example.meta) if example.meta else b"{}"
    words, grounding = _both_sides(example.branches)
    pieces = (name, example.schema.encode(), example.task.encode(), media, branches)
    row = blake2b(b"".join(map(_framed, pieces)), digest_size=16).digest()
    line = b"".join(
        (
            b'{"id":', encode(example.id), b',"schema":', encode(example.schema), b',"task":', encode(example.task),
            b',"source":', encode(example.source), b',"media":', encode(example.media), b',"branches":', branches,
            b',"meta":', meta, b"}",
        )
    )  # fmt: skip
    hashes = RowHashes(
        blake2b(name, digest_size=16).digest(),
        row,
        blake2b(encode(words), digest_size=8).digest(),
        blake2b(encode(grounding), digest_size=8).digest() if grounding else _NO_GROUNDING,
        blake2b(media, digest_size=8).digest(),
        blake2b(meta, digest_size=8).digest() if example.meta else _NO_META,
    )
    return line, hashes


@dataclass(frozen=True, slots=True)
class _Frame:
    """What stands around the branch's id, the label and the points of a row that says one list of points about one medium."""

    role: str
    words: bytes
    """Canonical JSON of what is said in words, from behind the branch's id."""
    part: int
    """Where the list of parts begins, counted from the branch's style."""


class Sealer(Generic[_F]):
    """`seal` for many rows of one set and task that were written by `encode_row`.

    Belongs to one thread. `look` is asked about media that were not seen before, `facts` about branches and media, and
    `facts_of_points` about the role, the label and the points of a row that says no more than that about one medium (None: ask
    `facts`); what they say is given back with every row.
    """

    def __init__(
        self,
        prefix: str,
        task: str,
        look: Callable[[tuple[Media, ...]], float],
        facts: Callable[[tuple[Branch, ...], tuple[Media, ...]], _F],
        facts_of_points: Callable[[str, str, Sequence[Point]], _F | None],
    ) -> None:
        self.prefix, self.look, self.facts, self._facts_of_points = prefix, look, facts, facts_of_points
        self._begin = b'{"id":' + _ENCODER.encode(prefix)[:-1]
        self._head = b',"schema":' + _ENCODER.encode(SCHEMA) + b',"task":' + _ENCODER.encode(task) + b',"source":'
        self._framed = _framed(SCHEMA.encode()) + _framed(task.encode())
        self._media: dict[bytes, tuple[bytes, bytes, float, bool]] = {}
        self._frames: dict[bytes, _Frame] = {}

    def recall(self, lines: Sequence[bytes | None], source: bytes, first: int) -> list[Sealed[_F] | None]:
        """What `seal` says of each line that says one list of points about one medium, as an earlier one did; None for the others.
        `source % (first + place)` is the canonical JSON of a line's source.

        Such a line is cut where `encode_row` begins each field. What stands around its branch's id, its label and its points is
        that of a line that `seal` took; these, its id, source and medium are decoded and encoded again, those of all lines at
        once, which costs a third of doing so line by line. So it is, piece by piece, what `encode_row` writes.
        """
        head, size = self._head, len(self._head)
        media_of, frame_of = self._media.get, self._frames.get
        cuts, ids, sources, branch_ids, labels, points = [], [], [], [], [], []
        unknown: dict[bytes, None] = {}
        for place, line in enumerate(lines):
            if line is None:
                continue
            middle = line.find(head)
            begin = line.find(b',"media":', middle)
            turn = line.find(b',"branches":[{"id":', begin)
            style = line.find(b',"style":', turn)
            label = line.find(b'"label":', style) + 8
            cut = line.find(b',"points":[', label)
            end = line.find(b"]", cut) + 1
            if not 6 < middle < begin < turn < style < label - 8 < cut < end or not line.startswith(self._begin):
                continue
            frame = frame_of(line[style:label] + line[end:])
            if frame is None:
                continue
            medium = line[begin:turn]
            if media_of(medium) is None:
                unknown[medium] = None
            cuts.append((place, line, middle + size, begin, turn, style, end, medium, frame))
            ids.append(line[6:middle])
            sources.append(line[middle + size : begin])
            branch_ids.append(line[turn + 19 : style])
            labels.append(line[label:cut])
            points.append(line[cut + 10 : end])
        found: list[Sealed[_F] | None] = [None] * len(lines)
        names, spots, said = _read_pieces(_STRINGS, ids), _read_pieces(_POINTS, points), _read_pieces(_STRINGS, labels)
        if names is None or spots is None or said is None:
            return found
        if _read_pieces(_SOURCES, sources) is None or _read_pieces(_STRINGS, branch_ids) is None:
            return found
        if unknown:
            self._meet(list(unknown))
        facts_of, wide, narrow, framing = self._facts_of_points, _WIDE.copy, _NARROW.copy, _length
        for cut_up, name, around, called, branch in zip(cuts, names, spots, said, branch_ids, strict=True):
            place, line, middle, begin, turn, style, end, medium, frame = cut_up
            known = media_of(medium)
            if known is None or not known[3]:
                continue
            facts = facts_of(frame.role, called, around)
            if facts is None:
                continue
            identity, media_digest, shown, _ = known
            # A copy of a hash that has taken nothing costs half as much as a new one.
            encoded, branches = name.encode(), line[turn + 12 : -11]
            identifier, row, text, grounding = wide(), wide(), narrow(), narrow()
            identifier.update(encoded)
            row.update(b"".join((framing(len(encoded)), encoded, identity, framing(len(branches)))))
            row.update(branches)
            text.update(b"".join((b"[[", branch, frame.words)))
            grounding.update(line[style + frame.part : end + 2])
            hashes = b"".join((identifier.digest(), row.digest(), text.digest(), grounding.digest(), media_digest, _NO_META))
            found[place] = b"".join((line[:middle], source % (first + place), line[begin:])), hashes, shown, facts
        return found

    def seal(self, example: Example, line: bytes, source: bytes) -> Sealed[_F] | None:
        """The line with `source` (canonical JSON) in its source's place; id_hash, row_hash, text, grounding, media and meta hash
        end to end (64 bytes); what `look` and `facts` said. None where `line` is not byte for byte what `encode_row` writes, has
        meta, or is of another set or task."""
        if example.meta or not example.id.startswith(self.prefix) or _ENCODER.encode(example) != line:
            return None
        # No text can hold these: inside of one, quotation marks are escaped.
        middle = line.find(self._head)
        if middle < 0:
            return None
        begin = line.index(b',"media":', middle)
        turn = line.index(b',"branches":', begin)
        media, media_digest, shown, single = self._media.get(line[begin:turn]) or self._medium(line[begin:turn], example.media)
        part = _only_part(example.branches)
        if single and type(part) is Points:
            # Its label is the first, and its list of points the only one.
            style = line.index(b',"style":', turn)
            label = line.index(b'"label":', style) + 8
            end = line.index(b"]", line.index(b',"points":[', label)) + 1
            key = line[style:label] + line[end:]
            if key not in self._frames:
                said = _ENCODER.encode(_both_sides(example.branches)[0])
                behind = said[2 + len(_ENCODER.encode(example.branches[0].id)) :]
                parts = line.index(b',"parts":[', style) + 9 - style
                _remember(self._frames, key, _Frame(example.branches[0].turns[0].role, behind, parts))
        name, branches = example.id.encode(), line[turn + 12 : -11]
        text, grounding = self._sides(example.branches, branches)
        row = blake2b(b"".join((_length(len(name)), name, media, _length(len(branches)), branches)), digest_size=16).digest()
        hashes = b"".join((blake2b(name, digest_size=16).digest(), row, text, grounding, media_digest, _NO_META))
        moved = b"".join((line[: middle + len(self._head)], source, line[begin:]))
        return moved, hashes, shown, self.facts(example.branches, example.media)

    def _medium(self, written: bytes, media: tuple[Media, ...]) -> tuple[bytes, bytes, float, bool]:
        """What is remembered of media that stand in a line as `written`. Raises what `look` raises."""
        shown = self.look(media)
        identity = _ENCODER.encode([_media_identity(item) for item in media])
        single = len(media) == 1 and not media[0].subtitles
        known = self._framed + _framed(identity), blake2b(identity, digest_size=8).digest(), shown, single
        _remember(self._media, written, known)
        return known

    def _meet(self, unknown: list[bytes]) -> None:
        """Look at media that were not seen before. What `look` has something against is left for `seal` to say."""
        for written, media in zip(unknown, _read_pieces(_MEDIA, [piece[9:] for piece in unknown]) or (), strict=False):
            try:  # noqa: SIM105 - it costs nothing, `suppress` as much as half of the rest
                self._medium(written, media)
            except ValueError:
                pass

    def _sides(self, branches: tuple[Branch, ...], written: bytes) -> tuple[bytes, bytes]:
        """Hashes of the words and of the grounding."""
        words, grounding = _both_sides(branches)
        said = blake2b(_ENCODER.encode(words), digest_size=8).digest()
        if len(grounding) != 1 or _only_part(branches) is None:
            return said, blake2b(_ENCODER.encode(grounding), digest_size=8).digest()
        # The only part of the only turn stands in the line as it is hashed.
        start = written.index(b',"parts":[') + 9
        return said, blake2b(written[start : written.rindex(b'}],"weight":')], digest_size=8).digest()


_STRINGS = msgspec.json.Decoder(str)
_WIDE, _NARROW = blake2b(digest_size=16), blake2b(digest_size=8)
_SOURCES = msgspec.json.Decoder(Source)
_POINTS = msgspec.json.Decoder(list[Point])
_MEDIA = msgspec.json.Decoder(tuple[Media, ...])


def _read_pieces(decoder: msgspec.json.Decoder[_T], pieces: list[bytes]) -> list[_T] | None:
    """What canonical pieces without line breaks say; None where any of them is not canonical.

    A line break stands inside of no canonical JSON. So where the lines of all pieces are what is written of what they say, each
    piece is.
    """
    lines = b"".join([piece + b"\n" for piece in pieces])
    try:
        found = decoder.decode_lines(lines)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None
    return found if _ENCODER.encode_lines(found) == lines else None


def _remember(known: dict[_K, _V], key: _K, value: _V) -> None:
    if len(known) > _REMEMBERED:
        known.clear()
    known[key] = value


def _only_part(branches: tuple[Branch, ...]) -> Part | None:
    """The part of branches that say one thing once."""
    if len(branches) == 1 and len(turns := branches[0].turns) == 1 and len(parts := turns[0].parts) == 1:
        return parts[0]
    return None


def _both_sides(branches: tuple[Branch, ...]) -> tuple[list[Any], list[Any]]:
    """What is said in words, with who says it, and what is pointed at."""
    words: list[Any] = []
    grounding: list[Any] = []
    for branch in branches:
        words.append((branch.id, branch.style, branch.weight))
        for turn in branch.turns:
            words.append(turn.role)
            for part in turn.parts:
                (words if isinstance(part, _WORDS) else grounding).append(part)
    return words, grounding


def content_version(row_hashes: Sequence[bytes] | bytes | bytearray) -> str:
    """Version of a set of rows in any order: `<count>-<sum of row hashes mod 2^128>`. Hashes one by one, or end to end.

    A sum and not an exclusive-or, which would cancel duplicates; v2 = v1 - removed + added.
    """
    import numpy as np  # here: the definitions of a profile import this module, and load without numpy

    if not isinstance(row_hashes, bytes | bytearray):
        row_hashes = b"".join(row_hashes)
    limbs = np.frombuffer(row_hashes, dtype="<u4").reshape(-1, 4)
    total = sum(int(limb) << (32 * place) for place, limb in enumerate(limbs.sum(axis=0, dtype=np.uint64)))
    return f"{len(limbs)}-{total % (1 << 128):032x}"
