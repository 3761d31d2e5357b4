"""The metrics by name: how an answer is read, scored, and what blind prediction it stands against.

Belongs here: METRICS. Does not belong here: any rule of scoring (the family files), glue to records (`grounding.py`, `answers.py`).

A value's name begins with its metric's name and is unique over all metrics, so that a benchmark's headline can name it. Values are
better when higher and lie in [0, 1]; a dataset's value is the plain mean over its questions.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from molmo2_assets.evaluation import answers, grounding, qa
from molmo2_assets.evaluation.baselines import Score
from molmo2_assets.evaluation.records import Record, Values
from training_backend.data.example import Choices, Points, TimedPoints


@dataclass(frozen=True, slots=True)
class Metric:
    """One metric.

    `applies` to a record; `parse` its answer into a prediction, None where it cannot be read; `score` a prediction (None too);
    `blind` gives for each value the score of the best predictor without pixels; `bin` sorts records for the table by size. `main`
    is the value that the metric's name stands for. `code_version` is raised by hand when a value changes its meaning.
    """

    code_version: int
    main: str
    applies: Callable[[Record], bool]
    parse: Callable[[Record], Any]
    score: Score
    blind: Callable[[Score, Sequence[Record]], Values]
    bin: Callable[[Record], str] | None = None

    def __call__(self, records: Sequence[Record]) -> Values:
        """Means over `records`, all of which this metric applies to."""
        return mean_values([self.row(record)[0] for record in records])

    def row(self, record: Record) -> tuple[Values, bool]:
        """Values of one record, and whether its answer could be read. What could not be asked scores 0, also where there was
        nothing to find."""
        prediction = None if record.failure else self.parse(record)
        values = self.score(record, prediction)
        record.release()
        return (dict.fromkeys(values, 0.0) if record.failure else values), prediction is not None

    def baseline(self, records: Sequence[Record]) -> Values:
        """The best blind score of each value."""
        return self.blind(self.score, records) if records else {}


def mean_values(rows: Sequence[Values]) -> Values:
    """Plain means; nothing of nothing."""
    return {name: sum(row[name] for row in rows) / len(rows) for name in rows[0]} if rows else {}


def headline_value(name: str) -> str:
    """The value that a benchmark's headline means: a value's own name, or the main value of the metric so called."""
    return METRICS[name].main if name in METRICS else name


def _has(kind: type[Any]) -> Callable[[Record], bool]:
    return lambda record: record.part(kind) is not None


def _text(name: str, compare: Callable[[str, list[str]], float], code_version: int = 1) -> Metric:
    return Metric(
        code_version, name, answers.has_answer, answers.answer_text, answers.answer_value(name, compare), answers.blind_answers
    )


METRICS: dict[str, Metric] = {
    # Membership rule: pointing_precision, pointing_recall, pointing_f1.
    "pointing": Metric(
        1, "pointing_f1", _has(Points), grounding.points_of, grounding.membership, grounding.blind_points, grounding.size_bin
    ),
    # The release's distance rule, one image: pointing_distance_precision, …_recall, …_f1.
    "pointing_distance": Metric(
        1,
        "pointing_distance_f1",
        lambda record: record.part(Points) is not None and len(record.example.media) == 1,
        grounding.points_of,
        grounding.distance,
        grounding.blind_points,
        grounding.size_bin,
    ),
    # Molmo2-VP: video_pointing_precision, …_recall, …_f1.
    "video_pointing": Metric(
        1,
        "video_pointing_f1",
        _has(TimedPoints),
        grounding.timed_points_of,
        grounding.video_membership,
        grounding.blind_video_points,
        grounding.size_bin,
    ),
    # track_precision, track_recall, track_f1, track_f1_all_objects (the release's divisor of recall).
    "track": Metric(1, "track_f1", grounding.is_track, grounding.tracks_of, grounding.track_f1, grounding.blind_tracks),
    # hota, hota_detection, hota_association.
    "hota": Metric(1, "hota", grounding.is_track, grounding.tracks_of, grounding.hota, grounding.blind_tracks),
    # The number that the words give, margin of Molmo2-VideoCount: count_accuracy, count_close.
    "count": Metric(
        1,
        "count_accuracy",
        answers.asks_number,
        answers.written_count,
        answers.count_values("count", "relative"),
        answers.blind_counts,
        answers.count_bin,
    ),
    # The number of points, not the written one, margin 1 (the release's rule for images): count_points_accuracy, …_close.
    "count_points": Metric(
        1,
        "count_points_accuracy",
        answers.asks_points,
        answers.pointed_count,
        answers.count_values("count_points", "fixed"),
        answers.blind_counts,
        answers.count_bin,
    ),
    "exact_match": _text("exact_match", qa.exact_match),
    "anls": _text("anls", qa.anls),
    # The best of several references: where a set gives more than one, all count.
    "relaxed_accuracy": _text(
        "relaxed_accuracy", lambda answer, references: max(qa.relaxed_accuracy(answer, reference) for reference in references), 2
    ),
    "vqa_score": _text("vqa_score", qa.vqa_score),
    # Letter, whole text or contained text; what cannot be read is wrong.
    "multiple_choice": Metric(
        1,
        "multiple_choice",
        _has(Choices),
        lambda record: qa.chosen_option(record.answer, answers.options(record)),
        answers.option_value("multiple_choice"),
        answers.blind_options,
    ),
    # Sets that ask with options and without (RealWorldQA, MathVista): each question by its own rule.
    "mixed_accuracy": Metric(
        1, "mixed_accuracy", answers.has_answer, answers.said_or_chosen, answers.mixed_value, answers.blind_mixed
    ),
    # The release's rule that never abstains.
    "multiple_choice_nearest": Metric(
        1,
        "multiple_choice_nearest",
        _has(Choices),
        lambda record: qa.nearest_option(record.answer, answers.options(record)),
        answers.option_value("multiple_choice_nearest"),
        answers.blind_options,
    ),
}
