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
from tests.support.published import MODEL, RECIPE, checkpoint_at
from tests.support.shell import ROOT
from training_backend.data.fingerprint import fingerprint
from training_backend.data.manifest import Manifest, files_version, list_files, parent_entry


def publish(home: Home, key: str, kind: str, source: Path | None, parents: dict[str, Manifest], **run: Any) -> Manifest:
    """A finished asset, as a step would leave it."""
    recipe = {"kind": kind, "key": key, "parents": {name: manifest.data_version for name, manifest in parents.items()}}
    store, identity = home.store(key), fingerprint(recipe)
    staged = store.stage(key, identity)
    for path in source.iterdir() if source else ():
        (staged / path.name).write_bytes(path.read_bytes())
    manifest = Manifest(
        kind=kind, key=key, recipe=recipe, recipe_fingerprint=identity, data_version=files_version(list_files(staged)),
        code_version="1", parents={name: parent_entry(parent) for name, parent in parents.items()}, files=list_files(staged),
        counts={"rows": 7}, run={"finished": 1.0},
    )  # fmt: skip
    store.publish(key, staged, manifest)
    return manifest


@pytest.fixture
def home(tmp_path: Path) -> Home:
    made, home = checkpoint_at(tmp_path / "made"), Home(tmp_path / "home", "micro")
    tokenizer = publish(home, "tokenizer", "tokenizer", made / "tokenizer", {})
    sequences = publish(home, "long_context_sequences", "sequences", None, {"tokenizer": tokenizer})
    publish(home, "long_context_checkpoint", "checkpoint", made / "checkpoint", {"long_context_sequences": sequences})
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
