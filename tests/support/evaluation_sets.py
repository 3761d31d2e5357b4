"""Small evaluation sets in memory and on disk: rows with masks, and predictions as a predict run leaves them."""

from collections.abc import Sequence
from pathlib import Path

import msgspec
import numpy as np
from numpy.typing import NDArray

from molmo2_assets.evaluation.records import Record
from training_backend.data import predictions as stored
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
    Task,
    Text,
    TimedPoint,
    TimedPoints,
    Track,
    Tracks,
    TrackSample,
    Turn,
)
from training_backend.data.store import RowStore, RowWriter

SIDE = 32
FPS = 8.0


def rle(mask: NDArray[np.bool_]) -> dict[str, object]:
    """COCO run-length encoding, uncompressed: column by column, zeros first."""
    flat = mask.ravel(order="F").astype(np.int8)
    edges = np.flatnonzero(np.diff(flat)) + 1
    runs = np.diff(np.concatenate([[0], edges, [flat.size]])).tolist()
    return {"size": list(mask.shape), "counts": [0, *runs] if flat[0] else runs}


def disc(x: float, y: float, radius: float = 3.0) -> NDArray[np.bool_]:
    """A filled circle of `radius` pixels around the fraction (x, y) of a SIDE × SIDE picture."""
    rows, columns = np.mgrid[:SIDE, :SIDE]
    return (columns - x * SIDE) ** 2 + (rows - y * SIDE) ** 2 <= radius**2


def row(
    name: str,
    task: Task,
    truth: Sequence[Part],
    question: str = "",
    *,
    media: int = 1,
    seconds: float | None = None,
    **meta: object,
) -> Example:
    """One example of one branch; `seconds` makes its media a video."""
    item = Media(id="0", kind="image", uri=f"{name}.png", sha256="0" * 64, width=SIDE, height=SIDE)
    if seconds is not None:
        item = msgspec.structs.replace(item, kind="video", duration=seconds, fps=FPS, n_frames=int(seconds * FPS))
    turns = (Turn(role="user", parts=(Text(text=question),)), Turn(role="assistant", parts=tuple(truth)))
    return Example(
        id=name,
        schema=SCHEMA,
        task=task,
        source=Source(file="rows.jsonl", row=0),
        media=tuple(msgspec.structs.replace(item, id=str(number)) for number in range(media)),
        branches=(Branch(id="0", style="eval", turns=turns),),
        meta=meta,
    )


def pointed(name: str, places: Sequence[tuple[float, float]], question: str = "Point to the discs.") -> Example:
    """A picture with one disc at each place."""
    points = tuple(Point(x=x, y=y, id=number) for number, (x, y) in enumerate(places))
    masks = {str(number): {"0": rle(disc(x, y))} for number, (x, y) in enumerate(places)}
    return row(name, "image_pointing", [Points(label="discs", points=points)], question, masks=masks)


def video_pointed(name: str, places: Sequence[tuple[float, float, float]], seconds: float = 4.0) -> Example:
    """A clip in which disc i is seen at (t, x, y) and half a second later."""
    points = tuple(TimedPoint(t=t, x=x, y=y, id=number) for number, (t, x, y) in enumerate(places))
    masks = {
        str(number): {f"{t:.1f}": rle(disc(x, y)), f"{t + 0.5:.1f}": rle(disc(x, y))} for number, (t, x, y) in enumerate(places)
    }
    return row(
        name, "video_pointing", [TimedPoints(label="discs", points=points)], "Point to the discs.", seconds=seconds, masks=masks
    )


def tracked(name: str, paths: Sequence[Sequence[tuple[float, float, float]]], seconds: float = 3.0) -> Example:
    """A clip in which disc i is at (t, x, y) of its path; sampled at 1 fps."""
    tracks = tuple(
        Track(id=number, samples=tuple(TrackSample(t=t, x=x, y=y) for t, x, y in path)) for number, path in enumerate(paths)
    )
    masks = {str(number): {f"{t:.1f}": rle(disc(x, y)) for t, x, y in path} for number, path in enumerate(paths)}
    part = Tracks(query="the discs", tracks=tracks, fps=1.0)
    return row(name, "video_tracking", [part], "Track the discs.", seconds=seconds, masks=masks)


def counted(name: str, count: int, question: str = "How many discs?") -> Example:
    """A question whose answer is a number."""
    return row(name, "counting", [Count(label="discs", count=count)], question)


def chosen(name: str, options: Sequence[str], answer: int, question: str = "Which one?") -> Example:
    """A multiple-choice question."""
    return row(name, "image_qa", [Choices(options=tuple(options), answer=answer)], question)


def asked(name: str, question: str, *answers: str) -> Example:
    """A short question with one or several accepted answers."""
    meta = {"answers": list(answers)} if len(answers) > 1 else {}
    return row(name, "image_qa", [Text(text=answers[0])], question, **meta)


def answer(example: Example, text: str = "", failure: str | None = None) -> Record:
    """A record of the example's only branch."""
    return Record(example, example.branches[0], text, failure)


def write_set(folder: Path, examples: Sequence[Example]) -> Path:
    """A validated asset's files."""
    with RowWriter(folder) as writer:
        for example in examples:
            writer.add(example)
    return folder


def write_predictions(folder: Path, validated: Path, answers: dict[str, str], failures: Sequence[str] = ()) -> Path:
    """What a predict run leaves: one line a branch, in row order; "" where `answers` has no entry."""
    store = RowStore(validated)
    lines = []
    for example in store:
        reason = "unreadable" if example.id in failures else None
        lines.append(stored.Prediction(id=example.id, branch="0", prompt="", answer=answers.get(example.id, ""), failure=reason))
    header = stored.PredictionHeader(
        rows=len(store), questions=len(lines), failures=len(failures), point_syntax="report", dataset=store.version
    )
    stored.write_predictions(folder, header, lines)
    return folder
