"""Grounded answers: how points and tracks of an answer meet the truth of their row, and the best places picked without looking.

Belongs here: glue from records to `pointing.py`, `video_pointing.py` and `tracking.py`. Does not belong here: any rule of scoring.
Predictions: points are lists of (x, y, image), timed points lists of (t, x, y), tracks {frame: {id: (x, y)}}; None where
the answer could not be read, which scores like an answer without points.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from molmo2_assets.evaluation import pointing, tracking, video_pointing
from molmo2_assets.evaluation.baselines import Score, Target, best_places, blind_sets, grid
from molmo2_assets.evaluation.records import Record, Values
from training_backend.data.example import Points, TimedPoints, Tracks

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


def size_bin(record: Record) -> str:
    """By number of true points."""
    count = len((record.part(Points) or record.need(TimedPoints)).points)
    return str(count) if count < 2 else "2-3" if count < 4 else "4-10" if count < 11 else "11+"


# -- points in images ---------------------------------------------------------------------------------------------------------


def points_of(record: Record) -> list[tuple[float, float, int]] | None:
    """(x, y, image) of the answer."""
    found = record.grounded()
    return None if found is None else [(point.x, point.y, point.image or 0) for point in found]


def _masks(record: Record) -> list[tuple[NDArray[np.bool_], int]]:
    return [(record.mask(point.id, str(point.image)), point.image) for point in record.need(Points).points]


def membership(record: Record, prediction: list[tuple[float, float, int]] | None) -> Values:
    return _named("pointing", pointing.membership_score(prediction or [], _masks(record)))


def distance(record: Record, prediction: list[tuple[float, float, int]] | None) -> Values:
    true = [(point.x, point.y) for point in record.need(Points).points]
    given = [point[:2] for point in prediction or []]
    return _named("pointing_distance", pointing.distance_score(given, true, [mask for mask, _ in _masks(record)]))


def blind_points(score: Score, records: Sequence[Record]) -> Values:
    """One set of places, the same for every example; in examples of several images each place is in one of them."""
    import numpy as np

    cells = np.array(grid())
    images = max(len(record.example.media) for record in records)
    places = [(x, y, image) for image in range(images) for x, y in grid()]
    targets = []
    for record in records:
        masks = _masks(record)
        inside = np.zeros((len(masks), images, len(cells)), dtype=bool)
        for row, (mask, image) in enumerate(masks):
            inside[row, image] = pointing.contains(cells, mask, "clamp")
        targets.append(Target(inside.reshape(len(masks), len(places)), 1 / len(records)))
        record.release()
    sets = [[places[number] for number in chosen] for chosen in blind_sets(targets, len(places))]
    return best_places(score, records, [_always(chosen) for chosen in sets])


# -- points in videos ---------------------------------------------------------------------------------------------------------


def timed_points_of(record: Record) -> list[tuple[float, float, float]] | None:
    """(t, x, y) of the answer."""
    found = record.grounded()
    return None if found is None else [(point.t or 0.0, point.x, point.y) for point in found]


def _tubes(record: Record) -> list[dict[float, NDArray[np.bool_]]]:
    points = record.need(TimedPoints).points
    return [{float(key): record.mask(point.id, key) for key in record.mask_keys(point.id)} for point in points]


def video_membership(record: Record, prediction: list[tuple[float, float, float]] | None) -> Values:
    true = [(point.t, point.x, point.y) for point in record.need(TimedPoints).points]
    seconds = record.example.media[0].seconds or 0.0
    return _named("video_pointing", video_pointing.video_point_score(prediction or [], true, _tubes(record), seconds))


def blind_video_points(score: Score, records: Sequence[Record]) -> Values:
    """One set of (t, x, y), the same for every video; times are those at which any object of the set has a mask."""
    import numpy as np

    cells = np.array(grid())
    tubes = [record.mask_keys(point.id) for record in records for point in record.need(TimedPoints).points]
    times = sorted({float(key) for keys in tubes for key in keys})
    places = [(time, x, y) for time in times for x, y in grid()]
    targets = []
    for record in records:
        objects = _tubes(record)
        inside = np.zeros((len(objects), len(times), len(cells)), dtype=bool)
        for row, tube in enumerate(objects):
            for time, mask in tube.items():
                inside[row, times.index(time)] = pointing.contains(cells, mask, "miss")
        targets.append(Target(inside.reshape(len(objects), len(places)), 1 / len(records)))
        record.release()
    sets = [[places[number] for number in chosen] for chosen in blind_sets(targets, len(places))]
    return best_places(score, records, [_always(chosen) for chosen in sets])


# -- tracks -------------------------------------------------------------------------------------------------------------------


def is_track(record: Record) -> bool:
    """Whether the truth holds every sampled moment; an answer of first and last sights would miss most true frames."""
    part = record.part(Tracks)
    return part is not None and part.mode != "ground"


def _frame(record: Record, time: float) -> int:
    """Frame number of a second as answers write it, with one decimal."""
    return round(round(time, 1) * (record.example.media[0].fps or record.need(Tracks).fps))


def tracks_of(record: Record) -> dict[int, dict[int, tuple[float, float]]] | None:
    """{frame: {id: (x, y)}} of the answer. A repeated id within a frame is ignored, as in the released parser."""
    found = record.grounded()
    if found is None:
        return None
    frames: dict[int, dict[int, tuple[float, float]]] = {}
    for point in found:
        frames.setdefault(_frame(record, point.t or 0.0), {}).setdefault(point.id, (point.x, point.y))
    return frames


def _true_tracks(record: Record) -> dict[int, dict[int, tracking.Seen]]:
    """A moment at which an object is seen but has no mask cannot be hit, as with an empty mask in the release."""
    import numpy as np

    media = record.example.media[0]
    nothing = np.zeros((media.height, media.width), dtype=bool)
    frames: dict[int, dict[int, tracking.Seen]] = {}
    for track in record.need(Tracks).tracks:
        for sample in track.samples:
            if not sample.occluded:
                key = f"{sample.t:.1f}"
                mask = record.mask(track.id, key) if key in record.mask_keys(track.id) else nothing
                frames.setdefault(_frame(record, sample.t), {})[track.id] = tracking.Seen(sample.x, sample.y, mask)
    return frames


def track_f1(record: Record, prediction: tracking.Predicted | None) -> Values:
    return _named("track", tracking.track_score(_true_tracks(record), prediction or {}, len(record.need(Tracks).tracks)))


def hota(record: Record, prediction: tracking.Predicted | None) -> Values:
    score = tracking.hota_score(tracking.hota_frames(_true_tracks(record), prediction or {}))
    return {"hota": score.hota, "hota_detection": score.detection, "hota_association": score.association}


def blind_tracks(score: Score, records: Sequence[Record]) -> Values:
    """Points that stand still through all sampled moments, which follow from a video's length and the rate asked for: the same for
    every video, or the first point where the question gives it away (`single_point`)."""
    import numpy as np

    cells = np.array(grid())
    targets = []
    for record in records:
        truth = _true_tracks(record)
        frames = sorted(set(truth) | set(_moments(record)))
        for frame in frames:
            rows = [pointing.contains(cells, seen.mask, "miss") for seen in truth.get(frame, {}).values()]
            targets.append(Target(np.array(rows, dtype=bool).reshape(-1, len(cells)), 1 / len(records) / len(frames)))
        record.release()

    def still(chosen: list[int], *, told: bool) -> Callable[[Record], Any]:
        same = {number: grid()[cell] for number, cell in enumerate(chosen)}

        def place(record: Record) -> Any:
            points = _given_point(record) if told else None
            return dict.fromkeys(_moments(record), points or same) if points or same else {}

        return place

    sets = blind_sets(targets, len(cells))
    return best_places(score, records, [still(chosen, told=told) for chosen in sets for told in (False, True)])


def _given_point(record: Record) -> dict[int, tuple[float, float]] | None:
    part = record.need(Tracks)
    if part.mode != "single_point":
        return None
    seen = [sample for track in part.tracks for sample in track.samples if not sample.occluded]
    first = min(seen, key=lambda sample: sample.t, default=None)
    return None if first is None else {0: (first.x, first.y)}


def _moments(record: Record) -> list[int]:
    fps = record.need(Tracks).fps
    return sorted({_frame(record, number / fps) for number in range(int((record.example.media[0].seconds or 0.0) * fps) + 1)})


def _always(prediction: Any) -> Callable[[Record], Any]:
    return lambda record: prediction


def _named(prefix: str, score: Any) -> Values:
    return {f"{prefix}_{name}": value for name, value in score._asdict().items()}
