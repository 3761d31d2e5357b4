"""Counts, short answers and options: how an answer's text meets the truth of its row, and the best answers given without looking.

Belongs here: glue from records to `counting.py` and `qa.py`. Does not belong here: any rule of scoring.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from molmo2_assets.evaluation import counting, qa
from molmo2_assets.evaluation.baselines import Candidate, Score, best_choice, common
from molmo2_assets.evaluation.records import Record, Values
from training_backend.data.example import Choices, Count, Points, Text, TimedPoints
from training_backend.data.points import parse_count


def asks_number(record: Record) -> bool:
    """Whether the question asks for a number in words: a branch that only points is not one."""
    return record.part(Count) is not None


def asks_points(record: Record) -> bool:
    """Whether the question asks for points; to "how many" a bare number is the right answer."""
    return record.part(Points) is not None or record.part(TimedPoints) is not None


def true_count(record: Record) -> int:
    """The number written in the truth, else the number of its points."""
    part = record.part(Count)
    return part.count if part is not None else len((record.part(Points) or record.need(TimedPoints)).points)


def written_count(record: Record) -> int | None:
    """The number that the answer's words give."""
    return parse_count(record.answer)


def pointed_count(record: Record) -> int | None:
    """The number of points in the answer, whatever number its words give: the release's rule for images."""
    found = record.grounded()
    return None if found is None else len(found)


def count_values(name: str, margin: counting.Margin) -> Score:
    """Score of a number: `<name>_accuracy` and `<name>_close`."""

    def score(record: Record, prediction: int | None) -> Values:
        value = counting.count_score(prediction, true_count(record), margin)
        return {f"{name}_accuracy": value.exact, f"{name}_close": value.close}

    return score


def count_bin(record: Record) -> str:
    return counting.count_bin(true_count(record))


def blind_counts(score: Score, records: Sequence[Record]) -> Values:
    """Every number between two truths can be the best constant of the close rule, so all up to the largest are tried."""
    numbers = range(max(true_count(record) for record in records) + 1)
    return best_choice(score, records, [_constant(number) for number in numbers])


def has_answer(record: Record) -> bool:
    """Whether the truth is a short text."""
    return bool(record.example.meta.get("answers")) or any(isinstance(part, Text | Choices) for part in record.truth)


def answer_text(record: Record) -> str | None:
    return record.answer if record.answer.strip() else None


def answer_value(name: str, compare: Callable[[str, list[str]], float]) -> Score:
    """Score of a text against all references, by one of the rules of `qa.py`."""
    return lambda record, prediction: {name: compare(prediction or "", record.references)}


def blind_answers(score: Score, records: Sequence[Record]) -> Values:
    """The references themselves as constants."""
    texts = common([text for record in records for text in record.references])
    return best_choice(score, records, [_constant(text) for text in texts])


def option_value(name: str) -> Score:
    """Score of an option's number."""
    return lambda record, prediction: {name: float(prediction == record.need(Choices).answer)}


def blind_options(score: Score, records: Sequence[Record]) -> Values:
    """Constants: the n-th option, an option's text, the longest and the shortest option (authors give themselves away)."""
    texts = common([text for record in records for text in record.need(Choices).options])
    candidates: list[Candidate] = [_constant(number) for number in range(max(len(options(record)) for record in records))]
    candidates += [_option_called(text) for text in texts]
    candidates.append(lambda record: max(range(len(options(record))), key=lambda number: len(options(record)[number])))
    candidates.append(lambda record: min(range(len(options(record))), key=lambda number: len(options(record)[number])))
    return best_choice(score, records, candidates)


def said_or_chosen(record: Record) -> int | str | None:
    """The option that the answer means where the question has options, else its text."""
    if record.part(Choices) is None:
        return answer_text(record)
    return qa.chosen_option(record.answer, options(record))


def mixed_value(record: Record, prediction: int | str | None) -> Values:
    """Options by number, texts by exact match: for sets that ask in both ways."""
    choices = record.part(Choices)
    if choices is not None:
        return {"mixed_accuracy": float(prediction == choices.answer)}
    return {"mixed_accuracy": qa.exact_match(str(prediction or ""), record.references)}


def blind_mixed(score: Score, records: Sequence[Record]) -> Values:
    """One option's number, or one text, for every question."""
    most = max((len(options(record)) for record in records if record.part(Choices) is not None), default=0)
    texts = common([text for record in records if record.part(Choices) is None for text in record.references])
    return best_choice(score, records, [*(_constant(number) for number in range(most)), *(_constant(text) for text in texts)])


def options(record: Record) -> tuple[str, ...]:
    """The options in the order in which an evaluation prompt letters them."""
    return record.need(Choices).options


def _option_called(text: str) -> Candidate:
    return lambda record: options(record).index(text) if text in options(record) else None


def _constant(value: object) -> Candidate:
    return lambda record: value
