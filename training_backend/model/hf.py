"""Hugging Face Molmo2 checkpoints ↔ ours, file to file, without loss and without a model in memory.

Belongs here: the two conversions, and what makes a folder refused. Does not belong here: names (`hf_names.py`), `config.json`
(`hf_config.py`), base models (`base_weights.py`), tokenizer and processor files, the model card.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import msgspec
import torch
from torch import Tensor

from training_backend.config import ModelConfig
from training_backend.model import hf_config
from training_backend.model.config_json import CONFIG_FILE, read_json
from training_backend.model.hf_names import BASE, EXTRA, HEAD, Layout, Rows, our_shapes, table
from training_backend.model.tensor_files import (
    INDEX_FILE,
    Spec,
    TensorFolder,
    WeightsError,
    check_tensors,
    split_shards,
    write_file,
)
from training_backend.model.weights import SHARD_BYTES, SHARDS, read_config, write_config

Place = tuple[str, int, int]
"""Rows [start, stop) of one of their tensors."""
Precision = Literal["keep", "float32", "bfloat16"]


@dataclass(frozen=True, slots=True)
class Imported:
    """What an import did. Nothing is left out or made up without standing here."""

    config: ModelConfig
    files: list[str]
    left_out: list[str]
    initialised: list[str]
    notes: list[str]


def import_hf(
    folder: Path, out: Path, *, preset: ModelConfig | None = None, precision: Precision = "keep", shard_bytes: int = SHARD_BYTES
) -> Imported:
    """Turn a Hugging Face Molmo2 folder into a checkpoint of ours in `out`, a block of rows at a time.

    `preset`, where given, is what the folder must hold. A head that equals the base table bit by bit becomes a tied one, unless the
    preset or the folder's own section says otherwise: released files never say that the 4B model is tied. Raises WeightsError.
    """
    path = folder / CONFIG_FILE
    config = hf_config.from_hf(path)
    source = TensorFolder(folder)
    layout: Layout = "modules" if any(name.startswith("model.language_model.") for name in source.entries) else "released"
    if hf_config.OWN_SECTION not in read_json(path) and not config.decoder.tied:
        tied = preset.decoder.tied if preset is not None else _same_head(source, config, layout)
        config = _replace_decoder(config, tied=tied)
    if preset is not None:
        if different := hf_config.differences(config, preset):
            raise WeightsError(f"{path} is not model {preset.name!r}: they differ in {', '.join(different)}.")
        config = preset
    rows = {row.theirs: row for row in table(config, layout)}
    notes = [f"{layout} layout"]
    shapes = {name: row.shape for name, row in rows.items()}
    places = _places(rows.values(), our_shapes(config))
    if moved := _moved_split(source, config, layout):
        shapes |= moved
        notes.append(f"embeddings split after row {moved[BASE][0]}, not {rows[BASE].shape[0]}, as transformers saves them")
        for name in ("decoder.embedding", "decoder.extra_embedding"):
            places[name] = _across(places[name], rows, moved)
    check_tensors(source, shapes, {HEAD} if config.decoder.tied else set())
    if config.decoder.tied and HEAD in source.entries and not _repeats(source, HEAD, _head_places(config, places)):
        raise WeightsError(f"{source.path(HEAD)}: {HEAD} differs from the embeddings; model {config.name!r} ties the two.")

    def blocks(name: str) -> Iterator[Tensor]:
        for theirs, start, stop in places[name]:
            yield from source.blocks(theirs, start, stop)

    types = {name: source.spec(place[0][0]).dtype for name, place in places.items()}
    files = write_ours(out, config, types, blocks, precision, shard_bytes)
    return Imported(config, files, left_out=[], initialised=[], notes=notes)


def _places(rows: Iterable[Rows], shapes: Mapping[str, tuple[int, ...]]) -> dict[str, list[Place]]:
    """Where each of ours lies in theirs; a tied head repeats what stands elsewhere and adds no place."""
    places: dict[str, list[Place]] = {}
    for row in rows:
        at = 0
        for name in row.ours:
            places.setdefault(name, [(row.theirs, at, at + shapes[name][0])])
            at += shapes[name][0]
    return places


def _moved_split(source: TensorFolder, config: ModelConfig, layout: Layout) -> dict[str, tuple[int, ...]]:
    """The shapes of the two tables of embeddings where together they are right and their border is not, else nothing.

    transformers 5.24 joins the two on loading and cuts the joined one in *halves* when it saves
    (`Concatenate.reverse_op` is `Chunk`); it never notices, because it joins them again.
    """
    if layout != "released" or BASE not in source.entries or EXTRA not in source.entries:
        return {}
    base, extra = source.spec(BASE), source.spec(EXTRA)
    decoder = config.decoder
    right = decoder.vocab_size + (decoder.extra_tokens if decoder.predict_extra else 0)
    if base.dtype != extra.dtype or [len(base.shape), len(extra.shape)] != [2, 2] or base.shape[0] == right:
        return {}
    whole = (base.shape[0] + extra.shape[0], base.shape[1], extra.shape[1])
    joined = (decoder.vocab_size + decoder.extra_tokens, decoder.width, decoder.width)
    return {BASE: base.shape, EXTRA: extra.shape} if whole == joined else {}


def _across(places: list[Place], rows: Mapping[str, Rows], moved: Mapping[str, tuple[int, ...]]) -> list[Place]:
    """Places in two tables, as places in the same rows split elsewhere."""
    ((theirs, start, stop),) = places
    offset = rows[BASE].shape[0] if theirs == EXTRA else 0
    start, stop, border = start + offset, stop + offset, moved[BASE][0]
    pieces = [(BASE, start, min(stop, border)), (EXTRA, max(start, border) - border, stop - border)]
    return [(name, first, last) for name, first, last in pieces if first < last]


def _head_places(config: ModelConfig, places: Mapping[str, list[Place]]) -> list[Place]:
    extra = places["decoder.extra_embedding"] if config.decoder.predict_extra else []
    return places["decoder.embedding"] + extra


def export_hf(
    folder: Path,
    out: Path,
    *,
    layout: Layout = "released",
    precision: Precision = "keep",
    max_positions: int = 36_864,
    shard_bytes: int = SHARD_BYTES,
) -> list[str]:
    """Turn a checkpoint of ours into a Hugging Face Molmo2 folder: `config.json`, shards, their index. Returns the file names.

    The head is always written, as in the released files. Raises WeightsError for a model that their architecture cannot express.
    """
    config = read_config(folder)
    body = hf_config.to_hf(config, max_positions)
    source = TensorFolder(folder, SHARDS)
    shapes = our_shapes(config)
    check_tensors(source, shapes)
    rows = {row.theirs: row for row in table(config, layout)}
    fallback = source.spec("decoder.norm.weight").dtype
    specs: dict[str, Spec] = {}
    for name, row in rows.items():
        types = {source.spec(ours).dtype for ours in row.ours} or {fallback}
        if len(types) > 1 and precision == "keep":
            raise WeightsError(
                f"{folder}: {', '.join(row.ours)} have types {sorted(map(str, types))}; name one precision for {name}."
            )
        specs[name] = Spec(_precision(types.pop(), precision), row.shape)

    def blocks(name: str) -> Iterator[Tensor]:
        for ours in rows[name].ours:
            for block in source.blocks(ours):
                yield block.to(specs[name].dtype)

    out.mkdir(parents=True, exist_ok=True)
    shards = split_shards(specs, shard_bytes)
    for file, names in shards:
        write_file(out / file, {name: specs[name] for name in names}, blocks)
    total = sum(spec.nbytes for spec in specs.values())
    index = {"metadata": {"total_size": total}, "weight_map": {name: file for file, names in shards for name in names}}
    body["dtype"] = str(specs[HEAD].dtype).removeprefix("torch.")
    _write_json(out / INDEX_FILE, index)
    _write_json(out / CONFIG_FILE, body)
    return [CONFIG_FILE, INDEX_FILE, *(file for file, _ in shards)]


def write_ours(
    out: Path,
    config: ModelConfig,
    types: Mapping[str, torch.dtype],
    blocks: Callable[[str], Iterator[Tensor]],
    precision: Precision,
    shard_bytes: int,
) -> list[str]:
    """Write a checkpoint of ours from blocks of rows; `types` are the tensors' types where `precision` keeps them."""
    out.mkdir(parents=True, exist_ok=True)
    specs = {name: Spec(_precision(types[name], precision), shape) for name, shape in our_shapes(config).items()}
    shards = split_shards(specs, shard_bytes)
    for file, names in shards:
        write_file(
            out / file,
            {name: specs[name] for name in names},
            lambda name: (block.to(specs[name].dtype) for block in blocks(name)),
        )
    write_config(out, config)
    return [file for file, _ in shards]


def _precision(dtype: torch.dtype, precision: Precision) -> torch.dtype:
    return dtype if precision == "keep" else {"float32": torch.float32, "bfloat16": torch.bfloat16}[precision]


def _replace_decoder(config: ModelConfig, **fields: object) -> ModelConfig:
    return msgspec.structs.replace(config, decoder=msgspec.structs.replace(config.decoder, **fields))


def _same_head(source: TensorFolder, config: ModelConfig, layout: Layout) -> bool:
    """Whether the head repeats the base table."""
    names = ("model.language_model.embed_tokens.weight",) if layout == "modules" else (BASE, EXTRA)
    if not {HEAD, *names} <= set(source.entries):
        return False
    left = config.decoder.vocab_size
    places = []
    for name in names:
        rows = min(left, source.spec(name).shape[0])
        places.append((name, 0, rows))
        left -= rows
    return left == 0 and source.spec(HEAD).shape[0] == config.decoder.vocab_size and _repeats(source, HEAD, places)


def _repeats(source: TensorFolder, name: str, places: Sequence[Place]) -> bool:
    """Whether a tensor is, bit for bit, the rows of others."""
    at = 0
    for theirs, start, stop in places:
        if source.spec(theirs).dtype != source.spec(name).dtype:
            return False
        pairs = zip(source.blocks(name, at, at + stop - start), source.blocks(theirs, start, stop), strict=True)
        if not all(torch.equal(left, right) for left, right in pairs):
            return False
        at += stop - start
    return True


def _write_json(path: Path, body: object) -> None:
    path.write_text(json.dumps(body, indent=2, ensure_ascii=False) + "\n")
