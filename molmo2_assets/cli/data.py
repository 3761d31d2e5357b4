"""Commands about data: profiles, what was set aside, weights.

Belongs here: what these commands print. Does not belong here: arguments (`__init__.py`), datasets (`datasets.py`), lineage
(`history.py`).
"""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING, Any

from molmo2_assets.cli.show import UserError, known, load, print_rows

if TYPE_CHECKING:
    from molmo2_assets.profile import Profile


def profiles(options: Any) -> None:
    """One line a profile; one that cannot be used says why and leaves the others listed."""
    from molmo2_assets.profile import ProfileError, load_profile, profile_names

    rows: list[dict[str, Any]] = []
    for name in profile_names():
        try:
            profile = load_profile(name)
        except ProfileError as error:
            more = f" (and {len(error.problems) - 1} more)" if len(error.problems) > 1 else ""
            rows.append({"profile": name, "model": None, "datasets": None, "description": f"unusable: {error.problems[0]}{more}"})
            continue
        rows.append(
            {"profile": name, "model": profile.model.name, "datasets": len(profile.datasets), "description": profile.description}
        )
    print_rows(options, rows, ("profile", "model", "datasets", "description"))


def _dataset(profile: Profile, name: str) -> str:
    """`name`, if the profile has it; a dataset of the catalogue that it leaves out is told apart from one that nobody knows."""
    if name not in profile.datasets:
        from molmo2_assets.profile import catalogue

        if name in catalogue().datasets:
            raise UserError(
                f"dataset {name} is in the catalogue but not in profile {profile.name}: choose another `--profile`, "
                f"or write `include: [{name}]` in one of your own"
            )
    return known(name, profile.datasets, "dataset")


def quarantine(options: Any) -> None:
    """Rows of a dataset that were set aside, with file, row and reason."""
    import msgspec

    from molmo2_assets.ingest.quarantine import QUARANTINE_FILE, read_quarantine
    from molmo2_assets.ingest.reasons import REASONS

    profile, home = load(options)
    name = _dataset(profile, options.name)
    if options.reason is not None:
        known(options.reason, REASONS, "reason")
    current = home.store("validated").current(f"validated/{name}")
    if current is None:
        raise UserError(f"validated/{name} was never materialised: run `make demo`")
    folder, manifest = current
    if not (folder / QUARANTINE_FILE).is_file():
        raise UserError(f"validated/{name} is {manifest.state}: {manifest.facts.get('reason', 'it holds no rows')}")
    rows = [msgspec.to_builtins(row) for row in read_quarantine(folder)]
    rows = [row for row in rows if options.reason in (None, row["reason"])]
    print_rows(options, rows, ("file", "row", "stage", "reason", "field", "detail"), "no row was set aside")


def mixture(options: Any) -> None:
    """Weights of a mixture: as made, else as they would be with the sizes that the catalogue declares."""
    from molmo2_assets.mixtures.weights import mixture_weights

    profile, home = load(options)
    name = known(options.name, profile.mixtures, "mixture")
    current = home.store(name).current(name)
    if current is not None:
        rows = json.loads((current[0] / "weights.json").read_text())["rows"]
        print_rows(options, rows, ("dataset", "task", "rows", "size", "factor", "before", "weight", "repeats"))
        return
    spec = profile.mixtures[name]
    declared = {entry: profile.datasets[entry].weight_rows or profile.datasets[entry].rows or 0 for entry in spec.datasets}
    unsized = frozenset(entry for entry, rows in declared.items() if not rows)
    rows = [
        {"dataset": row.dataset, "group": row.group, "rows": row.rows, "factor": row.factor, "weight": row.weight}
        for row in mixture_weights(spec, declared, without=unsized)
    ]
    # Sets of unknown size are listed, without weight, so that nobody takes the preview for the whole mixture.
    rows += [{"dataset": entry, "group": None, "rows": None, "factor": None, "weight": None} for entry in sorted(unsized)]
    if not options.json:
        print(f"{name} was never materialised: this is a preview with the sizes that the catalogue declares.", file=sys.stderr)
    print_rows(options, rows, ("dataset", "group", "rows", "factor", "weight"))
