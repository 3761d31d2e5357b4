"""The whole model: crops and tokens in, hidden states out.

Belongs here: how vision, connector and decoder meet, initialisation, parameter groups, the tensors of a micro-batch. Does not
belong here: the loss (`train/loss.py`), generation (`generate.py`), files (`weights.py`).

Visual tokens are *added* to the embeddings of the patch tokens that stand in their places; nothing is replaced. There is no host
sync, boolean indexing or data-dependent shape in the forward, and the vision path runs in every micro-batch.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, fields

import torch
from torch import Tensor, nn

from training_backend.attention.choose import Name, prepare
from training_backend.attention.mask import MaskSpec
from training_backend.config import ModelConfig
from training_backend.model.connector import Connector
from training_backend.model.decoder import Decoder
from training_backend.model.vision import VisionTransformer
from training_backend.pack.batch import Batch

PARTS = ("vision", "connector", "decoder")


@dataclass(frozen=True, slots=True)
class TensorBatch:
    """The arrays of `pack.batch.Batch` as tensors on one device; see there for shapes and meaning."""

    tokens: Tensor
    position: Tensor
    branch: Tensor
    image: Tensor
    example: Tensor
    crops: Tensor
    pool: Tensor
    slot: Tensor
    slot_weight: Tensor
    loss_index: Tensor
    loss_target: Tensor
    loss_weight: Tensor
    loss_task: Tensor
    response: Tensor

    @classmethod
    def from_numpy(cls, batch: Batch, device: torch.device | str = "cpu") -> TensorBatch:
        """Copy a batch to `device`."""
        return cls(**{field.name: torch.from_numpy(getattr(batch, field.name)).to(device) for field in fields(cls)})


class ResidualDropout:
    """Dropout of residual branches: `residual` on every position plus `response` on positions of assistant turns.

    Every row has numbers of its own seed: a resumed step drops what the first attempt dropped, and how many rows make a micro-batch
    changes nothing. Raises ValueError unless there is one seed a row.
    """

    def __init__(self, residual: float, response: float, response_BS: Tensor, seeds: Sequence[int]) -> None:
        if len(seeds) != len(response_BS):
            raise ValueError(f"{len(seeds)} seeds of dropout for {len(response_BS)} rows; one each.")
        self.rate = residual + response * response_BS[..., None] if response else None
        self.residual = residual
        self.generators = [torch.Generator(device=response_BS.device).manual_seed(seed) for seed in seeds]

    def __call__(self, x_BSD: Tensor) -> Tensor:
        rate = self.rate if self.rate is not None else self.residual
        shape, device = x_BSD.shape[1:], x_BSD.device
        noise = torch.stack([torch.rand(shape, generator=generator, device=device) for generator in self.generators])
        return x_BSD * ((noise >= rate) / (1 - rate)).to(x_BSD.dtype)


def _keep(x: Tensor) -> Tensor:
    return x


@torch.no_grad()
def init_tensor(name: str, tensor: Tensor, config: ModelConfig, generator: torch.Generator) -> None:
    """Initialise one parameter in place, by its name, as `config.init` says."""
    init = config.init
    if name.endswith(".bias"):
        tensor.zero_()
    elif "norm" in name:
        tensor.fill_(1.0)
    elif name == "vision.position":
        tensor.normal_(0.0, init.position_std, generator=generator)
    elif name in ("decoder.embedding", "decoder.extra_embedding"):
        tensor.normal_(0.0, init.embedding_std, generator=generator)
    elif init.scheme == "fan_in" and name != "decoder.head":
        layers = config.vision.layers if name.startswith("vision.") else config.decoder.layers
        writes = ".blocks." in name and name.endswith((".wo.weight", ".w2.weight"))
        tensor.normal_(0.0, 1 / math.sqrt(tensor.shape[-1] * (2 * layers if writes else 1)), generator=generator)
    else:
        tensor.normal_(0.0, init.std, generator=generator)


class Molmo2(nn.Module):
    """A Molmo2-class model of any size. Parameters are uninitialised until `init_weights` or `weights.load_model`."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        self.attention: Name = "auto"
        """The back end (`attention.choose`): how, not what, so it is no part of the configuration."""
        self.vision = VisionTransformer(config.vision)
        features = config.vision.width * len(config.vision.feature_layers)
        self.connector = Connector(config.connector, features, config.decoder.width)
        self.decoder = Decoder(config.decoder)

    @torch.no_grad()
    def init_weights(self, seed: int) -> None:
        """Initialise every parameter from one seed, in a fixed order of names."""
        generator = torch.Generator(device=next(self.parameters()).device).manual_seed(seed)
        for name, parameter in sorted(self.named_parameters()):
            init_tensor(name, parameter, self.config, generator)

    def parts(self) -> dict[str, list[tuple[str, nn.Parameter]]]:
        """Named parameters of each optimiser part. The extra embedding rows train with the connector, as in the release."""
        groups: dict[str, list[tuple[str, nn.Parameter]]] = {part: [] for part in PARTS}
        for name, parameter in self.named_parameters():
            part = "connector" if name == "decoder.extra_embedding" else name.split(".")[0]
            groups[part].append((name, parameter))
        return groups

    def embed(self, tokens: Tensor, crops: Tensor, pool: Tensor, slot: Tensor, slot_weight: Tensor) -> Tensor:
        """Token embeddings with visual tokens added: [B, S, D]."""
        x_BSD = self.decoder.embed(tokens)
        visual_VD = self.connector(self.vision(crops), pool) * slot_weight[:, None]
        flat = x_BSD.reshape(-1, x_BSD.shape[-1])
        return flat.index_add(0, slot, visual_VD.to(flat.dtype)).view(x_BSD.shape)

    def mask(self, batch: TensorBatch, window: int | None = None) -> MaskSpec:
        """The mask of a micro-batch."""
        return MaskSpec(batch.example, batch.branch, batch.image, batch.position, self.config.image_attention, window)

    def forward(self, batch: TensorBatch, residual: float = 0.0, response: float = 0.0, seeds: Sequence[int] = ()) -> Tensor:
        """Hidden states [B, S, D] after the final norm. `residual` and `response` are dropout rates, `seeds` one a row."""
        x_BSD = self.embed(batch.tokens, batch.crops, batch.pool, batch.slot, batch.slot_weight)
        config = self.config.decoder
        full = self.mask(batch)
        near = self.mask(batch, config.sliding_window) if config.sliding_window else full
        heads = (config.heads, config.kv_heads, config.head_dim)
        whole = prepare(full, self.attention, x_BSD, heads)
        part = whole if near is full else prepare(near, self.attention, x_BSD, heads)

        def attention(layer: int, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
            return (whole if is_full_layer(self.config, layer) else part)(query, key, value)

        drop = ResidualDropout(residual, response, batch.response, seeds) if residual or response else _keep
        return self.decoder(x_BSD, batch.position, attention, drop)

    @property
    def head_weight(self) -> Tensor:
        """Output rows [vocab (+ extra), D]."""
        return self.decoder.head_weight


def is_full_layer(config: ModelConfig, layer: int) -> bool:
    """Whether a decoder layer looks back without a window: every layer, or every n-th where the model slides."""
    return config.decoder.sliding_window is None or (layer + 1) % config.decoder.full_attention_every == 0


def parameter_counts(config: ModelConfig) -> dict[str, int]:
    """Parameters of each part, without allocating them."""
    with torch.device("meta"):
        model = Molmo2(config)
    return {part: sum(parameter.numel() for _, parameter in group) for part, group in model.parts().items()}
