"""The bill of materials of an asset: every version that it was made from, down to the published revision.

Belongs here: following recorded parents to the exact folders. Does not belong here: what is current.
"""

from __future__ import annotations

from typing import Any

from molmo2_assets.home import Home
from training_backend.data.manifest import Manifest, read_manifest


def bill_of_materials(home: Home, key: str) -> list[dict[str, Any]]:
    """One row for each ancestor and the asset itself: key, data version, recipe, rows or revision, in order of depth.

    Raises ValueError where the asset was never materialised. An ancestor whose version is no longer on disk is listed as such.
    """
    current = home.store(key).current(key)
    if current is None:
        raise ValueError(f"{key} was never materialised in profile {home.profile}: run `make demo`.")
    rows: dict[str, dict[str, Any]] = {}
    todo: list[tuple[str, Manifest | None, str, str]] = [(key, current[1], current[1].data_version, current[1].recipe_fingerprint)]
    while todo:
        name, manifest, version, recipe = todo.pop(0)
        if (row := rows.get(name)) is not None and row["recipe"] == recipe[:12]:
            continue
        rows[name] = {
            "asset": name,
            "data_version": version,
            "recipe": recipe[:12],
            "revision": manifest.facts.get("revision", "") if manifest else "no longer on disk",
            "rows": manifest.counts.get("rows_ok", manifest.counts.get("rows", "")) if manifest else "",
        }
        for parent, entry in sorted((manifest.parents if manifest else {}).items()):
            folder = home.store(parent).find(parent, entry.recipe)
            todo.append((parent, read_manifest(folder) if folder else None, entry.data_version, entry.recipe))
    return list(rows.values())
