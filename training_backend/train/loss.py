"""Weighted cross-entropy over the positions that are learned, in chunks, with z-loss.

Belongs here: the loss of one micro-batch as *sums*; the caller divides once by the global sum of weights. Logits exist for one
chunk of positions at a time and are computed again in the backward, so memory is chunk × vocabulary. Gradients honour whatever
gradient comes in.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor


def _logits(hidden: Tensor, head: Tensor) -> Tensor:
    """Logits in fp32 at least, whatever the parameters are."""
    logits = F.linear(hidden, head)
    return logits.to(torch.promote_types(logits.dtype, torch.float32))


def _chunk_terms(hidden: Tensor, head: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    """Cross-entropy and squared log-normaliser of each position, fp32 [L]."""
    logits = _logits(hidden, head)
    normaliser = torch.logsumexp(logits, dim=-1)
    return normaliser - logits.gather(-1, target[:, None])[:, 0], normaliser.square()


class _WeightedCrossEntropy(torch.autograd.Function):
    @staticmethod
    def forward(
        context: Any, hidden: Tensor, head: Tensor, target: Tensor, weight: Tensor, chunk: int, z_loss: float
    ) -> tuple[Tensor, Tensor]:
        losses, squares = [], []
        for start in range(0, len(target), chunk):
            rows = slice(start, start + chunk)
            loss, square = _chunk_terms(hidden[rows], head, target[rows])
            losses.append(loss)
            squares.append(square)
        per_position = torch.cat(losses)
        context.save_for_backward(hidden, head, target, weight)
        context.chunk, context.z_loss = chunk, z_loss
        total = (weight * (per_position + z_loss * torch.cat(squares))).sum()
        context.mark_non_differentiable(per_position)
        return total, per_position

    @staticmethod
    def backward(context: Any, grad_total: Tensor, _grad_positions: Tensor) -> tuple[Tensor | None, ...]:
        hidden, head, target, weight = context.saved_tensors
        grad_hidden = torch.empty_like(hidden)
        grad_head = torch.zeros_like(head, dtype=torch.promote_types(head.dtype, torch.float32))
        for start in range(0, len(target), context.chunk):
            rows = slice(start, start + context.chunk)
            logits = _logits(hidden[rows], head)
            normaliser = torch.logsumexp(logits, dim=-1, keepdim=True)
            # d/dlogits of (logZ - logit_target) + z*logZ^2 = softmax*(1 + 2 z logZ) - onehot
            grad = (logits - normaliser).exp() * (1 + 2 * context.z_loss * normaliser)
            grad.scatter_add_(1, target[rows, None], grad.new_full((len(grad), 1), -1.0))
            grad = grad * (weight[rows, None] * grad_total)
            grad_hidden[rows] = (grad.to(head.dtype) @ head).to(hidden.dtype)
            grad_head += (grad.to(hidden.dtype).t() @ hidden[rows]).to(grad_head.dtype)
        return grad_hidden, grad_head.to(head.dtype), None, None, None, None


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
    total, per_position = _WeightedCrossEntropy.apply(hidden_LD, head_VD, target_L, weight_L, chunk, z_loss)
    empty = torch.zeros(tasks, device=weight_L.device, dtype=weight_L.dtype)
    by_task = empty.index_add(0, task_L, (per_position * weight_L).detach().to(weight_L.dtype))
    return total, by_task, empty.index_add(0, task_L, weight_L)
