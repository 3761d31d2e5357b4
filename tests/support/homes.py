"""Homes for tests: the environment of one, commands in it, and manifests made by hand for lineage."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from molmo2_assets.home import Home
from training_backend.data.fingerprint import fingerprint, short
from training_backend.data.manifest import Manifest, files_version, list_files, parent_entry

if TYPE_CHECKING:
    import dagster as dg

CHECKOUT = Path(__file__).resolve().parents[2]
PROFILES = Path(__file__).parent / "profiles"
DAGSTER_YAML = "telemetry: {enabled: false}\nnux: {enabled: false}\n"


def activated_yaml() -> str:
    """The dagster.yaml that activate.sh writes."""
    return (CHECKOUT / "activate.sh").read_text().partition("<<'YAML'")[2].partition("\n")[2].partition("\nYAML\n")[0] + "\n"


@contextmanager
def history_at(folder: Path) -> Iterator[dg.DagsterInstance]:
    """Dagster's history in this folder, as a shell that names it in DAGSTER_HOME has it."""
    import dagster as dg

    before = os.environ.get("DAGSTER_HOME")
    os.environ["DAGSTER_HOME"] = str(folder)
    try:
        with dg.DagsterInstance.get() as instance:
            yield instance
    finally:
        os.environ.pop("DAGSTER_HOME")
        if before is not None:
            os.environ["DAGSTER_HOME"] = before


@contextmanager
def activated_instance(folder: Path) -> Iterator[dg.DagsterInstance]:
    """A history in this folder, new, configured as activate.sh does it."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "dagster.yaml").write_text(activated_yaml())
    with history_at(folder) as instance:
        yield instance


def environment(home: Path, profile: str, history: Path | None = None, **more: str) -> dict[str, str]:
    """Variables of a shell that uses `home`; nothing of the tester's own settings. Makes the history's folder, with a dagster.yaml,
    where it can."""
    history = history or home / profile / "dagster"
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("MOLMO2_", "DAGSTER_"))}
    try:
        history.mkdir(parents=True, exist_ok=True)
        if not (history / "dagster.yaml").exists():
            (history / "dagster.yaml").write_text(DAGSTER_YAML)
    except OSError:
        pass
    return {
        **clean,
        "MOLMO2_HOME": str(home),
        "MOLMO2_PROFILE": profile,
        "MOLMO2_PROFILE_DIRS": str(PROFILES),
        "DAGSTER_HOME": str(history),
        "PYTHONPATH": str(CHECKOUT),
        **more,
    }


def molmo2(env: Mapping[str, str], *arguments: str, seconds: float = 120.0) -> subprocess.CompletedProcess[str]:
    """`molmo2 …` in a process of its own."""
    return subprocess.run(
        [sys.executable, "-m", "molmo2_assets.cli", *arguments],
        env=dict(env), capture_output=True, text=True, timeout=seconds, cwd=CHECKOUT, check=False,
    )  # fmt: skip


def publish(home: Home, key: str, parents: Iterable[str] = (), *, content: Any = None, config: Any = None, again: bool = False,
            finished: float = 0.0, **fields: Any) -> Manifest:  # fmt: skip
    """A version of `key` in the way that the graph makes one: recipe of configuration and parents' current versions, a hit where it
    exists (unless `again`), else built and published. `content` decides the data version (default: the recipe does)."""
    read = {name: home.store(name).current(name) for name in parents}
    manifests = {name: found[1] for name, found in read.items() if found is not None}
    assert len(manifests) == len(read), "parents first"
    recipe = {"key": key, "config": config, "parents": {name: found.data_version for name, found in sorted(manifests.items())}}
    identity = fingerprint(recipe)
    store = home.store(key)
    found = None if again else store.find(key, identity)
    if found is not None:
        store.set_current(key, found)
        current = store.current(key)
        assert current is not None
        return current[1]
    staged = store.stage(key, identity)
    (staged / "data").write_text(key)
    manifest = Manifest(
        kind="test", key=key, recipe=recipe, recipe_fingerprint=identity, code_version="1",
        data_version=short(identity if content is None else fingerprint([key, content])),
        parents={name: parent_entry(found) for name, found in manifests.items()},
        run={"finished": finished, "seconds": 1.5}, **fields,
    )  # fmt: skip
    store.publish(key, staged, manifest)
    return manifest


def publish_files(home: Home, key: str, kind: str, source: Path | None, parents: Mapping[str, Manifest], **fields: Any) -> Manifest:
    """A finished asset as a step would leave it, with the files of folder `source`; `fields` replace those of its manifest."""
    recipe = {"kind": kind, "key": key, "parents": {name: manifest.data_version for name, manifest in parents.items()}}
    store, identity = home.store(key), fingerprint(recipe)
    staged = store.stage(key, identity)
    if source is not None:
        shutil.copytree(source, staged, dirs_exist_ok=True)
    files = list_files(staged)
    manifest = Manifest(**{
        "kind": kind, "key": key, "recipe": recipe, "recipe_fingerprint": identity, "data_version": files_version(files),
        "code_version": "1", "parents": {name: parent_entry(parent) for name, parent in parents.items()}, "files": files,
        "counts": {"rows": 7}, "run": {"finished": 1.0}, **fields,
    })  # fmt: skip
    store.publish(key, staged, manifest)
    return manifest
