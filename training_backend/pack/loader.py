"""Packs by number: positions of the mixture → windows → packs → micro-batches.

Belongs here: which examples a global pack number holds, building packs with or without threads, what happens when media fail.
Does not belong here: how a window is packed (`plan.py`), what an example becomes (`training_backend.encode`), arrays of a batch
(`collate.py`).

Window w holds the mixture's positions [w*W, (w+1)*W) and is planned alone; its packs come in an order that is drawn for it,
because plans begin with the largest examples. Pack n is the n-th over all windows. Rank r of R takes micro-batches r, r+R, r+2R
… of consecutive packs, so that R ranks with micro-batch B read the same R*B*k packs in k turns, whatever R and B are. Nothing
depends on threads: results are handed out in order.
"""

from __future__ import annotations

import threading
from collections import OrderedDict, deque
from collections.abc import Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from hashlib import blake2b
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from training_backend.config import PackConfig
from training_backend.data.fingerprint import fingerprint
from training_backend.data.media import MediaFault
from training_backend.data.order import Mixture
from training_backend.data.store import RowStore
from training_backend.encode.draws import VARIANTS, position_keys
from training_backend.encode.preprocessor import MediaSource, Preprocessor
from training_backend.pack.batch import Batch, Encoded
from training_backend.pack.collate import collate
from training_backend.pack.lengths import Lengths
from training_backend.pack.log import PlanLog
from training_backend.pack.plan import PLANNER_VERSIONS, plan_window

__all__ = ["MediaFailures", "PackLoader", "Place", "collate"]

WINDOWS_KEPT = 4
PREFETCH = 2
"""Micro-batches under way for each thread."""
MOST_FAILURES = 0.05
LEAST_FAILURES = 50
"""A run ends when more than MOST_FAILURES of the examples with media, and at least LEAST_FAILURES, had none."""
_ORDER = 1 << 64
"""Separates the stream that orders packs from the one that keys positions."""


class MediaFailures(RuntimeError):
    """So many media are unreadable that the run would no longer train on its data."""


@dataclass(frozen=True, slots=True)
class Place:
    """One example of a pack: its position in the mixture, its row, its key, and the tokens and crops that were planned for it."""

    position: int
    dataset: str
    row: int
    key: int
    tokens: int
    visual: int


class PackLoader:
    """Batches as a pure function of the pack number.

    `stores` and `lengths` by dataset name, for every dataset of the mixture. `log_dir` keeps the plan log, which `rank` 0
    writes, and lists of media that failed; without `media` packs can be planned but not built. `workers` threads encode ahead; 0
    encodes when asked. One `batches` iterator at a time.
    """

    def __init__(
        self,
        mixture: Mixture,
        stores: Mapping[str, RowStore],
        lengths: Mapping[str, Lengths],
        preprocessor: Preprocessor,
        pack: PackConfig,
        seed: int,
        media: MediaSource | None,
        log_dir: Path | None = None,
        *,
        workers: int = 0,
        rank: int = 0,
    ) -> None:
        missing = [name for name in mixture.datasets if name not in stores or name not in lengths]
        if missing:
            raise ValueError(
                f"the mixture holds {missing}, of which no rows or lengths were given; materialise the sequences again."
            )
        self.mixture, self.stores, self.lengths = mixture, stores, lengths
        self.preprocessor, self.config, self.seed, self.media = preprocessor, pack, seed, media
        self._log_dir, self._workers, self._rank = log_dir, workers, rank
        self._names = mixture.datasets
        self._windows: OrderedDict[int, list[list[Place]]] = OrderedDict()
        self._ahead: dict[int, Future[list[list[Place]]]] = {}
        self.identity = self._identity()
        self._log = PlanLog(log_dir, self.identity, pack.window, write=rank == 0)
        self._lock = threading.Lock()
        self._shown = self._failed = 0
        self._newest = self._next = 0

    def _identity(self) -> str:
        """Hash of everything that decides which examples share a pack."""
        digest = blake2b(digest_size=16)
        for name in self._names:
            digest.update(self.lengths[name].tokens.tobytes())
            digest.update(self.lengths[name].visual.tobytes())
        return fingerprint(
            [PLANNER_VERSIONS[self.config.method], self.mixture.fingerprint, self.config, self.seed, digest.hexdigest()]
        )

    # -- which examples --------------------------------------------------------------------------------------------------------

    def window(self, number: int) -> list[list[Place]]:
        """Packs of a window in their final order, examples of a pack in order of position."""
        self._newest = number
        if number in self._windows:
            self._windows.move_to_end(number)
            return self._windows[number]
        ready = self._ahead.pop(number, None)
        packs = ready.result() if ready is not None else self._plan(number)
        self._log.append(number, [[place.position % self.config.window for place in pack] for pack in packs])
        self._windows[number] = packs
        while len(self._windows) > WINDOWS_KEPT:
            self._windows.popitem(last=False)
        return packs

    def _plan(self, number: int) -> list[list[Place]]:
        size = self.config.window
        start = number * size
        datasets, _, rows = self.mixture.window(start, size)
        keys = position_keys(self.seed, start, size)
        variants = (keys % np.uint64(VARIANTS)).astype(np.int64)
        tokens, visual = np.empty(size, dtype=np.int64), np.empty(size, dtype=np.int64)
        for place, name in enumerate(self._names):
            mine = np.flatnonzero(datasets == place)
            tokens[mine] = self.lengths[name].tokens[rows[mine], variants[mine]]
            visual[mine] = self.lengths[name].visual[rows[mine], variants[mine]]
        packs = plan_window(tokens, visual, self.config.max_tokens, self.config.max_visual, self.config.method)
        order = np.argsort(position_keys(self.seed + _ORDER, start, len(packs)), kind="stable")
        return [
            [
                Place(start + i, self._names[datasets[i]], int(rows[i]), int(keys[i]), int(tokens[i]), int(visual[i]))
                for i in packs[chosen]
            ]
            for chosen in order
        ]

    def places(self, pack: int) -> list[Place]:
        """Examples of a global pack number. Windows between the known ones and this pack are planned on the way."""
        while (found := self._log.find(pack)) is None:
            self.window(len(self._log))
        window, slot = found
        return self.window(window)[slot]

    # -- what they become ------------------------------------------------------------------------------------------------------

    def encode(self, place: Place) -> tuple[Encoded, bool]:
        """One example, and whether its media failed: then it has its planned size, black pictures and no loss.

        Raises MediaFailures where too many failed.
        """
        assert self.media is not None, "this loader was opened for planning only"
        example = self.stores[place.dataset].example(place.row)
        failed = False
        try:
            encoded = self.preprocessor.encode(example, place.key, self.media)
        except MediaFault as error:
            failed = True
            encoded = self.preprocessor.encode(example, place.key, None)
            encoded = replace(encoded, weights=np.zeros_like(encoded.weights))
            self._report(place, example.id, error)
        if example.media:
            self._count(failed)
        assert (len(encoded.tokens), len(encoded.crops)) == (place.tokens, place.visual), (
            f"{place.dataset}, row {place.row}: planned {place.tokens} tokens and {place.visual} crops, "
            f"made {len(encoded.tokens)} and {len(encoded.crops)}"
        )
        return encoded, failed

    def _report(self, place: Place, example: str, error: Exception) -> None:
        if self._log_dir is None:
            return
        line = {"position": place.position, "dataset": place.dataset, "row": place.row, "id": example, "error": str(error)}
        with self._lock, (self._log_dir / f"media-failures-{self._rank}.jsonl").open("ab") as stream:
            stream.write(msgspec.json.encode(line) + b"\n")

    def _count(self, failed: bool) -> None:
        with self._lock:
            self._shown += 1
            self._failed += failed
            shown, many = self._shown, self._failed
        if failed and many >= LEAST_FAILURES and many > MOST_FAILURES * shown:
            raise MediaFailures(
                f"{many} of {shown} examples with media could not be read. Is the media cache complete? Materialise the media; "
                "the examples are listed in media-failures-*.jsonl of the run."
            )

    def batch(self, packs: list[list[Place]]) -> Batch:
        """Some packs as one micro-batch."""
        made = [[self.encode(place) for place in pack] for pack in packs]
        failures = sum(failed for pack in made for _, failed in pack)
        patches = self.preprocessor.geometry.side**2
        return collate([[item for item, _ in pack] for pack in made], self.config.max_tokens, patches, failures)

    def batches(self, start_pack: int, rank: int = 0, world: int = 1, micro_batch: int = 1) -> Iterator[Batch]:
        """Micro-batches for ever: packs start_pack + (k*world + rank)*micro_batch + [0, micro_batch) for k = 0, 1, …"""
        self._next = start_pack

        def jobs() -> Iterator[list[list[Place]]]:
            first = start_pack + rank * micro_batch
            while True:
                yield [self.places(first + number) for number in range(micro_batch)]
                first += world * micro_batch

        if not self._workers:
            for job in jobs():
                made = self.batch(job)
                self._next += world * micro_batch
                yield made
            return
        with ThreadPoolExecutor(1, "plan") as planner, ThreadPoolExecutor(self._workers, "encode") as pool:
            under_way: deque[Future[Batch]] = deque()
            try:
                for job in jobs():
                    self._look_ahead(planner)
                    under_way.append(pool.submit(self.batch, job))
                    if len(under_way) > PREFETCH * self._workers:
                        made = under_way.popleft().result()
                        self._next += world * micro_batch
                        yield made
            finally:
                self._ahead.clear()
                for future in under_way:
                    future.cancel()
                planner.shutdown(cancel_futures=True)

    def _look_ahead(self, planner: ThreadPoolExecutor) -> None:
        """Plan the window after the one in use while its packs are read."""
        number = self._newest + 1
        if number not in self._ahead and number not in self._windows:
            self._ahead[number] = planner.submit(self._plan, number)

    def state(self) -> dict[str, Any]:
        """Where `batches` stands: the first pack that it has not handed out to any rank, and the plan that it is a pack of."""
        return {"next_pack": self._next, "plan": self.identity}
