"""AdamW per part of the model: groups, learning-rate schedule, clipping.

Belongs here: what turns gradients into an update. Does not belong here: deciding whether a step is taken (`guard.py`).
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from training_backend.config import OptimConfig
from training_backend.model.molmo2 import PARTS, Molmo2


def learning_rate(peak: float, warmup: int, step: int, steps: int, final_fraction: float) -> float:
    """Rate of step `step` (from 0): linear from 0 over `warmup` steps, then a cosine to `final_fraction` of the peak."""
    if step < warmup:
        return peak * (step + 1) / (warmup + 1)
    progress = min(1.0, (step - warmup) / max(1, steps - warmup))
    return peak * (final_fraction + (1 - final_fraction) * 0.5 * (1 + math.cos(math.pi * progress)))


def build_optimizer(model: Molmo2, config: OptimConfig) -> torch.optim.AdamW:
    """One group a part that trains; `name` and `parameter_names` stand in the group. Frozen parts get no gradient.

    Raises ValueError where every part is frozen.
    """
    groups = []
    for part, parameters in model.parts().items():
        settings = getattr(config, part)
        if settings.frozen:
            for _, parameter in parameters:
                parameter.requires_grad_(False)
            continue
        groups.append({"params": [p for _, p in parameters], "name": part, "parameter_names": [name for name, _ in parameters]})
    if not groups:
        raise ValueError("every part of the model is frozen: there is nothing to train; free vision, connector or decoder.")
    return torch.optim.AdamW(groups, lr=0.0, betas=config.betas, eps=config.eps, weight_decay=config.weight_decay, fused=True)


def set_rates(optimizer: torch.optim.Optimizer, config: OptimConfig, step: int, steps: int) -> dict[str, float]:
    """Set every group's rate for `step`; returns them by part."""
    rates = {}
    for group in optimizer.param_groups:
        settings = getattr(config, group["name"])
        group["lr"] = learning_rate(settings.lr, settings.warmup, step, steps, config.final_fraction)
        rates[group["name"]] = group["lr"]
    return rates


def clip_by_part(optimizer: torch.optim.Optimizer, limit: float) -> Tensor:
    """Scale each part's gradients to a norm of at most `limit`; returns the norms before, [len(PARTS)], 0 for frozen parts.

    No host sync: the scale is a tensor.
    """
    norms = {}
    for group in optimizer.param_groups:
        gradients = [parameter.grad for parameter in group["params"] if parameter.grad is not None]
        norm = torch.linalg.vector_norm(torch.stack([torch.linalg.vector_norm(g) for g in gradients]))
        scale = (limit / (norm + 1e-6)).clamp(max=1.0)
        torch._foreach_mul_(gradients, scale)
        norms[group["name"]] = norm
    zero = torch.zeros((), device=next(iter(norms.values())).device)
    return torch.stack([norms.get(part, zero) for part in PARTS])


def named_state(optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """Moments and step counts as `<parameter>/<entry>` → tensor."""
    found = {}
    for group in optimizer.param_groups:
        for name, parameter in zip(group["parameter_names"], group["params"], strict=True):
            for entry, value in optimizer.state.get(parameter, {}).items():
                found[f"{name}/{entry}"] = value
    return found


def load_named_state(optimizer: torch.optim.Optimizer, saved: dict[str, Tensor]) -> None:
    """Inverse of `named_state`. Raises KeyError for a parameter without saved state."""
    if not saved:
        return
    for group in optimizer.param_groups:
        for name, parameter in zip(group["parameter_names"], group["params"], strict=True):
            assert isinstance(parameter, nn.Parameter)
            # Copied: what was loaded may be a mapped file, whose space a deleted checkpoint would go on taking.
            optimizer.state[parameter] = {
                entry: saved[f"{name}/{entry}"].to(parameter.device, copy=True) for entry in ("step", "exp_avg", "exp_avg_sq")
            }
