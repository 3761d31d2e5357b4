"""Bills of materials: every ancestor version once, with its published revision; the exact one that was read."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from molmo2_assets.home import Home
from molmo2_assets.lineage.bom import GONE, bill_of_materials
from molmo2_assets.lineage.versions import recorded, versions
from tests.support.homes import publish
from training_backend.data.manifest import parent_entry

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture
def home(tmp_path: Path) -> Home:
    home = Home(tmp_path, "test")
    publish(home, "raw/a", facts={"revision": COMMIT}, counts={"files": 2})
    publish(home, "media/a", ["raw/a"])
    publish(home, "validated/a", ["raw/a", "media/a"], counts={"rows_in": 9, "rows_ok": 7})
    publish(home, "sft_mixture", ["validated/a"])
    publish(home, "sft_checkpoint", ["sft_mixture"])
    return home


def test_every_ancestor_once_nearest_first_with_its_revision(home: Home) -> None:
    rows = bill_of_materials(home, "sft_checkpoint")
    assert [row["asset"] for row in rows] == ["sft_checkpoint", "sft_mixture", "validated/a", "media/a", "raw/a"]
    assert {row["asset"]: row["revision"] for row in rows if row["revision"]} == {"raw/a": COMMIT}
    assert rows[2]["rows"] == 7


def test_it_names_what_was_read_not_what_is_current(home: Home) -> None:
    before = bill_of_materials(home, "sft_checkpoint")
    publish(home, "raw/a", config="edited", facts={"revision": "f" * 40})
    publish(home, "media/a", ["raw/a"])
    publish(home, "validated/a", ["raw/a", "media/a"])
    assert bill_of_materials(home, "sft_checkpoint") == before


def test_two_versions_of_one_set_are_both_listed(home: Home) -> None:
    publish(home, "raw/a", config="edited", facts={"revision": "f" * 40})
    publish(home, "second", ["raw/a", "sft_checkpoint"])
    revisions = [row["revision"] for row in bill_of_materials(home, "second") if row["asset"] == "raw/a"]
    assert sorted(revisions) == sorted([COMMIT, "f" * 40])


def test_a_forced_rebuild_is_told_from_the_attempt_that_was_read(home: Home) -> None:
    first = publish(home, "raw/b", content="first", facts={"revision": "1"})
    publish(home, "media/b", ["raw/b"])
    second = publish(home, "raw/b", content="second", again=True, facts={"revision": "2"})
    assert first.recipe_fingerprint == second.recipe_fingerprint
    assert [row["revision"] for row in bill_of_materials(home, "media/b") if row["asset"] == "raw/b"] == ["1"]


def test_an_ancestor_that_was_removed_is_listed_as_gone(home: Home) -> None:
    found = home.store("raw/a").current("raw/a")
    assert found is not None
    shutil.rmtree(found[0])
    row = bill_of_materials(home, "sft_checkpoint")[-1]
    assert (row["asset"], row["revision"], row["data_version"]) == ("raw/a", GONE, found[1].data_version)


def test_an_asset_that_nobody_made(home: Home) -> None:
    with pytest.raises(ValueError, match="hf_export was never materialised in profile test: run `make demo`"):
        bill_of_materials(home, "hf_export")


def test_versions_are_listed_as_they_were_finished_without_unfinished_ones(home: Home) -> None:
    store = home.store("raw/c")
    made = [publish(home, "raw/c", config=number, finished=float(10 - number)) for number in range(4)]
    store.stage("raw/c", "f" * 64)
    assert [m.data_version for _, m in versions(store, "raw/c")] == [m.data_version for m in reversed(made)]
    found = recorded(store, "raw/c", parent_entry(made[1]))
    assert found is not None
    assert found[1].data_version == made[1].data_version
    assert versions(store, "raw/nothing") == []
