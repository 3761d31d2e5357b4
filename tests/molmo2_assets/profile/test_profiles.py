"""Built-in profiles and profiles of users: loading, extending, choosing."""

from __future__ import annotations

import subprocess
import sys
from fnmatch import fnmatch
from pathlib import Path

import pytest

from molmo2_assets.profile import STAGES, Profile, ProfileError, catalogue, load_profile, profile_names

BUILT_IN = ["demo", "learn", "release", "report"]
OWN = """
description: Half a demo.
extends: demo
datasets:
  shapes_cap:
    source: {params: {n: 50}}
  mine:
    title: Own pictures
    source: {kind: manual, path: mine, instructions: Put them there.}
    task: image_caption
    group: own
mixtures:
  sft_mixture:
    entries:
      mine: {factor: 2.0}
      clips_track: null
stages:
  sft: {steps: 3}
  long_context: null
"""


def write(folder: Path, name: str, text: str) -> Path:
    path = folder / f"{name}.yaml"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


@pytest.mark.parametrize("name", BUILT_IN)
def test_built_in_profiles_are_whole(name):
    profile = load_profile(name)
    assert profile.name == name
    assert tuple(profile.stages) == STAGES
    for stage in profile.stages.values():
        assert stage.benchmarks
        assert all(profile.benchmarks[benchmark].dataset in profile.eval_datasets for benchmark in stage.benchmarks)
        assert set(profile.mixtures[stage.mixture].datasets) <= set(profile.train_datasets)
    assert profile.stages["sft"].mixture == profile.stages["long_context"].mixture


def test_the_report_says_what_its_specification_says():
    profile = load_profile("report")
    pretrain, sft, long_context = profile.stages.values()
    assert [group.rate for group in profile.mixtures["pretrain_mixture"].groups.values()] == [0.6, 0.3, 0.1]
    assert profile.mixtures["sft_mixture"].method == "sqrt"
    assert [stage.pack.max_tokens for stage in (pretrain, sft, long_context)] == [4096, 4096, 36864]
    assert [stage.global_batch for stage in (pretrain, sft)] == [256, 128]
    assert 32 <= long_context.global_batch <= 64
    assert [stage.encode.max_frames for stage in (pretrain, sft, long_context)] == [128, 128, 384]
    assert (sft.steps, long_context.steps, long_context.context_parallel) == (50_000, 2_000, 8)
    weights = {task: rule.weight for task, rule in sft.loss.rules.items()}
    assert (weights["video_caption"], weights["video_pointing"], weights["video_tracking"], weights["counting"]) == (1, 2, 2, 1.5)
    assert all(stage.on_data_change == "refuse" for stage in profile.stages.values())
    assert len(profile.mixtures["sft_mixture"].datasets) >= 100


def test_the_release_says_what_its_code_does():
    profile = load_profile("release")
    sft = profile.mixtures["sft_mixture"]
    assert sft.normalise
    assert sum(group.rate for group in sft.groups.values()) == pytest.approx(1.10)
    assert [stage.pack.max_tokens for stage in profile.stages.values()] == [2560, 16384, 36864]
    assert profile.stages["sft"].loss.rules["video_qa"].kind == "root"
    assert profile.stages["sft"].loss.rules["video_pointing"].weight == 0.2
    assert profile.stages["pretrain"].dropout.response == 0.1
    assert not profile.model.decoder.predict_extra


def test_catalogue_is_large_and_every_entry_is_sound():
    found = catalogue()
    published = {name: spec for name, spec in found.datasets.items() if spec.source.kind not in ("generated", "package")}
    assert len(published) >= 175
    assert len([spec for spec in published.values() if spec.role == "eval"]) >= 40
    # Names are unique across files, or reading would have said where the second stands; so must titles be for a person.
    titles = [spec.title for spec in found.datasets.values()]
    assert sorted({title for title in titles if titles.count(title) > 1}) == []
    assert {"tiny", "1b", "7b", "8b", "release-4b", "release-8b", "release-o-7b"} <= set(found.models)
    assert found.models["release-4b"].vision == found.models["1b"].vision


@pytest.mark.parametrize("name", BUILT_IN)
def test_every_entry_of_every_mixture_resolves_to_a_dataset_with_an_adapter(name):
    from molmo2_assets.ingest.adapters import ADAPTERS

    profile = load_profile(name)
    for mixture in profile.mixtures.values():
        assert mixture.datasets
        for entry in mixture.datasets:
            assert profile.datasets[entry].adapter in ADAPTERS, entry
            assert profile.datasets[entry].role == "train"


def test_every_entry_says_what_a_person_needs_to_know():
    for name, spec in catalogue().datasets.items():
        if spec.source.kind == "hub":
            assert spec.source.repo.count("/") == 1, name
        if spec.layout == "confirmed" and spec.source.kind not in ("generated", "package"):
            assert spec.evidence, f"{name}: where was its layout seen?"
        if spec.media.kind == "folder" and spec.source.kind not in ("generated", "package"):
            assert spec.media.path or spec.source.unpack, f"{name}: in which folder are its media expected?"
            assert spec.media.layout, f"{name}: where in it?"
            said = (spec.media.origin or "") + (spec.media.instructions or "") + (spec.source.instructions or "")
            assert said, f"{name}: what must a person do for its media?"
        assert spec.columns or spec.role == "demo", f"{name}: which columns does it publish?"
        assert spec.style, name


def test_no_training_entry_reads_what_an_evaluation_entry_reads():
    """Of one repository or folder they read different configurations or splits, else files that no pattern of the other matches.
    (Rows and media that stand in both all the same are found when a mixture is made.)"""
    entries = [spec for spec in catalogue().datasets.values() if spec.source.repo or spec.source.path]
    pairs = [
        (held, trained)
        for held in entries
        for trained in entries
        if (held.role, trained.role) == ("eval", "train")
        and (held.source.repo, held.source.path) == (trained.source.repo, trained.source.path)
    ]
    assert {("doc_vqa_eval", "doc_vqa"), ("info_vqa_eval", "info_vqa"), ("vqa_v2_eval", "vqa_v2")} <= {
        (held.name, trained.name) for held, trained in pairs
    }
    for held, trained in pairs:
        if (held.source.config, held.source.split) == (trained.source.config, trained.source.split):
            assert held.source.files, f"{held.name} and {trained.name} read the same rows"
            assert trained.source.files, f"{held.name} and {trained.name} read the same rows"
            for one in held.source.files:
                for other in trained.source.files:
                    assert not fnmatch(one, other), f"{trained.name} reads {one} of {held.name}"
                    assert not fnmatch(other, one), f"{trained.name} reads {other} of {held.name}"


def test_every_adapter_generator_and_metric_of_the_catalogue_exists():
    from molmo2_assets.evaluation.registry import METRICS
    from molmo2_assets.ingest.adapters import adapter_of
    from molmo2_assets.sources.generated import identity

    found = catalogue()
    for name, spec in found.datasets.items():
        adapter, context = adapter_of(spec)
        joined = {column for table in spec.source.tables for column in (*table.joins, *table.add)}
        assert set(adapter.needs(context)) <= set(spec.columns) | joined, name
        if spec.source.kind == "generated":
            assert identity(spec.source.generator, spec.source.params)["params"]["n"] == spec.rows, name
    for benchmark in found.benchmarks.values():
        assert set(benchmark.metrics) <= set(METRICS)


def test_own_profile_extends_the_demo(tmp_path):
    write(tmp_path, "own", OWN)
    profile, demo = load_profile("own", [tmp_path]), load_profile("demo")
    assert profile.datasets["shapes_cap"].source.params == {"n": 50}
    assert profile.datasets["shapes_cap"].adapter == demo.datasets["shapes_cap"].adapter
    assert profile.datasets["mine"].adapter is None
    assert set(profile.mixtures["sft_mixture"].datasets) == {*demo.mixtures["sft_mixture"].datasets, "mine"} - {"clips_track"}
    assert tuple(profile.stages) == ("pretrain", "sft")
    assert profile.stages["sft"].steps == 3
    assert profile.stages["pretrain"] == demo.stages["pretrain"]
    assert profile.stages["sft"].config.steps == 3
    assert not hasattr(profile.stages["sft"].config, "on_data_change")


def test_definitions_may_lie_beside_the_profile(tmp_path):
    write(
        tmp_path,
        "datasets/own",
        "defaults: {group: own, task: text}\ndatasets:\n  words: {title: W, source: {kind: hub, repo: a/b}}\n",
    )
    write(tmp_path, "models", "models:\n  smaller: {extends: tiny, decoder: {layers: 2}}\n")
    write(tmp_path, "own", "extends: demo\nmodel: smaller\nmixtures: {sft_mixture: {entries: {words: {}}}}\n")
    profile = load_profile("own", [tmp_path])
    assert profile.datasets["words"].group == "own"
    assert (profile.model.name, profile.model.decoder.layers, profile.model.decoder.width) == ("smaller", 2, 128)


def test_a_model_by_name_replaces_changes_to_another_preset(tmp_path):
    write(tmp_path, "first", "extends: demo\nmodel: {decoder: {layers: 3}}\n")
    write(tmp_path, "second", "extends: first\nmodel: tiny\n")
    assert load_profile("first", [tmp_path]).model.decoder.layers == 3
    assert load_profile("second", [tmp_path]).model.decoder.layers == 4


def test_profile_is_chosen_by_argument_then_environment_then_demo(tmp_path, monkeypatch):
    monkeypatch.delenv("MOLMO2_PROFILE", raising=False)
    assert load_profile().name == "demo"
    write(tmp_path, "own", OWN)
    monkeypatch.setenv("MOLMO2_PROFILE_DIRS", str(tmp_path))
    monkeypatch.setenv("MOLMO2_PROFILE", "own")
    assert load_profile().name == "own"
    assert load_profile("learn").name == "learn"
    assert profile_names() == [*BUILT_IN[:2], "own", *BUILT_IN[2:]]


def test_unknown_profile_is_one_line_with_the_nearest_name():
    with pytest.raises(ProfileError) as caught:
        load_profile("reprot")
    assert str(caught.value) == "unknown profile 'reprot'; known: demo, learn, release, report. Did you mean report?"


def test_loading_imports_nothing_heavy():
    code = (
        "import sys; from molmo2_assets.profile import load_profile; load_profile('release'); "
        "print([m for m in ('numpy', 'polars', 'torch', 'duckdb', 'PIL', 'av', 'dagster') if m in sys.modules])"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip() == "[]"


def _based(tmp_path: Path, written: str, model: str = "release-4b") -> Profile:
    text = f"extends: release\nmodel: {model}\nbase_weights: {written}\n"
    (tmp_path / "based.yaml").write_text(text)
    return load_profile("based", [tmp_path])


def test_base_weights_are_those_that_the_preset_names(tmp_path: Path) -> None:
    base = _based(tmp_path, "{decoder: {revision: %s}, vision: {folder: /eyes}}" % ("a" * 40)).base_weights
    assert base is not None
    assert (base.decoder.repo, base.decoder.revision) == ("Qwen/Qwen3-4B-Instruct-2507", "a" * 40)
    assert (base.vision.repo, base.vision.folder) == (None, "/eyes")
    base = _based(tmp_path, "{}", "release-8b").base_weights
    assert base is not None
    assert (base.decoder.repo, base.vision.repo) == ("Qwen/Qwen3-8B", "google/siglip2-so400m-patch14-384")


@pytest.mark.parametrize(
    ("written", "message"),
    [
        ("{decoder: {revision: main}}", r"based.yaml:3: base_weights.decoder.revision is 'main'; a commit of 40"),
        ("{vision: {folder: /eyes, repo: a/b}}", r"based.yaml:3: base_weights.vision names both a folder and a repository"),
    ],
)
def test_base_weights_that_are_none(tmp_path: Path, written: str, message: str) -> None:
    with pytest.raises(ProfileError, match=message):
        _based(tmp_path, written)


def test_the_8b_preset_names_no_decoder(tmp_path: Path) -> None:
    assert catalogue().published["8b"].decoder.repo is None
    assert catalogue().published["8b"].vision.repo == "google/siglip2-so400m-patch14-384"
