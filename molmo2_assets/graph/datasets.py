"""The three layers of every dataset: raw, media, validated.

Belongs here: their recipes, what their pages show. Does not belong here: fetching (`sources/`), rules (`ingest/`).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import dagster as dg

from molmo2_assets.graph import checks, pictures
from molmo2_assets.graph.step import Built, Layer, Metadata, Step, asset
from molmo2_assets.home import Home
from molmo2_assets.profile import DatasetSpec, Profile
from training_backend.data.example import SCHEMA
from training_backend.data.fingerprint import plain
from training_backend.data.manifest import Manifest, files_version, list_files

RAW_VERSION = "1"
NETWORK = dg.RetryPolicy(max_retries=3, delay=2, backoff=dg.Backoff.EXPONENTIAL)
NO_ADAPTER = "nobody has written an adapter for its layout yet"


def dataset_assets(home: Home, profile: Profile, spec: DatasetSpec) -> list[dg.AssetsDefinition]:
    """raw/<set>, media/<set>, validated/<set>."""
    common: dict[str, Any] = {
        "group": _group(spec),
        "owners": [profile.owners[layer] for layer in ("raw",) if layer in profile.owners],
        "tags": {"task": spec.task, "family": spec.family, "role": spec.role, "licence": _tag(spec.licence), "access": spec.access},
    }
    raw_key, media_key, key = f"raw/{spec.name}", f"media/{spec.name}", f"validated/{spec.name}"
    network = NETWORK if spec.source.kind in ("hub", "url") else None
    return [
        asset(
            home, raw_key, _raw(home, spec), deps=[f"hub/{spec.name}"] if spec.source.kind == "hub" else [],
            description=f"{spec.title}: annotation files as published, at one version. {spec.url or ''}",
            kinds={_source_kind(spec)}, checks=checks.specs(raw_key, "available"), pool="downloads" if network else None,
            retry=network, **common,
        ),
        asset(
            home, media_key, _media(home, spec), deps=[raw_key],
            description=f"{spec.title}: every picture and video that the rows name, stored by content and probed once.",
            kinds={_medium(spec)}, pool="decoding", **common,
        ),
        asset(
            home, key, _validated(home, spec), deps=[raw_key, media_key],
            description=f"{spec.title}: rows as examples, checked; what is not usable stands in its quarantine.",
            kinds={"json"}, checks=checks.specs(key, "contract", "non_empty"), pool="decoding", **common,
        ),
    ]  # fmt: skip


def _medium(spec: DatasetSpec) -> str:
    if spec.task == "text":
        return "text"
    return "image" if "image" in spec.task or spec.task in ("counting", "document_qa") else "video"


def _group(spec: DatasetSpec) -> str:
    """The fold of the graph that a set is in: the entry's own, evaluation sets in one of theirs."""
    return f"{re.sub(r'[^A-Za-z0-9_]', '_', spec.group)}_sets" if spec.role == "train" else "evaluation_sets"


def _tag(text: str) -> str:
    cleaned = "".join(letter if letter.isalnum() or letter in "-_." else "-" for letter in text)[:63]
    return cleaned.strip("-_.") or "unknown"


def _source_kind(spec: DatasetSpec) -> str:
    return {"hub": "huggingface", "generated": "python", "package": "python", "manual": "file", "url": "http"}[spec.source.kind]


def _raw(home: Home, spec: DatasetSpec) -> Layer:
    def config() -> Mapping[str, Any]:
        from molmo2_assets.sources.fetch import source_identity

        return plain(source_identity(spec))

    def build(step: Step) -> Built:
        from molmo2_assets.sources.fetch import fetch
        from molmo2_assets.sources.outcome import SourceUnavailable

        try:
            found = fetch(spec, step.folder, step.log, home.cache / "downloads")
        except SourceUnavailable as error:
            policy = step.context.op_def.retry_policy
            if error.passing and policy is not None and step.context.retry_number < policy.max_retries:
                raise  # the policy tries again; only the last try publishes that the set cannot be had
            step.context.log.warning(str(error))
            facts = {"reason": error.reason, "instructions": error.instructions}
            return Built("unavailable", {"files": 0}, facts, "unavailable")
        entries = list_files(step.folder)
        counts = {"files": len(entries), "bytes": sum(entry.bytes for entry in entries)}
        return Built(files_version(entries), counts, {"revision": found.revision, **found.facts})

    def show(folder: Path, manifest: Manifest) -> Metadata:
        page: Metadata = {
            "files": manifest.counts["files"], "licence": spec.licence, "provenance": spec.provenance, "access": spec.access,
            "layout": f"{spec.layout}{f' ({spec.evidence})' if spec.evidence else ''}",
        }  # fmt: skip
        if manifest.state != "ready":
            page["reason"] = str(manifest.facts["reason"])
            page["what_to_do"] = dg.MetadataValue.md(str(manifest.facts["instructions"]))
            return page
        page["revision"] = str(manifest.facts["revision"])
        page["bytes"] = manifest.counts["bytes"]
        if manifest.facts.get("refused_members"):
            page["refused_members"] = pictures.count_table("reason", manifest.facts["refused_members"])
        if spec.url:
            page["published"] = dg.MetadataValue.url(spec.url)
        return page

    return Layer("raw", RAW_VERSION, config, build, show, lambda f, m: checks.raw(f"raw/{spec.name}", m), asks_again=True)


def _reading(spec: DatasetSpec) -> dict[str, Any]:
    """What decides how rows are read; words for people are no part of it."""
    media = {name: value for name, value in plain(spec.media).items() if name not in ("origin", "instructions")}
    if media["proxy"] is None:
        del media["proxy"]  # versions of sets without proxies are older than proxies
    return {
        "adapter": spec.adapter, "params": plain(spec.adapter_params), "style": spec.style, "task": spec.task,
        "files": list(spec.source.files), "media": media, "tables": plain(spec.source.tables),
        "select": plain(spec.select),
    }  # fmt: skip


def _absent(step: Step, parent: str) -> Built | None:
    """An absent raw set makes absent children; a set without adapter is absent from here on."""
    manifest = step.parents[parent].manifest
    if manifest.state == "ready":
        return None
    return Built(manifest.state, {"rows_in": 0, "rows_ok": 0}, {"reason": manifest.facts.get("reason", "")}, manifest.state)


def _media(home: Home, spec: DatasetSpec) -> Layer:
    def build(step: Step) -> Built:
        from molmo2_assets.ingest.media_table import read_media
        from molmo2_assets.sources.media import collect_media
        from training_backend.data.media import MediaCache

        raw = f"raw/{spec.name}"
        absent = _absent(step, raw)
        if absent is not None:
            return absent
        if spec.adapter is None:
            return Built("unavailable", {"rows_in": 0, "rows_ok": 0}, {"reason": NO_ADAPTER}, "unavailable")
        before = home.store(step.key).current(step.key)
        same = before is not None and before[1].state == "ready" and before[1].code_version == media_version(spec.adapter)
        earlier = read_media(before[0]).values() if before is not None and same else ()
        report = collect_media(spec, step.parents[raw].folder, MediaCache(home.cache), step.folder, step.log, earlier=earlier)
        return Built(report.data_version, report.counts, report.facts)

    def show(folder: Path, manifest: Manifest) -> Metadata:
        if manifest.state != "ready":
            return {"reason": str(manifest.facts["reason"])}
        page: Metadata = {name: int(value) for name, value in manifest.counts.items()}
        page["bytes"] = int(manifest.facts["bytes"])
        if "proxies" in manifest.facts:
            page["read_from_proxies"] = int(manifest.facts["proxies"])
        if manifest.facts["reasons"]:
            page["not_usable"] = pictures.count_table("reason", manifest.facts["reasons"])
        return page

    from molmo2_assets.ingest.versions import media_version

    def config() -> Mapping[str, Any]:
        from molmo2_assets.sources.places import listing_of

        return {**_reading(spec), "kept": listing_of(spec.media)}

    return Layer("media", media_version(spec.adapter), config, build, show, lambda f, m: [], (f"raw/{spec.name}",))


def _validated(home: Home, spec: DatasetSpec) -> Layer:
    raw, media, key = f"raw/{spec.name}", f"media/{spec.name}", f"validated/{spec.name}"

    def config() -> Mapping[str, Any]:
        return {**_reading(spec), "schema": SCHEMA, "max_bad_fraction": spec.max_bad_fraction}

    def build(step: Step) -> Built:
        from molmo2_assets.ingest.shape import write_shape
        from molmo2_assets.ingest.validate import validate

        absent = _absent(step, media)
        if absent is not None:
            return absent
        report = validate(spec, step.parents[raw].folder, step.parents[media].folder, step.folder, step.log)
        counts = {
            "rows_in": report.rows_in,
            "rows_ok": report.rows_ok,
            "examples": report.examples,
            "quarantined": report.quarantined,
        }
        if report.rejected:
            bad = report.facts["bad_fraction"]
            reason = f"{bad:.1%} of its rows were set aside, the limit is {spec.max_bad_fraction:.1%}"
            step.context.log.warning(f"{spec.name} is rejected: {reason}; see `molmo2 quarantine show {spec.name}`")
            return Built("rejected", counts, {"reason": reason, **report.facts}, "rejected")
        pictures.draw_samples(step.folder, home.cache, step.folder / pictures.SAMPLES_PICTURE)
        pictures.draw_lengths(write_shape(step.folder), step.folder / pictures.LENGTHS_PICTURE)
        return Built(report.data_version, counts, report.facts)

    def show(folder: Path, manifest: Manifest) -> Metadata:
        from molmo2_assets.ingest.shape import read_shape, table_of

        if manifest.state != "ready":
            page: Metadata = {"reason": str(manifest.facts["reason"])}
        else:
            page = {
                "dagster/row_count": int(manifest.counts["examples"]),
                "samples": pictures.embed(folder / pictures.SAMPLES_PICTURE) if spec.media.kind != "none"
                else pictures.spoken_samples(folder),
                **pictures.page_of(spec.name),
            }  # fmt: skip
            shape = read_shape(folder)
            if shape is not None:
                page["styles"] = pictures.table(table_of(shape), ("style", "branches", "share"))
                page["lengths"] = pictures.embed(folder / pictures.LENGTHS_PICTURE)
        if manifest.counts.get("rows_in"):
            page["rows"] = pictures.row_table(manifest.counts)
            page["bad_fraction"] = float(manifest.facts["bad_fraction"])
        if "quantiles" in manifest.facts:
            page["quantiles"] = pictures.quantile_table(manifest.facts["quantiles"])
        return page

    from molmo2_assets.ingest.versions import validated_version

    return Layer(
        "validated", validated_version(spec.adapter), config, build, show, lambda f, m: checks.validated(key, m), (raw, media)
    )
