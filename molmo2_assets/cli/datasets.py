"""Datasets: a list with their state, and everything that is known of one, with what a person must do for it.

Belongs here: what the two commands print. Does not belong here: arguments (`__init__.py`), fetching, other commands about data
(`data.py`).
"""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING, Any

from molmo2_assets.cli.show import UserError, known, load, print_json, print_rows

if TYPE_CHECKING:
    from molmo2_assets.home import Home
    from molmo2_assets.profile import DatasetSpec, Profile
    from training_backend.data.manifest import Manifest

_LISTED = ("dataset", "task", "role", "source", "access", "layout", "state", "rows", "set_aside", "licence", "provenance")
_NOT_YET = "not materialised"


def datasets(options: Any) -> None:
    """All datasets of the profile, or of the catalogue, with their state; or everything about one."""
    from molmo2_assets.profile import catalogue

    profile, home = load(options)
    if options.action == "show":
        if not options.name:
            raise UserError("which dataset? `molmo2 datasets show DATASET`")
        specs = {**catalogue().datasets, **profile.datasets}
        spec = specs.get(options.name) or specs[known(options.name, profile.datasets, "dataset")]
        body = described(spec, profile, home)
        print_json(body) if options.json else _print(body, spec)
        return
    listed = {**catalogue().datasets, **profile.datasets} if options.all else profile.datasets
    print_rows(options, [_row(home, spec) for spec in listed.values()], _LISTED)


def _row(home: Home, spec: DatasetSpec) -> dict[str, Any]:
    manifest = _current(home, "validated", spec)
    counts = manifest.counts if manifest else {}
    return {
        "dataset": spec.name, "task": spec.task, "role": spec.role, "source": spec.source.repo or spec.source.kind,
        "access": spec.access, "layout": spec.layout, "state": state_of(home, spec), "rows": counts.get("rows_ok", spec.rows),
        "set_aside": sum((counts.get("quarantined") or {}).values()) or None, "licence": spec.licence,
        "provenance": spec.provenance,
    }  # fmt: skip


def state_of(home: Home, spec: DatasetSpec) -> str:
    """State of validated/<set>."""
    if spec.adapter is None:
        return "no adapter yet"
    manifest = _current(home, "validated", spec)
    return manifest.state if manifest is not None else _NOT_YET


def _current(home: Home, layer: str, spec: DatasetSpec) -> Manifest | None:
    found = home.store(layer).current(f"{layer}/{spec.name}")
    return found[1] if found else None


# -- one dataset ------------------------------------------------------------------------------------------------------------


def described(spec: DatasetSpec, profile: Profile, home: Home) -> dict[str, Any]:
    """The entry, and beside it: state by layer, where the profile uses it, places on this machine, what is left to do by hand."""
    import msgspec

    layers = {}
    for layer in ("raw", "media", "validated"):
        manifest = _current(home, layer, spec)
        layers[layer] = None if manifest is None else {
            "state": manifest.state, "version": manifest.data_version, "counts": manifest.counts,
            "reason": manifest.facts.get("reason"), "revision": manifest.facts.get("revision"),
        }  # fmt: skip
    return {
        **msgspec.to_builtins(spec),
        "family": spec.family,
        "state": state_of(home, spec),
        "layers": layers,
        "used_in": _uses(spec, profile),
        "media_folder": _folder(spec),
        "to_do": to_do(spec, home),
    }


def _uses(spec: DatasetSpec, profile: Profile) -> list[str]:
    mixtures = [name for name, mixture in profile.mixtures.items() if spec.name in mixture.datasets]
    benchmarks = [f"benchmark {name}" for name, benchmark in profile.benchmarks.items() if benchmark.dataset == spec.name]
    return [*mixtures, *benchmarks]


def _folder(spec: DatasetSpec) -> str | None:
    """Where media of the set are looked for on this machine; the variable stands for its value where it is not set."""
    from molmo2_assets.sources.places import folder_of

    if spec.media.path is None:
        return None
    folder = folder_of(spec.media)
    return str(folder) if folder is not None else f"$MOLMO2_MANUAL/{spec.media.path}"


def to_do(spec: DatasetSpec, home: Home) -> list[str]:
    """What a person must still do so that the set can be had, in order; nothing where all of it comes by itself."""
    from molmo2_assets.sources.manual import ROOT_VARIABLE
    from molmo2_assets.sources.places import folder_of

    raw = _current(home, "raw", spec)
    steps = []
    relative = [path for path in (spec.source.path, spec.media.path) if path and not os.path.isabs(os.path.expanduser(path))]
    if relative and not os.environ.get(ROOT_VARIABLE):
        steps.append(f"Set {ROOT_VARIABLE} to the folder below which sets that are obtained by hand are kept.")
    if raw is None or raw.state != "ready":
        if spec.source.kind == "manual" and spec.source.instructions:
            steps.append(spec.source.instructions)
        elif spec.access == "gated":
            page = spec.url or f"https://huggingface.co/datasets/{spec.source.repo}"
            steps.append(spec.source.instructions or f"Accept the conditions at {page} and sign in with `hf auth login`.")
    folder = folder_of(spec.media)
    media = _current(home, "media", spec)
    complete = media is not None and media.state == "ready" and not media.counts.get("missing")
    if spec.media.instructions and not complete:
        steps.append(spec.media.instructions)
    elif spec.media.path and spec.media.origin and not complete and (folder is None or not folder.is_dir()):
        steps.append(f"Put its media ({spec.media.origin}) into {spec.media.path} below {ROOT_VARIABLE}, as {spec.media.layout}.")
    if spec.layout == "assumed":
        steps.append("Look at its first rows: the layout of this entry is assumed. Other columns are refused by one error.")
    return steps


def _said(fields: dict[str, Any]) -> dict[str, Any]:
    """What an entry says, without what it leaves open."""
    return {name: value for name, value in fields.items() if value not in (None, [], {}, ",")}


def _print(body: dict[str, Any], spec: DatasetSpec) -> None:
    from molmo2_assets.sources.proxies import recipe

    source = spec.source
    rows: list[tuple[str, Any]] = [
        ("title", spec.title), ("page", spec.url), ("task", f"{spec.task} ({spec.family}), {spec.role}, group {spec.group}"),
        ("style", spec.style), ("source", source.kind), ("repository", source.repo),
        ("revision", source.revision or ("not pinned: recorded when it is fetched" if source.repo else None)),
        ("config, split", " ".join(part for part in (source.config, source.split) if part)),
        ("files", ", ".join(source.files)), ("unpacked", ", ".join(source.unpack)),
        ("folder", source.path), ("generator", source.generator),
        ("tables", [_said(table) for table in body["source"]["tables"]] or None),
        ("columns", ", ".join(spec.columns)), ("layout", f"{spec.layout}{f', from {spec.evidence}' if spec.evidence else ''}"),
        ("rows selected", _said(body["select"]) if body["select"] else None), ("adapter", spec.adapter),
        ("its parameters", spec.adapter_params or None),
        ("rows declared", spec.rows), ("weighed as", spec.weight_rows), ("licence", spec.licence), ("access", spec.access),
        ("provenance", spec.provenance), ("media", spec.media.kind), ("media come from", spec.media.origin),
        ("media folder", body["media_folder"]),
        ("films", f"read from proxies, {recipe(spec.media.proxy)}" if spec.media.proxy is not None else None),
        ("media layout", " or ".join(part for part in (spec.media.layout, *spec.media.also) if part)),
        ("may be bad", f"{spec.max_bad_fraction:.0%} of the rows"), ("notes", spec.notes),
        ("used in", ", ".join(body["used_in"]) or "nothing of this profile"), ("state", body["state"]),
    ]  # fmt: skip
    for name, value in rows:
        if value not in (None, ""):
            print(f"{name:>16}  {value if isinstance(value, str) else json.dumps(value)}")
    for layer, found in body["layers"].items():
        if found is not None:
            told = [found["state"], json.dumps(found["counts"]), found["reason"], found["revision"]]
            print(f"{layer:>16}  {', '.join(str(part) for part in told if part)}")
    for number, step in enumerate(body["to_do"], 1):
        print(f"{'to do by hand' if number == 1 else '':>16}  {number}. {step}")
    if not body["to_do"]:
        print(f"{'to do by hand':>16}  nothing")
