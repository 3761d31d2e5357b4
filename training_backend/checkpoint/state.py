"""Checkpoints of a run in progress: staged, hashed, published by rename, retired; resumed from the newest valid one.

Belongs here: everything that makes a resumed run the same run. Does not belong here: the weights that a finished run hands out
(`model/weights.py`).
"""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from training_backend.data.manifest import (
    Manifest,
    ManifestError,
    sync_folder,
    sync_tree,
    files_version,
    list_files,
    read_manifest,
    storage_error,
    verify_files,
    write_manifest,
)

TENSOR_FILES = ("model", "optimizer", "guard")


@dataclass
class TrainState:
    """What a run is after `step` steps. `records` are the step records for the loss picture, `totals` running sums."""

    step: int
    model: dict[str, Tensor]
    optimizer: dict[str, Tensor]
    guard: dict[str, Tensor]
    loader: dict[str, Any]
    records: list[dict[str, Any]]
    totals: dict[str, float]


def save_state(root: Path, state: TrainState, fingerprint: str, keep: int) -> Path:
    """Write `root/step-N`; it exists whole or not at all. Older ones beyond `keep` are removed after it is durable."""
    final = root / f"step-{state.step:08d}"
    staged = root / f".partial-{final.name}"
    try:
        shutil.rmtree(staged, ignore_errors=True)
        staged.mkdir(parents=True)
        for name in TENSOR_FILES:
            tensors = {key: value.detach().cpu().contiguous().clone() for key, value in sorted(getattr(state, name).items())}
            save_file(tensors, staged / f"{name}.safetensors")
        body = {"step": state.step, "loader": state.loader, "records": state.records, "totals": state.totals}
        (staged / "state.json").write_bytes(msgspec.json.encode(body))
        files = list_files(staged)
        manifest = Manifest(
            kind="train_state", key=final.name, recipe={}, recipe_fingerprint=fingerprint, data_version=files_version(files),
            code_version="1", files=files,
        )  # fmt: skip
        sync_tree(staged)
        write_manifest(staged, manifest)
        shutil.rmtree(final, ignore_errors=True)
        staged.rename(final)
        sync_folder(root)
    except OSError as error:
        raise storage_error(error, final) from error
    for old in sorted(root.glob("step-*"))[: -max(1, keep)]:
        shutil.rmtree(old)
    return final


def load_state(root: Path, fingerprint: str) -> tuple[TrainState | None, list[str]]:
    """The newest valid state of this run, and a sentence for every newer one that had to be passed over."""
    passed = []
    for folder in sorted(root.glob("step-*"), reverse=True):
        try:
            manifest = read_manifest(folder)
        except ManifestError as error:
            passed.append(str(error))
            continue
        problems = verify_files(folder, manifest)
        if manifest.recipe_fingerprint != fingerprint:
            problems.append(f"{folder} belongs to another run")
        if problems:
            passed.append(problems[0])
            continue
        body = msgspec.json.decode((folder / "state.json").read_bytes())
        tensors = {name: load_file(folder / f"{name}.safetensors") for name in TENSOR_FILES}
        return TrainState(**body, **tensors), passed
    return None, passed


def restore_model(model: torch.nn.Module, saved: dict[str, Tensor]) -> None:
    """Copy saved weights into a model that is already on its device."""
    model.load_state_dict(saved, strict=True)
