"""What a mixture consists of: tables by task and by dataset.

Belongs here: counting rows and expected shares. Does not belong here: tokens and loss mass, which depend on the encoding and stand
in the sequences' report.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from molmo2_assets.mixtures.build import read_weights

if TYPE_CHECKING:
    from training_backend.data.manifest import Manifest

CODE_VERSION = "1"


def mixture_statistics(mixture_dir: Path, validated: Mapping[str, tuple[Path, Manifest]]) -> dict[str, list[dict[str, Any]]]:
    """Tables `by_dataset` and `by_task`, largest expected share first.

    `rows` in the data, `share` of all rows, `expected_share` of the examples that training sees. A dataset with rows of several
    tasks gives each task its part. `examples_per_epoch`: examples of the whole mixture until each row of the dataset was seen.
    """
    import numpy as np

    from training_backend.data.example import TASKS
    from training_backend.data.store import RowStore

    table = read_weights(mixture_dir).rows
    total = sum(row.rows for row in table)
    by_dataset: list[dict[str, Any]] = []
    tasks: dict[str, dict[str, Any]] = {}
    for row in table:
        counts = np.bincount(RowStore(validated[row.dataset][0]).column("task"), minlength=len(TASKS))
        present = {TASKS[number]: int(counts[number]) for number in np.flatnonzero(counts)}
        by_dataset.append(
            {
                "dataset": row.dataset,
                "group": row.group,
                "tasks": present,
                "rows": row.rows,
                "share": row.rows / total,
                "expected_share": row.weight,
                "examples_per_epoch": row.rows / row.weight,
            }
        )
        for task, count in present.items():
            entry = tasks.setdefault(task, {"task": task, "datasets": 0, "rows": 0, "share": 0.0, "expected_share": 0.0})
            entry["datasets"] += 1
            entry["rows"] += count
            entry["share"] += count / total
            entry["expected_share"] += row.weight * count / row.rows
    return {
        "by_dataset": sorted(by_dataset, key=lambda entry: (-entry["expected_share"], entry["dataset"])),
        "by_task": sorted(tasks.values(), key=lambda entry: (-entry["expected_share"], entry["task"])),
    }
