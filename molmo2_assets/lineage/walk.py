"""Walking manifests: which assets are out of date, and the chain that made them so.

Belongs here: reading current manifests and their recorded parents. Dagster's own staleness looks one hop back; this looks all the
way. Does not belong here: Dagster's history, recomputing recipes.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from molmo2_assets.home import Home
from molmo2_assets.lineage.versions import recorded
from training_backend.data.manifest import Manifest, ParentEntry


@dataclass(frozen=True)
class Reason:
    """Why an asset is stale: `root` is the first asset up the chain that moved of itself (its own bytes, recipe or code), `was` and
    `now` its versions, `path` the chain from it down to the asset."""

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
        for key in store.keys():  # noqa: SIM118 - a store is no mapping
            current = store.current(key)
            if current is not None:
                found[key] = current
    walk = _Walk(home, {key: manifest for key, (_, manifest) in found.items()})
    return {key: Node(key, folder, manifest, walk.reasons(key)) for key, (folder, manifest) in sorted(found.items())}


class _Walk:
    """One pass over the current manifests; every asset is judged once."""

    def __init__(self, home: Home, current: dict[str, Manifest]) -> None:
        self.home, self.current = home, current
        self._reasons: dict[str, tuple[Reason, ...]] = {}

    def reasons(self, key: str) -> tuple[Reason, ...]:
        if key not in self._reasons:
            self._reasons[key] = ()  # manifests cannot form a cycle; this guards against a damaged store
            out: list[Reason] = []
            for parent, entry in self.current[key].parents.items():
                if parent not in self.current:
                    continue
                above = self.reasons(parent)
                if self.current[parent].data_version != entry.data_version:
                    above = (*above, *self._moved(parent, entry, self.current[parent]))
                out += [Reason(r.root, r.was, r.now, (*r.path, key)) for r in above]
            self._reasons[key] = _shortest(out)
        return self._reasons[key]

    def _moved(self, key: str, then: ParentEntry, now: Manifest) -> tuple[Reason, ...]:
        """Why `key` went from `then` to `now`: the parents that differ between the two, all the way up, and `key` itself where its
        own configuration or code changed, or nothing else tells."""
        before = recorded(self.home.store(key), key, then)
        out: list[Reason] = []
        for parent, entry in now.parents.items() if before else ():
            old = before[1].parents.get(parent) if before else None
            if old is None or old.data_version == entry.data_version:
                continue
            made = recorded(self.home.store(parent), parent, entry)
            above = (
                self._moved(parent, old, made[1]) if made else (Reason(parent, old.data_version, entry.data_version, (parent,)),)
            )
            out += [Reason(r.root, r.was, r.now, (*r.path, key)) for r in above]
        if not out or (before and _own(before[1]) != _own(now)):
            out.append(Reason(key, then.data_version, now.data_version, (key,)))
        return _shortest(out)


def _own(manifest: Manifest) -> dict[str, Any]:
    """What a recipe says beside the versions of its parents."""
    return {name: value for name, value in manifest.recipe.items() if name != "parents"}


def _shortest(reasons: list[Reason]) -> tuple[Reason, ...]:
    """One reason for each root, by the shortest way; the same for every order of parents."""
    best: dict[str, Reason] = {}
    for reason in sorted(reasons, key=lambda r: (r.root, len(r.path), r.path)):
        best.setdefault(reason.root, reason)
    return tuple(best.values())
