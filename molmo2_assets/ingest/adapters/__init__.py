"""Adapters by name: one for each published column layout, or family of layouts that differ in names only.

Belongs here: the list, and an entry's adapter with its parameters. Does not belong here: layouts (next door), the protocol
(`base.py`).
"""

from __future__ import annotations

import difflib
from typing import TYPE_CHECKING

from molmo2_assets.ingest.adapters import evaluation, images, local, questions, text, tracks, videos
from molmo2_assets.ingest.adapters.base import Adapter, Context, Piece, Reference

if TYPE_CHECKING:
    from molmo2_assets.profile import DatasetSpec

_MODULES = (questions, images, videos, tracks, evaluation, text, local)
ADAPTERS: dict[str, Adapter] = {adapter.name: adapter for module in _MODULES for adapter in module.ADAPTERS}

__all__ = ["ADAPTERS", "Adapter", "Context", "Piece", "Reference", "adapter_of", "find_adapter"]


def find_adapter(name: str) -> Adapter:
    """An adapter by name. Raises ValueError with the nearest known name."""
    if name in ADAPTERS:
        return ADAPTERS[name]
    near = difflib.get_close_matches(name, ADAPTERS, n=1)
    hint = f"; did you mean {near[0]!r}?" if near else ""
    raise ValueError(f"There is no adapter {name!r}; known: {', '.join(sorted(ADAPTERS))}{hint}")


def adapter_of(spec: DatasetSpec) -> tuple[Adapter, Context]:
    """The adapter of an entry and what it may know. Raises ValueError naming the set where its parameters are not the adapter's."""
    adapter = find_adapter(spec.adapter or "")
    context = Context(spec.style or spec.task, spec.task, spec.adapter_params)
    try:
        context.of(adapter.parameters)
    except ValueError as error:
        raise ValueError(f"{spec.name}.{error}") from None
    return adapter, context
