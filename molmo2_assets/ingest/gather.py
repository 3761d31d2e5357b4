"""What waits between reading rows and writing examples: pieces on disk, and about a hundred bytes of each in memory.

Belongs here: the contract by batches, comparing rows, putting pieces together, numbers for the sketch. Does not belong here:
reading rows, the order of steps (`validate.py`).
"""

from __future__ import annotations

import os
from array import array
from collections.abc import Iterator, Sequence
from hashlib import blake2b
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from molmo2_assets.ingest.adapters import Piece, adapter_of
from molmo2_assets.ingest.contracts import BATCH, FACTS, Facts, verdicts
from molmo2_assets.ingest.quarantine import Quarantined, preview
from molmo2_assets.ingest.reasons import RowFault
from molmo2_assets.ingest.rows import BadRow, RawRow
from molmo2_assets.ingest.tables import rows_of
from training_backend.data.example import SCHEMA, Branch, Example, Media, Source, Text

if TYPE_CHECKING:
    from molmo2_assets.profile import DatasetSpec

_encode = msgspec.msgpack.Encoder(order="deterministic").encode
_decode = msgspec.msgpack.Decoder(Piece).decode
_UNJUDGED, _GOOD, _BAD = 0, 1, 2


def any_twice(keys: NDArray[np.uint8]) -> bool:
    """Whether some key may stand twice: sure where not, and seen in a hundredth of the time that comparing takes."""
    begins = np.sort(np.ascontiguousarray(keys[:, :8]).view(np.uint64).ravel())
    return bool((begins[1:] == begins[:-1]).any())


def contradictions(keys: NDArray[np.uint8], about: NDArray[np.uint8], said: NDArray[np.uint8]) -> dict[int, tuple[str, str]]:
    """Place of every row that contradicts others of its key about their media, or says again what an earlier one said, with the
    reason and a word about it. Arrays are uint8 [n, width], hashes.

    Where rows of one key disagree, what most of them say holds, and among equals the one with the smaller hash: never the one that
    happens to come first, so that the order of the source decides nothing.
    """
    if not any_twice(keys):
        return {}
    import duckdb
    import pyarrow as pa

    def column(hashes: NDArray[np.uint8]) -> Any:
        data = pa.py_buffer(np.ascontiguousarray(hashes))
        return pa.FixedSizeBinaryArray.from_buffers(pa.binary(hashes.shape[1]), len(hashes), [None, data])

    rows = pa.table({"place": np.arange(len(keys)), "key": column(keys), "about": column(about), "said": column(said)})
    connection = duckdb.connect()
    connection.register("rows", rows)
    found = connection.execute(
        """
        with several as (select * from rows where key in (select key from rows group by key having count(*) > 1)),
        counted as (select *, count(*) over (partition by key, about) as agreeing from several),
        compared as (
            select place,
                   about <> first_value(about) over (partition by key order by agreeing desc, about) as conflict,
                   row_number() over (partition by key, about, said order by place) > 1 as again
            from counted)
        select place, case when conflict then 'id_conflict' else 'duplicate' end
        from compared where conflict or again order by place
        """
    ).fetchall()
    connection.close()
    words = {"id_conflict": "most rows of its group say otherwise", "duplicate": "see the earlier row"}
    return {place: (reason, words[reason]) for place, reason in found}


class Gathered:
    """Accepted pieces of a set, on disk until the last row is read. Use as a context manager: the file goes with it."""

    def __init__(self, path: Path, spec: DatasetSpec, files: Sequence[Path], raw: Path) -> None:
        self.path, self.spec, self.raw = path, spec, raw
        self.rows = 0
        self._files = {file.relative_to(raw).as_posix(): number for number, file in enumerate(files)}
        self._paths = list(files)
        self._aside: list[Quarantined] = []
        self._late: dict[tuple[int, int], tuple[str, RowFault]] = {}
        self._facts: list[Facts] = []
        self._digests = {"key": bytearray(), "about": bytearray(), "said": bytearray()}
        self._start, self._length = array("Q"), array("L")
        self._file, self._row = array("L"), array("L")
        self._state = bytearray()
        self._end = 0

    def __enter__(self) -> Gathered:
        self._stream = self.path.open("w+b", buffering=1 << 20)
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None) -> None:
        self._stream.close()
        self.path.unlink(missing_ok=True)

    def set_aside(self, row: RawRow | BadRow, stage: Any, fault: RowFault) -> None:
        """A row that is not usable, for a reason found while it is at hand."""
        text = row.preview if isinstance(row, BadRow) else preview(row.data)
        self._aside.append(
            Quarantined(
                dataset=self.spec.name, file=row.file, row=row.row, stage=stage, reason=fault.reason, field=fault.field,
                detail=fault.detail[:200], byte_offset=row.offset, byte_length=row.length, preview=text,
            )
        )  # fmt: skip

    def accept(self, row: RawRow, piece: Piece, facts: Facts) -> None:
        """A row that could be read; the contract judges it with its batch."""
        data = _encode(piece)
        self._stream.write(data)
        self._digests["key"] += blake2b(piece.key.encode(), digest_size=16).digest()
        # What rows of one group must agree on: their media, and the masks of the objects that their points are on.
        self._digests["about"] += blake2b(_encode([piece.media, piece.meta.get("masks")]), digest_size=16).digest()
        self._digests["said"] += blake2b(_encode(piece.branches), digest_size=16).digest()
        self._start.append(self._end)
        self._length.append(len(data))
        self._end += len(data)
        self._file.append(self._files[row.file])
        self._row.append(row.row)
        self._state.append(_UNJUDGED)
        self._facts.append(facts)
        if len(self._facts) >= 2 * BATCH:  # so that what is left over at the end is no small batch
            self._judge(BATCH)

    def _judge(self, count: int) -> None:
        facts, self._facts = self._facts[:count], self._facts[count:]
        first = len(self._state) - len(self._facts) - len(facts)
        for place, verdict in enumerate(verdicts(self.spec.family, facts), start=first):
            if verdict is None:
                self._state[place] = _GOOD
            else:
                reason, name = verdict
                self._refuse(place, "contract", RowFault(reason, name, str(facts[place - first][FACTS.index(name)])))

    def _refuse(self, place: int, stage: str, fault: RowFault) -> None:
        self._state[place] = _BAD
        self._late[self._file[place], self._row[place]] = (stage, fault)

    def compare(self) -> None:
        """After the last row: judge the last batch, and set aside what contradicts or repeats other rows."""
        self._stream.flush()
        self._judge(len(self._facts))
        good = np.flatnonzero(np.frombuffer(bytes(self._state), np.uint8) == _GOOD)
        hashes = [np.frombuffer(bytes(self._digests[name]), np.uint8).reshape(-1, 16)[good] for name in ("key", "about", "said")]
        for place, (reason, detail) in contradictions(*hashes).items():
            where = int(good[place])
            self._refuse(where, "cross", RowFault(reason, self._piece(where).key, detail))

    def aside(self) -> list[Quarantined]:
        """Every row that was set aside. Those that were found out late are read once more, to be shown."""
        for number, path in enumerate(self._paths):
            wanted = {row: found for (file, row), found in self._late.items() if file == number}
            if not wanted:
                continue
            last = max(wanted)
            adapter, context = adapter_of(self.spec)
            for row in rows_of(self.spec, path, self.raw, adapter.needs(context), adapter.optional):
                if row.row in wanted:
                    self.set_aside(row, *wanted[row.row])
                if row.row >= last:
                    break
        self._late = {}
        kept = sum(state == _GOOD for state in self._state)
        assert self.rows == kept + len(self._aside), "every row is either accepted or set aside"
        return self._aside

    def _piece(self, place: int) -> Piece:
        # Not through the stream: its buffer would be filled for every piece.
        return _decode(os.pread(self._stream.fileno(), self._length[place], self._start[place]))

    def examples(self) -> Iterator[Example]:
        """Pieces about the same media become one example with all their branches; examples in order of first appearance, the pieces
        of one in an order of their own, because branches are part of an example's identity and the order of the source is not."""
        good = np.flatnonzero(np.frombuffer(bytes(self._state), np.uint8) == _GOOD)
        if not len(good):
            return
        keys = np.frombuffer(bytes(self._digests["key"]), np.uint8).reshape(-1, 16)[good].view("V16").ravel()
        _, first, group = np.unique(keys, return_index=True, return_inverse=True)
        order = np.lexsort((good, first[group]))  # by the group's first row, then by row
        bounds = np.flatnonzero(np.diff(first[group][order])) + 1
        said, names = self._digests["said"], list(self._files)
        for places in np.split(good[order], bounds):
            found = [(self._piece(int(place)), said[16 * place : 16 * place + 16], int(place)) for place in places.tolist()]
            start, media = found[0][2], found[0][0].media
            if len(found) > 1:
                found.sort(key=lambda item: (item[0].branches[0].id, bytes(item[1])))
            source = Source(file=names[self._file[start]], row=self._row[start])
            yield _together([piece for piece, _, _ in found], self.spec, source, media)


def _together(pieces: list[Piece], spec: DatasetSpec, source: Source, media: tuple[Media, ...]) -> Example:
    names: dict[str, int] = {}
    branches: list[Branch] = []
    meta: dict[str, Any] = {}
    for piece in pieces:
        called: dict[str, str] = {}
        for branch in piece.branches:
            count = names[branch.id] = names.get(branch.id, 0) + 1
            called[branch.id] = branch.id if count == 1 else f"{branch.id}~{count}"
            branches.append(branch if count == 1 else msgspec.structs.replace(branch, id=called[branch.id]))
        for name, value in piece.meta.items():
            if name == "answers":  # by branch
                value = {called[branch]: answers for branch, answers in value.items()}
            meta[name] = {**meta[name], **value} if isinstance(meta.get(name), dict) else value
    return Example(
        id=f"{spec.name}/{pieces[0].key}", schema=SCHEMA, task=spec.task, source=source, media=media, branches=tuple(branches),
        meta=meta,
    )  # fmt: skip


class Sketch:
    """Quantiles of what a person would ask first: branches, media, seconds, words of an example."""

    NAMES = ("branches", "media", "seconds", "words")

    def __init__(self) -> None:
        self._numbers: dict[str, array[float]] = {name: array("f") for name in self.NAMES}

    def add(self, example: Example) -> None:
        """One example."""
        numbers = self._numbers
        numbers["branches"].append(len(example.branches))
        numbers["media"].append(len(example.media))
        numbers["seconds"].append(max((item.seconds or 0.0 for item in example.media), default=0.0))
        numbers["words"].append(sum(_words(branch) for branch in example.branches))

    def extend(self, numbers: dict[str, NDArray[Any]]) -> None:
        """Many, by name."""
        for name, values in numbers.items():
            self._numbers[name].frombytes(values.astype(np.float32).tobytes())

    def facts(self) -> dict[str, Any]:
        """For the manifest; nothing of no examples."""
        if not self._numbers["media"]:
            return {}
        return {"quantiles": {name: _quantiles(np.array(values)) for name, values in self._numbers.items()}}


def _words(branch: Branch) -> int:
    return sum(len(part.text.split()) for turn in branch.turns for part in turn.parts if isinstance(part, Text))


def _quantiles(values: NDArray[np.float32]) -> dict[str, float]:
    ordered = np.sort(values)
    places = {share: min(len(ordered) - 1, share * len(ordered) // 100) for share in (0, 25, 50, 75, 95, 100)}
    return {f"p{share}": round(float(ordered[place]), 6) for share, place in places.items()}
