"""Weighted cross-entropy over the positions that are learned, in chunks, with z-loss.

Belongs here: the loss of one micro-batch as *sums*; the caller divides once by the global sum of weights. Logits exist for one
chunk of positions at a time, so memory is chunk × vocabulary. The loss is linear in the gradient that comes in, whatever that is:
both gradients are computed beside the logits, once, and only scaled in the backward.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable


class _WeightedCrossEntropy(torch.autograd.Function):
    @staticmethod
    def forward(
        context: Any, hidden: Tensor, head: Tensor, target: Tensor, weight: Tensor, chunk: int, z_loss: float, learn: bool
    ) -> tuple[Tensor, Tensor]:
        total = hidden.new_zeros((), dtype=torch.promote_types(hidden.dtype, torch.float32))
        per_position = total.new_empty(len(target))
        grad_hidden = torch.empty_like(hidden) if learn and context.needs_input_grad[0] else None
        grad_head = torch.zeros_like(head, dtype=total.dtype) if learn and context.needs_input_grad[1] else None
        kind = hidden.device.type
        low = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else hidden.dtype
        rows_VD = head.to(low)
        for start in range(0, len(target), chunk):
            rows = slice(start, start + chunk)
            hidden_CD, target_C1, weight_C1 = hidden[rows].to(low), target[rows, None], weight[rows, None]
            logits = F.linear(hidden_CD, rows_VD).to(total.dtype)
            picked = logits.gather(1, target_C1)
            top = logits.amax(dim=1, keepdim=True)
            logits.sub_(top).exp_()  # in place: the softmax grows where the logits were
            mass = logits.sum(dim=1, keepdim=True)
            normaliser = mass.log() + top
            loss = normaliser - picked
            per_position[rows] = loss[:, 0]
            total += (weight_C1 * (loss + z_loss * normaliser.square())).sum()
            if grad_hidden is None and grad_head is None:
                continue
            # d/dlogits of weight·(logZ - logit_target + z·logZ²) = weight·(softmax·(1 + 2 z logZ) - onehot)
            logits.mul_(weight_C1 * (1 + 2 * z_loss * normaliser) / mass)
            grad = logits.scatter_add_(1, target_C1, -weight_C1.to(logits.dtype)).to(low)
            if grad_hidden is not None:
                grad_hidden[rows] = (grad @ rows_VD).to(hidden.dtype)
            if grad_head is not None:
                grad_head += (grad.t() @ hidden_CD).to(grad_head.dtype)
        context.save_for_backward(grad_hidden, grad_head)
        context.head_type = head.dtype
        context.mark_non_differentiable(per_position)
        return total, per_position

    @staticmethod
    @once_differentiable
    def backward(context: Any, grad_total: Tensor, _grad_positions: Tensor) -> tuple[Tensor | None, ...]:
        grad_hidden, grad_head = context.saved_tensors
        return (
            None if grad_hidden is None else grad_hidden * grad_total.to(grad_hidden.dtype),
            None if grad_head is None else (grad_head * grad_total).to(context.head_type),
            *[None] * 5,
        )


def weighted_cross_entropy(
    hidden_BSD: Tensor,
    head_VD: Tensor,
    index_L: Tensor,
    target_L: Tensor,
    weight_L: Tensor,
    task_L: Tensor,
    tasks: int,
    chunk: int,
    z_loss: float = 0.0,
) -> tuple[Tensor, Tensor, Tensor]:
    """Sum over positions of weight·(cross-entropy + z_loss·logZ²), and detached per-task sums.

    Returns (loss sum, weighted cross-entropy of each task [tasks], weight of each task [tasks]). `index_L` points into B·S and is
    padded with entries of weight 0.
    """
    hidden_LD = torch.index_select(hidden_BSD.reshape(-1, hidden_BSD.shape[-1]), 0, index_L)
    total, per_position = _WeightedCrossEntropy.apply(
        hidden_LD, head_VD, target_L, weight_L, chunk, z_loss, torch.is_grad_enabled()
    )
    empty = torch.zeros(tasks, device=weight_L.device, dtype=weight_L.dtype)
    by_task = empty.index_add(0, task_L, (per_position * weight_L).detach().to(weight_L.dtype))
    return total, by_task, empty.index_add(0, task_L, weight_L)
