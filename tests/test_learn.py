"""What the whole is for: after the third stage of `make learn` the scoreboard shows a model that looks.

Belongs here: the claim, on held-out pictures and films. Takes about a quarter of an hour.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.support.shell import activated, clean_environment

LAST = "long_context"


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_it_learns(tmp_path: Path) -> None:
    env = clean_environment(tmp_path, "learn")
    made = activated("molmo2 demo", env, timeout=3500)
    assert made.returncode == 0, made.stdout[-2000:]
    rows = json.loads(activated("molmo2 scoreboard --json", env).stdout)
    found = {(row["stage"], row["benchmark"]): (row["score"], row["baseline"]) for row in rows}
    assert {stage for stage, _ in found} == {"pretrain", "sft", LAST}
    score, blind = found[LAST, "shapes_count"]
    assert score >= 2 * blind
    score, blind = found[LAST, "shapes_points"]
    assert score >= 0.5 > 1.5 * blind
    for benchmark in ("clips_points", "clips_track"):
        score, blind = found[LAST, benchmark]
        assert score >= 1.5 * blind, benchmark
