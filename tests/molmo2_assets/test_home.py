"""Where things lie: one absolute folder, shared layers once, everything else below the profile."""

from __future__ import annotations

from pathlib import Path

import pytest

from molmo2_assets.home import Home, find_home
from tests.support.homes import CHECKOUT, publish


def test_the_variable_names_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("MOLMO2_HOME", str(tmp_path / "with space"))
    assert find_home("demo") == Home(tmp_path / "with space", "demo")


@pytest.mark.parametrize("value", [None, ""])
def test_without_it_the_home_lies_in_the_checkout(monkeypatch: pytest.MonkeyPatch, value: str | None) -> None:
    monkeypatch.delenv("MOLMO2_HOME", raising=False)
    if value is not None:
        monkeypatch.setenv("MOLMO2_HOME", value)
    assert find_home("demo").root == CHECKOUT / ".molmo2"


def test_a_relative_folder_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MOLMO2_HOME", "here/below")
    with pytest.raises(ValueError, match=r"'here/below'; it must be an absolute path .`source activate.sh`"):
        find_home("demo")


def test_profiles_share_the_bytes_of_data_and_nothing_else(tmp_path: Path) -> None:
    one, two = Home(tmp_path, "one"), Home(tmp_path, "two")
    for key in ("raw/a", "media/a", "validated/a"):
        assert one.store(key).folder(key) == two.store(key).folder(key)
    for key in ("sft_mixture", "tokenizer", "predictions/sft_checkpoint/x", "scoreboard"):
        assert one.store(key).folder(key) != two.store(key).folder(key)
    assert one.cache == two.cache
    assert (one.runs, one.dagster) == (tmp_path / "one" / "runs", tmp_path / "one" / "dagster")


def test_each_profile_has_its_own_current_version_of_shared_data(tmp_path: Path) -> None:
    one, two = Home(tmp_path, "one"), Home(tmp_path, "two")
    first, second = publish(one, "raw/a", config=1), publish(two, "raw/a", config=2)
    current = [home.store("raw/a").current("raw/a") for home in (one, two)]
    assert [found[1].data_version for found in current if found] == [first.data_version, second.data_version]
    assert one.store("raw/a").find("raw/a", second.recipe_fingerprint) is not None  # made by the other, found by this one


@pytest.mark.parametrize("key", ["", "raw//a", "../a", "raw/../../a", "."])
def test_keys_do_not_leave_the_home(tmp_path: Path, key: str) -> None:
    with pytest.raises(ValueError, match="is not an asset key"):
        Home(tmp_path, "one").store(key).folder(key)
