"""GPU hours: the arithmetic against the backend's count of a real batch, the profiles against their own limits, the refusal."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import dagster as dg
import msgspec
import numpy as np
import pytest

from molmo2_assets.graph.budget import gpu_hours, mind_gpu_hours, stage_flops
from molmo2_assets.graph.stages import stage_assets
from molmo2_assets.home import Home
from molmo2_assets.profile import StageSpec, load_profile
from tests.support import training
from tests.support.homes import publish_files
from tests.support.shell import ROOT
from training_backend.api import Execution
from training_backend.config import StageConfig
from training_backend.data.store import RowStore
from training_backend.model.weights import load_model
from training_backend.pack.batch import PREFIX, Encoded
from training_backend.pack.collate import collate
from training_backend.train.flops import batch_flops

GPU = Execution(device="cuda")


def test_the_estimate_is_the_count_of_full_packs() -> None:
    """Up to what the two count differently: pooling, the head on learned positions only."""
    profile = load_profile("demo")
    stage = msgspec.structs.replace(profile.stages["pretrain"], steps=1, global_batch=2)
    size, crops = stage.pack.max_tokens, stage.pack.max_visual
    nothing, ints = np.full(size, -1, np.int32), np.arange(size, dtype=np.int32)
    full = Encoded(
        tokens=ints, targets=ints, weights=np.ones(size, np.float32), position=ints, branch=np.full(size, PREFIX, np.int32),
        image=nothing, crops=np.zeros((crops, 84, 84, 3), np.uint8), pool=np.zeros((0, 4), np.int32), slot=np.zeros(0, np.int32),
        task=0,
    )  # fmt: skip
    counted = batch_flops(profile.model, collate([[full], [full]], size, 36))
    assert stage_flops(profile.model, stage) == pytest.approx(counted, rel=0.15)


@pytest.mark.parametrize("name", ["report", "release"])
def test_recipes_are_within_their_own_limits(name: str) -> None:
    profile = load_profile(name)
    for stage in profile.stages.values():
        assert stage.max_gpu_hours is not None
        assert 0.02 * stage.max_gpu_hours < gpu_hours(profile.model, stage) <= stage.max_gpu_hours
        mind_gpu_hours(profile.model, stage, GPU, allowed=False)


def test_more_than_the_profile_allows_is_refused_unless_said() -> None:
    profile = load_profile("release")
    stage = msgspec.structs.replace(profile.stages["sft"], max_gpu_hours=2.0)
    with pytest.raises(dg.Failure) as caught:
        mind_gpu_hours(profile.model, stage, GPU, allowed=False)
    words = str(caught.value.description)
    assert f"need about {gpu_hours(profile.model, stage):,.0f} H100 hours" in words
    assert "max_gpu_hours is 2." in words
    assert "over_budget: true" in words
    mind_gpu_hours(profile.model, stage, GPU, allowed=True)
    mind_gpu_hours(profile.model, stage, Execution(device="cpu"), allowed=False)
    mind_gpu_hours(profile.model, msgspec.structs.replace(stage, max_gpu_hours=None), GPU, allowed=False)


@pytest.fixture
def home(tmp_path: Path) -> Home:
    """Everything that the first stage is trained on."""
    made, home = tmp_path / "made", Home(tmp_path / "home", "micro")
    training.training_home(made)
    shutil.copytree(made / "cache", home.cache)
    sets = {}
    for name in ("captions", "points", "texts"):
        sets[f"validated/{name}"] = publish_files(
            home, f"validated/{name}", "validated", made / name, {}, data_version=RowStore(made / name).version
        )
    (made / "mixture" / "weights.json").write_text(json.dumps({"rows": [{"dataset": name.split("/")[1]} for name in sets]}))
    mixture = publish_files(home, "mixture", "mixture", made / "mixture", sets)
    tokenizer = publish_files(home, "tokenizer", "tokenizer", made / "tokenizer", {})
    parents = {"mixture": mixture, "tokenizer": tokenizer}
    publish_files(home, "pretrain_sequences", "sequences", made / "sequences", parents)
    return home


def test_the_asset_refuses_and_its_run_config_allows(home: Home) -> None:
    """As somebody meets it: the step fails before anything is submitted; with the launchpad's flag it trains."""
    found, config = load_profile("micro", [ROOT / "tests"]), training.stage(steps=2)
    stage = StageSpec(
        name="pretrain", on_data_change="restart", benchmarks=(), max_gpu_hours=1e-12,
        **{field: getattr(config, field) for field in StageConfig.__struct_fields__},
    )  # fmt: skip
    execution = msgspec.structs.replace(found.execution["train"], device="auto")  # a GPU where there is one
    profile = msgspec.structs.replace(
        found, model=training.MODEL, stages={"pretrain": stage}, execution={**found.execution, "train": execution}
    )
    (asset,) = (each for each in stage_assets(home, profile) if each.key == dg.AssetKey("pretrain_checkpoint"))
    with dg.instance_for_test() as instance:
        refused = dg.materialize([asset], instance=instance, raise_on_error=False)
        (failed,) = refused.get_step_failure_events()
        said = failed.step_failure_data.user_failure_data
        assert said is not None
        assert "pretrain: 2 steps of 4 packs of 160 tokens and 4 crops through small need about" in str(said.description)
        assert "set over_budget: true in this asset's config to start all the same." in str(said.description)
        assert not list(home.runs.glob("*")), "nothing was submitted"
        allowed = {"ops": {"pretrain_checkpoint": {"config": {"over_budget": True}}}}
        assert dg.materialize([asset], instance=instance, run_config=allowed).success
    current = home.store("pretrain_checkpoint").current("pretrain_checkpoint")
    assert current is not None
    assert load_model(current[0], training.MODEL).config == training.MODEL
