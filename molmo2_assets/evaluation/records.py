"""What is scored: one answer to one question of an evaluation set, beside the row that it answers.

Belongs here: pairing predictions with rows, the truth of a branch, object masks, reading an answer's points. Does not belong here:
how any of it is judged (the metric files), which metrics a benchmark has (`registry.py`).

Evaluation sets carry object masks in `meta["masks"]` = {object id: {key: run-length encoding}}; the key is the second with one
decimal for a video and the image number for images. Several references of a short answer stand in `meta["answers"]`, a list, or a
list by branch id.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Literal, TypeVar

from training_backend.config import PointSyntax
from training_backend.data.example import Branch, Choices, Count, Example, Part, Points, Text, TimedPoints, Tracks
from training_backend.data.points import Grounded, parse
from training_backend.data.predictions import PREDICTIONS_FILE, PredictionsError, read_predictions

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

Values = dict[str, float]
"""Value name → number."""

P = TypeVar("P", Points, TimedPoints, Tracks, Count, Choices)


@dataclass(slots=True)
class Record:
    """A question, its truth and an answer. Decoded masks are kept until `release`."""

    example: Example
    branch: Branch
    answer: str
    failure: str | None = None
    point_syntax: PointSyntax = "report"
    _masks: dict[tuple[int, str], NDArray[np.bool_]] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """How messages call it."""
        return f"{self.example.id}, branch {self.branch.id}"

    @property
    def truth(self) -> tuple[Part, ...]:
        """Parts of the last answer of the branch."""
        answers = [turn.parts for turn in self.branch.turns if turn.role == "assistant"]
        return answers[-1] if answers else ()

    def part(self, kind: type[P]) -> P | None:
        """The truth's part of a kind, or None. Raises ValueError where it has several: no metric here says which would count."""
        found = [part for part in self.truth if isinstance(part, kind)]
        if len(found) > 1:
            raise ValueError(
                f"{self.name}: the answer has {len(found)} {kind.__name__} parts; an evaluation set needs one a branch"
            )
        return found[0] if found else None

    def need(self, kind: type[P]) -> P:
        """The truth's part of a kind, which is known to be there."""
        part = self.part(kind)
        assert part is not None, f"{self.name} has no {kind.__name__}"
        return part

    @property
    def question(self) -> str:
        """Words of the last question; where the data has none (the recipe makes them), what it asks for."""
        asked = [turn.parts for turn in self.branch.turns if turn.role == "user"]
        if asked:
            return " ".join(part.text for part in asked[-1] if isinstance(part, Text))
        return " ".join(
            part.query if isinstance(part, Tracks) else part.label
            for part in self.truth
            if isinstance(part, Tracks | Points | TimedPoints | Count)
        )

    @property
    def references(self) -> list[str]:
        """Accepted answers: `meta["answers"]`, else the truth's text, else the right option's."""
        given = self.example.meta.get("answers")
        if isinstance(given, dict):
            given = given.get(self.branch.id)
        if given:
            return [str(answer) for answer in given]
        choices = self.part(Choices)
        if choices is not None:
            return [choices.options[choices.answer]]
        return [" ".join(part.text for part in self.truth if isinstance(part, Text))]

    @property
    def kind(self) -> Literal["image", "multi_image", "video"]:
        """Which form of point syntax the answer is in."""
        if any(media.kind != "image" for media in self.example.media):
            return "video"
        return "multi_image" if len(self.example.media) > 1 else "image"

    def grounded(self) -> list[Grounded] | None:
        """Points of the answer; None where it has none and does not say so (an answer that cannot be read)."""
        points = parse(self.answer, self.point_syntax, kind=self.kind)
        if not points and not re.search(r"\b(none|no)\b", self.answer.lower()):
            return None
        return points

    def mask_keys(self, object_id: int) -> list[str]:
        """Keys under which object `object_id` has a mask. Raises ValueError where it has none."""
        masks = self.example.meta.get("masks") or {}
        if str(object_id) not in masks:
            raise ValueError(f"{self.name}: object {object_id} has no mask in meta.masks, which this metric needs")
        return list(masks[str(object_id)])

    def mask(self, object_id: int, key: str) -> NDArray[np.bool_]:
        """Mask of an object, bool [H, W]. Raises ValueError where there is none."""
        from molmo2_assets.ingest.rle import decode_rle

        if key not in self.mask_keys(object_id):
            raise ValueError(f"{self.name}: object {object_id} has no mask at {key} in meta.masks, which this metric needs")
        if (object_id, key) not in self._masks:
            self._masks[object_id, key] = decode_rle(self.example.meta["masks"][str(object_id)][key])
        return self._masks[object_id, key]

    def release(self) -> None:
        """Forget decoded masks: those of a whole evaluation set do not fit into memory."""
        self._masks.clear()


def read_records(predictions: Path, validated: Path) -> list[Record]:
    """Every branch of the rows that were asked, in row order, with its answer.

    Raises PredictionsError where an answer is missing, given twice, or to a question that the set does not have: a score over some
    of the questions would look like one over all.
    """
    from training_backend.data.store import RowStore

    header, given = read_predictions(predictions)
    answers = {(item.id, item.branch): item for item in given}
    if len(answers) != len(given):
        raise PredictionsError(f"{predictions / PREDICTIONS_FILE} answers {len(given) - len(answers)} questions twice.")
    store = RowStore(validated)
    if header.dataset != store.version:
        raise PredictionsError(
            f"{predictions} answers version {header.dataset} of its set, {validated} is {store.version}: materialise the "
            "predictions again."
        )
    records = []
    for number in range(header.rows):
        example = store.example(number)
        for branch in example.branches:
            answer = answers.pop((example.id, branch.id), None)
            if answer is None:
                raise PredictionsError(
                    f"{predictions / PREDICTIONS_FILE} has no answer for {example.id}, branch {branch.id}: materialise the "
                    "predictions again."
                )
            records.append(Record(example, branch, answer.answer, answer.failure, header.point_syntax))
    if answers:
        raise PredictionsError(f"{predictions / PREDICTIONS_FILE} answers {sorted(answers)[0]}, which is not in {validated}.")
    return records
