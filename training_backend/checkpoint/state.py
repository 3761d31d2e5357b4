"""Checkpoints of a run in progress: staged, hashed, published by rename, retired; resumed from the newest valid one.

Belongs here: everything that makes a resumed run the same run. Does not belong here: the weights that a finished run hands out
(`model/weights.py`).
"""

from __future__ import annotations

import shutil
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import msgspec
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from training_backend.checkpoint.disk import refusal
from training_backend.data.manifest import (
    Manifest,
    ManifestError,
    files_version,
    list_files,
    read_manifest,
    sync_folder,
    sync_tree,
    verify_files,
    write_manifest,
)

CODE_VERSION = "2"
"""Of the layout; a state of another one is passed over, never half understood."""
TENSOR_FILES = ("model", "optimizer", "guard", "meter")
PLAIN_FIELDS = ("step", "counts", "loader", "records", "totals")
_PARTIAL = ".partial-"


@dataclass
class TrainState:
    """What a run is after `step` steps. `records` are the step records for the loss picture, `totals` running sums; `meter` and
    `counts` what has happened since the last record."""

    step: int
    model: dict[str, Tensor]
    optimizer: dict[str, Tensor]
    guard: dict[str, Tensor]
    meter: dict[str, Tensor]
    counts: dict[str, Any]
    loader: dict[str, Any]
    records: list[dict[str, Any]]
    totals: dict[str, float]


def snapshot(state: TrainState) -> TrainState:
    """A copy in the host's memory that later steps do not change; tensors that shared memory no longer do."""

    def copied(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
        return {key: value.detach().cpu().contiguous().clone() for key, value in sorted(tensors.items())}

    return replace(
        state, model=copied(state.model), optimizer=copied(state.optimizer), guard=copied(state.guard), meter=copied(state.meter),
        records=list(state.records), totals=dict(state.totals),
    )  # fmt: skip


def save_state(root: Path, state: TrainState, fingerprint: str, keep: int) -> Path:
    """`write_state` of a `snapshot`."""
    return write_state(root, snapshot(state), fingerprint, keep)


def write_state(root: Path, state: TrainState, fingerprint: str, keep: int) -> Path:
    """Write `root/step-N` from a snapshot; it exists whole or not at all. Raises StorageError, leaving the older ones, no half one.

    The `keep` newest stay. What claims a later step was passed over when the run resumed, and goes.
    """
    final = root / f"step-{state.step:08d}"
    staged = root / f"{_PARTIAL}{final.name}"
    try:
        for leftover in root.glob(f"{_PARTIAL}*"):
            shutil.rmtree(leftover)
        staged.mkdir(parents=True)
        _write(staged, state, fingerprint)
        shutil.rmtree(final, ignore_errors=True)
        staged.rename(final)
        sync_folder(root)
    except Exception as error:
        shutil.rmtree(staged, ignore_errors=True)  # a full disk needs the space
        refused = refusal(error, final)
        if refused is None:
            raise
        raise refused from error
    known = sorted(root.glob("step-*"))
    newer = [folder for folder in known if folder.name > final.name]
    older = [folder for folder in known if folder.name <= final.name]
    for folder in (*newer, *older[: -max(1, keep)]):
        shutil.rmtree(folder)
    return final


def _write(staged: Path, state: TrainState, fingerprint: str) -> None:
    for name in TENSOR_FILES:
        save_file(getattr(state, name), staged / f"{name}.safetensors")
    body = {name: getattr(state, name) for name in PLAIN_FIELDS}
    (staged / "state.json").write_bytes(msgspec.json.encode(body))
    files = list_files(staged)
    manifest = Manifest(
        kind="train_state", key=f"step-{state.step:08d}", recipe={}, recipe_fingerprint=fingerprint,
        data_version=files_version(files), code_version=CODE_VERSION, files=files,
    )  # fmt: skip
    sync_tree(staged)
    write_manifest(staged, manifest)


def load_state(root: Path, fingerprint: str) -> tuple[TrainState | None, list[str]]:
    """The newest valid state of this run, and a sentence for every newer one that had to be passed over."""
    passed = []
    for folder in sorted(root.glob("step-*"), reverse=True):
        problem = _problem(folder, fingerprint)
        if problem:
            passed.append(problem)
            continue
        fields: dict[str, Any] = msgspec.json.decode((folder / "state.json").read_bytes())
        fields |= {name: load_file(folder / f"{name}.safetensors") for name in TENSOR_FILES}
        return TrainState(**fields), passed
    return None, passed


def _problem(folder: Path, fingerprint: str) -> str | None:
    """Why a state cannot be used, in one sentence; None where it can."""
    try:
        manifest = read_manifest(folder)
    except ManifestError as error:
        return str(error)
    if manifest.recipe_fingerprint != fingerprint:
        return f"{folder} belongs to another run"
    if manifest.code_version != CODE_VERSION:
        return f"{folder} has layout {manifest.code_version}, this version reads {CODE_VERSION}"
    return next(iter(verify_files(folder, manifest)), None)


def restore_model(model: torch.nn.Module, saved: dict[str, Tensor]) -> None:
    """Copy saved weights into a model that is already on its device."""
    model.load_state_dict(saved, strict=True)
