"""Generated sets: pictures, films and texts whose truth is exact, in the column layouts of the published sets that they stand for.

Belongs here: the list of generators by name, making one, and the plan of its broken rows. Does not belong here: any set's content.
Only what a definition needs is loaded with this module; drawing, video and Arrow come with the first call.

The bytes of a set follow from its parameters and its code version, for one version of the packages that encode pictures, films and
tables; other versions of those may code the same content in other bytes.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from molmo2_assets.sources.outcome import FetchResult, SourceError

if TYPE_CHECKING:
    from molmo2_assets.sources.generated.content import Params
    from molmo2_assets.sources.generated.faults import Fault, FaultKind


@dataclass(frozen=True)
class Generator:
    """How one set is made: module, names of its builder and of its kinds of faults there, published layout, defaults.

    `code_version` is bumped by hand when the same parameters give other content.
    """

    module: str
    build: str
    faults: str | None
    layout: str
    split: str
    n: int
    size: int = 84
    seed: int = 0
    share: float = 0.02
    folder: str = "data"
    code_version: int = 2

    @property
    def defaults(self) -> dict[str, Any]:
        """Values of the parameters that the catalogue need not give."""
        share = self.share if self.faults else 0.0
        return {"n": self.n, "seed": self.seed, "split": self.split, "size": self.size, "faults": share}

    def load(self, name: str) -> Any:
        """A member of the generator's module."""
        return getattr(import_module(f"molmo2_assets.sources.generated.{self.module}"), name)


GENERATORS: dict[str, Generator] = {
    "shapes_cap": Generator("images", "build_captions", "CAPTION_FAULTS", "pixmo-cap", "train", 600),
    "shapes_points": Generator("images", "build_points", "POINTS_FAULTS", "pixmo-points", "train", 1400, code_version=3),
    "shapes_count": Generator("images", "build_counts", "COUNT_FAULTS", "pixmo-count", "train", 900),
    "shapes_cap_qa": Generator("images", "build_look_questions", "LOOK_FAULTS", "pixmo-cap-qa", "train", 1200, code_version=1),
    "shapes_qa": Generator("images", "build_questions", "QUESTION_FAULTS", "pixmo-ask-model-anything", "train", 1200),
    "charts_qa": Generator("charts", "build_charts", "CHART_FAULTS", "ChartQA", "train", 450, size=168),
    "shapes_multi_qa": Generator("several", "build_questions", "QUESTION_FAULTS", "Molmo2-MultiImageQA", "train", 200),
    "shapes_multi_points": Generator("several", "build_points", "POINTS_FAULTS", "Molmo2-MultiImagePoint", "train", 240),
    "clips_cap": Generator("videos", "build_captions", "CAPTION_FAULTS", "Molmo2-Cap", "train", 100),
    "clips_qa": Generator("videos", "build_choices", "CHOICE_FAULTS", "Molmo2-VideoCapQA", "CapQA", 300),
    "clips_subtitle_qa": Generator(
        "videos", "build_subtitle_choices", "SUBTITLE_FAULTS", "Molmo2-VideoSubtitleQA", "SubtitleQA", 160
    ),
    "clips_points": Generator("video_points", "build_points", "POINT_FAULTS", "Molmo2-VideoPoint", "train", 260, folder="object"),
    "clips_track": Generator(
        "tracks", "build_tracks", "TRACK_FAULTS", "molmo2-track-instruction", "train", 260, folder="track", code_version=3
    ),
    "tiny_text": Generator("text", "build_text", "TEXT_FAULTS", "molmo2-tulu4-classified", "train", 800),
    "shapes_points_eval": Generator("images", "build_points_eval", None, "pixmo-points-eval", "test", 200, seed=1, code_version=3),
    "shapes_count_eval": Generator("images", "build_counts", None, "pixmo-count", "validation", 150, seed=1),
    "shapes_qa_eval": Generator("images", "build_questions", None, "pixmo-ask-model-anything", "validation", 180, seed=1),
    "clips_points_eval": Generator("video_points", "build_points_eval", None, "Molmo2-VideoPointEval", "val", 60, seed=1),
    "clips_track_eval": Generator("tracks", "build_tracks_eval", None, "Molmo2-VideoTrackEval", "test", 60, seed=1),
    "clips_qa_eval": Generator("videos", "build_choices", None, "Molmo2-VideoCapQA", "CapQA", 90, seed=1),
}


def generator(name: str | None) -> Generator:
    """The generator called `name`. Raises SourceError naming those there are."""
    if name not in GENERATORS:
        raise SourceError(f"There is no generator called {name!r}; there are {', '.join(sorted(GENERATORS))}.")
    return GENERATORS[name]


def resolve(name: str | None, given: dict[str, Any]) -> Params:
    """The parameters of a generator, defaults filled in. Raises SourceError for an unknown name, parameter or value."""
    from molmo2_assets.sources.generated.content import read_params

    return read_params(str(name), generator(name).defaults, given)


def identity(name: str | None, given: dict[str, Any]) -> dict[str, Any]:
    """What decides a generated set: generator, code version and every parameter. Checks names only, so that it costs nothing."""
    made = generator(name)
    unknown = sorted(set(given) - set(made.defaults))
    if unknown:
        raise SourceError(f"The generator {name} has no parameter {unknown[0]!r}; it takes {', '.join(sorted(made.defaults))}.")
    return {"generator": name, "code_version": made.code_version, "params": {**made.defaults, **given}}


def planned_faults(name: str, given: dict[str, Any] | None = None) -> tuple[Fault, ...]:
    """The rows that this set breaks on purpose. For tests: nothing in the product reads it."""
    from molmo2_assets.sources.generated.faults import plan_faults

    return plan_faults(resolve(name, given or {}), _kinds(generator(name)))


def generate(name: str | None, given: dict[str, Any], dest: Path, log: Callable[[str], None]) -> FetchResult:
    """Write one set into `dest`: `<folder>/<split>-00000-of-00001.parquet`, `media/`, for tracks also `masks/`."""
    from molmo2_assets.sources.generated.content import MediaFolder, write_parquet
    from molmo2_assets.sources.generated.faults import break_rows

    made = generator(name)
    params = resolve(name, given)
    media = MediaFolder(dest, params)
    rows = made.load(made.build)(params, media)
    broken = break_rows(rows, params, _kinds(made), media)
    file = f"{made.folder}/{params.split}-00000-of-00001.parquet"
    write_parquet(dest, file, rows, made.layout)
    log(f"{name}: {len(rows)} rows, {media.files} media files, {len(broken)} rows broken on purpose")
    facts = {"rows": len(rows), "media_files": media.files, "layout": made.layout, "annotations": [file]}
    return FetchResult(revision=f"generated-{made.code_version}", facts=facts)


def _kinds(made: Generator) -> tuple[FaultKind, ...]:
    return () if made.faults is None else tuple(made.load(made.faults))
