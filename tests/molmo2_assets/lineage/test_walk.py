"""Stale assets, their root causes and the way from there, by hand and against a brute-force model."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from molmo2_assets.home import Home
from molmo2_assets.lineage.bom import bill_of_materials
from molmo2_assets.lineage.walk import Node, current_assets
from tests.support.homes import publish
from training_backend.data.fingerprint import fingerprint, short
from training_backend.data.manifest import MANIFEST_FILE

CHAIN = ("raw/a", "media/a", "validated/a", "sft_mixture", "sft_sequences", "sft_checkpoint")


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home(tmp_path, "test")


def chain(home: Home, config: object = None, upto: str = CHAIN[-1], name: str = "a") -> None:
    """The chain of one set down to `upto`; `config` is the raw set's."""
    above: list[str] = []
    for key in CHAIN:
        key = key.replace("/a", f"/{name}")
        parents = [*above[-2:]] if key.startswith("validated/") else above[-1:]
        publish(home, key, parents, config=config if key.startswith("raw/") else None)
        above.append(key)
        if key == upto:
            return


def causes(node: Node) -> dict[str, tuple[str, ...]]:
    return {reason.root: reason.path for reason in node.reasons}


def test_nothing_is_stale_after_building(home: Home) -> None:
    chain(home)
    nodes = current_assets(home)
    assert sorted(nodes) == sorted(CHAIN)
    assert not any(node.reasons for node in nodes.values())
    assert {node.seconds for node in nodes.values()} == {1.5}


def test_an_empty_home_has_no_assets(home: Home) -> None:
    assert current_assets(home) == {}


def test_staleness_reaches_all_descendants_with_the_way_there(home: Home) -> None:
    chain(home)
    before = publish(home, "raw/a")
    now = publish(home, "raw/a", config="edited")
    nodes = current_assets(home)
    assert not nodes["raw/a"].reasons
    for key in CHAIN[1:]:
        (reason,) = nodes[key].reasons
        assert (reason.root, reason.was, reason.now) == ("raw/a", before.data_version, now.data_version)
    # validated reads raw directly, so the way does not lead through media
    assert nodes["sft_checkpoint"].reasons[0].path == (
        "raw/a", "validated/a", "sft_mixture", "sft_sequences", "sft_checkpoint",
    )  # fmt: skip


def test_siblings_are_not_touched(home: Home) -> None:
    chain(home, upto="validated/a")
    chain(home, upto="validated/b", name="b")
    publish(home, "sft_mixture", ["validated/a", "validated/b"])
    publish(home, "raw/a", config="edited")
    nodes = current_assets(home)
    assert {key for key, node in nodes.items() if node.reasons} == {"media/a", "validated/a", "sft_mixture"}


def test_a_change_undone_is_not_stale(home: Home) -> None:
    chain(home)
    publish(home, "raw/a", config="edited")
    assert current_assets(home)["sft_checkpoint"].reasons
    publish(home, "raw/a")
    assert not any(node.reasons for node in current_assets(home).values())


def test_a_rebuild_with_the_same_content_is_not_a_change(home: Home) -> None:
    chain(home)
    publish(home, "raw/b", content="same")
    publish(home, "media/b", ["raw/b"])
    publish(home, "raw/b", content="same", config="written differently")
    assert not current_assets(home)["media/b"].reasons


def test_the_root_is_what_changed_first_even_where_the_middle_was_rebuilt(home: Home) -> None:
    chain(home)
    chain(home, "edited", upto="sft_mixture")
    nodes = current_assets(home)
    assert not nodes["sft_mixture"].reasons
    assert causes(nodes["sft_sequences"]) == {"raw/a": ("raw/a", "validated/a", "sft_mixture", "sft_sequences")}
    assert causes(nodes["sft_checkpoint"])["raw/a"][-2:] == ("sft_sequences", "sft_checkpoint")


def test_a_recipe_of_its_own_that_changed_is_a_root(home: Home) -> None:
    chain(home)
    publish(home, "sft_mixture", ["validated/a"], config="other weights")
    assert causes(current_assets(home)["sft_checkpoint"]) == {"sft_mixture": ("sft_mixture", "sft_sequences", "sft_checkpoint")}


def test_two_causes_are_both_told(home: Home) -> None:
    chain(home)
    chain(home, "edited", upto="validated/a")
    publish(home, "sft_mixture", ["validated/a"], config="other weights")
    assert set(causes(current_assets(home)["sft_sequences"])) == {"raw/a", "sft_mixture"}


def test_an_old_version_that_is_gone_leaves_the_nearest_known_cause(home: Home) -> None:
    chain(home)
    old = home.store("sft_mixture").current("sft_mixture")
    chain(home, "edited", upto="sft_mixture")
    assert old is not None
    (old[0] / MANIFEST_FILE).unlink()
    assert set(causes(current_assets(home)["sft_sequences"])) == {"sft_mixture"}


def test_profiles_do_not_judge_one_another(home: Home, tmp_path: Path) -> None:
    other = Home(tmp_path, "other")
    chain(home)
    chain(other)
    publish(other, "raw/a", config="asked differently")
    assert not any(node.reasons for node in current_assets(home).values())
    assert current_assets(other)["sft_checkpoint"].reasons


# -- against brute force ----------------------------------------------------------------------------------------------------


class Model:
    """A random graph, rebuilt in random parts, that remembers everything by itself.

    `made[(key, recipe fingerprint)]` = (own configuration, {parent: its (recipe, version)}). Content has few values, so that other
    recipes often give equal versions.
    """

    def __init__(self, home: Home, rng: random.Random) -> None:
        self.home, self.rng = home, rng
        size = rng.randint(3, 8)
        self.keys = [f"{'raw/' if n < 2 else ''}n{n}" for n in range(size)]
        self.parents = {key: rng.sample(self.keys[:n], k=min(n, rng.randint(0, 3))) for n, key in enumerate(self.keys)}
        self.config = dict.fromkeys(self.keys, 0)
        self.now: dict[str, tuple[str, str]] = {}
        self.made: dict[tuple[str, str], tuple[int, dict[str, tuple[str, str]]]] = {}
        for key in self.keys:
            self.build(key)

    def build(self, key: str) -> None:
        parents = {name: self.now[name] for name in self.parents[key]}
        # A version is coarser than a recipe: configurations 0 and 2 of equal parents give equal bytes.
        content = fingerprint([self.config[key] % 2, sorted(version for _, version in parents.values())])
        manifest = publish(self.home, key, self.parents[key], config=self.config[key], content=content)
        assert manifest.data_version == short(fingerprint([key, content]))
        self.now[key] = (manifest.recipe_fingerprint, manifest.data_version)
        # Parents of a cache hit stay the ones it was first built from.
        self.made.setdefault((key, manifest.recipe_fingerprint), (self.config[key], parents))

    def change(self) -> None:
        key = self.rng.choice(self.keys)
        self.config[key] = self.rng.randint(0, 2)
        self.build(key)

    def moved(self, key: str, then: tuple[str, str], now: tuple[str, str]) -> set[str]:
        (old, old_parents), (new, new_parents) = self.made[key, then[0]], self.made[key, now[0]]
        roots: set[str] = set()
        for parent in new_parents:
            if old_parents[parent][1] != new_parents[parent][1]:
                roots |= self.moved(parent, old_parents[parent], new_parents[parent])
        return roots | ({key} if old != new or not roots else set())

    def roots(self, key: str) -> set[str]:
        out: set[str] = set()
        for parent, then in self.made[key, self.now[key][0]][1].items():
            out |= self.roots(parent)
            if self.now[parent][1] != then[1]:
                out |= self.moved(parent, then, self.now[parent])
        return out

    def ancestors(self, key: str, version: tuple[str, str]) -> set[tuple[str, str, str]]:
        out = {(key, version[1], version[0][:12])}
        for parent, then in self.made[key, version[0]][1].items():
            out |= self.ancestors(parent, then)
        return out


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(seed=st.integers(0, 10**9))
def test_walk_and_bill_agree_with_brute_force(tmp_path_factory: pytest.TempPathFactory, seed: int) -> None:
    rng = random.Random(seed)
    model = Model(Home(tmp_path_factory.mktemp("walk"), "test"), rng)
    for _ in range(rng.randint(1, 10)):
        model.change()
    nodes = current_assets(model.home)
    assert set(nodes) == set(model.keys)
    for key, node in nodes.items():
        assert {reason.root for reason in node.reasons} == model.roots(key), key
        assert len(node.reasons) == len({reason.root for reason in node.reasons})
        for reason in node.reasons:
            assert (reason.path[0], reason.path[-1]) == (reason.root, key)
            assert reason.was != reason.now
            assert all(up in model.parents[down] for up, down in zip(reason.path, reason.path[1:], strict=False))
        bill = [(row["asset"], row["data_version"], row["recipe"]) for row in bill_of_materials(model.home, key)]
        assert len(bill) == len(set(bill))
        assert set(bill) == model.ancestors(key, model.now[key])
        assert bill[0][0] == key
