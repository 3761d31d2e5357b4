"""One model twice: ours and transformers' Molmo2 of the same weights, taking turns.

Belongs here: what `step_cpu` and `generate_cpu` set up and measure alike. Does not belong here: what a turn is.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

from tests.support.transformers_peer import WHY_ABSENT, load
from training_backend.config import ModelConfig
from training_backend.model.hf import export_hf
from training_backend.model.molmo2 import Molmo2
from training_backend.model.weights import save_model

Answer = TypeVar("Answer")


def twins(config: ModelConfig) -> tuple[Molmo2, Any]:
    """Our model with weights of seed 0, and transformers' of the same."""
    transformers = load()
    if transformers is None:
        raise SystemExit(WHY_ABSENT)
    ours = Molmo2(config)
    ours.init_weights(0)
    with tempfile.TemporaryDirectory() as folder:
        save_model(Path(folder) / "ours", ours)
        export_hf(Path(folder) / "ours", Path(folder) / "theirs")
        return ours, transformers.AutoModelForImageTextToText.from_pretrained(Path(folder) / "theirs")


def take_turns(ways: Mapping[str, Callable[[], Answer]], repeats: int) -> tuple[dict[str, float], dict[str, Answer]]:
    """Best seconds of each way, and what it gave first. The first turn warms up and is not measured."""
    best = dict.fromkeys(ways, float("inf"))
    first: dict[str, Answer] = {}
    for turn in range(1 + repeats):
        for name, way in ways.items():
            started = time.perf_counter()
            given = way()
            spent = time.perf_counter() - started
            first.setdefault(name, given)
            if turn:
                best[name] = min(best[name], spent)
    return best, first
