"""hf_export, materialised in a home that holds a checkpoint; refused where the recipe has no place in Hugging Face's layout."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import dagster as dg
import msgspec
import pytest

from molmo2_assets.graph.publish import publish_assets
from molmo2_assets.home import Home
from molmo2_assets.profile import ExportSpec, Profile, load_profile
from tests.support.homes import publish_files
from tests.support.published import MODEL, RECIPE, checkpoint_at
from tests.support.shell import ROOT


@pytest.fixture
def home(tmp_path: Path) -> Home:
    made, home = checkpoint_at(tmp_path / "made"), Home(tmp_path / "home", "micro")
    tokenizer = publish_files(home, "tokenizer", "tokenizer", made / "tokenizer", {})
    sequences = publish_files(home, "long_context_sequences", "sequences", None, {"tokenizer": tokenizer})
    publish_files(home, "long_context_checkpoint", "checkpoint", made / "checkpoint", {"long_context_sequences": sequences})
    return home


def profile(**encode: Any) -> Profile:
    """The small test profile, with an export and a recipe of the released layout."""
    found = load_profile("micro", [ROOT / "tests"])
    last = found.stages["long_context"]
    stage = msgspec.structs.replace(last, encode=msgspec.structs.replace(RECIPE.encode, **encode))
    return msgspec.structs.replace(
        found, model=MODEL, stages={**found.stages, "long_context": stage}, hf_export=ExportSpec(title="Of a test", licence="mit")
    )


def test_the_folder_and_its_card(home: Home) -> None:
    with dg.instance_for_test() as instance:
        for cache in ("miss", "hit"):
            done = dg.materialize(publish_assets(home, profile()), instance=instance)
            assert done.success
            (made,) = done.asset_materializations_for_node("hf_export")
            assert made.metadata["cache"].value == cache
            assert all(check.passed for check in done.get_asset_check_evaluations())
    current = home.store("hf_export").current("hf_export")
    assert current is not None
    folder, manifest = current
    names = {entry.path for entry in manifest.files}
    assert {"config.json", "tokenizer.json", "processor_config.json", "chat_template.jinja", "README.md"} <= names
    card = (folder / "README.md").read_text()
    assert "license: mit" in card
    assert "# Of a test" in card
    checkpoint = home.store("long_context_checkpoint").current("long_context_checkpoint")
    assert checkpoint is not None
    assert f"| long_context_checkpoint | {checkpoint[1].data_version} |" in card
    assert "| tokenizer | " in card


def test_a_recipe_that_has_no_place_there(home: Home) -> None:
    with dg.instance_for_test() as instance:
        done = dg.materialize(publish_assets(home, profile(time="token")), instance=instance, raise_on_error=False)
    assert not done.success
    (failed,) = done.get_step_failure_events()
    said = failed.step_failure_data.user_failure_data
    assert said is not None
    assert "cannot be a Hugging Face Molmo2Processor's, because of time: token" in str(said.description)


def test_nothing_where_nobody_asks(home: Home) -> None:
    assert publish_assets(home, msgspec.structs.replace(profile(), hf_export=None)) == []
