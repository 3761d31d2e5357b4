"""Message trees as arrays: a prefix that every branch sees, branches that do not see each other.

Belongs here: token ids of a branch, which of them are learned and with what weight, positions, shifted targets. Does not belong
here: words (`prompts.py`), the visual prefix and what fits (`preprocessor.py`).

Layout of a branch: turns with their markers, each answer closed by the end token. The last end token is only a target: it
follows the branch's last input. Positions count through the prefix and restart behind it in every branch.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from training_backend.config import LossRule
from training_backend.encode.prompts import Spoken, answer_opening, opening
from training_backend.encode.tokens import Tokenizer
from training_backend.pack.batch import PREFIX


@dataclass(frozen=True, slots=True)
class BranchTokens:
    """Inputs of one branch. `learned` marks tokens that are an answer's or close one; the end token behind the last input is
    learned too and stands in neither."""

    ids: NDArray[np.int32]
    learned: NDArray[np.bool_]

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def answer_tokens(self) -> int:
        """Learned tokens before the final end token, at least 1: the number that `root` weights divide by."""
        return max(1, int(np.count_nonzero(self.learned)))


def branch_tokens(turns: Sequence[Spoken], tokenizer: Tokenizer, *, asked: bool = False) -> BranchTokens:
    """Ids of a spoken branch; with `asked`, up to where its last answer begins, nothing learned."""
    ids: list[int] = []
    learned: list[bool] = []
    answer_start = tokenizer.encode_pieces(answer_opening())
    for place, turn in enumerate(turns):
        if turn.role != "assistant":
            ids += tokenizer.encode_pieces(opening(turn))
            learned += [False] * (len(ids) - len(learned))
            continue
        ids += answer_start
        learned += [False] * len(answer_start)
        last = place == len(turns) - 1
        if last and asked:
            break
        ids += tokenizer.encode_pieces(turn.pieces)
        if not last:
            ids.append(tokenizer.eos)
        learned += [not asked] * (len(ids) - len(learned))
        if not last:
            ids += tokenizer.encode("\n")
            learned += [False] * (len(ids) - len(learned))
    return BranchTokens(np.array(ids, dtype=np.int32), np.array(learned, dtype=bool))


def branch_weight(rule: LossRule, own: float, answer_tokens: int, branches: int) -> float:
    """Loss weight of one answer token; `branches` counts those that are in the sequence."""
    weight = rule.weight * own
    return weight / math.sqrt(answer_tokens) / math.sqrt(branches) if rule.kind == "root" else weight


@dataclass(frozen=True, slots=True)
class TreeArrays:
    """The per-position arrays of `pack.batch.Encoded`, all [S]."""

    tokens: NDArray[np.int32]
    targets: NDArray[np.int32]
    weights: NDArray[np.float32]
    position: NDArray[np.int32]
    branch: NDArray[np.int32]


def assemble(prefix: NDArray[np.int32], branches: Sequence[BranchTokens], weights: Sequence[float], eos: int) -> TreeArrays:
    """Prefix and branches in their final order; `weights` is the loss weight of a learned token of each branch."""
    start = len(prefix)
    size = start + sum(map(len, branches))
    tokens = np.concatenate([prefix, *(branch.ids for branch in branches)]).astype(np.int32, copy=False)
    targets = np.empty(size, dtype=np.int32)
    targets[:-1] = tokens[1:]
    targets[-1] = eos
    learned = np.zeros(size, dtype=np.float32)
    position = np.arange(size, dtype=np.int32)
    number = np.full(size, PREFIX, dtype=np.int32)
    done = start
    for place, (branch, weight) in enumerate(zip(branches, weights, strict=True)):
        end = done + len(branch)
        targets[end - 1] = eos
        # Position s predicts token s + 1; the first token of a branch opens a turn and is never learned.
        learned[done : end - 1] = branch.learned[1:] * np.float32(weight)
        learned[end - 1] = weight
        position[done:end] -= done - start
        number[done:end] = place
        done = end
    return TreeArrays(tokens, targets, learned, position, number)
