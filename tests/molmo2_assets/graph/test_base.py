"""base_weights, materialised from folders as transformers writes them; its version is that of their content."""

from __future__ import annotations

import shutil
from pathlib import Path

import dagster as dg
import msgspec
import pytest
import torch

from molmo2_assets.graph.base import base_assets
from molmo2_assets.home import Home
from molmo2_assets.profile import BaseWeights, Profile, WeightsSource, load_profile
from tests.support import peers
from tests.support.hub_server import serve_hub
from tests.support.models import PATCH, SIDE
from tests.support.shell import ROOT
from tests.support.transformers_peer import need_transformers
from training_backend.data.manifest import Manifest
from training_backend.model.tensor_files import TensorFolder
from training_backend.model.weights import load_model

transformers = need_transformers()
MODEL = peers.released_config(rope_theta=1e6)


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`decoder` and `vision`."""
    folder = tmp_path_factory.mktemp("base")
    words = transformers.Qwen3Config(
        hidden_size=32, intermediate_size=48, num_attention_heads=4, vocab_size=50, rms_norm_eps=1e-6, num_key_value_heads=2,
        head_dim=8, num_hidden_layers=3, tie_word_embeddings=False, rope_theta=1e6,
    )  # fmt: skip
    pixels = transformers.SiglipVisionConfig(
        hidden_size=24, intermediate_size=32, num_hidden_layers=3, num_attention_heads=2, patch_size=PATCH, image_size=SIDE
    )
    for name, model in (("decoder", transformers.Qwen3ForCausalLM(words)), ("vision", transformers.SiglipVisionModel(pixels))):
        peers.randomise(model, 3)
        peers.saved_peer(model, folder / name)
    return folder


def profile(decoder: Path | WeightsSource, vision: Path | WeightsSource) -> Profile:
    """The small test profile, started from these."""
    first, second = (WeightsSource(folder=str(each)) if isinstance(each, Path) else each for each in (decoder, vision))
    base = BaseWeights(decoder=first, vision=second)
    return msgspec.structs.replace(load_profile("micro", [ROOT / "tests"]), model=MODEL, base_weights=base)


def materialise(home: Home, asked: Profile) -> tuple[Path, Manifest, str]:
    """Folder, manifest, and whether it was made or found."""
    with dg.instance_for_test() as instance:
        done = dg.materialize(base_assets(home, asked), instance=instance)
    assert all(check.passed for check in done.get_asset_check_evaluations())
    (made,) = done.asset_materializations_for_node("base_weights")
    current = home.store("base_weights").current("base_weights")
    assert current is not None
    return (*current, str(made.metadata["cache"].value))


def test_weights_to_start_from(folders: Path, tmp_path: Path) -> None:
    home = Home(tmp_path / "home", "micro")
    made, manifest, cache = materialise(home, profile(folders / "decoder", folders / "vision"))
    assert cache == "miss"
    assert load_model(made, MODEL).config == MODEL
    assert "decoder.extra_embedding" in manifest.facts["initialised"]
    # Elsewhere the same weights are the same; one more word in a configuration is another version.
    moved = tmp_path / "moved"
    shutil.copytree(folders / "decoder", moved)
    assert materialise(home, profile(moved, folders / "vision"))[2] == "hit"
    (moved / "generation_config.json").write_text("{}")
    assert materialise(home, profile(moved, folders / "vision"))[2] == "miss"


def test_weights_from_the_hub_at_their_commits(folders: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What later commits hold says nothing; a commit that is there is not asked for again."""
    sources = {}
    with serve_hub() as hub:
        monkeypatch.setenv("HF_ENDPOINT", hub.url)
        for name in ("decoder", "vision"):
            files = {path.name: path.read_bytes() for path in (folders / name).iterdir()}
            repository = hub.add(f"org/{name}", files)
            sources[name] = WeightsSource(repo=f"org/{name}", revision=repository.branches["main"])
            repository.commit({**files, "config.json": b"{}"})
        home = Home(tmp_path / "home", "micro")
        made, manifest, cache = materialise(home, profile(**sources))
        assert cache == "miss"
        assert manifest.recipe["config"]["sources"] == {name: f"{at.repo}@{at.revision}" for name, at in sources.items()}
        asked = len(hub.requests)
        assert asked > 0
        assert materialise(home, profile(**sources))[2] == "hit"
        assert len(hub.requests) == asked
    norm = TensorFolder(folders / "decoder").read("model.norm.weight")
    assert torch.equal(load_model(made, MODEL).state_dict()["decoder.norm.weight"], norm)


def test_folders_that_are_none(folders: Path, tmp_path: Path) -> None:
    home = Home(tmp_path / "home", "micro")
    with dg.instance_for_test() as instance:
        assets = base_assets(home, profile(tmp_path / "gone", folders / "vision"))
        done = dg.materialize(assets, instance=instance, raise_on_error=False)
    (failed,) = done.get_step_failure_events()
    said = failed.step_failure_data.user_failure_data
    assert said is not None
    assert said.description == f"base_weights: {tmp_path / 'gone'} is not a folder."
