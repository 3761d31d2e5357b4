"""The safetensors format: the library's bytes, and hostile files."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from training_backend.model import tensor_files
from training_backend.model.tensor_files import Spec, TensorFolder, WeightsError, read_header, write_file


def _tensors() -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    types = [
        torch.float64,
        torch.float32,
        torch.bfloat16,
        torch.float16,
        torch.int64,
        torch.int32,
        torch.int16,
        torch.int8,
        torch.uint8,
    ]
    out = {f"{dtype}.{rows}": (torch.randn(rows, 3, generator=generator) * 9).to(dtype) for dtype in types for rows in (0, 1, 7)}
    return {**out, "mask": torch.tensor([True, False]), "scalar": torch.tensor(3.5), "name with ü": torch.ones(2)}


def _write(path: Path, tensors: dict[str, torch.Tensor]) -> None:
    write_file(path, {name: Spec(t.dtype, tuple(t.shape)) for name, t in tensors.items()}, lambda name: [tensors[name]])


def test_the_bytes_are_the_librarys(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tensors = _tensors()
    save_file(tensors, tmp_path / "library.safetensors", metadata={"format": "pt"})
    _write(tmp_path / "model.safetensors", tensors)
    assert (tmp_path / "model.safetensors").read_bytes() == (tmp_path / "library.safetensors").read_bytes()
    (tmp_path / "library.safetensors").unlink()
    monkeypatch.setattr(tensor_files, "BLOCK_BYTES", 16)
    folder = TensorFolder(tmp_path)
    for name, tensor in load_file(tmp_path / "model.safetensors").items():
        assert torch.equal(folder.read(name), tensor)
        blocks = list(folder.blocks(name))
        if tensor.dim() == 2 and len(tensor) > 1:
            assert len(blocks) > 1
        assert torch.equal(torch.cat(blocks).view(tensor.shape) if blocks else tensor, tensor)
    assert torch.equal(torch.cat(list(folder.blocks("torch.float32.7", 2, 5))), tensors["torch.float32.7"][2:5])


def _raw(header: Any, data: bytes = b"") -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + data


def _entry(start: int, stop: int, **other: Any) -> dict[str, Any]:
    return {"dtype": "F32", "shape": [(stop - start) // 4], "data_offsets": [start, stop], **other}


HOSTILE = {
    "empty": (b"", "a header of 0 bytes in a file of 0"),
    "huge header": ((1 << 62).to_bytes(8, "little") + b"{}", "a header of 4,611,686,018,427,387,904 bytes"),
    "cut header": (_raw({"a": _entry(0, 8)})[:20], "truncated"),
    "no JSON": (_raw(b"\xff\xfe{"), "not JSON"),
    "deep JSON": (_raw(b"[" * 100_000), "not JSON|malformed"),
    "a number without end": (_raw(b'{"a": ' + b"9" * 10_000 + b"}"), "not JSON"),
    "a list": (_raw([1]), "not a table"),
    "an entry twice": (_raw(b'{"a": 1, "a": 2}'), "'a' stands in its header twice"),
    "no offsets": (_raw({"a": {"dtype": "F32", "shape": [1]}}), "entry of a is malformed"),
    "negative shape": (_raw({"a": _entry(0, 8, shape=[-2])}, bytes(8)), "entry of a is malformed"),
    "a name of two lines": (_raw({"a\n\x1b[2Jb": _entry(0, 8)}, bytes(8)), r"'a\\n\\x1b\[2Jb' is no name of a tensor"),
    "unknown type": (_raw({"a": _entry(0, 8, dtype="F4")}, bytes(8)), "a has type 'F4'"),
    "a type that is a list": (_raw({"a": _entry(0, 8, dtype=["F32"])}, bytes(8)), r"a has type \"\['F32'\]\""),
    "a thousand dimensions": (_raw({"a": _entry(0, 8, shape=[1] * 1000)}, bytes(8)), "entry of a is malformed"),
    "sizes that lie": (_raw({"a": _entry(0, 8, shape=[1 << 40])}, bytes(8)), r"a of shape \[1099511627776\] needs"),
    "overlap": (_raw({"a": _entry(0, 8), "b": _entry(4, 12)}, bytes(12)), "b starts at byte 4"),
    "gap": (_raw({"a": _entry(0, 8), "b": _entry(12, 16)}, bytes(16)), "b starts at byte 12"),
    "truncated": (
        _raw({"b": _entry(8, 16), "a": _entry(0, 8), "c": _entry(16, 20)}, bytes(15)),
        "its tensors take 20 bytes, the file has 15: it is cut off in b",
    ),
    "padded": (_raw({"a": _entry(0, 8)}, bytes(9)), "its tensors take 8 bytes, the file has 9: something follows"),
}


@pytest.mark.parametrize("case", list(HOSTILE))
def test_hostile_files_are_refused_by_name(tmp_path: Path, case: str) -> None:
    body, message = HOSTILE[case]
    path = tmp_path / "model.safetensors"
    path.write_bytes(body)
    with pytest.raises(WeightsError, match=message) as caught:
        read_header(path)
    assert "model.safetensors" in str(caught.value)
    assert str(caught.value).isprintable()


def test_a_tensor_in_two_files_is_refused(tmp_path: Path) -> None:
    for name in ("a", "b"):
        _write(tmp_path / f"{name}.safetensors", {"x": torch.ones(1)})
    with pytest.raises(WeightsError, match=r"b\.safetensors holds x, which a\.safetensors holds too"):
        TensorFolder(tmp_path)


@pytest.mark.parametrize(
    ("index", "message"),
    [
        (b"{", r"index\.json is no index"),
        (b"[]", r"index\.json is no index"),
        (b'{"weight_map": {"x": 1}}', r"index\.json is no index"),
        (b'{"weight_map": {"x": ' + b"9" * 10_000 + b"}}", r"index\.json is no index"),
        (b'{"weight_map": {"x": "gone.safetensors"}}', r"gone\.safetensors cannot be read: No such file"),
        (b'{"weight_map": {"x": "a.bin"}}', r"index\.json names 'a\.bin', which is no safetensors file of this folder"),
        (b'{"weight_map": {"y": "a.safetensors"}}', r"index\.json says that a\.safetensors holds y; it does not"),
    ],
)
def test_an_index_that_lies_is_named(tmp_path: Path, index: bytes, message: str) -> None:
    _write(tmp_path / "a.safetensors", {"x": torch.ones(1)})
    (tmp_path / tensor_files.INDEX_FILE).write_bytes(index)
    with pytest.raises(WeightsError, match=message):
        TensorFolder(tmp_path)
