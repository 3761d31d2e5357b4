"""States of a run: whole or absent whatever kills the writer, the newest whole one is found, no more are kept than asked."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import msgspec
import pytest
import torch

from tests.support.disks import fill, small_disk, unwritable
from tests.support.faults import die_at_change
from tests.support.states import RUN, state
from training_backend.checkpoint.disk import refusal
from training_backend.checkpoint.state import CODE_VERSION, PLAIN_FIELDS, TENSOR_FILES, TrainState, load_state, save_state
from training_backend.data.manifest import StorageError, list_files, read_manifest, write_manifest


def same(one: TrainState, two: TrainState) -> None:
    for name in PLAIN_FIELDS:
        assert getattr(one, name) == getattr(two, name), name
    for name in TENSOR_FILES:
        mine, theirs = getattr(one, name), getattr(two, name)
        assert mine.keys() == theirs.keys()
        for key in mine:
            assert mine[key].dtype == theirs[key].dtype
            assert torch.equal(mine[key], theirs[key]), f"{name}/{key}"


def steps(root: Path) -> list[str]:
    return sorted(path.name for path in root.iterdir())


def test_what_is_saved_comes_back_bit_for_bit(tmp_path: Path) -> None:
    root = tmp_path / "checkpoints"
    assert load_state(root, RUN) == (None, [])
    folder = save_state(root, state(7), RUN, 1)
    assert folder == root / "step-00000007"
    found, passed = load_state(root, RUN)
    assert found is not None
    same(found, state(7))
    assert passed == []
    assert set(TrainState.__dataclass_fields__) == {*PLAIN_FIELDS, *TENSOR_FILES}
    assert read_manifest(folder).files == list_files(folder)


def test_a_parameter_that_lies_across_memory_is_saved(tmp_path: Path) -> None:
    """Optimisers hold views of flat buffers; equal storage of two tensors must not be refused either."""
    flat = torch.arange(12.0)
    odd = state(1)
    odd.model = {"one": flat[:6].view(2, 3).t(), "two": flat[3:9], "three": torch.nn.Parameter(flat)}
    save_state(tmp_path, odd, RUN, 1)
    found, _ = load_state(tmp_path, RUN)
    assert found is not None
    assert torch.equal(found.model["one"], flat[:6].view(2, 3).t())
    assert torch.equal(found.model["two"], flat[3:9])


def test_the_newest_are_kept(tmp_path: Path) -> None:
    for step in (1, 2, 3, 10, 11):
        save_state(tmp_path, state(step), RUN, 2)
    assert steps(tmp_path) == ["step-00000010", "step-00000011"]
    save_state(tmp_path, state(11), RUN, 0)  # the one that was just written always stays
    assert steps(tmp_path) == ["step-00000011"]


def damage_manifest(folder: Path) -> None:
    path = folder / "manifest.json"
    path.write_bytes(path.read_bytes()[:-40])


def damage_bit(folder: Path) -> None:
    path = folder / "optimizer.safetensors"
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)


def damage_length(folder: Path) -> None:
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-1])


def remove_file(folder: Path) -> None:
    (folder / "state.json").unlink()


def remove_manifest(folder: Path) -> None:
    (folder / "manifest.json").unlink()


def older_layout(folder: Path) -> None:
    write_manifest(folder, msgspec.structs.replace(read_manifest(folder), code_version="0"))


@pytest.mark.parametrize(
    ("hurt", "sentence"),
    [
        (damage_manifest, "manifest.json cannot be read"),
        (damage_bit, "optimizer.safetensors differs from the sha256"),
        (damage_length, "model.safetensors has"),
        (remove_file, "state.json is missing"),
        (remove_manifest, "has no manifest.json: it was never finished"),
        (older_layout, f"has layout 0, this version reads {CODE_VERSION}"),
    ],
)
def test_a_damaged_one_is_passed_over_with_a_sentence(tmp_path: Path, hurt: Any, sentence: str) -> None:
    for step in (10, 20, 30):
        save_state(tmp_path, state(step), RUN, 3)
    hurt(tmp_path / "step-00000030")
    found, passed = load_state(tmp_path, RUN)
    assert found is not None
    same(found, state(20))
    assert len(passed) == 1
    assert "step-00000030" in passed[0]
    assert sentence in passed[0]
    # The run goes on from 20. What it saves is kept; the damaged one, with its higher number, is not taken for the newest.
    save_state(tmp_path, state(25), RUN, 1)
    assert steps(tmp_path) == ["step-00000025"]
    found, passed = load_state(tmp_path, RUN)
    assert found is not None
    same(found, state(25))
    assert passed == []


def test_all_damaged_is_a_fresh_start(tmp_path: Path) -> None:
    for step in (10, 20):
        save_state(tmp_path, state(step), RUN, 2)
        damage_length(tmp_path / f"step-000000{step}")
    found, passed = load_state(tmp_path, RUN)
    assert found is None
    assert len(passed) == 2
    assert "step-00000020" in passed[0]


def test_the_state_of_another_run_is_not_taken(tmp_path: Path) -> None:
    save_state(tmp_path, state(10), RUN, 2)
    save_state(tmp_path, state(20), "b" * 64, 2)
    found, passed = load_state(tmp_path, RUN)
    assert found is not None
    assert found.step == 10
    assert passed == [f"{tmp_path / 'step-00000020'} belongs to another run"]


def killed_at(number: int, root: Path) -> bool:
    """Save in a child that SIGKILL hits at its `number`-th change of the disk; whether it got that far."""
    pid = os.fork()
    if pid == 0:
        die_at_change(number)
        save_state(root, state(20), RUN, 1)
        os._exit(0)
    return os.WIFSIGNALED(os.waitpid(pid, 0)[1])


def test_killed_at_any_change_of_the_disk_it_is_whole_or_absent(tmp_path: Path) -> None:
    outcomes = []
    for number in range(1, 200):
        root = tmp_path / str(number)
        save_state(root, state(10), RUN, 1)
        killed = killed_at(number, root)
        found, _ = load_state(root, RUN)
        assert found is not None
        assert found.step in (10, 20)
        same(found, state(found.step))
        outcomes.append(found.step)
        save_state(root, state(20), RUN, 1)
        assert steps(root) == ["step-00000020"]
        if not killed:
            break
    else:
        pytest.fail("the child was killed every time")
    assert outcomes == sorted(outcomes)
    assert outcomes.count(10) >= 5
    assert outcomes.count(20) >= 5


def test_a_full_disk_is_one_sentence_and_loses_nothing(tmp_path: Path) -> None:
    large = state(20)
    large.model = {"weight": torch.zeros(200_000)}
    with small_disk(tmp_path / "disk", 512) as disk:
        save_state(disk, state(10), RUN, 1)
        with pytest.raises(StorageError, match=r"step-00000020: the disk is full; free some space .*nothing finished is lost"):
            save_state(disk, large, RUN, 1)  # inside safetensors, which has an error of its own
        assert steps(disk) == ["step-00000010"]
        filler = fill(disk)
        with pytest.raises(StorageError, match="the disk is full"):
            save_state(disk, state(20), RUN, 1)
        found, passed = load_state(disk, RUN)
        assert found is not None
        assert (found.step, passed) == (10, [])
        del found  # its tensors are mapped files
        filler.unlink()
        save_state(disk, state(20), RUN, 1)
        assert steps(disk) == ["step-00000020"]
        with unwritable(disk), pytest.raises(StorageError, match="no permission to write"):
            save_state(disk, state(30), RUN, 1)


def test_what_is_no_refusal_of_the_disk(tmp_path: Path) -> None:
    assert refusal(ValueError("No space left on device (os error 28)"), tmp_path) is None
    assert refusal(FileNotFoundError(2, "no such file"), tmp_path) is None
    odd = state(1)
    odd.model = {"weight": "not a tensor"}  # type: ignore[dict-item]
    with pytest.raises(AttributeError):
        save_state(tmp_path, odd, RUN, 1)
    assert steps(tmp_path) == []
