"""The fast way through lines that are canonical rows already: their hashes and facts, without building what they say.

Belongs here: proving that lines are what `encode_row` writes, and hashing them as they stand. Does not belong here: what a row is
and how it is hashed (`example.py`), reading files, rules, processes (`molmo2_assets.ingest.canonical`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from typing import Annotated, Generic, Literal, TypeVar

import msgspec

from training_backend.data.example import (
    ENCODER,
    NO_META,
    SCHEMA,
    Branch,
    Example,
    Media,
    Part,
    Point,
    Points,
    Source,
    encode_row,
    framed,
    length_prefix,
    media_identity,
    words_and_grounding,
)

_F = TypeVar("_F")
_K = TypeVar("_K")
_V = TypeVar("_V")
_T = TypeVar("_T")
Sealed = tuple[bytes, bytes, float, _F]
"""What is said of a line: see `Sealer.seal`."""

_REMEMBERED = 50_000
"""Media, and frames of rows, that a Sealer knows again."""
_FEW = 8
"""Lines that are not divided further to find those which are not ours."""


class _Inside(Point, frozen=True, kw_only=True):
    """A point inside the first picture. What is refused here is looked at by itself: the contract judges, not this."""

    x: Annotated[float, msgspec.Meta(ge=0.0, le=1.0)]
    y: Annotated[float, msgspec.Meta(ge=0.0, le=1.0)]
    id: int
    image: Literal[0] = 0


_STRINGS = msgspec.json.Decoder(str)
_SOURCES = msgspec.json.Decoder(Source)
_POINTS = msgspec.json.Decoder(list[_Inside])
_MEDIA = msgspec.json.Decoder(tuple[Media, ...])
_WIDE, _NARROW = blake2b(digest_size=16), blake2b(digest_size=8)


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
    `facts_of_label` about the role and the label of a row that says no more than some points of one medium, all inside of it (None:
    ask `facts`); what they say is given back with every row.
    """

    def __init__(
        self,
        prefix: str,
        task: str,
        look: Callable[[tuple[Media, ...]], float],
        facts: Callable[[tuple[Branch, ...], tuple[Media, ...]], _F],
        facts_of_label: Callable[[str, str], _F | None],
    ) -> None:
        self.prefix, self.look, self.facts, self._facts_of_label = prefix, look, facts, facts_of_label
        self._begin = b'{"id":' + ENCODER.encode(prefix)[:-1]
        self._head = b',"schema":' + ENCODER.encode(SCHEMA) + b',"task":' + ENCODER.encode(task) + b',"source":'
        self._framed = framed(SCHEMA.encode()) + framed(task.encode())
        self._media: dict[bytes, tuple[bytes, bytes, float, bool]] = {}
        self._frames: dict[tuple[bytes, bytes], _Frame] = {}

    def recall(self, lines: Sequence[bytes | None], source: bytes, first: int) -> list[Sealed[_F] | None]:
        """What `seal` says of each line that says one list of points about one medium, as an earlier one did; None for the others.
        `source % (first + place)` is the canonical JSON of a line's source.

        Such a line is cut where `encode_row` begins each field. What stands around its branch's id, its label and its points is
        that of a line that `seal` took; these, its id, source and medium are decoded and encoded again, those of all lines at
        once, which costs a third of doing so line by line. So it is, piece by piece, what `encode_row` writes.
        """
        found: list[Sealed[_F] | None] = [None] * len(lines)
        self._recall(lines, 0, len(lines), source, first, found)
        return found

    def _recall(
        self, lines: Sequence[bytes | None], start: int, stop: int, source: bytes, first: int, found: list[Sealed[_F] | None]
    ) -> None:
        head, begins, size = self._head, self._begin, len(self._head)
        media_of, frame_of = self._media.get, self._frames.get
        cuts, ids, sources, branch_ids, labels, points = [], [], [], [], [], []
        unknown: dict[bytes, None] = {}
        # Most rows have the medium of the row before, and what stands around their words and points as well.
        medium = lead = opening = closing = b"\n"
        frame: _Frame | None = None
        fresh = False
        for place in range(start, stop):
            line = lines[place]
            if line is None:
                continue
            middle = line.find(head)
            begin = line.find(b',"media":', middle)
            if line.startswith(lead, begin):
                turn = begin + len(medium)
            else:
                turn = line.find(b',"branches":[{"id":', begin)
                medium = line[begin:turn]
                lead, fresh = medium + b',"branches":[{"id":', True
            style = line.find(b',"style":', turn)
            if frame is not None and line.startswith(opening, style) and line.endswith(closing):
                label = style + len(opening)
                cut, end = line.find(b',"points":[', label), len(line) - len(closing)
            else:
                label = line.find(b'"label":', style) + 8
                cut = line.find(b',"points":[', label)
                end = line.find(b"]", cut) + 1
                opening, closing = line[style:label], line[end:]
                frame = frame_of((opening, closing))
            if frame is None or not 6 < middle < begin < turn < style < label < cut < end or not line.startswith(begins):
                continue
            if fresh:
                fresh = False
                if media_of(medium) is None:
                    unknown[medium] = None
            cuts.append((place, line, middle + size, begin, turn, style, end, medium, frame))
            ids.append(line[6:middle])
            sources.append(line[middle + size : begin])
            branch_ids.append(line[turn + 19 : style])
            labels.append(line[label:cut])
            points.append(line[cut + 10 : end])
        names, said = _read_pieces(_STRINGS, ids), _read_pieces(_STRINGS, labels)
        if (
            names is None
            or said is None
            or _read_pieces(_POINTS, points) is None
            or _read_pieces(_SOURCES, sources) is None
            or _read_pieces(_STRINGS, branch_ids) is None
        ):
            if stop - start > _FEW:
                half = (start + stop) // 2
                self._recall(lines, start, half, source, first, found)
                self._recall(lines, half, stop, source, first, found)
            return
        if unknown:
            self._meet(list(unknown))
        facts_of, wide, narrow, framing = self._facts_of_label, _WIDE.copy, _NARROW.copy, length_prefix
        for cut_up, name, called, branch in zip(cuts, names, said, branch_ids, strict=True):
            place, line, middle, begin, turn, style, end, medium, frame = cut_up
            known = media_of(medium)
            if known is None or not known[3]:
                continue
            facts = facts_of(frame.role, called)
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
            hashes = b"".join((identifier.digest(), row.digest(), text.digest(), grounding.digest(), media_digest, NO_META))
            found[place] = b"".join((line[:middle], source % (first + place), line[begin:])), hashes, shown, facts

    def seal(self, example: Example, line: bytes, source: bytes) -> Sealed[_F] | None:
        """The line with `source` (canonical JSON) in its source's place; id_hash, row_hash, text, grounding, media and meta hash
        end to end (64 bytes); what `look` and `facts` said. None where `line` is not byte for byte what `encode_row` writes, has
        meta, or is of another set or task."""
        if example.meta or not example.id.startswith(self.prefix) or encode_row(example) != line:
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
            key = line[style:label], line[end:]
            if key not in self._frames:
                said = ENCODER.encode(words_and_grounding(example.branches)[0])
                behind = said[2 + len(ENCODER.encode(example.branches[0].id)) :]
                parts = line.index(b',"parts":[', style) + 9 - style
                _remember(self._frames, key, _Frame(example.branches[0].turns[0].role, behind, parts))
        name, branches = example.id.encode(), line[turn + 12 : -11]
        text, grounding = self._sides(example.branches, branches)
        row = blake2b(b"".join((framed(name), media, framed(branches))), digest_size=16).digest()
        hashes = b"".join((blake2b(name, digest_size=16).digest(), row, text, grounding, media_digest, NO_META))
        moved = b"".join((line[: middle + len(self._head)], source, line[begin:]))
        return moved, hashes, shown, self.facts(example.branches, example.media)

    def _medium(self, written: bytes, media: tuple[Media, ...]) -> tuple[bytes, bytes, float, bool]:
        """What is remembered of media that stand in a line as `written`. Raises what `look` raises."""
        shown = self.look(media)
        identity = ENCODER.encode([media_identity(item) for item in media])
        single = len(media) == 1 and not media[0].subtitles
        known = self._framed + framed(identity), blake2b(identity, digest_size=8).digest(), shown, single
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
        words, grounding = words_and_grounding(branches)
        said = blake2b(ENCODER.encode(words), digest_size=8).digest()
        if len(grounding) != 1 or _only_part(branches) is None:
            return said, blake2b(ENCODER.encode(grounding), digest_size=8).digest()
        # The only part of the only turn stands in the line as it is hashed.
        start = written.index(b',"parts":[') + 9
        return said, blake2b(written[start : written.rindex(b'}],"weight":')], digest_size=8).digest()


def _read_pieces(decoder: msgspec.json.Decoder[_T], pieces: list[bytes]) -> list[_T] | None:
    """What canonical pieces without line breaks say; None where any of them is not canonical.

    A line break stands inside of no canonical JSON. So where the lines of all pieces are what is written of what they say, each
    piece is.
    """
    lines = b"\n".join((*pieces, b""))
    try:
        found = decoder.decode_lines(lines)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None
    return found if ENCODER.encode_lines(found) == lines else None


def _remember(known: dict[_K, _V], key: _K, value: _V) -> None:
    if len(known) > _REMEMBERED:
        known.clear()
    known[key] = value


def _only_part(branches: tuple[Branch, ...]) -> Part | None:
    """The part of branches that say one thing once."""
    if len(branches) == 1 and len(turns := branches[0].turns) == 1 and len(parts := turns[0].parts) == 1:
        return parts[0]
    return None
