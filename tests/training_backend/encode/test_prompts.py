"""Branches in words: questions that the data brings or lacks, options, tags, turns."""

from __future__ import annotations

import pytest

from tests.support.examples import asked, branch, clip, picture, pointing, row, tracking
from training_backend.data.example import Choices, Text, TimedPoint, TimedPoints, Track, Tracks, TrackSample
from training_backend.encode.draws import VARIANTS, Draws
from training_backend.encode.prompts import Wording, opening, speak
from training_backend.encode.templates import CONVERSATIONAL, TEMPLATES

PLAIN = Wording("plain", "report", 2)
MIXED = row(
    "image_qa",
    [picture()],
    branch(
        ("user", [Text(text="Colour?")]), ("assistant", [Choices(options=("red", "blue", "green"), answer=1)]), style="science_qa"
    ),
)


def test_a_label_becomes_a_question() -> None:
    turns = speak(pointing(count=2), 0, PLAIN, None)
    assert [(turn.role, turn.text) for turn in turns] == [
        ("user", "Point to red circles."),
        ("assistant", "<point 0.80, 0.15, 0> <point 0.90, 0.05, 1>"),
    ]
    counted = speak(pointing(count=2), 1, PLAIN, None)
    assert counted[0].text == "Point to red circles and count."
    assert counted[1].text.endswith("1> Counting the red circles shows a total of 2.")


def test_questions_of_the_data_stand_as_they_are() -> None:
    example = row("image_qa", [picture()], asked("What is it?", "A cat."))
    for style in ("plain", "report", "release"):
        wording = Wording(style, "report", 2)  # type: ignore[arg-type]
        assert speak(example, 0, wording, Draws("x", 1))[0].text == "What is it?"


def test_templates_vary_with_the_draws_alone() -> None:
    wording = Wording("report", "report", 2)
    seen = {speak(pointing(), 0, wording, Draws("row", variant))[0].text for variant in range(VARIANTS)}
    assert 1 < len(seen) <= len(TEMPLATES["point"])
    again = [speak(pointing(), 0, wording, Draws("row", variant))[0].text for variant in range(VARIANTS)]
    assert again == [speak(pointing(), 0, wording, Draws("row", variant))[0].text for variant in range(VARIANTS)]
    assert {speak(pointing(), 0, PLAIN, Draws("row", variant))[0].text for variant in range(VARIANTS)} == {"Point to red circles."}


def test_options_stand_as_stored_in_evaluation_and_shuffled_in_training() -> None:
    question, answer = speak(MIXED, 0, PLAIN, None)
    assert question.text == "Colour?\nOnly return the correct answer option.\nA. red\nB. blue\nC. green"
    assert answer.text == "B. blue"
    seen = set()
    for variant in range(32):
        question, answer = speak(MIXED, 0, PLAIN, Draws("row", variant))
        lines = question.text.split("\n")[2:]
        assert answer.text in lines
        assert answer.text.endswith(" blue")
        assert sorted(line[3:] for line in lines) == ["blue", "green", "red"]
        seen.add(answer.text)
    assert seen == {"A. blue", "B. blue", "C. blue"}


def test_release_varies_how_options_look() -> None:
    wording = Wording("release", "release", 3)
    forms = {speak(MIXED, 0, wording, Draws("row", variant))[1].text for variant in range(60)}
    assert "blue" in forms
    assert any(form.startswith("(") for form in forms)
    for variant in range(60):
        question, answer = speak(MIXED, 0, wording, Draws("row", variant))
        assert answer.text in question.text.split("\n")
    assert speak(MIXED, 0, wording, None)[1].text == "B. blue"


def test_only_unconversational_styles_carry_a_tag_in_release() -> None:
    short = row("document_qa", [picture()], asked("What?", "7", style="chart_qa"))
    assert speak(short, 0, Wording("release", "release", 3), None)[0].text == "chart_qa: What?"
    assert speak(short, 0, PLAIN, None)[0].text == "What?"
    assert "user_qa" in CONVERSATIONAL


def test_tracks_ask_for_their_rate_and_end_with_what_is_shown() -> None:
    turns = speak(tracking(), 0, PLAIN, None)
    assert turns[0].text == "Track the green stars at 2 FPS."
    assert turns[1].text.count("<point") == 7 + 6
    assert speak(tracking(), 0, PLAIN, None, last_time=1.0)[1].text.count("<point") == 3 + 2


def test_a_single_track_starts_from_a_point() -> None:
    samples = (TrackSample(t=0, x=0.5, y=0.5, occluded=True), TrackSample(t=1, x=0.25, y=0.5), TrackSample(t=2, x=0.3, y=0.5))
    part = Tracks(query="dog", tracks=(Track(id=4, samples=samples),), fps=1, mode="single_point")
    example = row("video_tracking", [clip()], branch(("assistant", [part])))
    assert speak(example, 0, PLAIN, None)[0].text == "Track <point 1.0, 0.25, 0.50, 0> at 1 FPS."
    start = TimedPoints(label="dog", points=(TimedPoint(t=1, x=0.25, y=0.5, id=0),))
    given = row("video_tracking", [clip()], branch(("user", [Text(text="Follow"), start]), ("assistant", [part])))
    assert speak(given, 0, PLAIN, None)[0].text == "Follow <point 1.0, 0.25, 0.50, 0>"


def test_captions_name_their_medium() -> None:
    still = row("image_caption", [picture()], branch(("assistant", [Text(text="A cat.")]), style="long_caption"))
    moving = row("video_caption", [clip()], branch(("assistant", [Text(text="A cat.")]), style="video_short_caption"))
    assert speak(still, 0, PLAIN, None)[0].text == "Describe the image."
    assert speak(moving, 0, PLAIN, None)[0].text == "Describe the video briefly."


def test_what_cannot_be_asked_names_the_branch() -> None:
    lonely = row("image_qa", [picture()], branch(("assistant", [Text(text="7")]), name="q3", style="odd"))
    with pytest.raises(ValueError, match=r"row, branch q3.*odd"):
        speak(lonely, 0, PLAIN, None)
    endless = row("text", [], branch(("user", [Text(text="7?")]), name="q4"))
    with pytest.raises(ValueError, match=r"branch q4: it ends without an answer"):
        speak(endless, 0, PLAIN, None)


def test_turn_layout() -> None:
    turns = speak(
        row("text", [], branch(("system", [Text(text="S")]), ("user", [Text(text="U")]), ("assistant", [Text(text="A")]))),
        0,
        PLAIN,
        None,
    )
    assert ["".join(opening(turn)) for turn in turns[:2]] == [
        "<|im_start|>system\nS<|im_end|>\n",
        "<|im_start|>user\nU<|im_end|>\n",
    ]
