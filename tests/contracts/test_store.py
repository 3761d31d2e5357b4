"""Golden index of a row store."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from training_backend.data.example import SCHEMA, Branch, Example, Source, Text, Turn, id_hash
from training_backend.data.fingerprint import file_sha256
from training_backend.data.store import DATA_FILE, INDEX_FILE, RowStore, RowWriter, StoreError


def _row(number: int) -> Example:
    turns = (
        Turn(role="user", parts=(Text(text=f"What is {number} + 1?"),)),
        Turn(role="assistant", parts=(Text(text=str(number + 1)),)),
    )
    return Example(
        id=f"set/{number}",
        schema=SCHEMA,
        task="text",
        source=Source(file="a.jsonl", row=number),
        media=(),
        branches=(Branch(id="0", style="text_sft", turns=turns),),
    )


def _write(folder: Path, numbers: list[int]) -> str:
    with RowWriter(folder) as writer:
        for number in numbers:
            writer.add(_row(number))
    assert writer.info is not None
    return writer.info.data_version


def test_golden_store(tmp_path: Path) -> None:
    assert _write(tmp_path, list(range(100))) == "100-308466caba2726e0183f5e51fb276943"
    assert file_sha256(tmp_path / DATA_FILE) == "69d0b6a75eb045b976dfeb5e41ae7d5938fa0f51d32fd1528a94090bbd119a0b"
    assert file_sha256(tmp_path / INDEX_FILE) == "8f9b227caa503f4b2266e5bb6ff886a163f84dd51d54edaae9c97fbc0b3785f1"


def test_row_numbers_are_a_function_of_content(tmp_path: Path) -> None:
    forward, backward = list(range(50)), list(range(49, -1, -1))
    assert _write(tmp_path / "a", forward) == _write(tmp_path / "b", backward)
    a, b = RowStore(tmp_path / "a"), RowStore(tmp_path / "b")
    assert [row.id for row in a] == [row.id for row in b]
    ids = [id_hash(row.id) for row in a]
    assert ids == sorted(ids)
    assert a.example(3) == _row(int(a.example(3).id.removeprefix("set/")))
    assert a.find("set/17") is not None
    assert a.find("set/99") is None
    np.testing.assert_array_equal(a.column("row_hash"), b.column("row_hash"))


def test_empty_store(tmp_path: Path) -> None:
    assert _write(tmp_path, []) == "0-" + "0" * 32
    assert list(RowStore(tmp_path)) == []
    with pytest.raises(IndexError, match="it has 0 rows"):
        RowStore(tmp_path).line(0)


def test_duplicate_ids_are_refused(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="two rows have the same id"):
        _write(tmp_path, [1, 1])


@pytest.mark.parametrize("name", [DATA_FILE, INDEX_FILE])
def test_torn_files_are_named(tmp_path: Path, name: str) -> None:
    _write(tmp_path, list(range(20)))
    whole = (tmp_path / name).read_bytes()
    for cut in (0, 10, len(whole) // 2, len(whole) - 1):
        (tmp_path / name).write_bytes(whole[:cut])
        with pytest.raises(StoreError, match=name if name == INDEX_FILE else "its index was written for"):
            RowStore(tmp_path)
