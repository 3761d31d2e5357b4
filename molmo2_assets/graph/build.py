"""The whole graph of a profile, from its layers.

Belongs here: putting factories together. A test or a user may pass another home.
"""

from __future__ import annotations

import dagster as dg

from molmo2_assets.graph.base import base_assets
from molmo2_assets.graph.datasets import dataset_assets
from molmo2_assets.graph.evaluations import evaluation_assets
from molmo2_assets.graph.hub import hub_definitions
from molmo2_assets.graph.mixtures import mixture_assets
from molmo2_assets.graph.publish import publish_assets
from molmo2_assets.graph.stages import stage_assets
from molmo2_assets.graph.sweep import sweeper
from molmo2_assets.home import Home, find_home
from molmo2_assets.profile import Profile


def build_definitions(profile: Profile, home: Home | None = None) -> dg.Definitions:
    """Definitions of one profile. Imports no torch, polars, duckdb or decoder."""
    home = home or find_home(profile.name)
    assets: list[dg.AssetsDefinition] = []
    for spec in profile.datasets.values():
        assets += dataset_assets(home, profile, spec)
    for key, mixture in profile.mixtures.items():
        assets += mixture_assets(home, profile, key, mixture)
    assets += base_assets(home, profile)
    assets += stage_assets(home, profile)
    assets += publish_assets(home, profile)
    assets += evaluation_assets(home, profile)
    hub = hub_definitions([spec for spec in profile.datasets.values() if spec.source.kind == "hub"])
    return dg.Definitions.merge(dg.Definitions(assets=assets, executor=dg.in_process_executor, sensors=[sweeper]), hub)
