"""Packs by number: the same for every layout of ranks, threads and restarts; failures of media counted, never fatal alone."""

from __future__ import annotations

import itertools
import json
from collections import Counter
from hashlib import blake2b
from pathlib import Path

import numpy as np
import pytest

from tests.support.examples import EVERY_RULE, Pixels, many, mixture_of, recipe, store_at, tokenizer_at
from training_backend.config import PackConfig
from training_backend.data.order import Mixture
from training_backend.data.store import RowStore
from training_backend.encode.preprocessor import Preprocessor
from training_backend.pack import loader as loading
from training_backend.pack.batch import Batch
from training_backend.pack.lengths import Lengths, length_table
from training_backend.pack.loader import MediaFailures, PackLoader
from training_backend.pack.log import LOG_FILE, PlanLog, PlanLogError

PACK = PackConfig(max_tokens=500, max_visual=24, window=48)


class World:
    """Two sets, a mixture, and what belongs to them."""

    def __init__(self, folder: Path) -> None:
        self.stores: dict[str, RowStore] = {
            name: store_at(folder / name, many(30, seed)) for seed, name in enumerate(("one", "two"))
        }
        self.mixture: Mixture = mixture_of(self.stores)
        self.preprocessor = Preprocessor(recipe(), EVERY_RULE, tokenizer_at(folder / "tokenizer"), PACK.max_tokens, PACK.max_visual)
        self.tables: dict[str, Lengths] = {name: length_table(store, self.preprocessor)[0] for name, store in self.stores.items()}

    def loader(self, log: Path | None = None, pixels: Pixels | None = None, **fields: object) -> PackLoader:
        fields = {"seed": 5, **fields}
        return PackLoader(
            self.mixture, self.stores, self.tables, self.preprocessor, PACK, media=pixels or Pixels(), log_dir=log, **fields  # type: ignore[arg-type]
        )  # fmt: skip


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    return World(tmp_path_factory.mktemp("world"))


def rows_of(batch: Batch) -> list[str]:
    """A hash of each sequence of a batch, pictures included."""
    found = []
    patches = 36
    for number in range(len(batch.tokens)):
        digest = blake2b(digest_size=12)
        for name in ("tokens", "position", "branch", "image", "example", "response"):
            digest.update(getattr(batch, name)[number].tobytes())
        size = batch.tokens.shape[1]
        mine = (batch.slot // size == number) & (batch.slot_weight > 0)
        digest.update((batch.slot[mine] % size).tobytes())
        pool = batch.pool[mine]
        crops = np.unique(pool[pool >= 0] // patches)
        digest.update(batch.crops[crops].tobytes())
        learned = (batch.loss_index // size == number) & (batch.loss_weight > 0)
        for name in ("loss_target", "loss_weight", "loss_task"):
            digest.update(getattr(batch, name)[learned].tobytes())
        found.append(digest.hexdigest())
    return found


def read(loader: PackLoader, start: int, packs: int, rank: int = 0, world: int = 1, micro: int = 1) -> list[str]:
    count = packs // (world * micro)
    stream = loader.batches(start, rank, world, micro)
    found = [row for batch in itertools.islice(stream, count) for row in rows_of(batch)]
    stream.close()  # type: ignore[attr-defined]
    return found


@pytest.fixture(scope="module")
def truth(world: World) -> list[str]:
    return read(world.loader(), 0, 48)


@pytest.mark.parametrize(("ranks", "micro", "workers"), [(1, 1, 2), (1, 4, 0), (1, 3, 3), (2, 2, 0), (2, 1, 2), (4, 3, 1)])
def test_packs_do_not_depend_on_ranks_or_threads(world: World, truth: list[str], ranks: int, micro: int, workers: int) -> None:
    per_rank = [read(world.loader(workers=workers), 0, 48, rank, ranks, micro) for rank in range(ranks)]
    merged: list[str] = []
    for turn in range(48 // (ranks * micro)):
        for rank in range(ranks):
            merged += per_rank[rank][turn * micro : (turn + 1) * micro]
    assert merged == truth


@pytest.fixture(scope="module")
def order(world: World) -> list[list[tuple[int, str, int]]]:
    loader = world.loader()
    return [[(place.position, place.dataset, place.row) for place in loader.places(number)] for number in range(48)]


@pytest.mark.parametrize("draw", range(20))
def test_a_run_that_stopped_anywhere_goes_on_anyhow(
    world: World, truth: list[str], order: list[list[tuple[int, str, int]]], tmp_path: Path, draw: int
) -> None:
    """Stopped at a random (window, slot) under one layout, read on from its state under another: the order and every byte."""
    rng = np.random.default_rng(draw)
    ranks, micro, workers = (int(rng.choice(choice)) for choice in ((1, 2, 3), (1, 2), (0, 1, 2)))
    before = world.loader(tmp_path, workers=workers)
    stream = before.batches(int(rng.integers(0, 15)), 0, ranks, micro)
    for _ in range(int(rng.integers(1, 6))):
        next(stream)
    stream.close()  # type: ignore[attr-defined]
    saved = json.dumps(before.state())
    assert len(saved) < 4096
    start = json.loads(saved)["next_pack"]
    folder = tmp_path if draw % 2 else None  # with the log of the run, or without
    again = world.loader(folder, workers=int(rng.integers(0, 3)))
    assert again.identity == json.loads(saved)["plan"]
    assert read(again, start, 4, micro=int(rng.choice([1, 2, 4]))) == truth[start : start + 4]
    found = [[(place.position, place.dataset, place.row) for place in again.places(start + n)] for n in range(4)]
    assert found == order[start : start + 4]


def test_another_seed_is_another_stream(world: World, truth: list[str]) -> None:
    other = read(world.loader(seed=6), 0, 16)
    assert sum(one == two for one, two in zip(other, truth, strict=False)) < 4


@pytest.mark.parametrize("workers", [1, 3])
def test_threads_run_ahead_only_so_far(world: World, workers: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Memory is bounded by the micro-batches under way, however slow the reader is."""
    loader = world.loader(workers=workers)
    begun: list[int] = []
    places = loader.places
    monkeypatch.setattr(loader, "places", lambda pack: begun.append(pack) or places(pack))
    stream = loader.batches(0)
    for taken in range(1, 6):
        next(stream)
        assert begun == list(range(taken + loading.PREFETCH * workers))
    stream.close()  # type: ignore[attr-defined]


def test_every_position_of_a_window_is_packed_once(world: World) -> None:
    loader = world.loader()
    for number in (0, 3):
        packs = loader.window(number)
        positions = sorted(place.position for pack in packs for place in pack)
        assert positions == list(range(number * PACK.window, (number + 1) * PACK.window))
        datasets, _, rows = world.mixture.window(number * PACK.window, PACK.window)
        names = world.mixture.datasets
        for place in itertools.chain(*packs):
            index = place.position - number * PACK.window
            assert (place.dataset, place.row) == (names[datasets[index]], rows[index])
        for pack in packs:
            assert sum(place.tokens for place in pack) <= PACK.max_tokens
            assert sum(place.visual for place in pack) <= PACK.max_visual


def test_packs_of_a_window_are_not_sorted_by_size(world: World) -> None:
    """Plans begin with the largest examples; a model must not see them first in every window."""
    largest = [max(place.tokens for place in pack) for pack in world.loader().window(0)]
    assert largest != sorted(largest, reverse=True)


def test_the_state_says_where_to_go_on(world: World, truth: list[str]) -> None:
    for workers in (0, 2):
        loader = world.loader(workers=workers)
        stream = loader.batches(4, micro_batch=2)
        next(stream)
        next(stream)
        state = json.loads(json.dumps(loader.state()))
        assert state["next_pack"] == 8
        stream.close()  # type: ignore[attr-defined]
        assert read(world.loader(), state["next_pack"], 4) == truth[8:12]


# -- the plan log -----------------------------------------------------------------------------------------------------------


def test_the_log_makes_seeking_cheap(world: World, truth: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read(world.loader(tmp_path), 0, 40)
    again = world.loader(tmp_path)
    planned: list[int] = []
    plan = again._plan
    monkeypatch.setattr(again, "_plan", lambda number: planned.append(number) or plan(number))
    found = again.places(38)
    assert planned == [again._log.find(38)[0]]  # type: ignore[index]
    assert planned[0] > 0
    assert found == world.loader().places(38)
    # The log answers which pack saw a position.
    window, slot = again._log.find(38)  # type: ignore[misc]
    assert {place.position % PACK.window for place in found} == set(np.flatnonzero(again._log.slots(window) == slot).tolist())
    assert again._log.first_pack(window) + slot == 38


@pytest.mark.parametrize("cut", [1, 5, 50, 110])
def test_a_torn_log_is_written_anew(world: World, tmp_path: Path, cut: int) -> None:
    loader = world.loader(tmp_path)
    for number in range(4):
        loader.window(number)
    whole = (tmp_path / LOG_FILE).read_bytes()
    (tmp_path / LOG_FILE).write_bytes(whole[:-cut])
    again = world.loader(tmp_path)
    known = len(again._log)
    assert known == (3 if cut <= 104 else 2)
    for number in range(known, 4):
        again.window(number)
    assert (tmp_path / LOG_FILE).read_bytes() == whole


def test_a_damaged_record_ends_the_log(world: World, tmp_path: Path) -> None:
    loader = world.loader(tmp_path)
    for number in range(3):
        loader.window(number)
    data = bytearray((tmp_path / LOG_FILE).read_bytes())
    data[-150] ^= 1
    (tmp_path / LOG_FILE).write_bytes(bytes(data))
    assert len(world.loader(tmp_path)._log) == 1


def test_a_log_of_other_packs_is_refused(world: World, tmp_path: Path) -> None:
    world.loader(tmp_path).window(0)
    with pytest.raises(PlanLogError, match="other sequences"):
        world.loader(tmp_path, seed=6)


def test_only_one_rank_writes(world: World, tmp_path: Path) -> None:
    other = world.loader(tmp_path, rank=1)
    other.window(0)
    assert not (tmp_path / LOG_FILE).exists()
    world.loader(tmp_path, rank=0).window(0)
    whole = (tmp_path / LOG_FILE).read_bytes()
    assert len(world.loader(tmp_path, rank=1)._log) == 1
    other.window(1)
    assert (tmp_path / LOG_FILE).read_bytes() == whole


def test_windows_out_of_turn_are_not_logged(tmp_path: Path) -> None:
    log = PlanLog(tmp_path, "p", 4)
    log.append(1, [[0, 1], [2, 3]])
    assert len(log) == 0
    log.append(0, [[0, 2], [1], [3]])
    assert log.slots(0).tolist() == [0, 1, 0, 2]
    with pytest.raises(PlanLogError, match="window 1"):
        log.slots(1)


# -- failures ---------------------------------------------------------------------------------------------------------------


def test_failed_media_keep_the_geometry_and_lose_the_loss(world: World, tmp_path: Path) -> None:
    good = world.loader()
    broken = {media.id for store in world.stores.values() for example in store for media in example.media if media.kind == "image"}
    name = sorted(broken)[0]
    bad = world.loader(tmp_path, Pixels({name}))
    failures = 0
    for number in range(40):
        places = good.places(number)
        assert bad.places(number) == places
        one, two = good.batch([places]), bad.batch([places])
        for field in ("tokens", "position", "branch", "image", "example", "pool", "slot"):
            np.testing.assert_array_equal(getattr(one, field), getattr(two, field))
        assert one.crops.shape == two.crops.shape
        hit = [any(media.id == name for media in world.stores[p.dataset].example(p.row).media) for p in places]
        assert two.failures == sum(hit)
        failures += two.failures
        for index, failed in enumerate(hit):
            weight = [
                float(b.loss_weight[(b.loss_weight > 0) & (b.example.ravel()[b.loss_index] == index)].sum()) for b in (one, two)
            ]
            assert weight[1] == (0 if failed else pytest.approx(weight[0]))
    assert failures > 0
    lines = [json.loads(line) for line in (tmp_path / "media-failures-0.jsonl").read_text().splitlines()]
    assert len(lines) == failures
    assert set(lines[0]) == {"position", "dataset", "row", "id", "error"}
    assert name in lines[0]["error"]


def test_too_many_failures_end_the_run(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loading, "LEAST_FAILURES", 5)
    every = {media.id for store in world.stores.values() for example in store for media in example.media}
    for workers in (0, 2):
        with pytest.raises(MediaFailures, match="Is the media cache complete"):
            read(world.loader(pixels=Pixels(every), workers=workers), 0, 40)


def test_a_set_without_rows_or_lengths_is_named(world: World) -> None:
    with pytest.raises(ValueError, match="'two'"):
        PackLoader(world.mixture, {"one": world.stores["one"]}, world.tables, world.preprocessor, PACK, 5, None)


def test_a_long_walk_sees_all_rows_equally(world: World) -> None:
    """Two sets of equal weight: after two windows each row was seen once or twice."""
    seen = Counter((p.dataset, p.row) for n in range(5) for pack in world.loader().window(n) for p in pack)
    assert set(seen.values()) == {4}
    assert len(seen) == 60
