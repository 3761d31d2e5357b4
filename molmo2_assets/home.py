"""Where things lie: MOLMO2_HOME and the folders below it.

Belongs here: paths and nothing else. raw, media and validated are the same bytes in every profile and lie in `shared/`;
everything a recipe changes lies below the profile's name.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from training_backend.data.manifest import AssetStore

SHARED_LAYERS = ("raw", "media", "validated")


@dataclass(frozen=True)
class Home:
    """Folders of one profile. `root` is absolute."""

    root: Path
    profile: str

    @property
    def cache(self) -> Path:
        """Bytes by content, shared by all profiles."""
        return self.root / "cache"

    @property
    def runs(self) -> Path:
        """Run directories of this profile."""
        return self.root / self.profile / "runs"

    @property
    def dagster(self) -> Path:
        """DAGSTER_HOME of this profile: its history, on this host's own disk."""
        return self.root / self.profile / "dagster"

    def store(self, key: str) -> AssetStore:
        """The store that holds assets of this key.

        Versions of the shared layers lie once for all profiles, but which of them is current is each profile's own: two profiles
        may ask one set's generator or contract for different things, at the same time.
        """
        if key.split("/")[0] in SHARED_LAYERS:
            return AssetStore(self.root / "shared" / "assets", pointers=self.root / self.profile / "current")
        return AssetStore(self.root / self.profile / "assets")

    @property
    def stores(self) -> tuple[AssetStore, AssetStore]:
        """Shared assets and this profile's."""
        return self.store("raw"), self.store("sft_mixture")


def find_home(profile: str) -> Home:
    """The home named by MOLMO2_HOME, else `.molmo2` beside this checkout. Raises ValueError for a relative path."""
    given = os.environ.get("MOLMO2_HOME")
    root = Path(given) if given else Path(__file__).resolve().parents[1] / ".molmo2"
    if not root.is_absolute():
        raise ValueError(f"MOLMO2_HOME is {given!r}; it must be an absolute path (`source activate.sh` sets one).")
    return Home(root, profile)
