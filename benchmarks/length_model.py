"""Lengths of a profile's mixtures before any of its data is here: the catalogue's datasets in the shapes that publishers describe.

Belongs here: how many words, pictures, seconds, points and objects an example of each task has. Does not belong here: what they
cost in tokens and crops: that is asked of the encoder itself (`Preprocessor.lengths` under the stage's own recipe, over-budget
policy included), for examples made to these shapes. Which dataset comes next is the mixture's own order, with weights from the
sizes that the catalogue declares; sets of unknown size count as UNKNOWN_ROWS, so that none is left out.

Sources of the shapes are the sets' cards and the report: dense captions of about 200 words, video captions of 924, 3.4 objects a
tracking query, at most 60 points, clips of at most 63 s for pointing, 2 to 5 images (2.7 on average), at most 4,096 tokens of a
text's first message. Branches an example are rows ÷ tree examples where the catalogue declares both. Where no card says anything
(lengths of videos, sizes of pictures) the numbers are plain assumptions, written below.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from molmo2_assets.mixtures.weights import mixture_weights
from molmo2_assets.profile import DatasetSpec, Profile, StageSpec
from training_backend.data.example import (
    SCHEMA,
    Branch,
    Choices,
    Count,
    Example,
    Media,
    Part,
    Point,
    Points,
    Source,
    Subtitle,
    Text,
    TimedPoint,
    TimedPoints,
    Track,
    Tracks,
    TrackSample,
    Turn,
)
from training_backend.data.order import Mixture, MixtureEntry, integer_weights
from training_backend.encode.draws import position_keys
from training_backend.encode.preprocessor import Preprocessor
from training_backend.encode.tokens import Tokenizer

UNKNOWN_ROWS = 20_000
WORD = " red"
"""One token of the benchmark's tokenizer: a text of n tokens is this word n times."""


@dataclass(frozen=True)
class Shape:
    """Medians of an example of one task, drawn log-normally with the `spread` beside them. Words in tokens, time in seconds."""

    question: int
    answer: int
    spread: float = 0.6
    branches: int = 1
    points: int = 0
    seconds: float = 0.0
    images: tuple[int, int] = (1, 1)


SHAPES: dict[str, Shape] = {
    "image_caption": Shape(0, 260, 0.4, branches=2),
    "image_qa": Shape(14, 12, 1.0, branches=4),
    "document_qa": Shape(18, 24, 1.0, branches=4),
    "multi_image_qa": Shape(40, 30, 0.8, branches=2, images=(2, 5)),
    "image_pointing": Shape(0, 0, 1.0, branches=6, points=2),
    "multi_image_pointing": Shape(0, 0, 0.9, points=3, images=(2, 5)),
    "counting": Shape(0, 0, 0.7, points=4),
    "video_caption": Shape(0, 1200, 0.5, seconds=45.0),
    "video_qa": Shape(50, 8, 0.8, branches=2, seconds=25.0),
    "video_subtitle_qa": Shape(60, 8, 0.6, branches=3, seconds=70.0),
    "video_pointing": Shape(0, 0, 1.0, branches=2, points=3, seconds=20.0),
    "video_tracking": Shape(0, 0, 0.6, points=2, seconds=12.0),
    "text": Shape(80, 300, 1.0, branches=1),
}
PHOTOS = ((640, 480), (480, 640), (640, 427), (500, 375), (1024, 768), (1280, 853), (1600, 1200), (375, 500))
DOCUMENTS = ((1700, 2200), (850, 600), (1654, 2339), (800, 800), (1200, 900), (1275, 1650))
_LIMITS = {"points": 60, "pointing_seconds": 63.0, "seconds": 1200.0, "branches": 40, "first_message": 4096}


class LengthModel:
    """(tokens, crops or frames) of a stage's mixture, position by position."""

    def __init__(self, profile: Profile, stage: StageSpec, tokenizer: Tokenizer) -> None:
        if len(tokenizer.encode(WORD * 7)) != 7:
            raise ValueError(f"{WORD!r} is no single token of the benchmark's tokenizer")
        self.stage = stage
        self._specs = {name: profile.datasets[name] for name in profile.mixtures[stage.mixture].datasets}
        rows = {name: spec.weight_rows or spec.rows or UNKNOWN_ROWS for name, spec in self._specs.items()}
        table = mixture_weights(profile.mixtures[stage.mixture], rows)
        whole = integer_weights([row.weight for row in table])
        pairs = zip(table, whole, strict=True)
        entries = [MixtureEntry(dataset=row.dataset, rows=row.rows, data_version="catalogue", weight=w) for row, w in pairs]
        self.mixture = Mixture.build(stage.seed, entries)
        self._encoder = Preprocessor(stage.encode, stage.loss, tokenizer, stage.pack.max_tokens, stage.pack.max_visual)

    def lengths(self, count: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """[count] each, of the mixture's first positions."""
        datasets, _, rows = self.mixture.window(0, count)
        keys = position_keys(self.stage.seed, 0, count).tolist()
        names = self.mixture.datasets
        found = [
            self._encoder.lengths(example_of(self._specs[names[dataset]], row), key)
            for dataset, row, key in zip(datasets.tolist(), rows.tolist(), keys, strict=True)
        ]
        tokens, visual = np.array(found, dtype=np.int64).T
        return tokens, visual


def example_of(spec: DatasetSpec, row: int) -> Example:
    """Row `row` of a set as its task is shaped: the same one each time."""
    shape, rng = SHAPES[spec.task], np.random.default_rng([int.from_bytes(spec.name.encode(), "little") % (1 << 63), row])
    media = _media(spec, shape, rng)
    branches = tuple(_branch(spec, shape, number, media, rng) for number in range(_branches(spec, shape, rng)))
    return Example(
        id=f"{spec.name}/{row}", schema=SCHEMA, task=spec.task, source=Source(file="model", row=row), media=media, branches=branches
    )


def _about(rng: np.random.Generator, median: float, spread: float, least: float, most: float) -> float:
    return float(np.clip(median * np.exp(rng.normal(0, spread)), least, most))


def _branches(spec: DatasetSpec, shape: Shape, rng: np.random.Generator) -> int:
    mean = spec.rows / spec.weight_rows if spec.rows and spec.weight_rows else shape.branches
    return round(_about(rng, mean, 0.4, 1, _LIMITS["branches"])) if mean > 1 else 1


def _media(spec: DatasetSpec, shape: Shape, rng: np.random.Generator) -> tuple[Media, ...]:
    fields: dict[str, Any] = {"uri": "", "sha256": "0" * 64}
    if spec.task == "text":
        return ()
    if shape.seconds:
        most = _LIMITS["pointing_seconds" if spec.family == "pointing" else "seconds"]
        seconds = round(_about(rng, shape.seconds, 0.9, 2.0, most) * 2) / 2
        lines = tuple(
            Subtitle(start=float(start), end=float(start) + 2.5, text=WORD * int(rng.integers(4, 16)))
            for start in (np.arange(0, seconds, 3.0) if spec.task == "video_subtitle_qa" else ())
        )
        video = Media(
            id="v", kind="video", width=1280, height=720, duration=seconds, fps=24.0, n_frames=int(24 * seconds), subtitles=lines,
            **fields,
        )  # fmt: skip
        return (video,)
    # Half of the sets with several pictures have two: 2.7 on average.
    low, high = shape.images
    count = low if rng.random() < 0.55 else int(rng.integers(low, high + 1))
    sizes = DOCUMENTS if spec.task == "document_qa" else PHOTOS
    chosen = [sizes[int(rng.integers(len(sizes)))] for _ in range(count)]
    return tuple(Media(id=str(n), kind="image", width=w, height=h, **fields) for n, (w, h) in enumerate(chosen))


def _branch(spec: DatasetSpec, shape: Shape, number: int, media: tuple[Media, ...], rng: np.random.Generator) -> Branch:
    style = (spec.style or "user_qa") if number == 0 or spec.family != "caption" else "transcript"
    turns = []
    if shape.question:
        asked = int(_about(rng, shape.question, shape.spread, 4, _LIMITS["first_message"]))
        turns.append(Turn(role="user", parts=(Text(text=(WORD * asked).lstrip()),)))
    turns.append(Turn(role="assistant", parts=_answer(spec, shape, media, rng)))
    return Branch(id=str(number), style=style, turns=tuple(turns))


def _answer(spec: DatasetSpec, shape: Shape, media: tuple[Media, ...], rng: np.random.Generator) -> tuple[Part, ...]:
    if spec.task == "video_tracking":
        return (_tracks(spec, media[0], rng),)
    if shape.points:
        many = round(_about(rng, shape.points, shape.spread, 0, _LIMITS["points"]))
        places = rng.random((many, 2)).round(3).tolist()
        label, total = WORD.strip(), Count(label=WORD.strip(), count=many)
        if spec.task == "video_pointing":
            times = np.sort(rng.integers(0, int(2 * (media[0].seconds or 0)) + 1, many)) / 2
            timed = tuple(TimedPoint(t=float(t), x=x, y=y, id=n) for n, (t, (x, y)) in enumerate(zip(times, places, strict=True)))
            return TimedPoints(label=label, points=timed), total
        points = tuple(Point(x=x, y=y, id=n, image=int(rng.integers(len(media)))) for n, (x, y) in enumerate(places))
        return (Points(label=label, points=points), total) if rng.random() < 0.5 else (Points(label=label, points=points),)
    if "multiple_choice" in (spec.style or "") or (spec.style or "").endswith("_mc"):
        return (Choices(options=tuple(f"{n}{WORD * int(rng.integers(2, 14))}" for n in range(4)), answer=int(rng.integers(4))),)
    said = _about(rng, 80 if (spec.style or "").endswith("_exp") else shape.answer, shape.spread, 1, 8000)
    return (Text(text=(WORD * int(said)).lstrip()),)


def _tracks(spec: DatasetSpec, media: Media, rng: np.random.Generator) -> Tracks:
    style = spec.style or ""
    mode = "ground" if "ground" in style else "single_point" if "single_point" in style else "track"
    many = 1 if mode == "single_point" else round(_about(rng, 2.5, 0.7, 1, 12))
    fps = float(rng.integers(1, 3))
    times = np.arange(0, media.seconds or 0, 1 / fps)
    tracks = []
    for number in range(many):
        # An object is in sight for a part of the clip.
        first = int(rng.integers(0, max(1, len(times) // 3)))
        last = int(rng.integers(max(first + 1, 2 * len(times) // 3), len(times) + 1))
        places = rng.random((last - first, 2)).round(3).tolist()
        samples = (TrackSample(t=float(t), x=x, y=y) for t, (x, y) in zip(times[first:last], places, strict=True))
        tracks.append(Track(id=number, samples=tuple(samples)))
    return Tracks(query=WORD.strip(), tracks=tuple(tracks), fps=fps, mode=mode)  # type: ignore[arg-type]
