"""Walking manifests: which assets are out of date, and the chain that made them so.

Belongs here: reading current manifests and their recorded parents. Dagster's own staleness looks one hop back; this looks all the
way. Does not belong here: Dagster's history, recomputing recipes.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from molmo2_assets.home import Home
from training_backend.data.manifest import Manifest


@dataclass(frozen=True)
class Reason:
    """Why an asset is stale: `root` is the parent whose version moved, `path` the chain from it down to the asset."""

    root: str
    was: str
    now: str
    path: tuple[str, ...]


@dataclass(frozen=True)
class Node:
    """One asset as it is now."""

    key: str
    folder: Path
    manifest: Manifest
    reasons: tuple[Reason, ...] = field(default=())

    @property
    def seconds(self) -> float:
        """What its last build took: what building it again is likely to cost."""
        return float(self.manifest.run.get("seconds", 0.0))


def current_assets(home: Home) -> dict[str, Node]:
    """Every asset of a profile that was materialised, with the reasons for which it is stale (none: it is up to date)."""
    found: dict[str, tuple[Path, Manifest]] = {}
    for store in home.stores:
        names = store.keys()
        for key in names:
            current = store.current(key)
            if current is not None:
                found[key] = current
    reasons: dict[str, tuple[Reason, ...]] = {}

    def of(key: str) -> tuple[Reason, ...]:
        if key not in reasons:
            reasons[key] = ()  # manifests cannot form a cycle; this guards against a damaged store
            out: list[Reason] = []
            for parent, entry in sorted(found[key][1].parents.items()):
                if parent not in found:
                    continue
                now = found[parent][1].data_version
                if now != entry.data_version:
                    out.append(Reason(parent, entry.data_version, now, (parent, key)))
                out += [Reason(r.root, r.was, r.now, (*r.path, key)) for r in of(parent)]
            unique = {reason.root: reason for reason in reversed(out)}
            reasons[key] = tuple(unique[root] for root in sorted(unique))
        return reasons[key]

    return {key: Node(key, folder, manifest, of(key)) for key, (folder, manifest) in sorted(found.items())}
