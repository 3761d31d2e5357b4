"""Run-length masks of published sets: decoding whichever coding a set uses, and coding dense ones for storage.

Belongs here: what ingest and evaluation need. The coding itself is COCO's and stands in `sources/generated/rle.py`.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from molmo2_assets.sources.generated.rle import decode, encode


def decode_rle(rle: dict[str, Any]) -> NDArray[np.bool_]:
    """bool [H, W] of {"size", "counts"}; counts as list or compressed string. Raises ValueError."""
    return decode(rle)


def encode_rle(mask: Any) -> dict[str, Any]:
    """Runs of a dense mask, given as nested lists or an array [H, W]."""
    return encode(np.asarray(mask, dtype=bool))
