"""One entry for every kind of source: what decides its bytes, and fetching them.

Belongs here: the choice by `source.kind`. Does not belong here: how any kind works (its own module), what becomes of the files
(`molmo2_assets.ingest`).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from molmo2_assets.sources.outcome import FetchResult, SourceError

if TYPE_CHECKING:
    from molmo2_assets.profile import DatasetSpec


def source_identity(spec: DatasetSpec) -> dict[str, Any]:
    """What decides the bytes of a set, as plain values: part of the recipe of its raw asset. Loads no client and no decoder."""
    from molmo2_assets.sources.archives import CODE_VERSION

    unpacked = {"unpack": [CODE_VERSION, *spec.source.unpack]} if spec.source.unpack else {}
    return {"kind": spec.source.kind, **_identity(spec), **unpacked}


def _identity(spec: DatasetSpec) -> dict[str, Any]:
    from molmo2_assets.sources import generated, hub, manual, package, url

    kind = spec.source.kind
    if kind == "generated":
        return generated.identity(spec.source.generator, spec.source.params)
    if kind == "hub":
        return hub.identity(spec)
    if kind == "manual":
        return manual.identity(spec)
    if kind == "package":
        return package.identity()
    return url.identity(spec)


def fetch(spec: DatasetSpec, dest: Path, log: Callable[[str], None], downloads: Path | None = None) -> FetchResult:
    """Write the files of a set into `dest`, a staging folder: annotations in their published form, media where it has some, the
    archives that the entry names unpacked.

    What comes over a network arrives in a folder below `downloads` first, where an interrupted fetch finds it again (None: nothing
    is kept). Raises SourceUnavailable where a person has to unlock or provide something first, SourceError where the entry is
    wrong.
    """
    from molmo2_assets.sources.archives import PACKED_ROWS, unpack

    dest.mkdir(parents=True, exist_ok=True)
    found = _fetch(spec, dest, log, downloads)
    refused = unpack(spec.name, dest, (*spec.source.unpack, *PACKED_ROWS), log)
    return replace(found, facts={**found.facts, "refused_members": refused}) if refused else found


def _fetch(spec: DatasetSpec, dest: Path, log: Callable[[str], None], downloads: Path | None) -> FetchResult:
    from molmo2_assets.sources import generated, hub, manual, package, url

    kind = spec.source.kind
    if kind == "generated":
        return generated.generate(spec.source.generator, spec.source.params, dest, log)
    if kind == "hub":
        return hub.fetch_hub(spec, dest, log, downloads)
    if kind == "manual":
        return manual.fetch_manual(spec, dest, log)
    if kind == "package":
        return package.fetch_package(dest, log)
    if kind == "url":
        return url.fetch_url(spec, dest, log, downloads)
    raise SourceError(f"{spec.name} has a source of kind {kind!r}; kinds are generated, hub, manual, package and url.")
