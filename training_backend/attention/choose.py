"""One call for attention: a back end by name, or the best one that a probe finds to work here.

Belongs here: the names, the probe, the choice and its log line. Does not belong here: the back ends. Versions are never compared:
a back end is tried on a small mask, forward and (where gradients are wanted) backward, and must agree with the reference.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import cache
from importlib import import_module
from types import ModuleType
from typing import Literal

import torch
from torch import Tensor

from training_backend.attention import reference
from training_backend.attention.mask import MaskSpec

Name = Literal["auto", "reference", "blocks", "flex", "varlen"]
Prepared = Callable[[Tensor, Tensor, Tensor], Tensor]
"""(query [B,H,S,D], key [B,G,S,D], value [B,G,S,D]) → [B,H,S,D], under the mask of one micro-batch."""
NAMES: tuple[Name, ...] = ("auto", "reference", "blocks", "flex", "varlen")
_log = logging.getLogger(__name__)


def prepare(spec: MaskSpec, name: Name, like: Tensor, heads: tuple[int, int, int]) -> Prepared:
    """Attention under `spec`, with what all layers share already built.

    `like` is a tensor of the device and type that attention will run with; `heads` are query heads, key heads, head width. Raises
    ValueError where a back end that was named does not work here, or not for this mask.
    """
    gradients = torch.is_grad_enabled()
    chosen = choose(name, like.device.type, like.dtype, heads, gradients)
    if chosen == "reference":
        mask = reference.whole_mask(spec)
        return lambda query, key, value: reference.attend(query, key, value, spec, mask)
    return _back_end(chosen).prepare(spec)


def _back_end(name: str) -> ModuleType:
    """Imported on first use: flex brings the compiler along."""
    return import_module(f"training_backend.attention.{name}")


@cache
def choose(name: Name, device: str, dtype: torch.dtype, heads: tuple[int, int, int], gradients: bool) -> str:
    """The back end to use; logged once for each question. `auto` is blocks on the CPU, flex on a GPU where it works, else the
    reference.

    `varlen` is never chosen unasked: whether a mask allows it is only known by looking at it from the host.
    """
    if name not in NAMES:
        raise ValueError(f"attention {name!r} is unknown; known are {', '.join(NAMES)}.")
    if name != "auto":
        wrong = None if name in ("reference", "blocks") else probe(name, device, dtype, heads, gradients)
        if wrong is not None:
            raise ValueError(f"attention {name!r} does not work here ({device}, {dtype}, heads {heads}): {wrong}")
        _log.info("attention: %s, as asked", name)
        return name
    if device == "cpu":
        _log.info("attention: blocks, the reference example by example, on the CPU")
        return "blocks"
    wrong = probe("flex", device, dtype, heads, gradients)
    _log.info("attention: %s", "flex" if wrong is None else f"reference; flex does not work here: {wrong}")
    return "flex" if wrong is None else "reference"


@cache
def probe(name: str, device: str, dtype: torch.dtype, heads: tuple[int, int, int], gradients: bool) -> str | None:
    """Why a back end cannot be used with this device, type and heads; None: it computes what the reference computes."""
    if name == "flex" and device == "cpu" and gradients:
        return "it has no backward on the CPU"
    try:
        with torch.enable_grad() if gradients else torch.no_grad():
            actual, expected = (_try(each, device, dtype, heads, gradients) for each in (name, "reference"))
    except Exception as error:  # whatever a missing kernel, compiler or package says
        return f"{type(error).__name__}: {error}".split("\n")[0]
    tolerance = 1e-4 if dtype in (torch.float32, torch.float64) and device == "cpu" else 3e-2
    worst = max(float((a - b).abs().max()) for a, b in zip(actual, expected, strict=True))
    return None if worst <= tolerance else f"it differs from the reference by {worst:.1e}"


def _try(name: str, device: str, dtype: torch.dtype, heads: tuple[int, int, int], gradients: bool) -> list[Tensor]:
    """Output, and gradients where wanted, for two documents in 256 positions."""
    query_heads, key_heads, width = heads
    length = 256
    place = torch.arange(length, device=device, dtype=torch.int32)
    example = (place >= 100).to(torch.int32)[None]
    position = torch.where(place >= 100, place - 100, place)[None]
    nothing = torch.full_like(example, -1)
    spec = MaskSpec(example, torch.zeros_like(example), nothing, position, "image_tokens")
    # The same numbers for every back end, whatever generator the run uses.
    values = (
        torch.linspace(0, 50 * (seed + 1), count * length * width, device=device).sin().to(dtype).view(1, count, length, width)
        for seed, count in enumerate((query_heads, key_heads, key_heads))
    )
    query, key, value = (each.requires_grad_(gradients) for each in values)
    if name == "reference":
        out = reference.attend(query, key, value, spec)
    else:
        out = _back_end(name).prepare(spec)(query, key, value)
    if not gradients:
        return [out.float()]
    return [out.detach().float(), *(grad.float() for grad in torch.autograd.grad(out.float().sin().sum(), (query, key, value)))]
