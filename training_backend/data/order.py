"""The mixture as a pure function: (seed, position) → (dataset, epoch, row). O(1) to seek, the same for every rank, worker and host.

Belongs here: integer weights, the schedule that spreads datasets evenly, row permutations, the mixture's file. Does not belong
here: how weights are chosen (`molmo2_assets.mixtures`), packing, any state: there is none.

How it works. Weights are integers that sum to PERIOD. One period of PERIOD positions is a fixed *schedule*: occurrence k
(from 1) of a dataset with weight w lies in the window of positions p with (k-1)/w < p <= k/w rounded to whole positions, which is
the chairman-assignment problem (Tijdeman 1980): earliest deadline first always succeeds, and at every position the count of
each dataset is within 1 of w*p. The period repeats, so this holds for ever. Rows of a dataset come in the order of a keyed
permutation, a new one each epoch; any row of it is computed alone, so that nothing is sorted or kept.

New weights or new data open a new *segment* at a position: its datasets start with new permutations, and positions before it
keep their meaning.
"""

from __future__ import annotations

import heapq
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from training_backend.data.fingerprint import file_sha256, fingerprint

MIXTURE_SCHEMA = "molmo2-mixture/2"
MIXTURE_FILE = "mixture.json"
PERIOD = 1 << 20
"""Positions after which the schedule repeats; a weight is a whole number of 1/PERIOD."""
_ROUNDS = 6
_GOLDEN, _STRIDE, _FACTOR = np.uint64(0x9E3779B97F4A7C15), 0xD1B54A32D192ED03, np.uint64(0xBF58476D1CE4E5B9)
_HALF = np.uint64(32)


class MixtureError(ValueError):
    """A mixture that cannot be made or read; the message names the dataset or file."""


class MixtureEntry(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One dataset of a segment: how many rows it has, its version, and its whole-number weight out of PERIOD."""

    dataset: str
    rows: int
    data_version: str
    weight: int


class Segment(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Positions from `start` up to the next segment's start."""

    start: int
    entries: tuple[MixtureEntry, ...]


class MixtureFile(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`mixture.json`."""

    seed: int
    segments: tuple[Segment, ...]
    period: int = PERIOD
    schema: str = MIXTURE_SCHEMA


def integer_weights(weights: Sequence[float]) -> list[int]:
    """`weights` (positive, summing to one within 1e-9) as whole numbers of at least 1 that sum to PERIOD.

    Largest remainders get the missing units; ties go to the earlier entry. Raises MixtureError.
    """
    if not weights:
        raise MixtureError("a mixture needs at least one dataset")
    if any(not weight > 0 for weight in weights):
        raise MixtureError("every weight must be greater than 0; leave a dataset out instead of giving it 0")
    if abs(sum(weights) - 1) > 1e-9:
        raise MixtureError(f"weights sum to {sum(weights)}, not to 1")
    exact = [weight * PERIOD for weight in weights]
    whole = [max(1, int(value)) for value in exact]
    order = sorted(range(len(weights)), key=lambda number: (whole[number] - exact[number], number))
    missing = PERIOD - sum(whole)
    step = 1 if missing > 0 else -1
    position = 0 if missing > 0 else len(order) - 1
    while missing:
        number = order[position % len(order)]
        if whole[number] + step >= 1:
            whole[number] += step
            missing -= step
        position += step
    return whole


def schedule(weights: Sequence[int]) -> NDArray[np.uint16]:
    """One period: entry number at each of sum(weights) positions, [period].

    Earliest deadline first; among equal deadlines the lower entry number. At every position p the count of entry i differs from
    weights[i]*p/period by less than 1.
    """
    period = sum(weights)
    out = np.empty(period, dtype=np.uint16)
    released: list[list[tuple[int, int]]] = [[] for _ in range(period + 1)]
    ready: list[tuple[int, int]] = []
    done = [0] * len(weights)
    for number, weight in enumerate(weights):
        ready.append((-(-period // weight), number))
    heapq.heapify(ready)
    push, pop = heapq.heappush, heapq.heappop
    for position in range(period):
        for item in released[position]:
            push(ready, item)
        deadline, number = pop(ready)
        assert deadline > position, "earliest deadline first cannot miss one (Tijdeman 1980)"
        out[position] = number
        weight = weights[number]
        done[number] += 1
        count = done[number]
        if count < weight:
            release = count * period // weight
            item = (-(-(count + 1) * period // weight), number)
            if release <= position + 1:
                # Due at the next position; released lists are read at the top of the loop, so this one still is in time.
                released[position + 1].append(item)
            else:
                released[release].append(item)
        released[position] = []
    return out


def _key(*parts: Any) -> int:
    return int.from_bytes(blake2b(msgspec.json.encode(parts), digest_size=8).digest(), "little")


def _mix(values: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """splitmix64's finaliser, vectorised: the same on every platform and numpy version."""
    for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
        values = (values ^ values >> np.uint64(shift)) * np.uint64(factor)
    return values ^ values >> np.uint64(31)


@dataclass(frozen=True)
class _Grids:
    """Rows of datasets as places of grids, `high` lines of 2**`bits` places, nearly square and hardly larger than the rows.

    A Feistel network permutes the places. One entry a dataset, or one a position.
    """

    rows: NDArray[np.uint64]
    bits: NDArray[np.uint64]
    high: NDArray[np.uint64]

    @classmethod
    def of(cls, rows: Sequence[int]) -> _Grids:
        bits = [(many - 1).bit_length() // 2 for many in rows]
        high = [-(-many >> width) for many, width in zip(rows, bits, strict=True)]
        return cls(*(np.array(column, dtype=np.uint64) for column in (rows, bits, high)))

    def at(self, places: NDArray[np.int64]) -> _Grids:
        return _Grids(self.rows[places], self.bits[places], self.high[places])

    def permute(self, indexes: NDArray[np.uint64], keys: NDArray[np.uint64]) -> NDArray[np.uint64]:
        """Images of `indexes`, each under the permutation of its dataset's rows that its key selects.

        What falls on a place without a row is walked on until it falls on one.
        """
        out = self._walk(indexes, keys)
        outside = np.flatnonzero(out >= self.rows)
        while len(outside):
            out[outside] = self.at(outside)._walk(out[outside], keys[outside])
            outside = outside[out[outside] >= self.rows[outside]]
        return out

    def _walk(self, places: NDArray[np.uint64], keys: NDArray[np.uint64]) -> NDArray[np.uint64]:
        mask = (np.uint64(1) << self.bits) - np.uint64(1)
        line, place = places >> self.bits, places & mask
        for turn in range(0, _ROUNDS, 2):
            line += _noise(place, keys, turn) * self.high >> _HALF
            np.minimum(line, line - self.high, out=line)  # modulo: below 0 it wraps around to something large
            place += _noise(line, keys, turn + 1)
            place &= mask
        return line << self.bits | place


def _noise(values: NDArray[np.uint64], keys: NDArray[np.uint64], turn: int) -> NDArray[np.uint64]:
    """32 bits, in place where it can be: a window's time is spent here."""
    out = values * _GOLDEN
    out += keys
    out += np.uint64(turn * _STRIDE & (1 << 64) - 1)
    out ^= out >> np.uint64(29)
    out *= _FACTOR
    out >>= _HALF
    return out


def permute(indexes: NDArray[np.int64], rows: int, key: int) -> NDArray[np.int64]:
    """Images of `indexes` under a permutation of range(rows) that `key` selects."""
    grids = _Grids.of([rows]).at(np.zeros(len(indexes), dtype=np.int64))
    return grids.permute(indexes.astype(np.uint64), np.full(len(indexes), key, dtype=np.uint64)).astype(np.int64)


class _SegmentTable:
    """A segment ready to be read: its schedule, and what each of its entries is."""

    def __init__(self, seed: int, number: int, segment: Segment, table: NDArray[np.uint16], datasets: Sequence[str]) -> None:
        entries = segment.entries
        self.table, self.ranks = table, _ranks(table)
        self.weights = np.array([item.weight for item in entries], dtype=np.int64)
        self.sizes = np.array([item.rows for item in entries], dtype=np.int64)
        self.grids = _Grids.of([item.rows for item in entries])
        self.keys = np.array([_key("rows", seed, number, item.dataset) for item in entries], dtype=np.uint64)
        self.dataset = np.array([datasets.index(item.dataset) for item in entries], dtype=np.int32)

    def window(self, start: int, count: int) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any]]:
        """As `Mixture.window`, counted from the segment's start."""
        period, offset = np.divmod(np.arange(start, start + count, dtype=np.int64), len(self.table))
        entry = self.table[offset].astype(np.int64)
        epoch, index = np.divmod(self.weights[entry] * period + self.ranks[offset], self.sizes[entry])
        keys = _mix(epoch.astype(np.uint64) * _GOLDEN + self.keys[entry])
        rows = self.grids.at(entry).permute(index.astype(np.uint64), keys)
        return self.dataset[entry], epoch, rows.astype(np.int64)


class Mixture:
    """An opened mixture. Safe to share between threads."""

    def __init__(self, file: MixtureFile, schedules: Sequence[NDArray[np.uint16]]) -> None:
        if not file.segments or file.segments[0].start != 0:
            raise MixtureError("a mixture's first segment starts at position 0")
        self.file = file
        self.seed = file.seed
        self._schedules = list(schedules)
        self._starts = [segment.start for segment in file.segments]
        self._tables = [
            _SegmentTable(file.seed, number, segment, table, self.datasets)
            for number, (segment, table) in enumerate(zip(file.segments, schedules, strict=True))
        ]

    @classmethod
    def build(cls, seed: int, entries: Sequence[MixtureEntry]) -> Mixture:
        """A mixture of one segment. Raises MixtureError for an empty dataset, a repeated name or weights that miss PERIOD."""
        _check_entries(entries)
        table = schedule([entry.weight for entry in entries])
        return cls(MixtureFile(seed=seed, segments=(Segment(start=0, entries=tuple(entries)),)), [table])

    def continued(self, start: int, entries: Sequence[MixtureEntry]) -> Mixture:
        """This mixture with a new segment from `start` on; earlier positions are untouched."""
        if start <= self._starts[-1]:
            raise MixtureError(f"a new segment must start after position {self._starts[-1]}, not at {start}")
        _check_entries(entries)
        segments = (*self.file.segments, Segment(start=start, entries=tuple(entries)))
        table = schedule([entry.weight for entry in entries])
        return Mixture(msgspec.structs.replace(self.file, segments=segments), [*self._schedules, table])

    @property
    def entries(self) -> tuple[MixtureEntry, ...]:
        """Datasets of the newest segment."""
        return self.file.segments[-1].entries

    @property
    def datasets(self) -> list[str]:
        """Names over all segments, in order of first appearance; `window` numbers datasets by this list."""
        names = dict.fromkeys(entry.dataset for segment in self.file.segments for entry in segment.entries)
        return list(names)

    @property
    def fingerprint(self) -> str:
        """Identity of the order: seed, segments, weights, rows and versions."""
        return fingerprint(self.file)

    def save(self, folder: Path) -> None:
        """Write `mixture.json` and one `schedule-<n>.npy` a segment."""
        folder.mkdir(parents=True, exist_ok=True)
        for number, table in enumerate(self._schedules):
            np.save(folder / f"schedule-{number}.npy", table, allow_pickle=False)
        digests = [file_sha256(folder / f"schedule-{number}.npy") for number in range(len(self._schedules))]
        body = {**msgspec.to_builtins(self.file), "schedules": digests}
        (folder / MIXTURE_FILE).write_bytes(msgspec.json.format(msgspec.json.encode(body, order="sorted"), indent=1) + b"\n")

    @classmethod
    def load(cls, folder: Path) -> Mixture:
        """Inverse of `save`. Raises MixtureError naming the file."""
        path = Path(folder) / MIXTURE_FILE
        try:
            body = msgspec.json.decode(path.read_bytes())
            body.pop("schedules")
            file = msgspec.convert(body, MixtureFile)
        except FileNotFoundError:
            raise MixtureError(f"{path} is missing: materialise the mixture again.") from None
        except (msgspec.MsgspecError, KeyError) as error:
            raise MixtureError(f"{path} cannot be read: {error}") from None
        if file.schema != MIXTURE_SCHEMA or file.period != PERIOD:
            raise MixtureError(
                f"{path} is {file.schema} with period {file.period}; this version reads {MIXTURE_SCHEMA} with period {PERIOD}"
            )
        tables = [np.load(path.parent / f"schedule-{n}.npy", mmap_mode="r", allow_pickle=False) for n in range(len(file.segments))]
        return cls(file, tables)

    def locate(self, position: int) -> tuple[int, int, int]:
        """(dataset number, epoch, row) of one position."""
        dataset, epoch, row = self.window(position, 1)
        return int(dataset[0]), int(epoch[0]), int(row[0])

    def window(self, start: int, count: int) -> tuple[NDArray[np.int32], NDArray[np.int64], NDArray[np.int64]]:
        """Positions [start, start+count): dataset numbers (into `datasets`), epochs from 0, rows; each [count]."""
        datasets = np.empty(count, dtype=np.int32)
        epochs = np.empty(count, dtype=np.int64)
        rows = np.empty(count, dtype=np.int64)
        done = 0
        while done < count:
            number = bisect_right(self._starts, start + done) - 1
            end = self._starts[number + 1] if number + 1 < len(self._starts) else start + count
            take = min(count - done, end - start - done)
            part = slice(done, done + take)
            datasets[part], epochs[part], rows[part] = self._tables[number].window(start + done - self._starts[number], take)
            done += take
        return datasets, epochs, rows


def _ranks(table: NDArray[np.uint16]) -> NDArray[np.int64]:
    """For each position of a period, how often its entry occurred before it in the period."""
    order = np.argsort(table, kind="stable")
    counts = np.bincount(table)
    starts = np.concatenate([[0], np.cumsum(counts)[:-1]])
    ranks = np.empty(len(table), dtype=np.int64)
    ranks[order] = np.arange(len(table)) - np.repeat(starts, counts)
    return ranks


def _check_entries(entries: Sequence[MixtureEntry]) -> None:
    names = [entry.dataset for entry in entries]
    if len(set(names)) != len(names):
        raise MixtureError(f"datasets appear twice in one mixture: {sorted({name for name in names if names.count(name) > 1})}")
    for entry in entries:
        if entry.rows <= 0:
            raise MixtureError(f"{entry.dataset} has no rows: leave it out of the mixture, or look at its quarantine")
        if entry.weight <= 0:
            raise MixtureError(f"{entry.dataset} has weight {entry.weight}; a weight is a whole number of at least 1")
    total = sum(entry.weight for entry in entries)
    if total != PERIOD:
        raise MixtureError(f"the weights sum to {total}, not to {PERIOD}")
