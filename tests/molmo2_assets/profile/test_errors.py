"""Every mistake that a profile or catalogue can contain is told with its file and line, all of a file at once."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from molmo2_assets.profile import BUILT_IN, ProfileError, catalogue, load_profile
from molmo2_assets.profile.document import Mark

# Line 1 of each file is `extends: demo`; the number is the line where the problem is reported, None where that is in the demo's own
# file, whose value the change made wrong.
MISTAKES = {
    "misspelt section": ("mixture: {}", 2, "unknown section 'mixture'.*Did you mean mixtures"),
    "misspelt field": ("stages:\n  sft: {stps: 3}", 3, "stages.sft.stps: unknown field 'stps'.*Did you mean steps"),
    "wrong type": ("stages:\n  sft:\n    steps: many", 4, "stages.sft.steps: expected int, got str"),
    "unknown word": ("absent: ignore", 2, "absent is 'ignore'; known: refuse, leave_out"),
    "unknown stage": ("stages:\n  sftt: {steps: 3}", 3, "unknown stage 'sftt'.*Did you mean sft"),
    "unknown model": ("model: tinny", 2, "unknown model 'tinny'.*Did you mean tiny"),
    "unknown mixture": ("stages:\n  sft: {mixture: sft}", 3, "unknown mixture 'sft'; known: pretrain_mixture, sft_mixture."),
    "unknown dataset": (
        "mixtures:\n  sft_mixture:\n    entries:\n      shapes_capp: {}",
        5,
        "unknown dataset 'shapes_capp'.*shapes_cap",
    ),
    "unknown benchmark": ("stages:\n  sft:\n    benchmarks: [clips_pints]", 4, "unknown benchmark 'clips_pints'.*clips_points"),
    "unknown run kind": ("execution:\n  trian: {threads: 1}", 3, "unknown kind of run 'trian'.*Did you mean train"),
    "unknown included": ("include: [nothing_like_it]", 2, "include: unknown dataset 'nothing_like_it'"),
    "evaluation set in a mixture": (
        "mixtures:\n  sft_mixture:\n    entries:\n      clips_qa_eval: {}",
        5,
        "clips_qa_eval is an evaluation set and must not be trained on",
    ),
    "evaluation set in the tokenizer": (
        "tokenizer_texts: [clips_qa_eval]",
        2,
        "tokenizer_texts: clips_qa_eval is an evaluation set",
    ),
    "unknown tokenizer text": ("tokenizer_texts: [clips_qaa]", 2, "tokenizer_texts: unknown dataset 'clips_qaa'"),
    "benchmark on training data": (
        "benchmarks:\n  shapes_qa:\n    dataset: shapes_qa",
        4,
        "benchmark shapes_qa: shapes_qa is trained on",
    ),
    "benchmark without dataset": ("benchmarks:\n  shapes_qa:\n    dataset: shapes_qq", 4, "unknown dataset 'shapes_qq'"),
    "headline of another metric": (
        "benchmarks:\n  shapes_qa:\n    headline: anls",
        4,
        "headline 'anls' is no value of its metrics",
    ),
    "no metric": ("benchmarks:\n  shapes_qa:\n    metrics: []", 4, "has no metric"),
    "task without a rule": ("stage_defaults:\n  loss:\n    rules:\n      text: null", 4, "task text .of tiny_text. has no rule"),
    "rule for no task": ("stage_defaults:\n  loss:\n    rules:\n      txet: {}", 5, "unknown task 'txet'.*Did you mean text"),
    "image size": (
        "stage_defaults:\n  encode:\n    image_size: 98",
        4,
        "encode.image_size is 98, model tiny has vision.image_size 84",
    ),
    "patch size": (
        "stages:\n  sft:\n    encode: {patch_size: 12}",
        4,
        "encode.patch_size is 12, model tiny has vision.patch_size 14",
    ),
    "pooling window": (
        "stage_defaults:\n  encode: {video_window: 4}",
        3,
        "video_window is 4, model tiny has connector.video_window 2",
    ),
    "overlap": (
        "stage_defaults:\n  encode: {overlap: [3, 3]}",
        3,
        "encode.overlap 6 leaves nothing of a crop that is 6 patches wide",
    ),
    "image too large": ("stages:\n  sft:\n    pack: {max_visual: 3}", 4, "one image may have 4 crops, a sequence holds 3"),
    "no steps": ("stages:\n  sft: {steps: 0}", 3, "stage sft: steps must be at least 1"),
    "patches": (
        "model: {vision: {image_size: 85}}",
        2,
        "vision.image_size 85 is not divisible by vision.patch_size 14|by patch_size 14",
    ),
    "grouped heads": ("model:\n  decoder: {heads: 4, kv_heads: 3}", 3, "decoder.heads 4 is not divisible by kv_heads 3"),
    "odd head": ("model:\n  decoder: {head_dim: 31}", 3, "decoder.head_dim 31 is not divisible by 2"),
    "extra tokens": ("model:\n  decoder: {extra_tokens: 8}", 3, "8 extra_tokens leave no room for 16 special tokens"),
    "feature layer": ("model:\n  vision: {feature_layers: [-5]}", 3, "there is no vision block -5 among 4"),
    "unspoken points": (
        "model:\n  decoder: {predict_extra: false}",
        None,
        "hold special tokens, which model tiny cannot give",
    ),
    "context parallel": ("stages:\n  sft: {context_parallel: 3}", 3, "context_parallel 3 does not divide the 4 heads"),
    "processes": ("execution:\n  train: {processes: 3}", 3, "global_batch 4 of pretrain is no multiple of 3 groups"),
    "decimals read": ("tokenizer: {coordinate_digits: -1}", 2, "tokenizer.coordinate_digits: expected int >= 1"),
    "decimals written": ("stage_defaults:\n  encode: {coordinate_digits: 0}", 3, "coordinate_digits: expected int >= 1"),
    "table size": ("tokenizer: {vocab_size: 900}", 2, "tokenizer.vocab_size is 900, the base table of model tiny has 1024 rows"),
    "small table": ("tokenizer: {vocab_size: 200}", 2, "200 is too small: bytes and chat markers alone need 259"),
    "no texts": ("tokenizer_texts: []", None, "needs datasets in tokenizer_texts"),
    "numbers of a pretrained one": (
        f"tokenizer: {{kind: pretrained, repo: a/b, revision: {'a' * 40}, numbers: whole}}",
        2,
        "a pretrained tokenizer has its own way with numbers: write `numbers: digits`",
    ),
    "pretrained without repo": ("tokenizer: {kind: pretrained}", 2, "a pretrained tokenizer needs its repo"),
    "rates": (
        "mixtures:\n  pretrain_mixture:\n    groups:\n      text: {rate: 0.2}",
        4,
        "mixture pretrain_mixture: the rates sum to 1.1, not to 1; correct them, or write normalise: true",
    ),
    "no rate": (
        "mixtures:\n  pretrain_mixture:\n    groups:\n      text: {rate: 0.0}",
        5,
        "text has rate 0.0; it must be greater than 0",
    ),
    "twice in groups": (
        "mixtures:\n  pretrain_mixture:\n    groups:\n      text: {entries: {photos: {}}}",
        4,
        "photos stands in 2 groups",
    ),
    "fixed without weights": (
        "mixtures:\n  sft_mixture:\n    method: fixed",
        None,
        "photos needs a weight, because weights are fixed here",
    ),
    "fixed sum": (
        "mixtures:\n  own:\n    method: fixed\n    seed: 1\n    entries: {photos: {weight: 0.5}, shapes_cap: {weight: 0.4}}",
        6,
        "the weights sum to 0.9, not to 1",
    ),
    "weight where sizes rule": (
        "mixtures:\n  sft_mixture:\n    entries:\n      photos: {weight: 0.5}",
        5,
        "weights follow from sizes here",
    ),
    "factor": (
        "mixtures:\n  sft_mixture:\n    entries:\n      photos: {factor: 0.0}",
        5,
        "photos has factor 0.0; it must be greater than 0",
    ),
    "size": (
        "mixtures:\n  sft_mixture:\n    entries:\n      photos: {size: -1.0}",
        5,
        "photos has size -1.0; it must not be negative",
    ),
    "groups where entries rule": (
        "mixtures:\n  sft_mixture:\n    groups: {a: {rate: 1.0, entries: {}}}",
        4,
        "the sqrt method has no groups",
    ),
    "repeats": ("mixtures:\n  sft_mixture:\n    max_repeats: 0.0", 4, "max_repeats must be greater than 0"),
    "mixture name": ("mixtures:\n  own-one: {method: sqrt, seed: 1, entries: {photos: {}}}", 3, "this cannot name a mixture"),
    "provenance of a set": ("datasets:\n  photos:\n    provenance: someone", 4, "photos.provenance is 'someone'"),
    "provenance rule": ("provenance: {allow: [human]}", None, "shapes_cap has provenance program, this recipe allows human"),
    "source": ("datasets:\n  photos:\n    source: {generator: null}", 4, "photos.source: a package source needs generator"),
    "proxy without frames": ("datasets:\n  clips_qa:\n    media: {proxy: {fps: 0}}", 4, "clips_qa.media.proxy.fps is 0"),
    "proxy without quality": ("datasets:\n  clips_qa:\n    media: {proxy: {crf: 52}}", 4, "clips_qa.media.proxy.crf is 52"),
    "proxies of examples": (
        "datasets:\n  clips_qa:\n    adapter: molmo2_examples\n    media: {proxy: {}}",
        5,
        "its rows are examples",
    ),
    "bad fraction": ("datasets:\n  photos:\n    max_bad_fraction: 2.0", 4, "photos.max_bad_fraction is a fraction"),
    "new set by mistake": (
        "datasets:\n  photoss: {rows: 3}",
        3,
        "photoss.*would be|photoss is not in the catalogue.*Did you mean photos",
    ),
    "dataset name": (
        "datasets:\n  My-Set: {title: t, source: {kind: hub, repo: a/b}, task: text, group: g}",
        3,
        "cannot name a dataset",
    ),
    "unknown task": ("datasets:\n  photos: {task: image_captoin}", 3, "task is 'image_captoin'.*Did you mean image_caption"),
    "key twice": ("absent: refuse\nabsent: refuse", 3, "absent stands here a second time .first in line 2."),
    "no YAML": ("stages: [", 3, "this is not YAML"),
    "list for a mapping": (
        "mixtures: [sft_mixture]",
        2,
        "mixtures: a mapping of names to values|mixtures: a mapping of names to definitions",
    ),
}


def problems_of(tmp_path: Path, text: str) -> list[str]:
    (tmp_path / "own.yaml").write_text(text + "\n")
    with pytest.raises(ProfileError) as caught:
        load_profile("own", [tmp_path])
    return list(caught.value.problems)


@pytest.mark.parametrize("name", MISTAKES)
def test_mistake_is_told_with_its_line(name, tmp_path):
    text, line, words = MISTAKES[name]
    found = problems_of(tmp_path, f"extends: demo\n{text}")
    path = BUILT_IN / "profiles" / "demo.yaml" if line is None else tmp_path / "own.yaml"
    place = str(Mark(path, line or 0)).removesuffix("0" if line is None else "")
    assert any(problem.startswith(place) and re.search(words, problem) for problem in found), found


def test_all_problems_come_at_once(tmp_path):
    text = "extends: demo\nmodel: tinny\nabsent: ignore\nstages:\n  sft: {stps: 3}\n  pretrain: {mixture: none_such}\n"
    found = problems_of(tmp_path, text)
    assert [problem.split(":")[1] for problem in found] == ["3", "2", "5", "6"]


def test_a_mistake_in_the_extended_profile_names_that_file(tmp_path):
    (tmp_path / "below.yaml").write_text("extends: demo\nstages:\n  sft: {steps: x}\n")
    found = problems_of(tmp_path, "extends: below\nabsent: leave_out\n")
    assert found == [f"{tmp_path / 'below.yaml'}:3: stages.sft.steps: expected int, got str ('x' stands there)"]


def test_profiles_in_a_circle(tmp_path):
    (tmp_path / "other.yaml").write_text("extends: own\n")
    assert problems_of(tmp_path, "extends: other") == [
        f"{tmp_path / 'other.yaml'}:1: profiles extend one another in a circle: own, other"
    ]


def test_what_is_missing_is_listed(tmp_path):
    assert "profile own lacks description, absent, tokenizer, model, mixtures, stages" in problems_of(tmp_path, "owners: {}")[0]


def test_extending_nothing_known(tmp_path):
    assert problems_of(tmp_path, "\nextends: dmeo") == [
        f"{tmp_path / 'own.yaml'}:2: unknown profile 'dmeo'; known: demo, learn, own, release, report. Did you mean demo?"
    ]


def test_names_are_unique_over_all_files(tmp_path):
    (tmp_path / "datasets").mkdir()
    (tmp_path / "datasets" / "mine.yaml").write_text("datasets:\n  photos: {title: Mine}\n")
    (tmp_path / "demo.yaml").write_text("extends: report\n")
    with pytest.raises(ProfileError) as caught:
        load_profile("demo", [tmp_path])
    first, second = caught.value.problems
    assert first.startswith(f"{tmp_path / 'datasets' / 'mine.yaml'}:2: photos is already defined in ")
    assert second.startswith(f"{tmp_path / 'demo.yaml'}:1: profile demo is already defined in ")


def test_a_broken_catalogue_file_names_all_its_problems(tmp_path):
    (tmp_path / "datasets.yaml").write_text(
        "dataset: {}\ndatasets:\n  one:\n    title: 3\n    source: {kind: hubb}\n    task: text\n"
    )
    with pytest.raises(ProfileError, match=r"datasets.yaml:1: unknown section 'dataset'"):
        catalogue([tmp_path])
    (tmp_path / "datasets.yaml").write_text("datasets:\n  one:\n    title: 3\n    source: {kind: hubb}\n    task: text\n")
    with pytest.raises(ProfileError) as caught:
        catalogue([tmp_path])
    path = tmp_path / "datasets.yaml"
    assert list(caught.value.problems) == [
        f"{path}:3: one.title: expected str, got int (3 stands there)",
        f"{path}:4: one.source.kind is 'hubb'; known: hub, url, manual, generated, package. Did you mean hub?",
        f"{path}:2: one lacks group",
    ]


def test_a_folder_that_is_not_there(tmp_path):
    with pytest.raises(ProfileError, match="is not a folder"):
        load_profile("demo", [tmp_path / "nowhere"])
