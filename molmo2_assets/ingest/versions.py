"""Code versions of ingest by adapter, without importing anything heavy: the graph's definitions read them.

Belongs here: combining version numbers. The numbers themselves stand beside the code that they are about.
"""

from __future__ import annotations

from molmo2_assets.ingest.adapters import ADAPTERS
from molmo2_assets.ingest.reasons import REASONS_VERSION

MEDIA_VERSION = 2
"""Bumped by hand when collecting or probing unchanged media gives other facts."""
VALIDATE_VERSION = 3
"""Bumped by hand when validating unchanged rows by an unchanged adapter gives other examples."""


def _adapter(name: str | None) -> str:
    return f"{name}.{ADAPTERS[name].code_version}" if name in ADAPTERS else "none"


def media_version(adapter: str | None) -> str:
    """Code version of media/<set>."""
    return f"{MEDIA_VERSION}-{_adapter(adapter)}"


def validated_version(adapter: str | None) -> str:
    """Code version of validated/<set>."""
    return f"{VALIDATE_VERSION}.{REASONS_VERSION}-{_adapter(adapter)}"
