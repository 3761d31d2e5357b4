"""Where bytes come from: generated sets, the Hub, folders put in place by hand, photographs in installed packages."""

from molmo2_assets.sources.fetch import fetch, source_identity
from molmo2_assets.sources.outcome import FetchResult, SourceError, SourceUnavailable

__all__ = ["FetchResult", "SourceError", "SourceUnavailable", "fetch", "source_identity"]
