"""The scoreboard: every checkpoint's headline on every benchmark beside what can be had without looking.

Belongs here: rows, table and picture. Does not belong here: scoring (`score.py`), where evaluations lie (the graph).
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import msgspec

from molmo2_assets.evaluation.score import SCORES_FILE, Scores

SCOREBOARD_FILE = "scoreboard.json"
PICTURE_FILE = "scoreboard.png"


class ScoreboardRow(msgspec.Struct, frozen=True, kw_only=True):
    """One stage's checkpoint on one benchmark; `score` and `baseline` in [0, 1], `n` questions."""

    stage: str
    benchmark: str
    metric: str
    score: float
    baseline: float
    n: int

    @property
    def sees(self) -> bool:
        """Whether it beats the best blind predictor."""
        return self.score > self.baseline


def scoreboard(evaluations: Sequence[tuple[str, Path]]) -> list[ScoreboardRow]:
    """One row for each (stage, folder of an evaluation), by benchmark, then stage, both in order of first appearance.

    Raises ValueError naming a folder whose `scores.json` is missing or torn.
    """
    rows = []
    for stage, folder in evaluations:
        try:
            scores = msgspec.json.decode((folder / SCORES_FILE).read_bytes(), type=Scores)
        except FileNotFoundError:
            raise ValueError(f"{folder} has no {SCORES_FILE}: materialise the evaluation again.") from None
        except msgspec.MsgspecError as error:
            raise ValueError(f"{folder / SCORES_FILE} cannot be read ({error}): materialise the evaluation again.") from None
        row = ScoreboardRow(
            stage=stage,
            benchmark=scores.benchmark,
            metric=scores.headline,
            score=scores.metrics[scores.headline],
            baseline=scores.baseline[scores.headline],
            n=scores.n,
        )
        rows.append(row)
    benchmarks = list(dict.fromkeys(row.benchmark for row in rows))
    return sorted(rows, key=lambda row: benchmarks.index(row.benchmark))


def table(rows: Sequence[ScoreboardRow]) -> str:
    """The rows as a Markdown table, percentages."""
    lines = ["| benchmark | value | stage | score | blind | n | sees |", "|---|---|---|---:|---:|---:|---|"]
    for row in rows:
        numbers = f"{100 * row.score:.1f} | {100 * row.baseline:.1f} | {row.n} | {'yes' if row.sees else 'no'}"
        lines.append(f"| {row.benchmark} | {row.metric} | {row.stage} | {numbers} |")
    return "\n".join(lines)


def write_scoreboard(rows: Sequence[ScoreboardRow], dest: Path) -> None:
    """Write `scoreboard.json` and `scoreboard.png` into `dest`."""
    dest.mkdir(parents=True, exist_ok=True)
    body = msgspec.json.format(msgspec.json.encode({"rows": rows}, order="sorted"), indent=1) + b"\n"
    (dest / SCOREBOARD_FILE).write_bytes(body)
    picture(rows, dest / PICTURE_FILE)


def picture(rows: Sequence[ScoreboardRow], path: Path) -> None:
    """Bars by benchmark, one a stage, and a black stroke at the height that needs no eyes; written as PNG."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    benchmarks = list(dict.fromkeys(row.benchmark for row in rows))
    stages = list(dict.fromkeys(row.stage for row in rows))
    figure = Figure(figsize=(max(4.0, 1.2 + 1.1 * len(benchmarks)), 3.6), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    width = 0.8 / max(1, len(stages))
    for number, stage in enumerate(stages):
        own = [row for row in rows if row.stage == stage]
        places = [benchmarks.index(row.benchmark) + (number - (len(stages) - 1) / 2) * width for row in own]
        axes.bar(places, [100 * row.score for row in own], width=0.92 * width, label=stage)
        axes.hlines(
            [100 * row.baseline for row in own],
            [place - width / 2 for place in places],
            [place + width / 2 for place in places],
            colors="black",
            linewidth=1.5,
            label="best without pixels" if number == len(stages) - 1 else "_",
        )
    metrics = {row.benchmark: row.metric for row in rows}
    axes.set_xticks(
        range(len(benchmarks)), [f"{name}\n{metrics[name]}" for name in benchmarks], rotation=30, ha="right", fontsize=8
    )
    axes.set_ylim(0, 100)
    axes.set_ylabel("score, %")
    axes.spines[["top", "right"]].set_visible(False)
    if rows:
        axes.legend(fontsize=8, frameon=False)
    # No creation time in the file: the same rows give the same picture.
    figure.savefig(path, dpi=120, metadata={"Software": None})


def read_scoreboard(folder: Path) -> list[ScoreboardRow]:
    """Rows of a written scoreboard. Raises ValueError naming the file."""
    path = folder / SCOREBOARD_FILE
    try:
        return msgspec.convert(msgspec.json.decode(path.read_bytes())["rows"], list[ScoreboardRow])
    except (FileNotFoundError, KeyError, msgspec.MsgspecError) as error:
        raise ValueError(f"{path} cannot be read ({error}): materialise the scoreboard again.") from None
