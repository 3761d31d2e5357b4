"""The best that can be had without looking: for every metric, the strongest cheap predictor that sees no pixels.

Belongs here: fitting such predictors on the evaluation set's own truths, so that the score they reach is the one a model must beat.
Does not belong here: the metrics themselves.

Two families. *Choices* (counts, answers, options): the best constant over the set, and the answer that is most often right for
questions that begin with the same words, fitted on all the *other* examples, since words alone carry priors. *Places* (points,
tracks): a greedily grown set of points on a grid, the same for every example. For each value of a metric the best of them counts.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from molmo2_assets.evaluation.pointing import maximum_matching
from molmo2_assets.evaluation.records import Record, Values

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

Score = Callable[[Record, Any], Values]
Candidate = Callable[[Record], Any]

GRID = 16
"""Cells a side of the grid of blind points; points stand at the centres of cells."""
PATIENCE = 4
"""Points that a blind set may grow without gain before it stops."""
MAX_CANDIDATES = 256
"""Most frequent answers that are tried as constants."""
PREFIX_WORDS = (1, 2, 3, 4, 6, 8, 1_000)
"""First words of a question that may predict its answer; the last stands for the whole question."""


def grid() -> list[tuple[float, float]]:
    """Centres of the cells, as (x, y)."""
    return [((column + 0.5) / GRID, (row + 0.5) / GRID) for row in range(GRID) for column in range(GRID)]


def best_choice(score: Score, records: Sequence[Record], candidates: Sequence[Candidate]) -> Values:
    """For each value of `score`: the best of all constants in `candidates` and of the predictors by question words."""
    import numpy as np

    tables: dict[str, NDArray[np.float64]] = {}
    for row, record in enumerate(records):
        for column, candidate in enumerate(candidates):
            for name, value in score(record, candidate(record)).items():
                if name not in tables:
                    tables[name] = np.zeros((len(records), len(candidates)))
                tables[name][row, column] = value
    best = {}
    for name, table in tables.items():
        scores = [float(table.mean(axis=0).max())]
        for words in PREFIX_WORDS:
            groups = defaultdict(list)
            for row, record in enumerate(records):
                groups[tuple(record.question.lower().split()[:words])].append(row)
            scores.append(_leave_one_out(table, list(groups.values())))
        best[name] = max(scores)
    return best


def _leave_one_out(table: NDArray[np.float64], groups: list[list[int]]) -> float:
    """Mean score where each row takes the column that is best for the other rows of its group (of all rows, if it is alone)."""
    everything = table.sum(axis=0)
    total = 0.0
    for group in groups:
        sums = everything if len(group) == 1 else table[group].sum(axis=0)
        for row in group:
            total += float(table[row, (sums - table[row]).argmax()])
    return total / len(table)


def common(values: Sequence[Any]) -> list[Any]:
    """The most frequent of `values`, at most MAX_CANDIDATES; equals in order of their text, so that the choice is reproducible."""
    counts = Counter(values)
    return sorted(counts, key=lambda value: (-counts[value], str(value)))[:MAX_CANDIDATES]


class Target:
    """What a blind set of places is fitted on: `inside` [objects, candidates] says which places hit which objects of one frame or
    example, `weight` is its share of the dataset's mean."""

    __slots__ = ("hits", "inside", "owner", "weight")

    def __init__(self, inside: NDArray[np.bool_], weight: float) -> None:
        self.inside = inside
        self.weight = weight
        self.owner = [-1] * len(inside)
        self.hits = 0

    def gain(self, chosen: list[int]) -> NDArray[np.bool_]:
        """Which candidates would raise the number of matched objects: those inside an object that is free or can be freed."""
        import numpy as np

        reachable = np.array([owner < 0 for owner in self.owner], dtype=bool)
        grown = True
        while grown:
            grown = False
            for target, owner in enumerate(self.owner):
                if owner >= 0 and not reachable[target] and self.inside[reachable, chosen[owner]].any():
                    reachable[target] = grown = True
        found: NDArray[np.bool_] = self.inside[reachable].any(axis=0)
        return found

    def match(self, chosen: list[int]) -> None:
        """Match anew after a place was chosen."""
        self.owner = maximum_matching(self.inside[:, chosen].T)
        self.hits = sum(owner >= 0 for owner in self.owner)


def blind_sets(targets: Sequence[Target], n_candidates: int) -> list[list[int]]:
    """Sets of places of 0, 1, 2, … members, each the former plus the candidate that raises the mean F1 (membership rule) most;
    until PATIENCE more have not raised it. The first step tries every candidate, so no single place is better.
    """
    import numpy as np

    chosen: list[int] = []
    sets: list[list[int]] = [[]]
    best, best_size = 0.0, 0
    while n_candidates and len(chosen) < best_size + PATIENCE:
        gain = np.zeros(n_candidates)
        gains = [target.gain(chosen) for target in targets]
        for target, its in zip(targets, gains, strict=True):
            gain += its * (target.weight / (len(chosen) + 1 + len(target.inside)))
        place = int(gain.argmax())
        chosen = [*chosen, place]
        for target, its in zip(targets, gains, strict=True):
            if its[place]:
                target.match(chosen)
        reached = sum(target.weight * 2 * target.hits / (len(chosen) + len(target.inside)) for target in targets)
        if reached > best:
            best, best_size = reached, len(chosen)
        sets.append(chosen)
    return sets


def best_places(score: Score, records: Sequence[Record], strategies: Sequence[Callable[[Record], Any]]) -> Values:
    """For each value of `score` the mean of the best strategy; records outermost, so that masks are decoded once each."""
    import numpy as np

    sums: dict[str, NDArray[np.float64]] = {}
    for record in records:
        for number, strategy in enumerate(strategies):
            for name, value in score(record, strategy(record)).items():
                sums.setdefault(name, np.zeros(len(strategies)))[number] += value
        record.release()
    return {name: float(total.max()) / len(records) for name, total in sums.items()}
