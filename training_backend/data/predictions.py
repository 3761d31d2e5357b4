"""Predictions on disk: what a predict run leaves and scoring reads.

Belongs here: the two files and their fields. Does not belong here: generating (`training_backend.predict`), judging
(`molmo2_assets.evaluation`).

`predictions.jsonl` has one line for each branch of the rows asked, in row order; `predictions.json` says which rows those are.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import msgspec

from training_backend.config import PointSyntax
from training_backend.data.manifest import replace_file

PREDICTIONS_FILE = "predictions.jsonl"
HEADER_FILE = "predictions.json"
PREDICTIONS_SCHEMA = "molmo2-predictions/1"


class PredictionsError(ValueError):
    """Predictions that are missing, torn or of another schema; the message names the file and the way out."""


class Prediction(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One answer. `prompt` is the text of the question as the model read it, without visual tokens. `failure` says why nothing
    could be asked (broken media, a question longer than the budget); the answer is then empty."""

    id: str
    branch: str
    prompt: str
    answer: str
    failure: str | None = None


class PredictionHeader(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The set's rows [0, rows) were asked, every branch once, in `point_syntax`; `dataset` is the set's data version."""

    rows: int
    questions: int
    failures: int
    point_syntax: PointSyntax
    dataset: str
    schema: str = PREDICTIONS_SCHEMA


def write_predictions(folder: Path, header: PredictionHeader, predictions: Sequence[Prediction]) -> None:
    """Write both files. Raises StorageError."""
    replace_file(folder / PREDICTIONS_FILE, b"".join(msgspec.json.encode(item) + b"\n" for item in predictions))
    replace_file(folder / HEADER_FILE, msgspec.json.encode(header) + b"\n")


def read_predictions(folder: Path) -> tuple[PredictionHeader, list[Prediction]]:
    """Inverse of `write_predictions`. Raises PredictionsError."""
    try:
        header = msgspec.json.decode((folder / HEADER_FILE).read_bytes(), type=PredictionHeader)
        lines = (folder / PREDICTIONS_FILE).read_bytes().splitlines()
        predictions = [msgspec.json.decode(line, type=Prediction) for line in lines]
    except FileNotFoundError as error:
        raise PredictionsError(f"{error.filename} is missing: materialise the predictions again.") from None
    except msgspec.MsgspecError as error:
        raise PredictionsError(f"the predictions in {folder} cannot be read ({error}): materialise them again.") from None
    if header.schema != PREDICTIONS_SCHEMA:
        raise PredictionsError(f"{folder / HEADER_FILE} has schema {header.schema}, this version reads {PREDICTIONS_SCHEMA}.")
    return header, predictions
