"""GPU hours of a training stage before it starts: an estimate from its recipe, and the refusal where the profile allows fewer.

Belongs here: the arithmetic over shapes, and its assumptions. Does not belong here: counting what a batch really takes
(`training_backend.train.flops`, which needs the batch).

The estimate takes full packs, both budgets used up, attention over whole causal packs, forward and backward as three forwards, and
`UTILISATION` of `PEAK`. It is meant to catch a plan that is ten times what its profile allows, not to forecast a bill.
"""

from __future__ import annotations

import dagster as dg

from molmo2_assets.profile import StageSpec
from training_backend.api import Execution
from training_backend.config import ModelConfig

PEAK = 989e12
"""Dense bf16 FLOP/s of an H100 or H200."""
UTILISATION = 0.4


def stage_flops(model: ModelConfig, stage: StageSpec) -> float:
    """Floating-point operations of all steps."""
    vision, connector, decoder = model.vision, model.connector, model.decoder
    layers = max(layer % vision.layers for layer in vision.feature_layers) + 1
    patches = vision.patches_per_side**2
    block = 4 * vision.width**2 + 2 * vision.width * vision.mlp_width
    eye = patches * (vision.patch_size**2 * 3 * vision.width + layers * (block + 2 * patches * vision.width))
    features = vision.width * len(vision.feature_layers)
    eye += patches * 2 * features * connector.pool_width
    query, key = decoder.heads * decoder.head_dim, decoder.kv_heads * decoder.head_dim
    weights = decoder.width * (2 * query + 2 * key) + 3 * decoder.width * decoder.mlp_width
    word = decoder.layers * (weights + query * stage.pack.max_tokens) + decoder.width * decoder.vocab_size
    pack = stage.pack.max_visual * eye + stage.pack.max_tokens * word
    return 3 * 2 * stage.steps * stage.global_batch * pack


def gpu_hours(model: ModelConfig, stage: StageSpec) -> float:
    """H100 hours of a stage."""
    return stage_flops(model, stage) / (PEAK * UTILISATION) / 3600


def mind_gpu_hours(model: ModelConfig, stage: StageSpec, execution: Execution, *, allowed: bool) -> None:
    """Refuse a stage whose plan needs more GPU hours than its `max_gpu_hours`, unless `allowed`. A CPU has none to count.

    Raises dg.Failure with the plan and the ways out.
    """
    if stage.max_gpu_hours is None or allowed or execution.device == "cpu":
        return
    hours = gpu_hours(model, stage)
    if hours <= stage.max_gpu_hours:
        return
    raise dg.Failure(
        description=f"{stage.name}: {stage.steps:,} steps of {stage.global_batch} packs of {stage.pack.max_tokens:,} tokens and "
        f"{stage.pack.max_visual} crops through {model.name} need about {hours:,.0f} H100 hours at {UTILISATION:.0%} of the peak; "
        f"max_gpu_hours is {stage.max_gpu_hours:,.0f}. Plan less, raise max_gpu_hours of the stage, or set over_budget: true in "
        "this asset's config to start all the same.",
        allow_retries=False,
    )
