"""Safetensors files read and written in blocks of rows, so that converting a checkpoint never holds it in memory.

Belongs here: the file format (https://github.com/huggingface/safetensors: 8 bytes of header length, a JSON header, the tensors'
bytes back to back), what makes a file refused, folders of shards with or without an index, and the split into shards. Does not
belong here: what a tensor means (`weights.py`, `hf.py`, `base_weights.py`). Every refusal names the file and the tensor.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

HEADER_BYTES = 100_000_000
"""The format's own limit on the header."""
INDEX_FILE = "model.safetensors.index.json"
BLOCK_BYTES = 8 << 20
"""Bytes that a block of rows holds at most (one row at least)."""
_LISTED = 20  # names that an error lists before it counts the rest
_SHOWN = 80  # letters of what should never have been written, in an error
_LONGEST_NAME, _DIMENSIONS = 1000, 8
# By alignment, widest first: the order that the format's library writes tensors in, those of one type by name.
_DTYPES = {
    "I64": torch.int64,
    "F64": torch.float64,
    "F32": torch.float32,
    "I32": torch.int32,
    "BF16": torch.bfloat16,
    "F16": torch.float16,
    "I16": torch.int16,
    "I8": torch.int8,
    "U8": torch.uint8,
    "BOOL": torch.bool,
}
_NAMES = {dtype: name for name, dtype in _DTYPES.items()}
_RANK = {dtype: rank for rank, dtype in enumerate(_DTYPES.values())}


class WeightsError(ValueError):
    """A checkpoint that does not fit; the message names the file and the tensor."""


@dataclass(frozen=True, slots=True)
class Spec:
    """Type and shape of a tensor."""

    dtype: torch.dtype
    shape: tuple[int, ...]

    @property
    def nbytes(self) -> int:
        return math.prod(self.shape) * self.dtype.itemsize


@dataclass(frozen=True, slots=True)
class _Entry:
    path: Path
    spec: Spec
    start: int  # of the first byte, in the file


def read_header(path: Path) -> dict[str, _Entry]:
    """Every tensor of one file, checked: known types, sizes that match, bytes that follow one another and fill the file."""
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
            if size < 8 or length > min(HEADER_BYTES, size - 8):
                raise WeightsError(f"{path}: a header of {length:,} bytes in a file of {size:,}: truncated, or no safetensors.")
            header = json.loads(file.read(length), object_pairs_hook=lambda pairs: _unique(path, pairs))
    except OSError as error:
        raise WeightsError(f"{path} cannot be read: {error.strerror}") from None
    except WeightsError:
        raise
    except (ValueError, RecursionError) as error:
        raise WeightsError(f"{path}: its header is not JSON ({error}).") from None
    if not isinstance(header, dict):
        raise WeightsError(f"{path}: its header is not a table of tensors.")
    header.pop("__metadata__", None)
    entries: dict[str, _Entry] = {}
    spans = []
    for name, value in header.items():
        spec, (start, stop) = _entry(path, name, value)
        entries[name] = _Entry(path, spec, 8 + length + start)
        spans.append((start, stop, name))
    at = 0
    for start, stop, name in sorted(spans):
        if start != at:
            raise WeightsError(f"{path}: {name} starts at byte {start}, the one before it ends at {at}: an overlap or a gap.")
        at = stop
    if at != (held := size - 8 - length):
        cut = next((name for _, stop, name in sorted(spans) if stop > held), None)
        where = f"it is cut off in {cut}" if cut is not None else "something follows the last one"
        raise WeightsError(f"{path}: its tensors take {at:,} bytes, the file has {held:,}: {where}.")
    return entries


def _unique(path: Path, pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    table: dict[str, Any] = {}
    for name, value in pairs:
        if name in table:
            raise WeightsError(f"{path}: {name[:_SHOWN]!r} stands in its header twice.")
        table[name] = value
    return table


def _entry(path: Path, name: str, value: object) -> tuple[Spec, tuple[int, int]]:
    def whole(numbers: object) -> bool:
        if not isinstance(numbers, list) or len(numbers) > _DIMENSIONS:
            return False
        return all(type(number) is int and 0 <= number < 1 << 63 for number in numbers)

    if not name.isprintable() or len(name) > _LONGEST_NAME:
        raise WeightsError(f"{path}: {name[:_SHOWN]!r} is no name of a tensor.")
    if not isinstance(value, dict) or not whole(value.get("shape")) or not whole(value.get("data_offsets")):
        raise WeightsError(f"{path}: the header's entry of {name} is malformed.")
    dtype = value.get("dtype")
    if not isinstance(dtype, str) or dtype not in _DTYPES:
        raise WeightsError(f"{path}: {name} has type {str(dtype)[:_SHOWN]!r}; known are {sorted(_DTYPES)}.")
    spec = Spec(_DTYPES[dtype], tuple(value["shape"]))
    offsets = value["data_offsets"]
    if len(offsets) != 2 or offsets[1] - offsets[0] != spec.nbytes:
        raise WeightsError(f"{path}: {name} of shape {list(spec.shape)} needs {spec.nbytes:,} bytes; its offsets are {offsets}.")
    return spec, (offsets[0], offsets[1])


class TensorFolder:
    """The tensors of a folder of safetensors files, found by name; only headers are read until a tensor is asked for."""

    def __init__(self, folder: Path, pattern: str = "*.safetensors") -> None:
        self.folder = folder
        self.entries: dict[str, _Entry] = {}
        paths = _shards(folder, pattern)
        for path in paths:
            for name, entry in read_header(path).items():
                if name in self.entries:
                    raise WeightsError(f"{path} holds {name}, which {self.entries[name].path.name} holds too.")
                self.entries[name] = entry
        _check_index(folder, self.entries)

    def spec(self, name: str) -> Spec:
        return self.entries[name].spec

    def path(self, name: str) -> Path:
        """The file that holds a tensor."""
        return self.entries[name].path

    def blocks(self, name: str, start: int = 0, stop: int | None = None) -> Iterator[Tensor]:
        """Rows [start, stop) of a tensor (of one without dimensions: all of it) in blocks of at most BLOCK_BYTES."""
        entry = self.entries[name]
        shape = entry.spec.shape or (1,)
        rest, rows = shape[1:], shape[0]
        stop = rows if stop is None else stop
        row_bytes = math.prod(rest) * entry.spec.dtype.itemsize
        step = max(1, BLOCK_BYTES // max(1, row_bytes))
        with entry.path.open("rb") as file:
            file.seek(entry.start + start * row_bytes)
            for first in range(start, stop, step):
                count = min(step, stop - first)
                buffer = bytearray(count * row_bytes)
                if file.readinto(buffer) != len(buffer):
                    raise WeightsError(f"{entry.path}: {name} ends early; the file changed while it was read.")
                if buffer:
                    yield torch.frombuffer(buffer, dtype=entry.spec.dtype).view(count, *rest)

    def read(self, name: str) -> Tensor:
        """A whole tensor."""
        entry = self.entries[name]
        out = torch.empty(entry.spec.shape, dtype=entry.spec.dtype)
        with entry.path.open("rb") as file:
            file.seek(entry.start)
            if file.readinto(_bytes(out)) != entry.spec.nbytes:
                raise WeightsError(f"{entry.path}: {name} ends early; the file changed while it was read.")
        return out


def _bytes(tensor: Tensor) -> memoryview:
    """A tensor's bytes, shared where it is contiguous."""
    array: Any = tensor.detach().contiguous().view(-1).view(torch.uint8).numpy()
    return memoryview(array)


def _shards(folder: Path, pattern: str) -> list[Path]:
    """The files of a checkpoint: those that its index names, or every safetensors file."""
    index = _index(folder)
    names = sorted(set(index.values())) if index is not None else sorted(path.name for path in folder.glob(pattern))
    for name in names:
        if Path(name).name != name or not name.endswith(".safetensors"):
            raise WeightsError(f"{folder / INDEX_FILE} names {name!r}, which is no safetensors file of this folder.")
    if not names:
        pickled = sorted(path.name for pattern in ("*.bin", "*.pt", "*.pth", "*.ckpt") for path in folder.glob(pattern))
        found = f" It holds {pickled[0]}, but nothing is unpickled: convert it to safetensors." if pickled else ""
        raise WeightsError(f"{folder} holds no safetensors file.{found}")
    return [folder / name for name in names]


def _index(folder: Path) -> dict[str, str] | None:
    path = folder / INDEX_FILE
    if not path.exists():
        return None
    try:
        table = json.loads(path.read_bytes())["weight_map"]
        if isinstance(table, dict) and all(isinstance(name, str) for name in table.values()):
            return table
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        pass
    raise WeightsError(f"{path} is no index: it needs a `weight_map` from tensors to files.")


def _check_index(folder: Path, entries: Mapping[str, _Entry]) -> None:
    """The index and the files say the same."""
    for name, file in (_index(folder) or {}).items():
        if name not in entries or entries[name].path.name != file:
            raise WeightsError(f"{folder / INDEX_FILE} says that {file} holds {name}; it does not.")


def check_names(source: TensorFolder, wanted: Iterable[str], optional: Set[str] = frozenset()) -> None:
    """Refuse a folder that does not hold exactly the tensors `wanted`, naming what is missing and what is surplus, and where.

    Those of `optional` may be there or not.
    """
    wanted = set(wanted) | optional
    missing = sorted(wanted - optional - set(source.entries))
    surplus = sorted(set(source.entries) - wanted)
    parts = []
    if missing:
        parts.append(f"lacks {len(missing)} tensors: {listed(missing)}")
    if surplus:
        parts.append(f"holds {len(surplus)} that the model does not have: {listed([_at(source, name) for name in surplus])}")
    if parts:
        raise WeightsError(f"{source.folder} {'; it '.join(parts)}.")


def check_tensors(source: TensorFolder, wanted: Mapping[str, tuple[int, ...]], optional: Set[str] = frozenset()) -> None:
    """`check_names`, and their shapes."""
    check_names(source, wanted, optional)
    for name, shape in wanted.items():
        if name in source.entries and source.spec(name).shape != shape:
            raise WeightsError(
                f"{source.path(name)}: {name} has shape {list(source.spec(name).shape)}, the model needs {list(shape)}."
            )


def listed(names: Sequence[str]) -> str:
    """The first names, and how many more."""
    return ", ".join(names[:_LISTED]) + (f" and {len(names) - _LISTED} more" if len(names) > _LISTED else "")


def _at(source: TensorFolder, name: str) -> str:
    return f"{name} ({source.path(name).name})"


def split_shards(specs: Mapping[str, Spec], shard_bytes: int) -> list[tuple[str, list[str]]]:
    """Tensors in order of their names, in files of about `shard_bytes`: (file name, tensors)."""
    shards: list[list[str]] = [[]]
    size = 0
    for name, spec in sorted(specs.items()):
        if size and size + spec.nbytes > shard_bytes:
            shards.append([])
            size = 0
        shards[-1].append(name)
        size += spec.nbytes
    return [(f"model-{number:05d}-of-{len(shards):05d}.safetensors", shard) for number, shard in enumerate(shards, 1)]


def write_file(path: Path, specs: Mapping[str, Spec], blocks: Callable[[str], Iterable[Tensor]]) -> None:
    """Write tensors block by block; the same bytes as the format's library writes for the same tensors.

    `blocks(name)` yields the tensor's elements in order, in pieces of any shape.
    """
    ordered = sorted(specs, key=lambda name: (_RANK[specs[name].dtype], name))
    header: dict[str, object] = {"__metadata__": {"format": "pt"}}
    at = 0
    for name in ordered:
        spec = specs[name]
        header[name] = {
            "dtype": _NAMES[spec.dtype],
            "shape": list(spec.shape),
            "data_offsets": [at, at + spec.nbytes],
        }
        at += spec.nbytes
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)
    with path.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for name in ordered:
            before = file.tell()
            for block in blocks(name):
                assert block.dtype == specs[name].dtype, name
                file.write(_bytes(block))
            if file.tell() - before != specs[name].nbytes:
                raise WeightsError(f"{path}: {name} was given {file.tell() - before:,} bytes, not {specs[name].nbytes:,}.")
        file.flush()
        os.fsync(file.fileno())
