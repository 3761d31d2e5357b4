"""GPU hours: the arithmetic against the backend's count of a real batch, the profiles against their own limits, the refusal."""

from __future__ import annotations

import dagster as dg
import msgspec
import numpy as np
import pytest

from molmo2_assets.graph.budget import gpu_hours, mind_gpu_hours, stage_flops
from molmo2_assets.profile import load_profile
from training_backend.api import Execution
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
