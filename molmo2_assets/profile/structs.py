"""Typed models of the catalogue and of a profile: datasets, benchmarks, mixtures, stages.

Belongs here: fields, their units and allowed words. Does not belong here: reading YAML (`source.py`), checks that look at more than
one struct (`checks.py`), what a run computes (`training_backend.config`).
"""

from __future__ import annotations

from typing import Any, Literal

import msgspec

from training_backend.api import Execution
from training_backend.config import GenerateConfig, ModelConfig, StageConfig, TokenizerConfig
from training_backend.data.example import FAMILY_OF_TASK, Family, Task

StageName = Literal["pretrain", "sft", "long_context"]
STAGES: tuple[StageName, ...] = ("pretrain", "sft", "long_context")
Role = Literal["train", "eval"]
Absent = Literal["refuse", "leave_out"]


class _Spec(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Base of the structs here: immutable, keyword-only, a misspelt field is an error."""


class JoinSpec(_Spec, frozen=True, kw_only=True):
    """A table beside the rows: what it says of a row becomes one more column of it.

    `file` is a path in the raw folder. With `{column}` in it every row has a document of its own, taken whole. Else the record is
    looked up by the row's column `on`: in a JSON object by its keys, in other files by their column `key`, in lists and lines of
    text by number from 0. `at` leads to the table inside a JSON document; `column` takes one field of the record.
    """

    file: str
    on: str | None = None
    key: str | None = None
    at: str | None = None
    column: str | None = None


class TableSpec(_Spec, frozen=True, kw_only=True):
    """Where rows stand in published files that are not simply one row a line or record.

    It is for the files that match `files` (none: all). `at` is the dotted path to the rows inside a JSON document; with `keyed`
    they are the values of an object, and their keys become that column. `header` names the columns of a table
    that does not, `separator` parts its fields; `pattern` is a regular expression whose named groups are the columns of a line of
    text. `explode` names lists in a row, each inside the one before: their items become rows of their own, over the fields around
    them. `add` are columns with the same value in every row, `joins` columns from other files.
    """

    files: tuple[str, ...] = ()
    at: str | None = None
    keyed: str | None = None
    header: tuple[str, ...] = ()
    separator: str = ","
    pattern: str | None = None
    explode: tuple[str, ...] = ()
    add: dict[str, str] = {}
    joins: dict[str, JoinSpec] = {}


class SelectSpec(_Spec, frozen=True, kw_only=True):
    """Which rows belong to a view of a set; the others are counted as `not_selected`, which is no fault of theirs.

    By dotted column: `only` these values, `never` those, `between` two numbers (null: no bound; a list counts by its length).
    """

    only: dict[str, tuple[str | int | bool | None, ...]] = {}
    never: dict[str, tuple[str | int | bool | None, ...]] = {}
    between: dict[str, tuple[float | None, float | None]] = {}


class SourceSpec(_Spec, frozen=True, kw_only=True):
    """Where annotation files come from.

    `hub`: `repo` at commit `revision` (None: resolved and recorded when it is first fetched), `config` and `split`, or `files` as
    glob patterns. `url`: `files` are addresses. `manual`: a person puts files into the folder `path` as `instructions` say. Of
    both, `params.sha256` maps addresses or names to published hashes. `unpack` are patterns of archives (with media, masks, rows)
    that are fetched too, and whose members take their place: `a/set.zip` becomes the folder `a/set`. `generated`: `generator` with
    `params`. `package`: `generator` names what an installed package brings. `tables` say where rows stand in those files; each
    table that matches a file reads it.
    """

    kind: Literal["hub", "url", "manual", "generated", "package"]
    repo: str | None = None
    revision: str | None = None
    config: str | None = None
    split: str | None = None
    files: tuple[str, ...] = ()
    unpack: tuple[str, ...] = ()
    generator: str | None = None
    params: dict[str, Any] = {}
    path: str | None = None
    instructions: str | None = None
    tables: tuple[TableSpec, ...] = ()

    @property
    def patterns(self) -> tuple[str, ...]:
        """Glob patterns of the annotation files among what was fetched; none for `url`, whose `files` are addresses."""
        return () if self.kind == "url" else self.files


class ProxySpec(_Spec, frozen=True, kw_only=True):
    """Films are kept a second time with `fps` frames a second, all key frames, at quality `crf` of H.264 (smaller is better); what
    trains reads those. For films with many frames between those that are shown; `fps` at least what recipes show."""

    fps: float = 2.0
    crf: int = 18


class MediaSpec(_Spec, frozen=True, kw_only=True):
    """Where the pictures and videos of a set are.

    `embedded` in the annotation files, in a `folder` beside them, or at `urls`. `layout` is a `str.format` template over the row
    and its `uri`, relative to the raw folder, or to `path` (absolute, or below the folder named by MOLMO2_MANUAL) where a person
    keeps them; `*` stands for any part of a name, and `also` are templates that are tried after it. `sha256_column` is the
    published column with the expected hash of the bytes. `origin` says where the media come from, `instructions` what a person
    must do to have them. `proxy` asks for smaller films to read from.
    """

    kind: Literal["none", "embedded", "folder", "urls"] = "none"
    layout: str | None = None
    also: tuple[str, ...] = ()
    path: str | None = None
    sha256_column: str | None = None
    origin: str | None = None
    instructions: str | None = None
    proxy: ProxySpec | None = None


class DatasetSpec(_Spec, frozen=True, kw_only=True):
    """One dataset: a published set, or one view (task) of it.

    `adapter` turns its rows into examples; None means that nobody has written one yet, and the set is then unavailable with that
    reason. `columns` are the published ones; `layout` says whether they were seen in published code or on the set's card
    (`confirmed`, in `evidence`), or are `assumed` from descriptions. `select` makes a view of the set's rows. `rows` is what the
    publisher declares, `weight_rows` the number of tree examples when that differs (mixtures use it before the set is validated).
    `max_bad_fraction` of rows may be set aside before the set is rejected; `expected_bad` says that some are known to be bad, so
    that setting them aside is no news. `provenance` is `human`, `program` (computed, no model), `open-model:<name>`,
    `proprietary-text` (a closed model that saw words only), `proprietary` or `unknown`. None everywhere means "not known", never
    "none".
    """

    name: str
    title: str
    source: SourceSpec
    task: Task
    group: str
    url: str | None = None
    adapter: str | None = None
    adapter_params: dict[str, Any] = {}
    style: str | None = None
    role: Role = "train"
    columns: tuple[str, ...] = ()
    layout: Literal["confirmed", "assumed"] = "assumed"
    evidence: str | None = None
    select: SelectSpec | None = None
    media: MediaSpec = MediaSpec()
    licence: str = "unknown"
    access: Literal["open", "gated", "manual"] = "open"
    provenance: str = "unknown"
    rows: int | None = None
    weight_rows: int | None = None
    max_bad_fraction: float = 0.01
    expected_bad: bool = False
    notes: str | None = None

    @property
    def family(self) -> Family:
        """caption, qa, pointing, tracking, counting or text."""
        return FAMILY_OF_TASK[self.task]


class MixtureItem(_Spec, frozen=True, kw_only=True):
    """One dataset of a mixture: `factor` multiplies its weight, `size` replaces its row count in the square root
    (0 < size < 1 multiplies it), `weight` is its share where weights are fixed."""

    factor: float = 1.0
    size: float | None = None
    weight: float | None = None


class MixtureGroup(_Spec, frozen=True, kw_only=True):
    """Datasets that share `rate` of the mixture, by `sqrt` of their sizes or by `fixed` weights."""

    rate: float
    entries: dict[str, MixtureItem]
    inside: Literal["sqrt", "fixed"] = "sqrt"


class MixtureSpec(_Spec, frozen=True, kw_only=True):
    """How datasets are mixed.

    `fixed`: every entry has a `weight`, they sum to one. `sqrt`: w_i = f_i √n_i / Σ f_j √n_j over all entries. `grouped`: groups
    with fixed rates, `inside` each of them sqrt or fixed. Rates and fixed weights that do not sum to one are an error unless
    `normalise` says that they are meant relatively. `max_repeats` is how often a row may be seen over the planned examples.
    """

    method: Literal["fixed", "sqrt", "grouped"]
    seed: int
    entries: dict[str, MixtureItem] = {}
    groups: dict[str, MixtureGroup] = {}
    normalise: bool = False
    max_repeats: float | None = None

    @property
    def datasets(self) -> dict[str, MixtureItem]:
        """All entries by dataset name, in the order in which they are written."""
        found = dict(self.entries)
        for group in self.groups.values():
            found.update(group.entries)
        return found


class BenchmarkSpec(_Spec, frozen=True, kw_only=True):
    """A question asked of a checkpoint: generated answers on an evaluation set, scored by `metrics`.

    `headline` is the value shown first (a metric's name, or one of the values that it gives). `limit` rows are asked, by row
    number; None asks all.
    """

    name: str
    title: str
    dataset: str
    metrics: tuple[str, ...]
    headline: str
    generate: GenerateConfig
    mode: Literal["generate"] = "generate"
    limit: int | None = None
    code_version: int = 1


class StageSpec(StageConfig, frozen=True, kw_only=True):
    """A training stage of a profile: what is computed (`config`), and what happens around it.

    `on_data_change`: what a partly trained run does when its data changed. A run whose plan needs more than `max_gpu_hours`
    refuses to start. `benchmarks` are asked of its checkpoint.
    """

    name: StageName
    on_data_change: Literal["restart", "continue", "refuse"]
    benchmarks: tuple[str, ...]
    max_gpu_hours: float | None = None

    @property
    def config(self) -> StageConfig:
        """The part that a run's identity carries."""
        return StageConfig(**{name: getattr(self, name) for name in StageConfig.__struct_fields__})


class WeightsSource(_Spec, frozen=True, kw_only=True):
    """Published weights: a folder of one's own, or a repository on the Hub at an exact commit (`revision`).

    In a profile `repo` and `revision` need not be written where the model's preset says them (`published` in models.yaml).
    """

    folder: str | None = None
    repo: str | None = None
    revision: str | None = None


class BaseWeights(_Spec, frozen=True, kw_only=True):
    """A published decoder and vision tower that the first stage starts from; `seed` draws what neither has."""

    decoder: WeightsSource = WeightsSource()
    vision: WeightsSource = WeightsSource()
    seed: int = 0


class Published(_Spec, frozen=True, kw_only=True):
    """Where the two parts that a preset's training starts from are published."""

    decoder: WeightsSource = WeightsSource()
    vision: WeightsSource = WeightsSource()


class ExportSpec(_Spec, frozen=True, kw_only=True):
    """The last checkpoint in Hugging Face's layout: its weights' type, the longest sequence it claims, words for its card."""

    precision: Literal["keep", "float32", "bfloat16"] = "keep"
    max_positions: int = 36_864
    title: str | None = None
    licence: str | None = None


class ProvenanceRule(_Spec, frozen=True, kw_only=True):
    """Patterns (`*` matches anything) of the provenance that a recipe accepts; `exceptions` are datasets that it takes all the
    same, each with the reason, which is shown beside every mixture."""

    allow: tuple[str, ...] = ("*",)
    exceptions: dict[str, str] = {}


class LicenceRule(_Spec, frozen=True, kw_only=True):
    """The same for licences."""

    allow: tuple[str, ...] = ("*",)
    exceptions: dict[str, str] = {}


class Profile(_Spec, frozen=True, kw_only=True):
    """Everything that one profile asks for, resolved and cross-checked.

    `datasets` are those that its mixtures, benchmarks and tokenizer use, plus what it includes by name. A mixture's name is the key
    of its asset. `stages` come in the order of training. `tokenizer_texts` are the datasets whose words train the tokenizer.
    `execution` is by run kind (tokenizer, plan, train, predict). `absent`: whether a mixture refuses, or leaves out, datasets that
    are unavailable or rejected. `owners` by layer (raw, media, validated, mixture, ...). `hf_export`: whether, and how, the last
    checkpoint is exported; only recipes of the released layout can be. Without `base_weights` training starts from scratch.
    """

    name: str
    description: str
    datasets: dict[str, DatasetSpec]
    model: ModelConfig
    tokenizer: TokenizerConfig
    mixtures: dict[str, MixtureSpec]
    stages: dict[StageName, StageSpec]
    benchmarks: dict[str, BenchmarkSpec]
    absent: Absent
    tokenizer_texts: tuple[str, ...] = ()
    execution: dict[str, Execution] = {}
    provenance: ProvenanceRule = ProvenanceRule()
    licences: LicenceRule = LicenceRule()
    owners: dict[str, str] = {}
    hf_export: ExportSpec | None = None
    base_weights: BaseWeights | None = None

    @property
    def train_datasets(self) -> dict[str, DatasetSpec]:
        """Those that may be trained on."""
        return {name: spec for name, spec in self.datasets.items() if spec.role == "train"}

    @property
    def eval_datasets(self) -> dict[str, DatasetSpec]:
        """Those that only evaluate."""
        return {name: spec for name, spec in self.datasets.items() if spec.role == "eval"}
