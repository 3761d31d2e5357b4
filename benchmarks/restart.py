"""What a stopped run needs to find its place again: processor seconds to open its log and plan a pack's window, bytes of its state.

Belongs here: that measurement, for the `pack` benchmark. Does not belong here: fill and cost of planning (`packing.py`).

The loader is the real one over one dataset of the given lengths. The log is as long as that of a run of WINDOWS windows; those
after the first few hold copies of them, since only the length of the log costs anything.
"""

from __future__ import annotations

import json
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tests.support.examples import EVERY_RULE, recipe, tokenizer_at
from training_backend.config import PackConfig
from training_backend.data.order import PERIOD, Mixture, MixtureEntry, MixtureFile, Segment
from training_backend.encode.draws import VARIANTS
from training_backend.encode.preprocessor import Preprocessor
from training_backend.pack.lengths import Lengths
from training_backend.pack.loader import PackLoader
from training_backend.pack.log import PlanLog

WINDOWS = 3000
PLANNED = 2
RESTARTS = 5


def restart(lengths: tuple[NDArray[np.int64], NDArray[np.int64]], pack: PackConfig) -> dict[str, Any]:
    """{"seconds": at worst of RESTARTS, "state bytes", "windows"}."""
    rows = len(lengths[0])
    tokens, visual = (np.repeat(sizes[:, None], VARIANTS, axis=1).astype(np.int32) for sizes in lengths)
    nothing = np.zeros_like(tokens)
    tables = {"modelled": Lengths(tokens, visual, nothing, nothing, nothing.astype(bool))}
    entry = MixtureEntry(dataset="modelled", rows=rows, data_version="modelled", weight=PERIOD)
    file = MixtureFile(seed=0, segments=(Segment(start=0, entries=(entry,)),))
    mixture = Mixture(file, [np.zeros(PERIOD, dtype=np.uint16)])  # one dataset's schedule needs no computing
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        made = Preprocessor(recipe(), EVERY_RULE, tokenizer_at(folder / "tokenizer"), pack.max_tokens, pack.max_visual)
        # Planning reads no rows.
        stores: dict[str, Any] = {"modelled": None}
        first = PackLoader(mixture, stores, tables, made, pack, 0, None, folder)
        known = [[[place.position % pack.window for place in packed] for packed in first.window(n)] for n in range(PLANNED)]
        log = PlanLog(folder, first.identity, pack.window)
        for number in range(PLANNED, WINDOWS):
            log.append(number, known[number % PLANNED])
        worst, state = 0.0, 0
        for wanted in np.random.default_rng(0).integers(0, sum(map(len, known)), RESTARTS).tolist():
            started = time.process_time()
            again = PackLoader(mixture, stores, tables, made, pack, 0, None, folder)
            assert again.places(wanted) == first.places(wanted)
            worst = max(worst, time.process_time() - started)
            state = max(state, len(json.dumps(again.state())))
    return {"seconds": round(worst, 3), "state bytes": state, "windows": WINDOWS}
