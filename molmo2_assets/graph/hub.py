"""hub/<set>: the published repositories as observable external assets, and the one job that observes them.

Belongs here: observation. A new commit makes raw/<set> stale with its reason; what raw/<set> fetches stays pinned until the
catalogue moves. Does not belong here: the client (`sources/hub.py`).
"""

# No `from __future__ import annotations` here: Dagster reads config and context annotations as objects.

import warnings
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor

import dagster as dg

from molmo2_assets.profile import DatasetSpec

_AT_ONCE = 8
"""Questions to the Hub at a time."""


def hub_definitions(specs: Sequence[DatasetSpec]) -> dg.Definitions:
    """Observable assets, their job and a schedule that a person switches on."""
    if not specs:
        return dg.Definitions()
    by_key = {dg.AssetKey(["hub", spec.name]): spec for spec in specs}
    with warnings.catch_warnings():
        # In beta for years: the warning would stand in every terminal; the version is pinned and the tests observe with it.
        warnings.simplefilter("ignore", dg.BetaWarning)
        observe = _observation(by_key)
    job = dg.define_asset_job("observe_hub_job", selection=dg.AssetSelection.assets(*by_key))
    schedule = dg.ScheduleDefinition(name="observe_hub_daily", job=job, cron_schedule="0 6 * * *")
    return dg.Definitions(assets=[observe], jobs=[job], schedules=[schedule])


def _observation(by_key: Mapping[dg.AssetKey, DatasetSpec]) -> dg.AssetsDefinition:
    """One step that asks the Hub for the head of every selected set."""

    @dg.multi_observable_source_asset(
        name="observe_hub",
        specs=[
            dg.AssetSpec(key, group_name="hub", kinds={"huggingface"}, description=f"{spec.source.repo} on the Hub")
            for key, spec in by_key.items()
        ],
        can_subset=True,
    )
    def observe(context: dg.AssetExecutionContext) -> Iterator[dg.ObserveResult]:
        from molmo2_assets.sources.hub import head_revision
        from molmo2_assets.sources.outcome import SourceError

        keys = sorted(context.selected_asset_keys)
        with ThreadPoolExecutor(_AT_ONCE) as pool:
            asked = [pool.submit(head_revision, by_key[key]) for key in keys]
        for key, answer in zip(keys, asked, strict=True):
            spec = by_key[key]
            try:
                commit = answer.result()
            except SourceError as error:
                context.log.warning(f"{spec.name}: {error}")
                continue
            yield dg.ObserveResult(
                asset_key=key,
                data_version=dg.DataVersion(commit),
                metadata={
                    "commit": commit,
                    "pinned": spec.source.revision or "not pinned",
                    "current": commit == spec.source.revision,
                },
            )

    return observe
