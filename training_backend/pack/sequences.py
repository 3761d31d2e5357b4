"""The run kind `plan`: length tables and a report over the first windows; and a train run's way back to its batches.

Belongs here: reading a run spec's inputs for packing, writing `lengths/<dataset>.npz`, `sequences.json` and `report.json`. Does
not belong here: lengths, plans and packs themselves.

Output is a function of the identity: no times, no paths.
"""

from __future__ import annotations

import os
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from functools import partial
from itertools import groupby
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from training_backend.api import RunSpec, decode_spec, encode_spec
from training_backend.config import EncodeConfig, LossConfig, PackConfig
from training_backend.data.manifest import replace_file
from training_backend.data.media import MediaCache
from training_backend.data.order import Mixture
from training_backend.data.store import RowStore
from training_backend.encode import preprocessor as encoding
from training_backend.encode import tokens as tokenizing
from training_backend.encode.draws import VARIANTS, Draws, variant_of
from training_backend.encode.preprocessor import Preprocessor
from training_backend.encode.tokens import EXTRA_TOKENS, Tokenizer
from training_backend.pack.batch import Batch
from training_backend.pack.lengths import Lengths, Measured, joined, measure, pieces
from training_backend.pack.loader import PackLoader, Place
from training_backend.pack.media_source import CachedMedia
from training_backend.pack.plan import PLANNER_VERSIONS, binding_fill, lower_bound
from training_backend.pool import processes, processors

SEQUENCES_FILE, REPORT_FILE = "sequences.json", "report.json"
SEQUENCES_SCHEMA = "molmo2-sequences/1"
LOG_SECONDS = 30.0
ROWS = 1000
"""Rows that a process measures at a time."""
MANY_ROWS = 4 * ROWS
"""Rows of all datasets from which on several processes measure: they take half a second to begin."""
MOST_PROCESSES = 16
"""Each holds a tokenizer and an encoder."""
REPORT_POSITIONS = 4096
"""The report looks at whole windows, at least this many positions."""


class SequenceError(ValueError):
    """Inputs that do not belong together; the message names them and the way out."""


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """What plan and train runs share; other fields of their identities are passed over."""

    encode: EncodeConfig
    loss: LossConfig
    pack: PackConfig
    seed: int


class DatasetLengths(msgspec.Struct, frozen=True, kw_only=True):
    """One dataset of `sequences.json`: rows, their version, mean lengths over rows and realisations."""

    rows: int
    data_version: str
    mean_tokens: float
    mean_visual: float


class Sequences(msgspec.Struct, frozen=True, kw_only=True):
    """`sequences.json`: everything that, with the length tables, decides the packs."""

    planner: str
    encoder: str
    settings: Settings
    mixture: str
    variants: int
    datasets: dict[str, DatasetLengths]
    schema: str = SEQUENCES_SCHEMA


def build_sequences(spec: RunSpec, out: Path, log: Callable[[str], None]) -> dict[str, Any]:
    """Measure every row, plan the first windows, write the files into `out`.

    Reads inputs `mixture`, `tokenizer` and `validated/<name>` of every dataset in the mixture. Raises SequenceError; OversizedError
    naming a row where the recipe refuses what does not fit. Returns {"counts", "facts"}.
    """
    settings = msgspec.convert(spec.identity, Settings)
    mixture, stores = open_mixture(spec)
    worker = open_preprocessor(spec, settings)
    tables: dict[str, Lengths] = {}
    left_out: dict[str, Counter[str]] = {}
    for name, parts in _measured(spec, settings, stores, worker, log):
        store = stores[name]
        tables[name], left_out[name] = joined(store, worker, parts)
        tables[name].save(out / "lengths" / f"{name}.npz")
        log(
            f"{name}: {len(store)} rows, {tables[name].tokens.mean():.0f} tokens, {tables[name].visual.mean():.1f} crops on average"
        )
    datasets = {
        name: DatasetLengths(
            rows=len(store),
            data_version=store.version,
            mean_tokens=round(float(tables[name].tokens.mean()), 3),
            mean_visual=round(float(tables[name].visual.mean()), 3),
        )
        for name, store in stores.items()
    }
    sequences = Sequences(
        planner=PLANNER_VERSIONS[settings.pack.method],
        encoder=f"{encoding.CODE_VERSION}.{tokenizing.CODE_VERSION}",
        settings=settings,
        mixture=mixture.fingerprint,
        variants=VARIANTS,
        datasets=datasets,
    )
    _write(out / SEQUENCES_FILE, sequences)
    loader = PackLoader(mixture, stores, tables, worker, settings.pack, settings.seed, None)
    report = window_report(loader, max(1, -(-REPORT_POSITIONS // settings.pack.window)))
    report["rows_left_out"] = {name: dict(sorted(reasons.items())) for name, reasons in left_out.items() if reasons}
    _write(out / REPORT_FILE, report)
    log(f"{report['packs']} packs of {report['positions']} examples, {report['fill']:.1%} of the tighter budget filled")
    found = {name: report[name] for name in _COUNTS if name in report}
    counts = {"datasets": len(stores), "rows": sum(map(len, stores.values())), **found}
    return {"counts": counts, "facts": {"fill": report["fill"], "examples_per_pack": report["examples_per_pack"]}}


def _measured(
    spec: RunSpec, settings: Settings, stores: dict[str, RowStore], worker: Preprocessor, log: Callable[[str], None]
) -> Iterator[tuple[str, list[Measured]]]:
    """Every store's rows, measured, in processes where there are enough of them."""
    asked = [(name, rows) for name, store in stores.items() for rows in pieces(store, ROWS)]
    with ExitStack() as open_:
        if sum(map(len, stores.values())) < MANY_ROWS or processors() < 2:
            found: Iterator[Measured] = (measure(stores[name], worker, rows) for name, rows in asked)
        else:
            pool = open_.enter_context(processes(min(MOST_PROCESSES, processors()), _open_stores, encode_spec(spec)))
            found = pool.map(_measure, *zip(*asked, strict=True))
        spoke = time.monotonic()
        for name, group in groupby(zip(asked, found, strict=True), lambda pair: pair[0][0]):
            parts: list[Measured] = []
            for (_, rows), part in group:
                parts.append(part)
                if time.monotonic() - spoke > LOG_SECONDS:
                    log(f"{name}: {rows.stop} of {len(stores[name])} rows measured")
                    spoke = time.monotonic()
            yield name, parts


_OPEN: tuple[dict[str, RowStore], Preprocessor]
"""Of a process that measures."""


def _open_stores(data: bytes) -> None:
    global _OPEN
    spec = decode_spec(data)
    _OPEN = open_mixture(spec)[1], open_preprocessor(spec, msgspec.convert(spec.identity, Settings))


def _measure(name: str, rows: range) -> Measured:
    stores, worker = _OPEN
    return measure(stores[name], worker, rows)


_COUNTS = (
    "positions", "packs", "truncated_branches", "dropped_frames", "coarser_pictures", "unshown_samples", "examples_left_out",
)  # fmt: skip


def open_mixture(spec: RunSpec) -> tuple[Mixture, dict[str, RowStore]]:
    """The mixture of a run and the rows of its datasets. Raises SequenceError where one is missing or of another version."""
    mixture = Mixture.load(Path(spec.inputs["mixture"]))
    stores: dict[str, RowStore] = {}
    for segment in mixture.file.segments:
        for entry in segment.entries:
            name = f"validated/{entry.dataset}"
            if name not in spec.inputs:
                raise SequenceError(
                    f"the mixture holds {entry.dataset}, the run has no input {name}; materialise the set, then the mixture."
                )
            store = stores.setdefault(entry.dataset, RowStore(Path(spec.inputs[name])))
            if store.version != entry.data_version:
                raise SequenceError(
                    f"{store.folder} is version {store.version}, the mixture was made for {entry.data_version}: make it again."
                )
    return mixture, stores


def open_preprocessor(spec: RunSpec, settings: Settings) -> Preprocessor:
    """The encoder of a run."""
    extra = spec.identity.get("model", {}).get("decoder", {}).get("extra_tokens", len(EXTRA_TOKENS))
    tokenizer = Tokenizer(Path(spec.inputs["tokenizer"]), extra)
    return Preprocessor(settings.encode, settings.loss, tokenizer, settings.pack.max_tokens, settings.pack.max_visual)


def open_batches(spec: RunSpec, log_dir: Path | None = None) -> Callable[[int], Iterator[Batch]]:
    """For a train run: first pack → this rank's micro-batches from there on.

    Rank and world come from torchrun's environment. `log_dir` (of the run) keeps the plan log, without which a resumed run plans
    all windows before its first again. Raises SequenceError where the sequences were made with other settings than the run's.
    """
    rank, world = int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1"))
    loader = open_loader(spec, log_dir, rank)
    return partial(loader.batches, rank=rank, world=world, micro_batch=spec.execution.micro_batch)


def open_loader(spec: RunSpec, log_dir: Path | None = None, rank: int = 0) -> PackLoader:
    """The loader of a run's packs, from its inputs `sequences`, `mixture`, `tokenizer`, `cache` and `validated/<name>`."""
    settings = msgspec.convert(spec.identity, Settings)
    folder = Path(spec.inputs["sequences"])
    made = read_sequences(folder)
    mixture, stores = open_mixture(spec)
    planner = PLANNER_VERSIONS[settings.pack.method]
    now = (settings, mixture.fingerprint, planner, f"{encoding.CODE_VERSION}.{tokenizing.CODE_VERSION}", VARIANTS)
    if now != (made.settings, made.mixture, made.planner, made.encoder, made.variants):
        raise SequenceError(f"{folder} was made with other settings, another mixture or an older encoder; materialise it again.")
    tables = {name: Lengths.load(folder / "lengths" / f"{name}.npz", len(store)) for name, store in stores.items()}
    return PackLoader(
        mixture,
        stores,
        tables,
        open_preprocessor(spec, settings),
        settings.pack,
        settings.seed,
        CachedMedia(MediaCache(Path(spec.inputs["cache"]))),
        log_dir,
        workers=spec.execution.workers,
        rank=rank,
    )


def read_sequences(folder: Path) -> Sequences:
    """`sequences.json` of a finished folder. Raises SequenceError."""
    path = folder / SEQUENCES_FILE
    try:
        made = msgspec.json.decode(path.read_bytes(), type=Sequences)
    except FileNotFoundError:
        raise SequenceError(f"{path} is missing: materialise the sequences again.") from None
    except msgspec.MsgspecError as error:
        raise SequenceError(f"{path} cannot be read ({error}): materialise the sequences again.") from None
    if made.schema != SEQUENCES_SCHEMA:
        raise SequenceError(f"{path} has schema {made.schema}, this version reads {SEQUENCES_SCHEMA}.")
    return made


def window_report(loader: PackLoader, windows: int) -> dict[str, Any]:
    """What the first windows hold: packs, fill, waiting, what was left out, and where the loss goes.

    `fill` is the used share of the budget that binds; `bound` what no plan can exceed (whole packs). `longest_wait` counts the
    examples that are handed out before an example which came earlier in the mixture. Shares of `loss` are of the sum of all loss
    weights. `coarser_pictures` stands in reports of recipes that pool so.
    """
    config = loader.config
    packs: list[list[Place]] = []
    fewest = 0
    for number in range(windows):
        found = loader.window(number)
        tokens, visual = np.array([(place.tokens, place.visual) for pack in found for place in pack]).T
        fewest += lower_bound(tokens, visual, config.max_tokens, config.max_visual)
        packs += found
    places = [place for pack in packs for place in pack]
    used_tokens, used_visual = sum(place.tokens for place in places), sum(place.visual for place in places)
    by_task: defaultdict[str, float] = defaultdict(float)
    by_dataset: defaultdict[str, float] = defaultdict(float)
    seen: Counter[str] = Counter()
    totals = Counter[str](truncated_branches=0, dropped_frames=0, unshown_samples=0, examples_left_out=0)
    if loader.preprocessor.config.oversized == "coarser_pooling":
        totals["coarser_pictures"] = 0
    wait = 0
    for turn, place in enumerate(places):
        example = loader.stores[place.dataset].example(place.row)
        plan = loader.preprocessor.plan(example, Draws(example.id, variant_of(place.key)))
        by_task[example.task] += float(plan.loss_mass)
        by_dataset[place.dataset] += float(plan.loss_mass)
        seen[place.dataset] += 1
        totals["truncated_branches"] += plan.truncated_branches
        totals["dropped_frames"] += plan.dropped_frames
        totals["unshown_samples"] += plan.unshown_samples
        if plan.coarser_pictures:
            totals["coarser_pictures"] += plan.coarser_pictures
        totals["examples_left_out"] += plan.left_out is not None
        wait = max(wait, turn - place.position)
    mass = sum(by_task.values())
    return {
        "windows": windows,
        "positions": len(places),
        "packs": len(packs),
        "examples_per_pack": round(len(places) / len(packs), 3),
        "fill": round(float(binding_fill(used_tokens, used_visual, len(packs), config.max_tokens, config.max_visual)), 6),
        "bound": round(float(binding_fill(used_tokens, used_visual, fewest, config.max_tokens, config.max_visual)), 6),
        "token_fill": round(float(used_tokens) / len(packs) / config.max_tokens, 6),
        "visual_fill": round(float(used_visual) / len(packs) / config.max_visual, 6),
        "longest_wait": wait,
        **totals,
        "examples": dict(sorted(seen.items())),
        "loss_by_task": {name: round(value / mass, 6) for name, value in sorted(by_task.items())} if mass else {},
        "loss_by_dataset": {name: round(value / mass, 6) for name, value in sorted(by_dataset.items())} if mass else {},
    }


def _write(path: Path, value: Any) -> None:
    replace_file(path, msgspec.json.format(msgspec.json.encode(value, order="sorted"), indent=1) + b"\n")
