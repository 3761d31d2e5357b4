"""The run that writes a page of encoded examples: of a dataset, a mixture or packed sequences, in the versions that lie on disk.

Belongs here: which stage encodes them, which versions belong together. Does not belong here: running it (`cli/data.py`,
`graph/stages.py`), what a page shows (`training_backend.preview`).
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from molmo2_assets.lineage.versions import recorded
from molmo2_assets.profile import STAGES
from molmo2_assets.profile.document import unknown
from training_backend.api import Execution, RunSpec
from training_backend.data.fingerprint import plain
from training_backend.data.manifest import Manifest

if TYPE_CHECKING:
    from molmo2_assets.home import Home
    from molmo2_assets.profile import Profile, StageSpec

PAGE_FILE = "preview.html"
EXAMPLES, PACKS = 12, 4
"""What a page shows if nobody says otherwise."""
_PAGE_VERSION = "1"
"""Bumped by hand when pages look different, or an old one would be shown again."""


def preview_spec(profile: Profile, home: Home, name: str, stage_name: str | None, count: int | None, start: int) -> RunSpec:
    """A page of `name` as a stage of the profile encodes it (default: the first one that reads it).

    Raises ValueError for a name that the profile does not have, one that was never made, or a stage that does not read it.
    """
    sequences = {f"{stage}_sequences": stage for stage in STAGES if stage in profile.stages}
    if name not in {*profile.datasets, *profile.mixtures, *sequences}:
        raise ValueError(unknown("dataset, mixture or sequences", name, [*profile.mixtures, *sequences, *profile.datasets]))
    stage = _stage(profile, name, stage_name or sequences.get(name))
    if name in profile.datasets:
        made = {f"validated/{name}": _current(home, f"validated/{name}"), "tokenizer": _current(home, "tokenizer")}
        if made[f"validated/{name}"][1].state != "ready":
            raise ValueError(f"validated/{name} is {made[f'validated/{name}'][1].state}: it has no rows to show")
        return page_spec(profile, home, stage, "dataset", name, made, count or EXAMPLES, start)
    if name in profile.mixtures:
        mixture = _current(home, name)
        made = {"mixture": mixture, "tokenizer": _current(home, "tokenizer"), **_members(home, mixture)}
        return page_spec(profile, home, stage, "mixture", name, made, count or EXAMPLES, start)
    found = _current(home, name)
    mixture = _exact(home, found[1], stage.mixture)
    made = {"sequences": found, "mixture": mixture, "tokenizer": _exact(home, found[1], "tokenizer"), **_members(home, mixture)}
    return page_spec(profile, home, stage, "sequences", name, made, count or PACKS, start)


def page_spec(
    profile: Profile,
    home: Home,
    stage: StageSpec,
    subject: str,
    name: str,
    made: Mapping[str, tuple[Path, Manifest]],
    count: int,
    start: int = 0,
) -> RunSpec:
    """A preview run over folders and manifests by input name."""
    identity = {
        "subject": subject, "name": name, "count": count, "start": start, "page": _PAGE_VERSION,
        "encode": plain(stage.encode), "loss": plain(stage.loss), "pack": plain(stage.pack), "seed": stage.seed,
        "model": {"decoder": {"extra_tokens": profile.model.decoder.extra_tokens}},
        "versions": {key: manifest.data_version for key, (_, manifest) in made.items()},
    }  # fmt: skip
    inputs = {**{key: str(folder) for key, (folder, _) in made.items()}, "cache": str(home.cache)}
    execution = profile.execution.get("preview", Execution())
    return RunSpec(kind="preview", identity=identity, inputs=inputs, execution=execution)


def _stage(profile: Profile, name: str, wanted: str | None) -> StageSpec:
    if wanted is not None and wanted not in profile.stages:
        raise ValueError(unknown("stage", wanted, list(profile.stages)))
    stages = [profile.stages[stage] for stage in STAGES if stage in profile.stages and wanted in (None, stage)]
    if not stages:
        raise ValueError(f"profile {profile.name} has no training stage, so nothing says how examples are encoded")
    reads = [s for s in stages if name in (s.mixture, f"{s.name}_sequences") or name in profile.mixtures[s.mixture].datasets]
    if not reads and (wanted is not None or name in profile.mixtures) and name not in profile.eval_datasets:
        raise ValueError(f"stage {wanted or 'of any name'} does not read {name}; choose another --stage")
    # An evaluation set is in no mixture; any stage may encode it.
    return (reads or stages)[0]


def _current(home: Home, key: str) -> tuple[Path, Manifest]:
    found = home.store(key).current(key)
    if found is None:
        raise ValueError(f"{key} was never materialised: run `make demo`")
    return found


def _exact(home: Home, child: Manifest, key: str) -> tuple[Path, Manifest]:
    found = recorded(home.store(key), key, child.parents[key])
    if found is None:
        raise ValueError(f"{child.key} was made from a version of {key} that is no longer on disk; materialise {child.key} again.")
    return found


def _members(home: Home, mixture: tuple[Path, Manifest]) -> dict[str, tuple[Path, Manifest]]:
    rows = json.loads((mixture[0] / "weights.json").read_text())["rows"]
    return {key: _exact(home, mixture[1], key) for key in (f"validated/{row['dataset']}" for row in rows)}
