"""The entry point of Dagster: the graph of the profile that MOLMO2_PROFILE names (default: demo)."""

from molmo2_assets.graph.build import build_definitions
from molmo2_assets.profile import load_profile

defs = build_definitions(load_profile())
