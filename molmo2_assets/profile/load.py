"""Profiles: finding one by name, merging it over what it `extends`, resolving it against the catalogue.

Belongs here: the search path and the chain of profiles. Does not belong here: YAML (`document.py`), what sections become
(`resolve.py`), what they mean together (`checks.py`).

A profile file has `description`, `extends`, `model`, `tokenizer`, `tokenizer_texts`, `include`, `datasets`, `benchmarks`,
`mixtures`, `stage_defaults`, `stages`, `execution`, `absent`, `provenance`, `licences`, `owners`, `hf_export`, `base_weights`.
`datasets` and `benchmarks` change entries of the catalogue or define new ones. Mappings merge with those of the extended profile
key by key, lists and values replace, null takes away. `stage_defaults` lie below every stage and are merged over the chain first.
`model` is the name of a preset, or a mapping with `preset` and changes to it.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Sequence
from pathlib import Path

from molmo2_assets.profile.catalogue import BUILT_IN, Catalogue, Entries, load_catalogue, read_entries
from molmo2_assets.profile.document import Mark, Node, Problem, ProfileError, merge, read_yaml, unknown
from molmo2_assets.profile.resolve import SECTIONS, resolve
from molmo2_assets.profile.structs import Profile

DEFAULT_PROFILE = "demo"
PROFILE_VARIABLE = "MOLMO2_PROFILE"
DIRS_VARIABLE = "MOLMO2_PROFILE_DIRS"
_PROFILE_NAME = re.compile(r"[a-z0-9][a-z0-9_-]*")
_ALLOWED = ("extends", *SECTIONS)


def search_path(extra_dirs: Iterable[Path | str] = ()) -> list[Path]:
    """The built-in catalogue, then `extra_dirs`, then the folders in MOLMO2_PROFILE_DIRS; each once."""
    said = [part for part in os.environ.get(DIRS_VARIABLE, "").split(os.pathsep) if part]
    folders = [BUILT_IN, *(Path(part).absolute() for part in (*extra_dirs, *said))]
    return list(dict.fromkeys(folders))


def profile_names(extra_dirs: Iterable[Path | str] = ()) -> list[str]:
    """Names that `load_profile` knows, sorted."""
    return sorted(read_entries(search_path(extra_dirs)).profiles)


def catalogue(extra_dirs: Iterable[Path | str] = ()) -> Catalogue:
    """Every dataset, model and benchmark that is defined, whatever profile uses it. Raises ProfileError."""
    return load_catalogue(search_path(extra_dirs))


def load_profile(name: str | None = None, extra_dirs: Sequence[Path | str] = ()) -> Profile:
    """The profile `name` (default: MOLMO2_PROFILE, else demo), resolved and cross-checked.

    Raises ProfileError with every problem found, each with file and line.
    """
    name = name or os.environ.get(PROFILE_VARIABLE) or DEFAULT_PROFILE
    entries = read_entries(search_path(extra_dirs))
    if name not in entries.profiles:
        path = Path(name)
        if path.suffix in (".yaml", ".yml"):  # a file is meant
            raise ProfileError([f"a profile goes by name, not by file: {DIRS_VARIABLE}={path.parent} makes {path.stem!r} one"])
        raise ProfileError([unknown("profile", name, entries.profiles)])
    root = _merged_chain(name, entries)
    return resolve(name, root, entries)


def _merged_chain(name: str, entries: Entries) -> Node:
    """The profile's document over those that it extends, nearest last."""
    chain: list[Node] = []
    seen: list[str] = []
    mark = Mark(entries.profiles[name], 1)
    current: str | None = name
    while current is not None:
        if current in seen:
            raise ProfileError([Problem(mark, f"profiles extend one another in a circle: {', '.join(seen)}")])
        if current not in entries.profiles:
            raise ProfileError([Problem(mark, unknown("profile", current, entries.profiles))])
        seen.append(current)
        node = read_yaml(entries.profiles[current])
        _check_sections(node, current)
        parent = node.fields.get("extends")
        mark = parent.mark if parent else mark
        chain.append(Node({key: child for key, child in node.fields.items() if key != "extends"}, node.mark))
        current = str(parent.value) if parent and parent.value is not None else None
    merged = Node({}, chain[0].mark)
    for node in reversed(chain):
        merged = _over(merged, node)
    return merged


def _over(below: Node, node: Node) -> Node:
    """One profile over those that it extends. `model: tiny` means that preset and nothing else: changes that an extended profile
    made to its own preset do not survive it."""
    model = node.fields.get("model")
    if model is not None and not isinstance(model.value, dict):
        below = Node({key: child for key, child in below.fields.items() if key != "model"}, below.mark)
        node = Node({**node.fields, "model": Node({"preset": model}, model.mark)}, node.mark)
    return merge(below, node)


def _check_sections(node: Node, name: str) -> None:
    problems = [Problem(child.mark, unknown("section", key, _ALLOWED)) for key, child in node.fields.items() if key not in _ALLOWED]
    if not _PROFILE_NAME.fullmatch(name):
        problems.append(Problem(node.mark, f"{name!r} cannot name a profile: small letters, digits, _ and - only"))
    if problems:
        raise ProfileError(problems)
