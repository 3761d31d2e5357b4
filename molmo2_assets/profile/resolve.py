"""A merged profile document becomes a `Profile`: typed, with the definitions that it uses, cross-checked.

Belongs here: which section has which type, and which definitions of the catalogue a profile uses. Does not belong here: finding and
merging files (`load.py`), what values mean together (`checks.py`).

Problems are collected, not raised at the first: what cannot be typed is left out of the later checks.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple, TypeVar

import msgspec

from molmo2_assets.profile import checks
from molmo2_assets.profile.catalogue import Entries, model_node, split_published
from molmo2_assets.profile.document import Node, Problem, ProfileError, Site, merge, nearest, unknown, without_nulls
from molmo2_assets.profile.structs import (
    STAGES,
    Absent,
    BaseWeights,
    BenchmarkSpec,
    DatasetSpec,
    ExportSpec,
    LicenceRule,
    MixtureSpec,
    Profile,
    ProvenanceRule,
    Published,
    StageName,
    StageSpec,
)
from molmo2_assets.profile.typed import typed
from training_backend.api import Execution
from training_backend.config import ModelConfig, TokenizerConfig

Spec = TypeVar("Spec", bound=msgspec.Struct)

_VALUES: dict[str, Any] = {
    "description": str,
    "absent": Absent,
    "tokenizer_texts": tuple[str, ...],
    "include": tuple[str, ...],
    "owners": dict[str, str],
    "provenance": ProvenanceRule,
    "licences": LicenceRule,
    "tokenizer": TokenizerConfig,
    "hf_export": ExportSpec,
    "base_weights": BaseWeights,
}
_REQUIRED = ("description", "absent", "tokenizer", "model", "mixtures", "stages")
SECTIONS = (*_VALUES, "model", "mixtures", "execution", "stage_defaults", "stages", "datasets", "benchmarks")


def resolve(name: str, written: Node, entries: Entries) -> Profile:
    """The profile that the merged document `written` describes. Raises ProfileError with every problem."""
    problems: list[Problem] = []
    root = without_nulls(written)
    lacks = [section for section in _REQUIRED if section not in root.fields]
    if lacks:
        problems.append(Problem(root.mark, f"profile {name} lacks {', '.join(lacks)}"))
    values: dict[str, Any] = {
        section: typed(root.fields[section], kind, section, problems) for section, kind in _VALUES.items() if section in root.fields
    }
    values["model"], published = _model(written, entries, problems)
    if values.get("base_weights") is not None:
        values["base_weights"] = _base_weights(values["base_weights"], published, root, problems)
    mixtures = _section(root, "mixtures", MixtureSpec, problems)
    execution = _section(root, "execution", Execution, problems)
    stage_nodes = _stage_nodes(written, problems)
    typed_stages = {
        key: typed(node, StageSpec, f"stages.{key}", problems, inject={"name": key}) for key, node in stage_nodes.items()
    }
    stages = {key: stage for key, stage in typed_stages.items() if stage is not None}
    include = values.pop("include", None) or ()
    texts = values.get("tokenizer_texts") or ()

    nodes = _Nodes(_changed(written, "datasets", entries.datasets), _changed(written, "benchmarks", entries.benchmarks))
    asked = [name for stage in stages.values() for name in stage.benchmarks]
    benchmarks = _pick([*asked, *_written(root, "benchmarks")], nodes.benchmarks, BenchmarkSpec, "benchmarks", problems)
    used = [
        *(entry for mixture in mixtures.values() for entry in mixture.datasets),
        *(benchmark.dataset for benchmark in benchmarks.values()),
        *texts,
        *include,
        *_written(root, "datasets"),
    ]
    datasets = _pick(used, nodes.datasets, DatasetSpec, "datasets", problems)
    _check_definitions(root, entries, nodes, datasets, benchmarks, problems)
    checks.check_parts(
        checks.Parts(
            root=root,
            known_datasets=frozenset(nodes.datasets),
            known_benchmarks=frozenset(nodes.benchmarks),
            known_mixtures=frozenset(_written(root, "mixtures")),
            datasets=datasets,
            mixtures=mixtures,
            stages=stages,
            stage_nodes=stage_nodes,
            model=values["model"],
            tokenizer=values.get("tokenizer"),
            texts=texts,
            include=include,
            execution=execution,
            provenance=values.get("provenance") or ProvenanceRule(),
            licences=values.get("licences") or LicenceRule(),
        ),
        problems,
    )
    if problems:
        raise ProfileError(dict.fromkeys(str(problem) for problem in problems))
    return Profile(
        name=name,
        datasets=datasets,
        mixtures=mixtures,
        stages=stages,
        benchmarks=benchmarks,
        execution=execution,
        **values,
    )


class _Nodes(NamedTuple):
    """What is written of every dataset and benchmark, the profile's own changes on top."""

    datasets: dict[str, Node]
    benchmarks: dict[str, Node]


def _check_definitions(
    root: Node,
    entries: Entries,
    nodes: _Nodes,
    datasets: dict[str, DatasetSpec],
    benchmarks: dict[str, BenchmarkSpec],
    problems: list[Problem],
) -> None:
    for name, dataset in datasets.items():
        checks.check_dataset(dataset, Site(nodes.datasets[name], problems))
    for name, benchmark in benchmarks.items():
        checks.check_benchmark(benchmark, datasets, nodes.datasets, Site(nodes.benchmarks[name], problems))
    for name in _written(root, "datasets"):
        near = nearest(name, entries.datasets)
        if name not in datasets and name not in entries.datasets and near:
            text = f"datasets.{name} is not in the catalogue, so it is read as a new dataset.{near}"
            problems.append(Problem(nodes.datasets[name].mark, text))


def _base_weights(base: BaseWeights, published: Published, root: Node, problems: list[Problem]) -> BaseWeights | None:
    """With what the model's preset says of the repositories filled in; None after adding a problem."""
    site, before = Site(root, problems), len(problems)
    found = {}
    for part in ("decoder", "vision"):
        source, known, place = getattr(base, part), getattr(published, part), f"base_weights.{part}"
        checks.check_source(source, place, site, "base_weights", part)
        if source.folder is None and source.repo is None:
            if known.repo is None:
                site.add(f"{place} names neither a folder nor a repo, and the model says of no published {part}", "base_weights")
            source = msgspec.structs.replace(source, repo=known.repo, revision=source.revision or known.revision)
        found[part] = source
    return msgspec.structs.replace(base, **found) if len(problems) == before else None


def _model(root: Node, entries: Entries, problems: list[Problem]) -> tuple[ModelConfig | None, Published]:
    written = root.fields.get("model")
    if written is None:
        return None, Published()
    preset = written.fields.get("preset")
    changes = Node({key: child for key, child in written.fields.items() if key != "preset"}, written.mark)
    if preset is not None:
        below = model_node(str(preset.value), entries.models, preset.mark, problems)
        if below is None:
            return None, Published()
        changes = merge(below, changes)
    changes, published = split_published(without_nulls(changes), "model", problems)
    model = typed(changes, ModelConfig, "model", problems)
    if model is not None:
        checks.check_model(model, Site(changes, problems))
    return model, published


def _section(root: Node, section: str, kind: type[Spec], problems: list[Problem]) -> dict[str, Spec]:
    written = root.fields.get(section, Node({}, root.mark))
    if not isinstance(written.value, dict):
        problems.append(Problem(written.mark, f"{section}: a mapping of names to definitions is expected"))
    found = {name: typed(node, kind, f"{section}.{name}", problems) for name, node in written.fields.items()}
    return {name: spec for name, spec in found.items() if spec is not None}


def _stage_nodes(root: Node, problems: list[Problem]) -> dict[StageName, Node]:
    """What is written of each stage, in the order of training, `stage_defaults` below it."""
    written = root.fields.get("stages", Node({}, root.mark)).fields
    defaults = root.fields.get("stage_defaults", Node({}, root.mark))
    for name, node in written.items():
        if name not in STAGES:
            problems.append(Problem(node.mark, f"stages: {unknown('stage', name, STAGES)}"))
    return {
        name: without_nulls(merge(defaults, written[name]))
        for name in STAGES
        if name in written and written[name].value is not None
    }


def _changed(root: Node, section: str, known: dict[str, Node]) -> dict[str, Node]:
    """Definitions of the catalogue with the profile's own on top."""
    found = dict(known)
    for name, node in root.fields.get(section, Node({}, root.mark)).fields.items():
        found[name] = merge(found[name], node) if name in found else node
    return {name: without_nulls(node) for name, node in found.items() if node.value is not None}


def _written(root: Node, section: str) -> Iterable[str]:
    return root.fields.get(section, Node({}, root.mark)).fields


def _pick(names: Iterable[str], nodes: dict[str, Node], kind: type[Spec], place: str, problems: list[Problem]) -> dict[str, Spec]:
    """Those of `names` that are defined, typed, each once; who names an unknown one is told where it is named."""
    found: dict[str, Spec] = {}
    for name in dict.fromkeys(names):
        if name in nodes:
            spec = typed(nodes[name], kind, f"{place}.{name}", problems, inject={"name": name})
            if spec is not None:
                found[name] = spec
    return found
