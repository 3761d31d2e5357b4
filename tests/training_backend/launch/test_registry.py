"""Launchers by name: the built-in one, those of installed packages, and a sentence for a name that nobody knows."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from training_backend.launch.local import LocalLauncher
from training_backend.registry import find_launcher, launcher_names


def test_the_local_launcher() -> None:
    assert isinstance(find_launcher("local"), LocalLauncher)
    assert "local" in launcher_names()


def test_an_unknown_name_lists_the_known_and_the_nearest() -> None:
    with pytest.raises(ValueError, match=r"There is no launcher 'locl'; known: local.*; did you mean 'local'\?"):
        find_launcher("locl")
    with pytest.raises(ValueError, match=r"There is no launcher 'zzz'; known: [^;]*$"):
        find_launcher("zzz")


def test_an_installed_package_offers_a_launcher(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "their_cluster.py").write_text("class Cluster:\n    name = 'cluster'\n")
    info = tmp_path / "their_cluster-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: their-cluster\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[molmo2.launchers]\ncluster = their_cluster:Cluster\n")
    monkeypatch.syspath_prepend(tmp_path)
    assert launcher_names() == ["cluster", "local"]
    assert find_launcher("cluster").name == "cluster"
    sys.modules.pop("their_cluster")
