"""The typed configuration of everything that a run computes: model, encoding, packing, optimiser, loss.

Belongs here: frozen structs with plain JSON values, which profiles write in YAML and run specs carry as *identity*.
Does not belong here: paths, machines, worker counts (those are *execution*, in `api.py`), defaults that differ between recipes
(those are YAML in the catalogue), anything that imports torch.
"""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec

NormOrder = Literal["pre", "post"]
QkNorm = Literal["none", "head", "full"]
PointSyntax = Literal["report", "release"]


class Config(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Base of every struct here: immutable, keyword-only, and a misspelt field is an error."""


class VisionConfig(Config, frozen=True, kw_only=True):
    """Vision transformer: SigLIP-class, no class token, learned positions.

    `feature_layers` are indexes into the block outputs, negative ones from the end; their features are concatenated and later
    blocks are not built. `image_size` and `patch_size` in pixels.
    """

    image_size: int
    patch_size: int
    width: int
    layers: int
    heads: int
    mlp_width: int
    feature_layers: tuple[int, ...]
    norm_eps: float = 1e-6

    @property
    def patches_per_side(self) -> int:
        return self.image_size // self.patch_size


class ConnectorConfig(Config, frozen=True, kw_only=True):
    """Masked attention pooling (mean query) over a window of patches, then a SwiGLU projector to the decoder's width."""

    heads: int
    pool_width: int
    mlp_width: int
    image_window: int = 2
    video_window: int = 3
    dropout: float = 0.0


class RopeScaling(Config, frozen=True, kw_only=True):
    """YaRN scaling of rotary frequencies, applied in the layers named by `layers` (empty: every layer)."""

    factor: float
    original_max_positions: int
    attention_factor: float
    beta_fast: float = 32.0
    beta_slow: float = 1.0
    layers: tuple[int, ...] = ()


class DecoderConfig(Config, frozen=True, kw_only=True):
    """Decoder-only transformer. `vocab_size` counts the base table's rows; `extra_tokens` rows come after it.

    `predict_extra`: the head has rows for the extra tokens too, which a recipe needs whose answers hold special tokens; released
    models only read them.
    """

    width: int
    layers: int
    heads: int
    kv_heads: int
    head_dim: int
    mlp_width: int
    vocab_size: int
    extra_tokens: int = 128
    rope_theta: float = 1_000_000.0
    rope_scaling: RopeScaling | None = None
    sliding_window: int | None = None
    full_attention_every: int = 1
    qk_norm: QkNorm = "head"
    norm_order: NormOrder = "pre"
    norm_eps: float = 1e-6
    tied: bool = False
    predict_extra: bool = True


class InitConfig(Config, frozen=True, kw_only=True):
    """Initialisation of weights that no checkpoint provides.

    `normal` draws every matrix and table with `std`, as the release does for what it adds to trained parts. `fan_in` is for a small
    model that starts from nothing, which with 0.02 everywhere never looks at the picture (docs/lab-notes.md): each matrix is scaled
    by 1/sqrt(fan_in), those that write into a residual stream by another 1/sqrt(2·layers); the head keeps `std`.
    """

    scheme: Literal["normal", "fan_in"] = "normal"
    std: float = 0.02
    position_std: float = 0.02
    embedding_std: float = 0.02


class ModelConfig(Config, frozen=True, kw_only=True):
    """The whole of a Molmo2-class model."""

    name: str
    vision: VisionConfig
    connector: ConnectorConfig
    decoder: DecoderConfig
    init: InitConfig = InitConfig()
    image_attention: Literal["causal", "image_tokens", "within_image"] = "image_tokens"


class EncodeConfig(Config, frozen=True, kw_only=True):
    """How an example becomes tokens and crops.

    `max_crops` counts high-resolution crops of one image (the low-resolution one comes on top). `low_resolution` adds that
    overview crop. `time` writes a frame's time as plain text or after a special token. `coordinate_digits` are the decimals of
    the `report` point syntax. `overlap` are patches shared by neighbouring crops, left and right margin. `sampler` picks a video's
    frames: the release's, or that of transformers' video processor, which leaves out the last frame. `oversized` is what happens to
    pictures that are more than the budgets allow: the row is refused, or fewer frames and crops are shown, or as many as at all
    possible in larger pooling windows.
    """

    point_syntax: PointSyntax
    time: Literal["token", "text"]
    prompt_style: Literal["plain", "report", "release"]
    image_size: int
    patch_size: int
    image_window: int = 2
    video_window: int = 3
    max_crops: int = 8
    overlap: tuple[int, int] = (4, 4)
    low_resolution: bool = True
    column_tokens: bool = True
    max_frames: int = 128
    frame_rate: float = 2.0
    sampler: Literal["uniform_last_frame", "transformers"] = "uniform_last_frame"
    max_images: int = 5
    coordinate_digits: Annotated[int, msgspec.Meta(ge=1, le=6)] = 3
    oversized: Literal["refuse", "fewer_frames", "coarser_pooling"] = "fewer_frames"
    normalise: Literal["signed_unit"] = "signed_unit"


class Recipe(Config, frozen=True, kw_only=True):
    """How a checkpoint is asked: the encoding that it was trained with, and budgets for one question."""

    encode: EncodeConfig
    max_tokens: int
    max_visual: int


class LossRule(Config, frozen=True, kw_only=True):
    """Weight of one answer token: `flat` is `weight`; `root` is `weight` / sqrt(answer tokens) / sqrt(branches)."""

    kind: Literal["flat", "root"] = "flat"
    weight: float = 1.0


class LossConfig(Config, frozen=True, kw_only=True):
    """Per-task token weights and the shape of the loss. A task without a rule is an error, never a silent 1.0."""

    rules: dict[str, LossRule]
    z_loss: float = 0.0
    chunk: int = 1024


class PackConfig(Config, frozen=True, kw_only=True):
    """Two budgets of a packed sequence, and the planner's window in mixture positions. Method `cheap` suits windows of thousands,
    `portfolio` those of hundreds (`pack/plan.py`)."""

    max_tokens: int
    max_visual: int
    window: int = 1024
    method: Literal["portfolio", "cheap"] = "portfolio"


class PartOptim(Config, frozen=True, kw_only=True):
    """Learning rate (peak) and warm-up steps of one part of the model; `frozen` parts get no optimiser state."""

    lr: float
    warmup: int
    frozen: bool = False


class OptimConfig(Config, frozen=True, kw_only=True):
    """AdamW per part, cosine to `final_fraction` of the peak, gradients clipped per part."""

    vision: PartOptim
    connector: PartOptim
    decoder: PartOptim
    betas: tuple[float, float] = (0.9, 0.95)
    eps: float = 1e-6
    weight_decay: float = 0.0
    clip: float = 1.0
    final_fraction: float = 0.1


class DropoutConfig(Config, frozen=True, kw_only=True):
    """Residual dropout on every position, or on response positions only."""

    residual: float = 0.0
    response: float = 0.0


class GuardConfig(Config, frozen=True, kw_only=True):
    """Steps whose loss or gradient norm is not finite, or spikes by more than `sigmas`, are skipped; too many in a row stop."""

    sigmas: float = 6.0
    history: int = 128
    max_consecutive: int = 5


class TokenizerConfig(Config, frozen=True, kw_only=True):
    """A byte-level BPE trained on the profile's own text, or a published one named by repository and commit.

    `numbers` of one that is trained: `digits`, every digit a token of its own, as Qwen's tokenizers have it; or `whole`, by which
    a number with its decimals may become one token, and so may the mark and the space before it. Points are mostly numbers: of 19
    tokens for a point of a film 11 are left. `coordinate_digits`: decimals of the points that it reads.
    """

    kind: Literal["train", "pretrained"]
    vocab_size: int = 1024
    numbers: Literal["digits", "whole"] = "digits"
    coordinate_digits: Annotated[int, msgspec.Meta(ge=1, le=6)] = 3
    repo: str | None = None
    revision: str | None = None


class StageConfig(Config, frozen=True, kw_only=True):
    """One training stage: what is computed, nothing about where."""

    mixture: str
    pack: PackConfig
    encode: EncodeConfig
    loss: LossConfig
    optim: OptimConfig
    steps: int
    global_batch: int
    seed: int
    dropout: DropoutConfig = DropoutConfig()
    guard: GuardConfig = GuardConfig()
    context_parallel: int = 1
    precision: Literal["fp32", "bf16"] = "bf16"


class GenerateConfig(Config, frozen=True, kw_only=True):
    """Decoding of answers: greedy unless `temperature` > 0. An answer ends before the first of the texts `stop` that it says."""

    max_new_tokens: int
    temperature: float = 0.0
    top_p: float = 1.0
    seed: int = 0
    batch_size: int = 16
    stop: tuple[Annotated[str, msgspec.Meta(min_length=1)], ...] = ()
