"""Catalogue and profiles: typed models of them, loading, merging and cross-checks. Errors name file and line.

Everything that other rooms use is importable from here.
"""

from molmo2_assets.profile.catalogue import BUILT_IN, Catalogue
from molmo2_assets.profile.checks import objections
from molmo2_assets.profile.document import ProfileError
from molmo2_assets.profile.load import catalogue, load_profile, profile_names
from molmo2_assets.profile.structs import (
    STAGES,
    Absent,
    BaseWeights,
    BenchmarkSpec,
    DatasetSpec,
    ExportSpec,
    LicenceRule,
    MediaSpec,
    MixtureGroup,
    MixtureItem,
    MixtureSpec,
    Profile,
    ProvenanceRule,
    ProxySpec,
    Published,
    SourceSpec,
    StageName,
    StageSpec,
    WeightsSource,
)

__all__ = [
    "BUILT_IN",
    "STAGES",
    "Absent",
    "BaseWeights",
    "BenchmarkSpec",
    "Catalogue",
    "DatasetSpec",
    "ExportSpec",
    "LicenceRule",
    "MediaSpec",
    "MixtureGroup",
    "MixtureItem",
    "MixtureSpec",
    "Profile",
    "ProfileError",
    "ProvenanceRule",
    "ProxySpec",
    "Published",
    "SourceSpec",
    "StageName",
    "StageSpec",
    "WeightsSource",
    "catalogue",
    "load_profile",
    "objections",
    "profile_names",
]
