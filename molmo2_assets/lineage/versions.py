"""The versions of an asset that lie on disk, and the one that a child recorded.

Belongs here: listing and matching. Does not belong here: which of them is current (`AssetStore.current`).
"""

from __future__ import annotations

from pathlib import Path

from training_backend.data.fingerprint import short
from training_backend.data.manifest import MANIFEST_FILE, AssetStore, Manifest, ParentEntry, manifest_sha256, read_manifest


def versions(store: AssetStore, key: str, recipe: str = "") -> list[tuple[Path, Manifest]]:
    """Every complete version of `key` (of one recipe, if given) in the order in which they were finished.

    Raises ManifestError for a damaged one.
    """
    folders = (path.parent for path in store.folder(key).glob(f"{short(recipe)}*/{MANIFEST_FILE}"))
    found = [(folder, read_manifest(folder)) for folder in folders if not folder.name.startswith(".")]
    found = [(f, m) for f, m in found if recipe in ("", m.recipe_fingerprint)]
    return sorted(found, key=lambda item: (item[1].run.get("finished", 0.0), item[0].name))


def recorded(store: AssetStore, key: str, entry: ParentEntry) -> tuple[Path, Manifest] | None:
    """The version that a child read, None where it is no longer on disk.

    A recipe alone does not name it: a forced rebuild lies beside the first one under the same recipe, perhaps with other bytes.
    """
    alike = [(f, m) for f, m in versions(store, key, entry.recipe) if m.data_version == entry.data_version]
    exact = [(f, m) for f, m in alike if manifest_sha256(m) == entry.manifest_sha256]
    best = exact or alike
    return best[-1] if best else None
