"""What typed values mean together: every rule that a catalogue entry or a profile must satisfy before anything runs.

Belongs here: rules, each with the sentence that a person reads. Does not belong here: types of single fields (`structs.py`).
"""

from __future__ import annotations

import fnmatch
import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import get_args

from molmo2_assets.profile.document import Node, Problem, Site, unknown
from molmo2_assets.profile.structs import (
    BenchmarkSpec,
    DatasetSpec,
    LicenceRule,
    MixtureItem,
    MixtureSpec,
    ProvenanceRule,
    ProxySpec,
    StageName,
    StageSpec,
    WeightsSource,
)
from training_backend.api import Execution, Kind
from training_backend.config import ModelConfig, TokenizerConfig
from training_backend.data.example import TASKS

SPECIAL_TOKENS = 16
"""Rows that the visual and grounding tokens need after the base table: 14 of the release, `<point` and `<timestamp>`."""
SMALLEST_VOCABULARY = 256 + 3
"""Bytes and chat markers."""
_SUM_TOLERANCE = 1e-9
_COMMIT = re.compile(r"[0-9a-f]{40}")
_NAME = re.compile(r"[a-z][a-z0-9_]*")
_PROVENANCE = re.compile(r"human|program|open-model:\S+|proprietary-text|proprietary|unknown")
_SOURCE_NEEDS: dict[str, tuple[str, ...]] = {
    "hub": ("repo",),
    "url": ("files",),
    "manual": ("path", "instructions"),
    "generated": ("generator",),
    "package": ("generator",),
}


@dataclass(frozen=True)
class Parts:
    """What could be typed of a profile. `root` is its merged document, `stage_nodes` its stages over their defaults."""

    root: Node
    known_datasets: frozenset[str]
    known_benchmarks: frozenset[str]
    known_mixtures: frozenset[str]
    datasets: Mapping[str, DatasetSpec]
    mixtures: Mapping[str, MixtureSpec]
    stages: Mapping[StageName, StageSpec]
    stage_nodes: Mapping[StageName, Node]
    model: ModelConfig | None
    tokenizer: TokenizerConfig | None
    texts: tuple[str, ...]
    include: tuple[str, ...]
    execution: Mapping[str, Execution]
    provenance: ProvenanceRule
    licences: LicenceRule


def check_dataset(spec: DatasetSpec, site: Site) -> None:
    """Rules of one dataset."""
    if not _NAME.fullmatch(spec.name):
        site.add(f"{spec.name!r} cannot name a dataset: small letters, digits and _ only")
    if not _PROVENANCE.fullmatch(spec.provenance):
        known = "human, program, open-model:<name>, proprietary-text, proprietary or unknown"
        site.add(f"{spec.name}.provenance is {spec.provenance!r}; it is {known}", "provenance")
    if not 0 <= spec.max_bad_fraction <= 1:
        site.add(f"{spec.name}.max_bad_fraction is a fraction, from 0 to 1", "max_bad_fraction")
    if spec.media.proxy is not None:
        _check_proxy(spec, spec.media.proxy, site)
    lacks = [field for field in _SOURCE_NEEDS[spec.source.kind] if not getattr(spec.source, field)]
    if lacks:
        site.add(f"{spec.name}.source: a {spec.source.kind} source needs {', '.join(lacks)}", "source")


def _check_proxy(spec: DatasetSpec, proxy: ProxySpec, site: Site) -> None:
    """A proxy that can be made, of films whose rows do not themselves say what the file is."""
    if not 0 < proxy.fps <= 60:
        site.add(f"{spec.name}.media.proxy.fps is {proxy.fps:g}; frames a second, above 0 and up to 60", "media", "proxy", "fps")
    if not 0 <= proxy.crf <= 51:
        site.add(f"{spec.name}.media.proxy.crf is {proxy.crf}; a quality of H.264, from 0 to 51", "media", "proxy", "crf")
    if spec.adapter == "molmo2_examples":
        site.add(
            f"{spec.name}: its rows are examples and name the file that they are about; it cannot have proxies", "media", "proxy"
        )


def check_benchmark(spec: BenchmarkSpec, datasets: Mapping[str, DatasetSpec], known: Iterable[str], site: Site) -> None:
    """Rules of one benchmark; `known` names datasets that are defined, `datasets` those that could be typed."""
    if not _NAME.fullmatch(spec.name):
        site.add(f"{spec.name!r} cannot name a benchmark: small letters, digits and _ only")
    if spec.dataset not in known:
        site.add(f"benchmark {spec.name}: {unknown('dataset', spec.dataset, known)}", "dataset")
    elif spec.dataset in datasets and datasets[spec.dataset].role != "eval":
        site.add(f"benchmark {spec.name}: {spec.dataset} is trained on; a benchmark's dataset has role eval", "dataset")
    if not spec.metrics:
        site.add(f"benchmark {spec.name} has no metric", "metrics")
    elif not any(spec.headline.startswith(metric) for metric in spec.metrics):
        text = f"benchmark {spec.name}: headline {spec.headline!r} is no value of its metrics ({', '.join(spec.metrics)})"
        site.add(text, "headline")


def check_model(model: ModelConfig, site: Site) -> None:
    """Shapes that must divide or fit."""
    vision, connector, decoder = model.vision, model.connector, model.decoder
    for part, field, value, by, divisor in (
        ("vision", "image_size", vision.image_size, "patch_size", vision.patch_size),
        ("vision", "width", vision.width, "heads", vision.heads),
        ("connector", "pool_width", connector.pool_width, "heads", connector.heads),
        ("decoder", "heads", decoder.heads, "kv_heads", decoder.kv_heads),
        ("decoder", "head_dim", decoder.head_dim, "2, which rotary positions need:", 2),
    ):
        if divisor < 1 or value % divisor:
            site.add(f"model {model.name}: {part}.{field} {value} is not divisible by {by} {divisor}", part, field)
    for layer in vision.feature_layers:
        if not -vision.layers <= layer < vision.layers:
            text = f"model {model.name}: there is no vision block {layer} among {vision.layers}"
            site.add(text, "vision", "feature_layers")
    if decoder.extra_tokens < SPECIAL_TOKENS:
        text = f"model {model.name}: {decoder.extra_tokens} extra_tokens leave no room for {SPECIAL_TOKENS} special tokens"
        site.add(text, "decoder", "extra_tokens")


def check_source(source: WeightsSource, place: str, site: Site, *path: str) -> None:
    """A folder or a repository, and a revision that is a commit."""
    if source.folder is not None and (source.repo is not None or source.revision is not None):
        site.add(f"{place} names both a folder and a repository; one of them", *path, "folder")
    if source.revision is not None and not _COMMIT.fullmatch(source.revision):
        text = f"{place}.revision is {source.revision!r}; a commit of 40 hexadecimal digits is expected, branches move"
        site.add(text, *path, "revision")


def check_parts(parts: Parts, problems: list[Problem]) -> None:
    """Everything that looks at more than one part of a profile."""
    for name, mixture in parts.mixtures.items():
        node = parts.root.fields["mixtures"].fields[name]
        _check_mixture(name, mixture, parts, Site(node, problems, f"mixture {name}: "))
    for stage_name, stage in parts.stages.items():
        site = Site(parts.stage_nodes[stage_name], problems, f"stage {stage_name}: ")
        _check_stage(stage, site)
        _check_stage_data(stage, parts, site)
        if parts.model is not None:
            _check_stage_model(stage, parts.model, site)
    for number, name in enumerate(parts.include):
        if name not in parts.known_datasets:
            Site(parts.root, problems).add(f"include: {unknown('dataset', name, parts.known_datasets)}", "include", number)
    _check_exceptions(parts, Site(parts.root, problems))
    _check_tokenizer(parts, Site(parts.root, problems))
    _check_execution(parts, Site(parts.root, problems))


def _check_mixture(name: str, mixture: MixtureSpec, parts: Parts, site: Site) -> None:
    if not _NAME.fullmatch(name):
        site.add("this cannot name a mixture: small letters, digits and _ only")
    wanted, other = ("groups", "entries") if mixture.method == "grouped" else ("entries", "groups")
    if not getattr(mixture, wanted):
        site.add(f"the {mixture.method} method needs {wanted}")
    if getattr(mixture, other):
        site.add(f"the {mixture.method} method has no {other}", other)
    if mixture.max_repeats is not None and mixture.max_repeats <= 0:
        site.add("max_repeats must be greater than 0", "max_repeats")
    _check_items(mixture.entries, mixture.method == "fixed", mixture.normalise, site.below("entries"))
    _check_entries(mixture.entries, parts, site.below("entries"))
    groups = site.below("groups")
    _check_sum({key: group.rate for key, group in mixture.groups.items()}, "rate", mixture.normalise, groups)
    for key, group in mixture.groups.items():
        entries = groups.below(key, "entries")
        _check_items(group.entries, group.inside == "fixed", mixture.normalise, entries)
        _check_entries(group.entries, parts, entries)
    names = Counter(entry for group in mixture.groups.values() for entry in group.entries)
    for entry in (entry for entry, times in names.items() if times > 1):
        groups.add(f"{entry} stands in {names[entry]} groups")


def _check_sum(values: Mapping[str, float], what: str, normalise: bool, site: Site) -> None:
    for key, value in values.items():
        if not value > 0:
            site.add(f"{key} has {what} {value}; it must be greater than 0 (leave it out instead)", key)
    total = sum(values.values())
    if values and not normalise and abs(total - 1) > _SUM_TOLERANCE:
        site.add(f"the {what}s sum to {total:.6g}, not to 1; correct them, or write normalise: true if they are meant relatively")


def _check_items(items: Mapping[str, MixtureItem], fixed: bool, normalise: bool, site: Site) -> None:
    if fixed:
        weights = {key: item.weight for key, item in items.items() if item.weight is not None}
        for key in items.keys() - weights.keys():
            site.add(f"{key} needs a weight, because weights are fixed here", key)
        if len(weights) == len(items):
            _check_sum(weights, "weight", normalise, site)
    for key, item in items.items():
        if not fixed and item.weight is not None:
            site.add(f"{key} has a weight, but weights follow from sizes here; use factor or size", key, "weight")
        if fixed and (item.size is not None or item.factor != 1):
            site.add(f"{key} has a factor or size, but weights are fixed here; change its weight", key)
        if not item.factor > 0:
            site.add(f"{key} has factor {item.factor}; it must be greater than 0 (leave it out instead)", key, "factor")
        if item.size is not None and item.size < 0:
            site.add(f"{key} has size {item.size}; it must not be negative", key, "size")


def _check_entries(items: Mapping[str, MixtureItem], parts: Parts, site: Site) -> None:
    for entry in items:
        spec = parts.datasets.get(entry)
        if entry not in parts.known_datasets:
            site.add(unknown("dataset", entry, parts.known_datasets), entry)
        elif spec is not None and spec.role == "eval":
            site.add(f"{entry} is an evaluation set and must not be trained on", entry)
        elif spec is not None:
            for objection in objections(spec, parts.provenance, parts.licences):
                site.add(objection, entry)


def objections(spec: DatasetSpec, provenance: ProvenanceRule, licences: LicenceRule) -> list[str]:
    """Why a recipe does not accept how a dataset came about, or its licence; nothing for what it accepts or excepts."""
    rules = (("provenance", spec.provenance, provenance), ("licence", spec.licence, licences))
    return [
        f"{spec.name} has {what} {value}, this recipe allows {', '.join(rule.allow)}"
        for what, value, rule in rules
        if spec.name not in rule.exceptions and not any(fnmatch.fnmatchcase(value, pattern) for pattern in rule.allow)
    ]


def _check_exceptions(parts: Parts, site: Site) -> None:
    for section, rule in (("provenance", parts.provenance), ("licences", parts.licences)):
        for name in rule.exceptions:
            if name not in parts.known_datasets:
                site.add(f"{section}.exceptions: {unknown('dataset', name, parts.known_datasets)}", section, "exceptions", name)


def _check_stage(stage: StageSpec, site: Site) -> None:
    for name in ("steps", "global_batch", "context_parallel"):
        if getattr(stage, name) < 1:
            site.add(f"{name} must be at least 1", name)
    for task in stage.loss.rules:
        if task not in TASKS:
            site.add(f"loss.rules: {unknown('task', task, TASKS)}", "loss", "rules", task)
    side = stage.encode.image_size // max(1, stage.encode.patch_size)
    if sum(stage.encode.overlap) >= side:
        text = f"encode.overlap {sum(stage.encode.overlap)} leaves nothing of a crop that is {side} patches wide"
        site.add(text, "encode", "overlap")
    crops = stage.encode.max_crops + int(stage.encode.low_resolution)
    if crops > stage.pack.max_visual:
        text = f"one image may have {crops} crops, a sequence holds {stage.pack.max_visual} (pack.max_visual)"
        site.add(text, "pack", "max_visual")


def _check_stage_data(stage: StageSpec, parts: Parts, site: Site) -> None:
    if stage.mixture not in parts.known_mixtures:
        site.add(unknown("mixture", stage.mixture, parts.known_mixtures), "mixture")
    elif stage.mixture in parts.mixtures:
        entries = [parts.datasets[name] for name in parts.mixtures[stage.mixture].datasets if name in parts.datasets]
        for task in dict.fromkeys(spec.task for spec in entries):
            if task not in stage.loss.rules:
                sets = ", ".join([spec.name for spec in entries if spec.task == task][:3])
                site.add(f"task {task} (of {sets}) has no rule in loss.rules", "loss", "rules")
    for number, name in enumerate(stage.benchmarks):
        if name not in parts.known_benchmarks:
            site.add(unknown("benchmark", name, parts.known_benchmarks), "benchmarks", number)


def _check_stage_model(stage: StageSpec, model: ModelConfig, site: Site) -> None:
    for name, have, need, part in (
        ("image_size", stage.encode.image_size, model.vision.image_size, "vision"),
        ("patch_size", stage.encode.patch_size, model.vision.patch_size, "vision"),
        ("image_window", stage.encode.image_window, model.connector.image_window, "connector"),
        ("video_window", stage.encode.video_window, model.connector.video_window, "connector"),
    ):
        if have != need:
            site.add(f"encode.{name} is {have}, model {model.name} has {part}.{name} {need}", "encode", name)
    if stage.encode.point_syntax == "report" and not model.decoder.predict_extra:
        text = f"answers in the report syntax hold special tokens, which model {model.name} cannot give (decoder.predict_extra)"
        site.add(text, "encode", "point_syntax")
    if stage.context_parallel > 0 and model.decoder.heads % stage.context_parallel:
        text = f"context_parallel {stage.context_parallel} does not divide the {model.decoder.heads} heads of model {model.name}"
        site.add(text, "context_parallel")


def _check_tokenizer(parts: Parts, site: Site) -> None:
    for number, name in enumerate(parts.texts):
        if name not in parts.known_datasets:
            site.add(f"tokenizer_texts: {unknown('dataset', name, parts.known_datasets)}", "tokenizer_texts", number)
        elif name in parts.datasets and parts.datasets[name].role == "eval":
            site.add(f"tokenizer_texts: {name} is an evaluation set and must not be trained on", "tokenizer_texts", number)
    tokenizer = parts.tokenizer
    if tokenizer is None:
        return
    if tokenizer.kind == "pretrained" and not tokenizer.repo:
        site.add("a pretrained tokenizer needs its repo", "tokenizer")
    if tokenizer.kind == "pretrained" and tokenizer.numbers != "digits":
        site.add("a pretrained tokenizer has its own way with numbers: write `numbers: digits`", "tokenizer", "numbers")
    if tokenizer.kind == "train" and not parts.texts:
        site.add("a tokenizer that is trained here needs datasets in tokenizer_texts", "tokenizer")
    if tokenizer.kind == "train" and tokenizer.vocab_size < SMALLEST_VOCABULARY:
        text = f"tokenizer.vocab_size {tokenizer.vocab_size} is too small: bytes and chat markers alone need {SMALLEST_VOCABULARY}"
        site.add(text, "tokenizer", "vocab_size")
    if parts.model is not None and tokenizer.vocab_size != parts.model.decoder.vocab_size:
        rows = parts.model.decoder.vocab_size
        text = f"tokenizer.vocab_size is {tokenizer.vocab_size}, the base table of model {parts.model.name} has {rows} rows"
        site.add(text, "tokenizer", "vocab_size")


def _check_execution(parts: Parts, site: Site) -> None:
    for kind in parts.execution:
        if kind not in get_args(Kind):
            site.add(f"execution: {unknown('kind of run', kind, get_args(Kind))}", "execution", kind)
    train = parts.execution.get("train", Execution())
    for name, stage in parts.stages.items():
        groups, rest = divmod(train.processes, max(1, stage.context_parallel))
        if rest:
            parallel = f"context_parallel {stage.context_parallel} of {name}"
            site.add(
                f"execution.train: {train.processes} processes are no multiple of {parallel}", "execution", "train", "processes"
            )
        elif stage.global_batch % (groups * train.micro_batch):
            share = f"{groups} groups of processes x micro_batch {train.micro_batch}"
            site.add(
                f"execution.train: global_batch {stage.global_batch} of {name} is no multiple of {share}", "execution", "train"
            )
