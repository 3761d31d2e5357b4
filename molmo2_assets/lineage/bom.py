"""The bill of materials of an asset: every version that it was made from, down to the published revision.

Belongs here: following recorded parents to the exact folders. Does not belong here: what is current.
"""

from __future__ import annotations

from collections import deque
from typing import Any

from molmo2_assets.home import Home
from molmo2_assets.lineage.versions import recorded
from training_backend.data.manifest import Manifest

GONE = "no longer on disk"


def bill_of_materials(home: Home, key: str) -> list[dict[str, Any]]:
    """One row for each ancestor version and the asset itself: key, data version, recipe, rows or revision, in order of depth.

    An asset that reached this one in two versions (a set that changed between two stages) stands there twice. Raises ValueError
    where the asset was never materialised. An ancestor whose version is no longer on disk is listed as such.
    """
    current = home.store(key).current(key)
    if current is None:
        raise ValueError(f"{key} was never materialised in profile {home.profile}: run `make demo`.")
    rows: dict[tuple[str, str, str], dict[str, Any]] = {}
    todo: deque[tuple[str, Manifest | None, str, str]] = deque()
    todo.append((key, current[1], current[1].data_version, current[1].recipe_fingerprint))
    while todo:
        name, manifest, version, recipe = todo.popleft()
        if (name, version, recipe) in rows:
            continue
        rows[name, version, recipe] = {
            "asset": name,
            "data_version": version,
            "recipe": recipe[:12],
            "revision": manifest.facts.get("revision", "") if manifest else GONE,
            "rows": manifest.counts.get("rows_ok", manifest.counts.get("rows", "")) if manifest else "",
        }
        for parent, entry in sorted((manifest.parents if manifest else {}).items()):
            found = recorded(home.store(parent), parent, entry)
            todo.append((parent, found[1] if found else None, entry.data_version, entry.recipe))
    return list(rows.values())
