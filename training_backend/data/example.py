"""What an example is: one media set plus a message tree, and the hashes that identify its content.

Belongs here: the row schema, its canonical bytes, row and field hashes, the task list. Does not belong here: text syntax of
grounding (`points.py`), checks (`molmo2_assets.ingest.contracts`), files (`store.py`), the fast way through many lines
(`sealer.py`).

Units. x and y are fractions of the displayed frame in [0, 1] from the top left; times are seconds from the clip's start; image
indexes and object ids start at 0. The text a model reads or writes is chosen by the recipe at encoding, so a change of format
rewrites no data.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from hashlib import blake2b
from typing import Any, Literal

import msgspec

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


ENCODER = msgspec.json.Encoder(order="deterministic")
_DECODER = msgspec.json.Decoder(Example)
_WORDS = (Text, Choices)
_NO_GROUNDING = blake2b(b"[]", digest_size=8).digest()
NO_META = blake2b(b"{}", digest_size=8).digest()
"""The meta hash of a row without meta."""

length_prefix = struct.Struct("<Q").pack


def framed(piece: bytes) -> bytes:
    """A piece behind its length, as row hashes take it."""
    return length_prefix(len(piece)) + piece


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
    return ENCODER.encode(example)


def decode_row(line: bytes | memoryview) -> Example:
    """Inverse of `encode_row`. Raises msgspec.ValidationError naming the field path, or msgspec.DecodeError."""
    return _DECODER.decode(line)


def id_hash(example_id: str) -> bytes:
    """blake2b-128 of the id."""
    return blake2b(example_id.encode(), digest_size=16).digest()


def media_identity(media: Media) -> tuple[Any, ...]:
    """What of a medium is content: not where it lies."""
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
    encode = ENCODER.encode
    name = example.id.encode()
    media = encode([media_identity(item) for item in example.media])
    branches = encode(example.branches)
    meta = encode(example.meta) if example.meta else b"{}"
    words, grounding = words_and_grounding(example.branches)
    pieces = (name, example.schema.encode(), example.task.encode(), media, branches)
    row = blake2b(b"".join(map(framed, pieces)), digest_size=16).digest()
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
        blake2b(meta, digest_size=8).digest() if example.meta else NO_META,
    )
    return line, hashes


def words_and_grounding(branches: tuple[Branch, ...]) -> tuple[list[Any], list[Any]]:
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
