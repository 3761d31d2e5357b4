"""How every asset of the graph is materialised: recipe, cache, build, publish, report.

Belongs here: what all layers share. Does not belong here: what any layer computes. Manifests are the truth: a step looks for a
complete folder of its recipe before it does anything, and Dagster's history mirrors what it finds or makes.
"""

# No `from __future__ import annotations` here: Dagster reads config and context annotations as objects.

import errno
import os
import resource
import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import dagster as dg

from molmo2_assets.graph.sweep import mark_process
from molmo2_assets.home import Home
from molmo2_assets.lineage.versions import recorded
from training_backend.data.fingerprint import fingerprint, plain, short
from training_backend.data.manifest import (
    AssetState,
    AssetStore,
    Manifest,
    list_files,
    parent_entry,
    read_manifest,
    storage_error,
)

Metadata = dict[str, Any]


class StepConfig(dg.Config):
    """Launchpad options of every asset. `force`: build again although the recipe has a complete version. `over_budget`: train
    although the plan needs more GPU hours than the profile's `max_gpu_hours`."""

    force: bool = False
    over_budget: bool = False


@dataclass(frozen=True)
class Parent:
    """A parent as it is read now."""

    key: str
    folder: Path
    manifest: Manifest


@dataclass(frozen=True)
class Built:
    """What a build made in its folder."""

    data_version: str
    counts: Mapping[str, Any]
    facts: Mapping[str, Any] = field(default_factory=dict)
    state: AssetState = "ready"


@dataclass(frozen=True)
class Step:
    """One materialisation under way: what a build function is given."""

    context: dg.AssetExecutionContext
    home: Home
    key: str
    folder: Path
    parents: Mapping[str, Parent]

    def log(self, message: str) -> None:
        """One line in the run's log."""
        self.context.log.info(message)


@dataclass(frozen=True)
class Layer:
    """What a layer says about an asset: how it is built, shown and checked.

    `config` is the part of the recipe that is not parents; `build` fills `step.folder`; `show` gives the metadata of the asset page
    and `check` the results of the checks, both from a finished folder, so that a cache hit shows the same page. `asks_again`: an
    unavailable version is no hit, for what was closed or out of reach may be open now.
    """

    kind: str
    code_version: str
    config: Callable[[], Mapping[str, Any]]
    build: Callable[[Step], Built]
    show: Callable[[Path, Manifest], Metadata]
    check: Callable[[Path, Manifest], list[dg.AssetCheckResult]]
    reads: Sequence[str] = ()
    asks_again: bool = False


def run_step(context: dg.AssetExecutionContext, home: Home, key: str, layer: Layer, force: bool) -> dg.MaterializeResult:
    """Materialise one asset. Raises dg.Failure with one sentence where a parent is missing."""
    mark_process(context)
    store = home.store(key)
    parents = {name: read_parent(home, key, name) for name in layer.reads}
    recipe = {
        "kind": layer.kind,
        "key": key,
        "code_version": layer.code_version,
        "config": dict(layer.config()),
        "parents": {name: parent.manifest.data_version for name, parent in sorted(parents.items())},
    }
    identity = fingerprint(recipe)
    found = None if force else store.find(key, identity)
    known = found
    closed = layer.asks_again and found is not None and read_manifest(found).state == "unavailable"
    with _plain_words(home, store.folder(key)):
        if found is None or closed:
            found = _build(context, home, store, key, layer, recipe, identity, parents, known)
        if found == known and ((current := store.current(key)) is None or current[0] != found):
            store.set_current(key, found)
    manifest = read_manifest(found)
    metadata: Metadata = {
        "cache": "hit" if found == known else "miss",
        "recipe": short(identity),
        "folder": dg.MetadataValue.path(str(found)),
        "state": manifest.state,
        **layer.show(found, manifest),
    }
    return dg.MaterializeResult(
        metadata=metadata,
        data_version=dg.DataVersion(manifest.data_version),
        check_results=layer.check(found, manifest),
        tags={"molmo2/recipe": short(identity)},
    )


@contextmanager
def _plain_words(home: Home, folder: Path) -> Iterator[None]:
    """A disk that is full or must not be written says so in one sentence, whichever library met it."""
    try:
        yield
    except OSError as error:
        where = Path(error.filename) if isinstance(error.filename, str) else folder
        refused = error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM, errno.ENOTDIR)
        if not refused or not where.is_relative_to(home.root):
            raise  # somebody else's file, or a network: not ours to explain
        raise dg.Failure(description=str(storage_error(error, where)), allow_retries=False) from error


def read_parent(home: Home, key: str, name: str) -> Parent:
    """The current version of a parent. Raises dg.Failure naming it and the way out."""
    current = home.store(name).current(name)
    if current is None:
        raise dg.Failure(
            description=f"{key} needs {name}, which was never materialised here: run `make demo`, or materialise "
            f"`{name}` with its own upstream (`--select '+{name}'`).",
            allow_retries=False,
        )
    return Parent(name, *current)


def exact_parent(home: Home, child: Manifest, name: str) -> Parent:
    """The version of `name` that a finished asset was made from, whatever is current now."""
    found = recorded(home.store(name), name, child.parents[name])
    if found is None:
        raise dg.Failure(
            description=f"{child.key} was made from a version of {name} that is no longer on disk; materialise "
            f"`{child.key}` again.",
            allow_retries=False,
        )
    return Parent(name, *found)


def _build(context: dg.AssetExecutionContext, home: Home, store: AssetStore, key: str, layer: Layer, recipe: dict[str, Any],
           identity: str, parents: dict[str, Parent], known: Path | None) -> Path:  # fmt: skip
    """Build and publish; `known` is an unavailable version, which stands where nothing has changed about it."""
    staged = store.stage(key, identity)
    started, cpu = time.time(), time.process_time()
    try:
        built = layer.build(Step(context, home, key, staged, parents))
        if known is not None and built.state == "unavailable" and plain(built.facts) == read_manifest(known).facts:
            shutil.rmtree(staged)
            return known
        manifest = Manifest(
            kind=layer.kind,
            key=key,
            recipe=recipe,
            recipe_fingerprint=identity,
            data_version=built.data_version,
            code_version=layer.code_version,
            parents={name: parent_entry(parent.manifest) for name, parent in parents.items()},
            files=list_files(staged),
            counts=dict(built.counts),
            facts=dict(built.facts),
            state=built.state,
            run={
                "seconds": round(time.time() - started, 3),
                "cpu_seconds": round(time.process_time() - cpu, 3),
                "peak_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
                "finished": time.time(),
                "dagster_run": context.run.run_id,
            },
        )
        return store.publish(key, staged, manifest)
    except BaseException:
        shutil.rmtree(staged, ignore_errors=True)
        raise


def link_files(source: Path, target: Path) -> None:
    """Hard-link (else copy) every file of a finished folder except its manifest."""
    for path in sorted(source.rglob("*")):
        if path.is_file() and path.name != "manifest.json":
            to = target / path.relative_to(source)
            to.parent.mkdir(parents=True, exist_ok=True)
            try:
                os.link(path, to)
            except OSError:
                shutil.copyfile(path, to)


def asset(
    home: Home,
    key: str,
    layer: Layer,
    *,
    deps: Sequence[str],
    group: str,
    description: str,
    kinds: set[str],
    owners: Sequence[str],
    tags: Mapping[str, str],
    checks: Sequence[dg.AssetCheckSpec] = (),
    pool: str | None = None,
    retry: dg.RetryPolicy | None = None,
) -> dg.AssetsDefinition:
    """A Dagster asset that runs `layer`."""

    @dg.asset(
        key=dg.AssetKey(key.split("/")),
        deps=[dg.AssetKey(name.split("/")) for name in deps],
        group_name=group,
        description=description,
        kinds=kinds,
        owners=list(owners),
        tags=dict(tags),
        code_version=layer.code_version,
        check_specs=list(checks),
        pool=pool,
        retry_policy=retry,
        output_required=True,
    )
    def materialise(context: dg.AssetExecutionContext, config: StepConfig) -> dg.MaterializeResult:
        return run_step(context, home, key, layer, config.force)

    return materialise
