"""The mixture as a pure function: (seed, position) → (dataset, epoch, row). O(1) to seek, the same for every rank, worker and host.

Belongs here: integer weights, the schedule that spreads datasets evenly, row permutations, the mixture's file. Does not belong
here: how weights are chosen (`molmo2_assets.mixtures`), packing, any state: there is none.

How it works. Weights are integers that sum to PERIOD. One period of PERIOD positions is a fixed *schedule*: occurrence k
(from 1) of a dataset with weight w lies in the window of positions p with (k-1)/w < p <= k/w rounded to whole positions, which is
the chairman-assignment problem (Tijdeman 1980): earliest deadline first always succeeds, and at every position the count of
each dataset is within 1 of w*p. The period repeats, so this holds for ever. Rows of a dataset come in the order of a keyed
permutation, a new one each epoch.

New weights or new data open a new *segment* at a position: its datasets start with new permutations, and positions before it
keep their meaning.
"""

from __future__ import annotations

import heapq
from bisect import bisect_right
from collections import OrderedDict
from collections.abc import Sequence
from hashlib import blake2b
from itertools import pairwise
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from training_backend.data.fingerprint import file_sha256, fingerprint

MIXTURE_SCHEMA = "molmo2-mixture/1"
MIXTURE_FILE = "mixture.json"
PERIOD = 1 << 20
"""Positions after which the schedule repeats; a weight is a whole number of 1/PERIOD."""
_EXPLICIT = 1 << 22
"""Up to this many rows a permutation is a sorted table; above, a Feistel network computes each index alone."""
_CACHED_ROWS = 1 << 24
"""Entries of permutation tables kept in memory, 4 bytes each."""


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


def _mix(values: NDArray[np.uint64], key: int) -> NDArray[np.uint64]:
    """splitmix64 finaliser of values + key, vectorised: the same on every platform and numpy version."""
    with np.errstate(over="ignore"):
        x = values + np.uint64(key)
        shifted = np.empty_like(x)  # in place: tables have millions of rows
        for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
            x ^= np.right_shift(x, np.uint64(shift), out=shifted)
            x *= np.uint64(factor)
        x ^= np.right_shift(x, np.uint64(31), out=shifted)
        return x


def permute(indexes: NDArray[np.int64], rows: int, key: int) -> NDArray[np.int64]:
    """Images of `indexes` under a permutation of range(rows) that `key` selects: six Feistel rounds with cycle walking."""
    bits = max(2, (rows - 1).bit_length())
    half = np.uint64((bits + 1) // 2)
    mask = np.uint64((1 << int(half)) - 1)
    out = indexes.astype(np.uint64)
    pending = np.ones(len(out), dtype=bool)
    while pending.any():
        values = out[pending]
        left, right = values >> half, values & mask
        for turn in range(6):
            left, right = right, left ^ (_mix(right, key + 0x9E3779B97F4A7C15 * (turn + 1) & (1 << 64) - 1) & mask)
        out[pending] = (left << half) | right
        pending = out >= np.uint64(rows)
    return out.astype(np.int64)


class Mixture:
    """An opened mixture. Thread-safe for reading except for its cache of permutations: open one per worker."""

    def __init__(self, file: MixtureFile, schedules: Sequence[NDArray[np.uint16]]) -> None:
        if not file.segments or file.segments[0].start != 0:
            raise MixtureError("a mixture's first segment starts at position 0")
        self.file = file
        self.seed = file.seed
        self._schedules = list(schedules)
        self._ranks = [_ranks(table) for table in self._schedules]
        self._starts = [segment.start for segment in file.segments]
        self._permutations: OrderedDict[tuple[int, int, int], NDArray[np.uint32]] = OrderedDict()
        self._cached_rows = 0

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
            datasets[part], epochs[part], rows[part] = self._in_segment(number, start + done - self._starts[number], take)
            done += take
        return datasets, epochs, rows

    def _in_segment(self, number: int, start: int, count: int) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any]]:
        entries = self.file.segments[number].entries
        table, ranks = self._schedules[number], self._ranks[number]
        local = np.arange(start, start + count, dtype=np.int64)
        period, offset = np.divmod(local, len(table))
        entry = np.asarray(table[offset], dtype=np.int64)
        weights = np.array([item.weight for item in entries], dtype=np.int64)
        sizes = np.array([item.rows for item in entries], dtype=np.int64)
        epoch, index = np.divmod(weights[entry] * period + ranks[offset], sizes[entry])
        row = np.empty(count, dtype=np.int64)
        # One pass groups equal (entry, epoch), so each permutation is fetched once.
        order = np.lexsort((epoch, entry))
        change = np.flatnonzero(np.diff(entry[order]) | np.diff(epoch[order])) + 1
        bounds = [0, *change.tolist(), count]
        for begin, end in pairwise(bounds):
            group = order[begin:end]
            first = group[0]
            row[group] = self._rows(number, int(entry[first]), int(epoch[first]), index[group])
        names = {name: place for place, name in enumerate(self.datasets)}
        to_dataset = np.array([names[item.dataset] for item in entries], dtype=np.int32)
        return to_dataset[entry], epoch, row

    def _rows(self, segment: int, entry: int, epoch: int, indexes: NDArray[np.int64]) -> NDArray[np.int64]:
        item = self.file.segments[segment].entries[entry]
        name = (segment, entry, epoch)
        table = self._permutations.get(name)
        if table is None:
            key = _key("rows", self.seed, segment, item.dataset, epoch)
            if item.rows > _EXPLICIT:
                return permute(indexes, item.rows, key)
            mixed = _mix(np.arange(item.rows, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15), key)
            # No two keys are equal, since mixing is a bijection: every kind of sort gives this table, and this one is the fastest.
            table = np.argsort(mixed, kind="quicksort").astype(np.uint32)
            self._permutations[name] = table
            self._cached_rows += item.rows
            while self._cached_rows > _CACHED_ROWS and len(self._permutations) > 1:
                self._cached_rows -= len(self._permutations.popitem(last=False)[1])
        else:
            self._permutations.move_to_end(name)
        return table[indexes].astype(np.int64)


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
