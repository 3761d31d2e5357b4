"""The loss picture: loss against step, a thin line a task and a thick one for all.

Belongs here: drawing from events. matplotlib is imported inside, with the Agg back end: no display is needed.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from training_backend.data.example import TASKS
from training_backend.data.manifest import replace_file


def task_color(task: str) -> tuple[float, float, float]:
    """The colour of a task, the same in every picture: ten strong ones, then their light twins."""
    from matplotlib import colormaps

    number = TASKS.index(task)
    found: tuple[float, float, float] = colormaps["tab20"].colors[2 * number % 20 + number // 10]  # type: ignore[attr-defined]
    return found


def draw_losses(records: Sequence[dict[str, Any]], path: Path, title: str) -> None:
    """Write a PNG from step records {step, loss, tasks: {name: loss}}; replaced atomically, so a viewer never sees half."""
    import io

    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7.2, 4.0), dpi=90, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    for task in sorted({name for record in records for name in record["tasks"]}):
        points = [(record["step"], record["tasks"][task]) for record in records if task in record["tasks"]]
        axes.plot(*zip(*points, strict=True), linewidth=1, alpha=0.8, label=task.replace("_", " "), color=task_color(task))
    axes.plot([r["step"] for r in records], [r["loss"] for r in records], color="black", linewidth=2.2, label="all")
    values = [record["loss"] for record in records]
    if values and min(values) > 0 and max(values) / min(values) > 5:
        axes.set_yscale("log")
    axes.set(xlabel="step", ylabel="loss (cross-entropy per weighted token)", title=title)
    axes.grid(alpha=0.25)
    axes.legend(fontsize=7, loc="center left", bbox_to_anchor=(1.0, 0.5), frameon=False)  # beside the lines, never on them
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", metadata={"Software": None})
    replace_file(path, buffer.getvalue())
