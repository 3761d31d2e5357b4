"""The shape of a set: styles and lengths counted by hand on a few rows."""

from __future__ import annotations

from pathlib import Path

from molmo2_assets.ingest.adapters.base import ask
from molmo2_assets.ingest.shape import read_shape, shape_of, table_of, write_shape
from tests.support.published_rows import film
from training_backend.data.example import (
    SCHEMA,
    Branch,
    Choices,
    Example,
    Media,
    Source,
    TimedPoint,
    TimedPoints,
    Track,
    Tracks,
    TrackSample,
)
from training_backend.data.store import RowWriter

POINTS = TimedPoints(label="red boats", points=(TimedPoint(t=0.0, x=0.5, y=0.5, id=0), TimedPoint(t=1.0, x=0.5, y=0.5, id=1)))
TRACKS = Tracks(query="it", fps=1.0, tracks=(Track(id=0, samples=tuple(TrackSample(t=float(t), x=0.5, y=0.5) for t in range(5))),))


def row(name: str, media: tuple[Media, ...], *branches: Branch) -> Example:
    return Example(id=f"set/{name}", schema=SCHEMA, task="video_qa", source=Source(file="f", row=0), media=media, branches=branches)


def stored(folder: Path, *rows: Example) -> Path:
    folder.mkdir()
    with RowWriter(folder) as writer:
        for example in rows:
            writer.add(example)
    return folder


def test_styles_and_lengths_are_those_of_the_rows(tmp_path: Path) -> None:
    folder = stored(
        tmp_path / "set",
        row("a", (film(),), ask("1", "user_qa", "Who is it?", "Ann"), ask("2", "video_point", None, POINTS)),
        row("b", (film(seconds=1.5),), ask("1", "user_qa", "Which?", Choices(options=("one", "two"), answer=0)),
            ask("2", "t", None, TRACKS)),
    )  # fmt: skip
    shape = write_shape(folder)
    assert read_shape(folder) == shape == shape_of(folder)
    assert shape.styles == {"user_qa": 2, "t": 1, "video_point": 1}
    assert [entry["share"] for entry in table_of(shape)] == [0.5, 0.25, 0.25]
    by_edge = {
        name: {shape.edges[place]: count for place, count in enumerate(counts) if count} for name, counts in shape.lengths.items()
    }
    assert by_edge == {
        "words": {4: 1, 2: 1},  # "Who is it?", "Ann", "red boats"; "Which?", "one", "two"
        "branches": {2: 2},
        "points": {2: 1, 4: 1},
        "seconds": {8: 1, 1: 1},
        "media": {1: 2},
    }


def test_quantities_that_nothing_has_are_left_out_and_the_last_bin_has_no_end(tmp_path: Path) -> None:
    folder = stored(tmp_path / "set", row("a", (), ask("1", "text_sft", None, "word " * 20_000)))
    shape = shape_of(folder)
    assert set(shape.lengths) == {"words", "branches"}
    assert shape.lengths["words"][-1] == 1
    assert read_shape(folder) is None
