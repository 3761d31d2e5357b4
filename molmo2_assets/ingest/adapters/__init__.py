"""Adapters by name: one for each published column layout.

Belongs here: the list. Does not belong here: layouts (next door), the protocol (`base.py`).
"""

from __future__ import annotations

import difflib

from molmo2_assets.ingest.adapters import canonical, images, local, text, videos
from molmo2_assets.ingest.adapters.base import Adapter, Context, Piece, Reference

ADAPTERS: dict[str, Adapter] = {
    adapter.name: adapter for module in (images, videos, text, local, canonical) for adapter in module.ADAPTERS
}

__all__ = ["ADAPTERS", "Adapter", "Context", "Piece", "Reference", "find_adapter"]


def find_adapter(name: str) -> Adapter:
    """An adapter by name. Raises ValueError with the nearest known name."""
    if name in ADAPTERS:
        return ADAPTERS[name]
    near = difflib.get_close_matches(name, ADAPTERS, n=1)
    hint = f"; did you mean {near[0]!r}?" if near else ""
    raise ValueError(f"There is no adapter {name!r}; known: {', '.join(sorted(ADAPTERS))}{hint}")
