"""The graph of every profile: edges, keys, what each asset says of itself, and that loading it imports nothing heavy."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import dagster as dg
import msgspec
import pytest

from molmo2_assets.graph.build import build_definitions
from molmo2_assets.home import Home
from molmo2_assets.profile import BaseWeights, WeightsSource, load_profile, profile_names
from tests.support.shell import ROOT

PROFILES = [name for name in profile_names() if name != "learn"]
HEAVY = ("torch", "polars", "duckdb", "pandera", "av", "decord", "pyarrow", "lightning_fabric", "transformers", "matplotlib", "PIL")
STAGES = ("pretrain", "sft", "long_context")


def graph_of(name: str) -> dg.AssetGraph:
    definitions = build_definitions(load_profile(name), Home(Path("/nonexistent"), name))
    return definitions.resolve_asset_graph()


@pytest.fixture(scope="module", params=PROFILES)
def graph(request: pytest.FixtureRequest) -> dg.AssetGraph:
    return graph_of(request.param)


def parents(graph: dg.AssetGraph, key: str) -> set[str]:
    return {parent.to_user_string() for parent in graph.get(dg.AssetKey(key.split("/"))).parent_keys}


def keys(graph: dg.AssetGraph) -> set[str]:
    return {key.to_user_string() for key in graph.get_all_asset_keys()}


def test_every_dataset_has_its_three_layers(graph: dg.AssetGraph) -> None:
    names = {key.removeprefix("raw/") for key in keys(graph) if key.startswith("raw/")}
    assert len(names) >= 19
    for name in names:
        assert parents(graph, f"raw/{name}") <= {f"hub/{name}"}
        assert parents(graph, f"media/{name}") == {f"raw/{name}"}
        assert parents(graph, f"validated/{name}") == {f"raw/{name}", f"media/{name}"}


def test_stages_stand_in_a_row(graph: dg.AssetGraph) -> None:
    """The edges of the design, one by one."""
    before = None
    for stage in STAGES:
        mixture = "pretrain_mixture" if stage == "pretrain" else "sft_mixture"
        assert parents(graph, f"{stage}_sequences") == {mixture, "tokenizer"}
        assert parents(graph, f"{stage}_checkpoint") == {f"{stage}_sequences", *([before] if before else [])}
        before = f"{stage}_checkpoint"
    for mixture in ("pretrain_mixture", "sft_mixture"):
        assert all(parent.startswith("validated/") for parent in parents(graph, mixture))
        assert parents(graph, mixture.replace("mixture", "statistics")) == {mixture}


def test_the_last_checkpoint_is_exported_where_the_profile_asks(graph: dg.AssetGraph) -> None:
    if "hf_export" in keys(graph):
        assert parents(graph, "hf_export") == {f"{STAGES[-1]}_checkpoint"}


def test_the_released_recipe_is_exported_and_the_demo_is_not() -> None:
    """The demo writes times as tokens, which no Molmo2Processor does."""
    assert "hf_export" in keys(graph_of("release"))
    assert "hf_export" not in keys(graph_of("demo"))


def test_base_weights_stand_before_the_first_stage_where_the_profile_names_them() -> None:
    assert "base_weights" not in keys(graph_of("demo"))
    profile = msgspec.structs.replace(
        load_profile("demo"), base_weights=BaseWeights(decoder=WeightsSource(folder="/d"), vision=WeightsSource(folder="/v"))
    )
    graph = build_definitions(profile, Home(Path("/nonexistent"), "demo")).resolve_asset_graph()
    assert parents(graph, "base_weights") == set()
    assert parents(graph, "pretrain_checkpoint") == {"pretrain_sequences", "base_weights"}
    assert parents(graph, "sft_checkpoint") == {"sft_sequences", "pretrain_checkpoint"}


def test_answers_scores_and_the_scoreboard(graph: dg.AssetGraph) -> None:
    scored = {key for key in keys(graph) if key.startswith("evaluation/")}
    for key in scored:
        _, checkpoint, benchmark = key.split("/")
        asked = f"predictions/{checkpoint}/{benchmark}"
        (truth,) = parents(graph, asked) - {checkpoint}
        assert truth.startswith("validated/")
        assert parents(graph, key) == {asked, truth}
    assert parents(graph, "scoreboard") == scored


def test_every_asset_says_what_it_is(graph: dg.AssetGraph) -> None:
    for key in graph.get_all_asset_keys():
        node = graph.get(key)
        name = key.to_user_string()
        assert node.partitions_def is None, f"{name}: the literal command fails on a partitioned selection"
        assert node.group_name != "default", name
        assert node.description, name
        assert 1 <= len(node.kinds) <= 3, name
        if not name.startswith("hub/"):
            assert node.code_version, f"{name}: without one, Dagster calls every run a change"
            assert node.owners, name
            assert node.tags, name


@pytest.mark.parametrize("profile", ["report", "release"])
def test_more_than_a_hundred_sets_fold_into_a_handful_of_groups(profile: str) -> None:
    graph = graph_of(profile)
    groups: dict[str, int] = {}
    for key in graph.get_all_asset_keys():
        name = str(graph.get(key).group_name)
        groups[name] = groups.get(name, 0) + 1
    assert sum(groups.values()) >= 330
    assert len(groups) <= 20
    sets = {name: size for name, size in groups.items() if name.endswith("_sets")}
    assert len(sets) >= 8
    assert max(sets.values()) <= 150, sets


def test_what_must_hold_blocks(graph: dg.AssetGraph) -> None:
    blocking = {
        (check.asset_key.to_user_string(), check.name) for check in graph.asset_check_keys if graph.get_check_spec(check).blocking
    }
    names = {key.removeprefix("raw/") for key in keys(graph) if key.startswith("raw/")}
    for name in names:
        assert {(f"validated/{name}", "contract"), (f"validated/{name}", "non_empty")} <= blocking
    for mixture in ("pretrain_mixture", "sft_mixture"):
        assert {(mixture, "weights_sum_to_one"), (mixture, "no_leaks")} <= blocking
        assert not {(mixture, "leaks_checked"), (mixture, "sources_known")} & blocking, "these only warn"
    for stage in STAGES:
        assert {(f"{stage}_checkpoint", "loss_finite"), (f"{stage}_checkpoint", "checkpoint_loads")} <= blocking


def test_real_sets_hang_on_what_is_observed_on_the_hub() -> None:
    graph = graph_of("release")
    observed = {key for key in keys(graph) if key.startswith("hub/")}
    assert observed
    for key in observed:
        node = graph.get(dg.AssetKey(key.split("/")))
        assert node.is_observable
        assert not node.is_materializable
        assert f"raw/{key.removeprefix('hub/')}" in {child.to_user_string() for child in node.child_keys}


@pytest.mark.parametrize("name", profile_names())
def test_loading_imports_nothing_heavy(name: str, tmp_path: Path) -> None:
    """In a fresh interpreter, by the entry point that Dagster uses. Its seconds: `python -m benchmarks definitions`."""
    code = f"import sys, definitions; found = [name for name in {HEAVY} if name in sys.modules]; sys.exit(', '.join(found) or 0)"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False,
        env={"PATH": "/usr/bin:/bin", "MOLMO2_PROFILE": name, "MOLMO2_HOME": str(tmp_path), "PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    assert done.returncode == 0, f"profile {name} imports {done.stderr}"
