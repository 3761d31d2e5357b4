"""Scoring one benchmark: predictions and the rows they answer in, `scores.json` and `rows.jsonl` out.

Belongs here: the two files and what they hold. Does not belong here: generating anything (`training_backend.predict`), rules of
scoring, comparing stages (`scoreboard.py`). The same inputs give the same bytes.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from molmo2_assets.evaluation.records import Record, read_records
from molmo2_assets.evaluation.registry import METRICS, headline_value, mean_values

if TYPE_CHECKING:
    from molmo2_assets.profile import BenchmarkSpec

SCORES_FILE = "scores.json"
ROWS_FILE = "rows.jsonl"
SCORES_SCHEMA = "molmo2-scores/1"


class Bin(msgspec.Struct, frozen=True, kw_only=True):
    """Values over the questions of one size."""

    n: int
    values: dict[str, float]


class Scores(msgspec.Struct, frozen=True, kw_only=True):
    """`scores.json`.

    `metrics` and `baseline` by value name; `baseline` is the best predictor that sees no pixels. `n` questions were scored, of
    which `failures` could not be asked (they score 0); `questions` and `unparsable` count by metric; answers that cannot be read
    are scored, not skipped. `unscored` questions have a truth that no metric of the benchmark suits.
    """

    benchmark: str
    headline: str
    metrics: dict[str, float]
    baseline: dict[str, float]
    n: int
    failures: int
    unscored: int
    questions: dict[str, int]
    unparsable: dict[str, int]
    bins: dict[str, dict[str, Bin]]
    code_versions: dict[str, int]
    schema: str = SCORES_SCHEMA


class ScoreReport(msgspec.Struct, frozen=True, kw_only=True):
    """What a step needs to know of a finished scoring."""

    metrics: dict[str, float]
    baseline: dict[str, float]
    headline: str
    n: int
    failures: int
    unparsable: dict[str, int]


def metric_versions(names: tuple[str, ...]) -> dict[str, int]:
    """Code version of each metric, for the recipe of an evaluation. Raises ValueError for a name that is no metric."""
    unknown = [name for name in names if name not in METRICS]
    if unknown:
        raise ValueError(f"there is no metric {', '.join(unknown)}; there are {', '.join(METRICS)}")
    return {name: METRICS[name].code_version for name in names}


def score(benchmark: BenchmarkSpec, predictions: Path, validated: Path, dest: Path) -> ScoreReport:
    """Score `predictions` (folder of a predict run) against the rows in `validated` and write both files into `dest`.

    Raises ValueError where predictions and rows do not belong together, a metric suits no row of the set, or the headline is no
    value of the benchmark's metrics.
    """
    versions = metric_versions(benchmark.metrics)
    records = read_records(predictions, validated)
    rows: list[dict[str, Any]] = [
        {"id": record.example.id, "branch": record.branch.id, "failure": record.failure, "values": {}, "unparsable": []}
        for record in records
    ]
    metrics: dict[str, float] = {}
    baseline: dict[str, float] = {}
    questions: dict[str, int] = {}
    bins: dict[str, dict[str, Bin]] = {}
    for name in benchmark.metrics:
        metric = METRICS[name]
        suited = [number for number, record in enumerate(records) if metric.applies(record)]
        if not suited:
            raise ValueError(f"benchmark {benchmark.name}: metric {name} suits none of the {len(records)} questions of its set")
        for number in suited:
            values, readable = metric.row(records[number])
            rows[number]["values"].update(values)
            if not readable:
                rows[number]["unparsable"].append(name)
        own = sorted(metric.score(records[suited[0]], None))
        metrics |= _means(rows, suited, own)
        baseline |= metric.baseline([records[number] for number in suited])
        questions[name] = len(suited)
        if metric.bin is not None:
            bins[name] = _by_bin(metric.bin, records, rows, suited, own)
    headline = headline_value(benchmark.headline)
    if headline not in metrics:
        raise ValueError(f"benchmark {benchmark.name}: headline {headline!r} is none of its values {', '.join(metrics)}")
    scored = [row for row in rows if row["values"]]
    scores = Scores(
        benchmark=benchmark.name,
        headline=headline,
        metrics=metrics,
        baseline=baseline,
        n=len(scored),
        failures=sum(row["failure"] is not None for row in scored),
        unscored=len(rows) - len(scored),
        questions=questions,
        unparsable={name: sum(name in row["unparsable"] for row in rows) for name in benchmark.metrics},
        bins=bins,
        code_versions=versions,
    )
    dest.mkdir(parents=True, exist_ok=True)
    (dest / SCORES_FILE).write_bytes(msgspec.json.format(msgspec.json.encode(scores, order="sorted"), indent=1) + b"\n")
    (dest / ROWS_FILE).write_bytes(b"".join(msgspec.json.encode(row, order="sorted") + b"\n" for row in rows))
    return ScoreReport(
        metrics=metrics,
        baseline=baseline,
        headline=headline,
        n=scores.n,
        failures=scores.failures,
        unparsable=scores.unparsable,
    )


def _means(rows: list[dict[str, Any]], numbers: list[int], names: list[str]) -> dict[str, float]:
    return mean_values([{name: rows[number]["values"][name] for name in names} for number in numbers])


def _by_bin(bin_of: Any, records: list[Record], rows: list[dict[str, Any]], suited: list[int], names: list[str]) -> dict[str, Bin]:
    groups: dict[str, list[int]] = {}
    for number in suited:
        groups.setdefault(bin_of(records[number]), []).append(number)
    return {label: Bin(n=len(numbers), values=_means(rows, numbers, names)) for label, numbers in sorted(groups.items())}
