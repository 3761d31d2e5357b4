"""Values inside nested published rows, by dotted name.

Belongs here: finding. Does not belong here: types and faults (`adapters/base.py`).
"""

from __future__ import annotations

from typing import Any


def pluck(data: Any, name: str) -> Any:
    """What stands at the dotted `name`: through objects by key, through lists item by item. None where there is nothing.

    `pluck({"a": [{"b": 1}, {"b": 2}]}, "a.b")` is `[1, 2]`. A key that holds dots itself is found whole.
    """
    if isinstance(data, dict) and name in data:
        return data[name]
    first, _, rest = name.partition(".")
    if isinstance(data, list):
        return [pluck(item, name) for item in data]
    if not isinstance(data, dict) or not rest:
        return None
    return pluck(data.get(first), rest)
