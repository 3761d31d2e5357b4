"""Each rule of the contract, caught with its reason; and what is good is never caught."""

from __future__ import annotations

import math
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from molmo2_assets.ingest import contracts
from molmo2_assets.ingest.contracts import FACTS, MAX_TEXT, facts_of, schema, verdicts
from molmo2_assets.ingest.reasons import REASONS
from tests.support.examples import branch
from tests.support.published_rows import film, picture
from training_backend.data.example import (
    FAMILY_OF_TASK,
    Branch,
    Choices,
    Count,
    Family,
    Media,
    Part,
    Point,
    Points,
    Subtitle,
    Text,
    TimedPoint,
    TimedPoints,
    Track,
    Tracks,
    TrackSample,
    Turn,
)

FAMILIES: tuple[Family, ...] = tuple(sorted(set(FAMILY_OF_TASK.values())))
LONG, NAN, INF = "x" * (MAX_TEXT + 1), math.nan, math.inf


def said(*parts: Part, question: str | None = "Which?") -> Branch:
    asked = [("user", [Text(text=question)])] if question is not None else []
    return branch(*asked, ("assistant", parts))


def verdict(*branches: Branch, media: Media | tuple[Media, ...] | None = None, family: Family = "qa") -> tuple[str, str] | None:
    shown = (picture(),) if media is None else media if isinstance(media, tuple) else (media,)
    (found,) = verdicts(family, [facts_of(branches, shown)])
    return found


def dots(*places: tuple[float, float], image: int = 0) -> Points:
    return Points(label="dots", points=tuple(Point(x=x, y=y, id=n, image=image) for n, (x, y) in enumerate(places)))


def timed(*places: tuple[float, float, float]) -> TimedPoints:
    return TimedPoints(label="dots", points=tuple(TimedPoint(t=t, x=x, y=y, id=n) for n, (t, x, y) in enumerate(places)))


def track(*samples: tuple[float, float, float], hidden: tuple[int, ...] = (), query: str = "the dot") -> Tracks:
    made = tuple(TrackSample(t=t, x=x, y=y, occluded=n in hidden) for n, (t, x, y) in enumerate(samples))
    return Tracks(query=query, tracks=(Track(id=0, samples=made),), fps=2.0)


def options(*texts: str, answer: int = 0) -> Choices:
    return Choices(options=texts, answer=answer)


WORDS = Text(text="words")
CLIP = msgspec.structs.replace(film(), clip=(2.0, 5.0))
SUBTITLED = msgspec.structs.replace(film(), subtitles=(Subtitle(start=0.0, end=1.0, text="a\x00b"),))

GOOD: list[tuple[tuple[Branch, ...], Media | None]] = [
    ((said(WORDS),), None),
    ((said(WORDS, question=None),), None),
    ((branch(("system", [WORDS]), ("user", [WORDS]), ("assistant", [WORDS]), ("user", [WORDS]), ("assistant", [WORDS])),), None),
    ((said(Text(text="two\nlines\tand a tab\r\n")), said(Text(text="x" * MAX_TEXT))), None),
    ((said(dots((0.0, 0.0), (1.0, 1.0)), Count(label="dots", count=2)),), None),
    ((said(dots(), Count(label="dots", count=0)),), None),
    ((said(Count(label="dots", count=7)),), None),
    ((said(options("a", "b", answer=1)),), None),
    ((said(timed((0.0, 0.5, 0.5), (3.0, 0.5, 0.5), (3.0, 0.6, 0.5))),), CLIP),
    ((said(timed((3.04, 0.5, 0.5))),), CLIP),
    ((said(track((0.0, 0.0, 0.0), (0.5, 1.0, 1.0), hidden=(0,))),), CLIP),
]


@pytest.mark.parametrize("family", FAMILIES)
def test_what_is_good_passes(family: Family) -> None:
    facts = [facts_of(branches, (medium or picture(),)) for branches, medium in GOOD]
    assert verdicts(family, facts) == [None] * len(GOOD)


@pytest.mark.parametrize(
    ("branches", "media", "reason", "fact"),
    [
        ((), None, "missing_field", "branches"),
        ((branch(("user", [WORDS])),), None, "roles", "roles_ok"),
        ((branch(("user", [WORDS]), ("user", [WORDS]), ("assistant", [WORDS])),), None, "roles", "roles_ok"),
        ((branch(("assistant", [WORDS]), ("assistant", [WORDS])),), None, "roles", "roles_ok"),
        ((branch(("assistant", [WORDS]), ("user", [WORDS])),), None, "roles", "roles_ok"),
        ((branch(("system", [WORDS])),), None, "roles", "roles_ok"),
        ((branch(),), None, "roles", "roles_ok"),
        ((said(WORDS), branch(("user", [WORDS]))), None, "roles", "roles_ok"),
        ((said(Text(text=" \n")),), None, "empty_text", "min_text"),
        ((said(),), None, "empty_text", "min_text"),
        ((said(Points(label="", points=())),), None, "empty_text", "min_text"),
        ((said(track((0.0, 0.5, 0.5), query=" ")),), film(), "empty_text", "min_text"),
        ((said(options("a", "")),), None, "empty_text", "min_text"),
        ((said(Text(text=LONG)),), None, "text_too_long", "max_text"),
        ((said(Text(text="a\x00b")),), None, "control_character", "control"),
        ((said(options("a", "b\x7f")),), None, "control_character", "control"),
        ((said(Count(label="a\x1bb", count=1)),), None, "control_character", "control"),
        ((said(WORDS),), SUBTITLED, "control_character", "control"),
        ((said(dots((-0.00001, 0.5))),), None, "point_outside", "x_low"),
        ((said(dots((1.00001, 0.5))),), None, "point_outside", "x_high"),
        ((said(dots((0.5, -1.0))),), None, "point_outside", "y_low"),
        ((said(timed((0.0, 0.5, 1.5))),), film(), "point_outside", "y_high"),
        ((said(track((0.0, 30.0, 0.5))),), film(), "point_outside", "x_high"),
        ((said(dots((0.5, 0.5), image=1)),), None, "point_outside", "images_ok"),
        ((said(dots((0.5, 0.5), image=-1)),), None, "point_outside", "images_ok"),
        ((said(dots((NAN, 0.5))),), None, "not_finite", "finite"),
        ((said(dots((0.5, INF))),), None, "not_finite", "finite"),
        ((said(timed((NAN, 0.5, 0.5))),), film(), "not_finite", "finite"),
        ((said(timed((0.0, 0.5, -INF))),), film(), "not_finite", "finite"),
        ((said(track((0.0, 0.5, 0.5), (NAN, 0.5, 0.5))),), film(), "not_finite", "finite"),
        ((said(dots((0.5, 0.5)), Count(label="dots", count=2)),), None, "count_mismatch", "count_ok"),
        ((said(dots(), Count(label="dots", count=2)),), None, "count_mismatch", "count_ok"),
        ((said(Count(label="dots", count=-1)),), None, "count_mismatch", "count_ok"),
        ((said(options("a")),), None, "no_options", "options_low"),
        ((said(options("a", "b", "A ")),), None, "answer_ambiguous", "options_distinct"),
        ((said(options("a", "b", answer=2)),), None, "answer_outside", "answer_ok"),
        ((said(options("a", "b", answer=-1)),), None, "answer_outside", "answer_ok"),
        ((said(timed((-0.5, 0.5, 0.5))),), CLIP, "time_outside", "t_low"),
        ((said(timed((3.1, 0.5, 0.5))),), CLIP, "time_outside", "t_over"),
        ((said(timed((0.5, 0.5, 0.5))),), picture(), "time_outside", "t_over"),
        ((said(track((0.0, 0.5, 0.5), (10.5, 0.5, 0.5))),), film(), "time_outside", "t_over"),
        ((said(timed((1.0, 0.5, 0.5), (0.5, 0.5, 0.5))),), film(), "time_order", "t_ordered"),
        ((said(track((1.0, 0.5, 0.5), (1.0, 0.6, 0.5))),), film(), "time_order", "t_ordered"),
        ((said(track((0.0, 0.5, 0.5), hidden=(0,))),), film(), "never_seen", "seen"),
        ((said(track()),), film(), "never_seen", "seen"),
        ((said(Tracks(query="the dot", tracks=(), fps=2.0)),), film(), "never_seen", "seen"),
        ((said(WORDS),), (), "no_media", "media"),
    ],
)
def test_every_rule_catches_what_it_is_for(
    branches: tuple[Branch, ...], media: Media | tuple[Media, ...] | None, reason: str, fact: str
) -> None:
    assert verdict(*branches, media=media) == (reason, fact)


def test_text_alone_needs_no_media() -> None:
    assert verdict(said(WORDS), media=(), family="text") is None


def test_a_row_with_several_faults_is_named_by_the_first_rule() -> None:
    assert verdict(branch(("user", [Text(text="")])), media=()) == ("roles", "roles_ok")


def test_every_rule_has_a_reason_of_the_list() -> None:
    names = {str(check.name) for column in schema("qa").columns.values() for check in column.checks}
    assert names <= set(REASONS)


def test_verdicts_stand_at_their_rows_also_across_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(contracts, "BATCH", 3)
    good, bad = facts_of((said(WORDS),), (picture(),)), facts_of((said(),), (picture(),))
    rows = [good, bad, good, good, good, good, bad, bad]
    assert verdicts("qa", rows) == [None if row is good else ("empty_text", "min_text") for row in rows]
    assert verdicts("qa", []) == []


@pytest.mark.parametrize(("fact", "value"), [("finite", None), ("media", None), ("x_low", None), ("x_low", NAN), ("t_over", NAN)])
def test_a_null_or_nan_fact_stops_the_contract_instead_of_passing_it(fact: str, value: Any) -> None:
    """Polars compares null to null and NaN as the greatest number: a check over either would pass."""
    good = facts_of((said(WORDS),), (picture(),))
    with pytest.raises(RuntimeError, match="the contract cannot be applied"):
        verdicts("qa", [good, tuple({**dict(zip(FACTS, good, strict=True)), fact: value}.values())])


# -- what is good, drawn at random ------------------------------------------------------------------------------------------

unit = st.floats(0.0, 1.0)
seconds = st.floats(0.0, 10.0)
text = st.text(st.characters(exclude_categories=("Cs", "Cc")), min_size=1, max_size=40).filter(lambda words: bool(words.strip()))
labels = text
points = st.builds(
    lambda label, places: Points(label=label, points=tuple(Point(x=x, y=y, id=n) for n, (x, y) in enumerate(places))),
    labels, st.lists(st.tuples(unit, unit), max_size=5),
)  # fmt: skip
timed_points = st.builds(
    lambda label, places: TimedPoints(
        label=label, points=tuple(TimedPoint(t=t, x=x, y=y, id=n) for n, (t, x, y) in enumerate(sorted(places)))
    ),
    labels, st.lists(st.tuples(seconds, unit, unit), max_size=5),
)  # fmt: skip
samples = st.lists(st.tuples(seconds, unit, unit, st.booleans()), min_size=1, max_size=5, unique_by=lambda sample: sample[0]).map(
    lambda drawn: tuple(
        TrackSample(t=t, x=x, y=y, occluded=hidden and n > 0) for n, (t, x, y, hidden) in enumerate(sorted(drawn))
    )
)  # fmt: skip
tracks = st.builds(
    lambda query, each: Tracks(query=query, tracks=tuple(Track(id=n, samples=item) for n, item in enumerate(each)), fps=2.0),
    labels, st.lists(samples, min_size=1, max_size=3),
)  # fmt: skip
choices = st.lists(text, min_size=2, max_size=5, unique_by=lambda option: option.strip().lower()).flatmap(
    lambda texts: st.builds(Choices, options=st.just(tuple(texts)), answer=st.integers(0, len(texts) - 1))
)
answers: st.SearchStrategy[tuple[Part, ...]] = st.one_of(
    st.builds(Text, text=text).map(lambda part: (part,)),
    choices.map(lambda part: (part,)),
    tracks.map(lambda part: (part,)),
    st.one_of(points, timed_points).map(lambda part: (part,)),
    st.one_of(points, timed_points).map(lambda part: (part, Count(label=part.label, count=len(part.points)))),
    st.builds(Count, label=labels, count=st.integers(0, 1000)).map(lambda part: (part,)),
)


@st.composite
def good_branches(draw: st.DrawFn) -> Branch:
    turns: list[Turn] = []
    if draw(st.booleans()):
        turns.append(Turn(role="system", parts=(Text(text=draw(text)),)))
    for number in range(draw(st.integers(1, 3))):
        if number or draw(st.booleans()):
            turns.append(Turn(role="user", parts=(Text(text=draw(text)),)))
        turns.append(Turn(role="assistant", parts=draw(answers)))
    return Branch(id="0", style="user_qa", turns=tuple(turns))


@settings(max_examples=15, deadline=None)
@given(st.lists(st.lists(good_branches(), min_size=1, max_size=3), min_size=1, max_size=10), st.sampled_from(FAMILIES))
def test_what_is_good_never_gets_a_verdict(rows: list[list[Branch]], family: Family) -> None:
    assert verdicts(family, [facts_of(branches, (film(),)) for branches in rows]) == [None] * len(rows)
