"""What the catalogue folders hold: datasets, models and benchmarks by name, and where profiles are.

Belongs here: which files a catalogue folder has and how entries of one file share `defaults`. Does not belong here: profiles
themselves (`load.py`), checks (`checks.py`).

A catalogue folder has `datasets/*.yaml` (or `datasets.yaml`), `models.yaml`, `benchmarks.yaml` and `profiles/*.yaml`; all are
optional. A folder of a user may also hold its profiles at the top.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import msgspec

from molmo2_assets.profile import checks
from molmo2_assets.profile.document import Mark, Node, Problem, ProfileError, Site, merge, read_yaml, unknown, without_nulls
from molmo2_assets.profile.structs import BenchmarkSpec, DatasetSpec, Published
from molmo2_assets.profile.typed import typed
from training_backend.config import ModelConfig

BUILT_IN = Path(__file__).resolve().parent.parent / "catalog"
_SHARED_FILES = {"datasets.yaml": "datasets", "models.yaml": "models", "benchmarks.yaml": "benchmarks"}


@dataclass
class Entries:
    """Everything that is defined, not yet typed: only what a profile uses is."""

    datasets: dict[str, Node] = field(default_factory=dict)
    models: dict[str, Node] = field(default_factory=dict)
    benchmarks: dict[str, Node] = field(default_factory=dict)
    profiles: dict[str, Path] = field(default_factory=dict)


class Catalogue(msgspec.Struct, frozen=True, kw_only=True):
    """Every definition of the catalogue, typed and checked one by one."""

    datasets: dict[str, DatasetSpec]
    models: dict[str, ModelConfig]
    published: dict[str, Published]
    benchmarks: dict[str, BenchmarkSpec]
    profiles: tuple[str, ...]


def read_entries(folders: Sequence[Path]) -> Entries:
    """All definitions in `folders`. Raises ProfileError for unreadable files, unknown sections and names defined twice."""
    entries = Entries()
    problems: list[Problem | str] = []
    for folder in folders:
        if not folder.is_dir():
            raise ProfileError([f"{folder} is not a folder; correct the profile folders that were given, or MOLMO2_PROFILE_DIRS"])
        for path in sorted(folder.glob("datasets/*.yaml")):
            _read_section(path, "datasets", entries.datasets, problems)
        for name, section in _SHARED_FILES.items():
            if (folder / name).is_file():
                _read_section(folder / name, section, getattr(entries, section), problems)
        for path in [*sorted(folder.glob("profiles/*.yaml")), *sorted(folder.glob("*.yaml"))]:
            if path.name in _SHARED_FILES:
                continue
            if path.stem in entries.profiles:
                first = Mark(entries.profiles[path.stem], 1)
                problems.append(
                    Problem(Mark(path, 1), f"profile {path.stem} is already defined in {first}; give this one another name")
                )
            entries.profiles.setdefault(path.stem, path)
    if problems:
        raise ProfileError(problems)
    return entries


def _read_section(path: Path, section: str, into: dict[str, Node], problems: list[Problem | str]) -> None:
    try:
        root = read_yaml(path)
    except ProfileError as error:
        problems.extend(error.problems)
        return
    allowed = ("defaults", section)
    for key, child in root.fields.items():
        if key not in allowed:
            problems.append(Problem(child.mark, unknown("section", key, allowed)))
    defaults = root.fields.get("defaults", Node({}, root.mark))
    found = root.fields.get(section, Node({}, root.mark))
    if not isinstance(found.value, dict):
        problems.append(Problem(found.mark, f"{section}: a mapping of names to definitions is expected"))
    for name, child in found.fields.items():
        if name in into:
            problems.append(Problem(child.mark, f"{name} is already defined in {into[name].mark}; names are unique"))
            continue
        written = merge(defaults, child)
        # A null of a model takes away what the one that it extends has (`model_node`).
        into[name] = written if section == "models" else without_nulls(written)


def model_node(name: str, models: dict[str, Node], mark: Mark, problems: list[Problem]) -> Node | None:
    """Preset `name` with what it `extends` below it, and its name; None after adding a problem."""
    chain: list[Node] = []
    seen: list[str] = []
    current: str | None = name
    while current is not None:
        if current not in models:
            problems.append(Problem(mark, unknown("model", current, models)))
            return None
        if current in seen:
            problems.append(Problem(mark, f"models extend one another in a circle: {', '.join(seen)}"))
            return None
        node = models[current]
        seen.append(current)
        chain.append(Node({key: child for key, child in node.fields.items() if key != "extends"}, node.mark))
        parent = node.fields.get("extends")
        mark = parent.mark if parent else mark
        current = str(parent.value) if parent else None
    merged = chain.pop()
    while chain:
        merged = merge(merged, chain.pop())
    return without_nulls(Node({**merged.fields, "name": Node(name, merged.mark)}, merged.mark))


def split_published(node: Node, place: str, problems: list[Problem]) -> tuple[Node, Published]:
    """A model's own fields, which say what it is, and where weights for it are published, which does not."""
    written = node.fields.get("published", Node({}, node.mark))
    published = typed(written, Published, f"{place}.published", problems)
    if published is not None:
        for part in Published.__struct_fields__:
            checks.check_source(getattr(published, part), f"{place}.published.{part}", Site(written, problems, ""), part)
    rest = Node({key: child for key, child in node.fields.items() if key != "published"}, node.mark)
    return rest, published or Published()


def load_catalogue(folders: Sequence[Path]) -> Catalogue:
    """Every definition in `folders`, typed and checked. Raises ProfileError with all problems."""
    entries = read_entries(folders)
    problems: list[Problem] = []
    datasets, models, published, benchmarks = {}, {}, {}, {}
    for name, node in entries.datasets.items():
        dataset = typed(node, DatasetSpec, name, problems, inject={"name": name})
        if dataset is not None:
            checks.check_dataset(dataset, Site(node, problems))
            datasets[name] = dataset
    for name, child in entries.models.items():
        model = model_node(name, entries.models, child.mark, problems)
        if model is None:
            continue
        model, published[name] = split_published(model, name, problems)
        config = typed(model, ModelConfig, name, problems)
        if config is not None:
            checks.check_model(config, Site(model, problems))
            models[name] = config
    for name, node in entries.benchmarks.items():
        benchmark = typed(node, BenchmarkSpec, name, problems, inject={"name": name})
        if benchmark is not None:
            checks.check_benchmark(benchmark, datasets, entries.datasets, Site(node, problems))
            benchmarks[name] = benchmark
    if problems:
        raise ProfileError(problems)
    return Catalogue(
        datasets=datasets, models=models, published=published, benchmarks=benchmarks, profiles=tuple(sorted(entries.profiles))
    )
