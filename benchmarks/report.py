"""What a benchmark hands back, and how it is shown.

Belongs here: the table and the JSON line. Does not belong here: measuring.
"""

from __future__ import annotations

import json
import platform
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Report:
    """Rows of equal keys, in the order in which columns are shown; `facts` hold for all of them. `ratio` is our figure ÷ the named
    peer's, None where there is no peer."""

    name: str
    rows: list[dict[str, Any]]
    facts: dict[str, Any] = field(default_factory=dict)
    ratio: float | None = None

    def table(self) -> str:
        """Columns aligned, numbers to the right."""
        if not self.rows:
            return "(nothing measured)"
        columns = list(self.rows[0])
        cells = [columns, *([_shown(row[column]) for column in columns] for row in self.rows)]
        widths = [max(len(line[number]) for line in cells) for number in range(len(columns))]
        right = [all(isinstance(row[column], int | float) for row in self.rows) for column in columns]
        lines = [
            "  ".join(
                cell.rjust(width) if number else cell.ljust(width) for cell, width, number in zip(line, widths, right, strict=True)
            ).rstrip()
            for line in cells
        ]
        return "\n".join(lines)

    def json_line(self) -> str:
        """One line of JSON with rows, the machine and every fact under its own name, spaces as underscores."""
        machine = {"python": platform.python_version(), "machine": platform.machine(), "system": platform.system()}
        facts = {name.replace(" ", "_"): value for name, value in self.facts.items()}
        body = {"benchmark": self.name, "rows": self.rows, "machine": machine, "ratio": self.ratio}
        assert not facts.keys() & body.keys()
        return json.dumps(facts | body, sort_keys=True)


def _shown(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.4g}" if abs(value) < 1000 else f"{value:,.0f}"
    if isinstance(value, int) and not isinstance(value, bool):
        return f"{value:,}"
    return str(value)
