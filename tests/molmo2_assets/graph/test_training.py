"""Half-trained runs on other data: what `on_data_change` says becomes of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from molmo2_assets.graph.training import mind_other_data
from training_backend.api import RunSpec, encode_spec

IDENTITY: dict[str, Any] = {
    "stage": "sft", "steps": 500, "seed": 7, "sequences": "s1", "mixture": "m1", "tokenizer": "t1",
    "validated": {"a": "1", "b": "1"},
    "init": None,
}  # fmt: skip
CHANGED = {**IDENTITY, "sequences": "s2", "mixture": "m2", "validated": {"a": "1", "b": "2"}}


def half_trained(runs: Path, identity: dict[str, Any], step: int | None = 120) -> Path:
    """A run directory as an interrupted run leaves it."""
    spec = RunSpec(kind="train", identity=identity)
    folder = runs / spec.run_name
    folder.mkdir(parents=True)
    (folder / "spec.json").write_bytes(encode_spec(spec))
    if step is not None:
        (folder / "checkpoints" / f"step-{step:08d}").mkdir(parents=True)
    return folder


@pytest.mark.parametrize("policy", ["refuse", "continue"])
def test_half_a_run_on_other_data_is_not_left_behind(tmp_path: Path, policy: str) -> None:
    folder = half_trained(tmp_path, IDENTITY)
    with pytest.raises(dg.Failure) as caught:
        mind_other_data(RunSpec(kind="train", identity=CHANGED), tmp_path, policy)
    words = str(caught.value.description)
    assert f"{folder.name} stands at step 120 of 500 with other data (changed: b)" in words
    assert "on_data_change: restart" in words


@pytest.mark.parametrize(
    ("identity", "step", "done"),
    [
        (CHANGED, 120, False),  # the run itself: it resumes
        (IDENTITY, None, False),  # nothing saved yet
        (IDENTITY, 120, True),  # finished: nothing is lost
        ({**IDENTITY, "seed": 8}, 120, False),  # another recipe, not other data
        ({**IDENTITY, "stage": "pretrain"}, 120, False),
    ],
)
def test_everything_else_may_start(tmp_path: Path, identity: dict[str, Any], step: int | None, done: bool) -> None:
    folder = half_trained(tmp_path, identity, step)
    if done:
        (folder / "result.json").write_text("{}")
    mind_other_data(RunSpec(kind="train", identity=CHANGED), tmp_path, "refuse")


def test_restart_starts(tmp_path: Path) -> None:
    half_trained(tmp_path, IDENTITY)
    mind_other_data(RunSpec(kind="train", identity=CHANGED), tmp_path, "restart")
