"""Sets of captions and multiple-choice questions about films, with and without subtitles.

Belongs here: rows in the layouts of Molmo2-Cap, Molmo2-VideoCapQA and Molmo2-VideoSubtitleQA. Does not belong here: points and
tracks (`video_points.py`, `tracks.py`), motion (`clips.py`). `*_clip` gives the truth of one film again.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from molmo2_assets.sources.generated import faults
from molmo2_assets.sources.generated.clips import FPS, Clip, Mover, Path, clip_with
from molmo2_assets.sources.generated.content import MediaFolder, Params, Row
from molmo2_assets.sources.generated.describe import OPPOSITE, clip_caption, clip_short_caption, frame_caption
from molmo2_assets.sources.generated.scenes import distinct_looks
from molmo2_assets.sources.generated.seeds import balanced
from molmo2_assets.sources.generated.shapes import COLOURS, SHAPES, Look
from molmo2_assets.sources.generated.text import WORDS

QUESTIONS_PER_CLIP = 3
SUBTITLE_QUESTIONS = 2
WAYS = {"left": "to the left", "right": "to the right", "up": "up", "down": "down"}
SIDES = ("left", "right", "top", "bottom")


@dataclass(frozen=True)
class Choice:
    """A question with one right and some wrong answers."""

    category: str
    question: str
    answer: str
    wrong: tuple[str, ...]


def film(media: MediaFolder, number: int, clip: Clip) -> str:
    """Write a clip's film; returns its id, which is the file's name without suffix."""
    media.add_video(media.name(number), clip.film(), FPS)
    return media.name(number)


# -- captions ---------------------------------------------------------------------------------------------------------------


def caption_clip(params: Params, number: int) -> Clip:
    """One to three different things, at least one of which does something."""
    rng = params.rng("clip", number)
    count = balanced((1, 2, 3), number, params.name, params.seed)
    acting = balanced(("slide", "enter", "leave", "bounce"), number, params.name, params.seed, "acting")

    def draw() -> tuple[list[Look], list[str], None]:
        return distinct_looks(rng, count)[0], [acting, *rng.choices(("still", "still", "slide", "enter"), k=count - 1)], None

    return clip_with(rng, params.size, draw)[0]


def build_captions(params: Params, media: MediaFolder) -> list[Row]:
    """Rows like Molmo2-Cap: three captions of growing length, a transcript, captions of halves and of single frames."""
    rows = []
    for number in range(params.n):
        clip = caption_clip(params, number)
        merged = clip_caption(clip)
        half = clip.seconds / 2
        quarters = [frame_caption(clip, round(clip.frames * share)) for share in (0.25, 0.75)]
        frames = [{"time": float(second), "caption": frame_caption(clip, second * FPS)} for second in range(int(clip.seconds))]
        rows.append(
            {
                "video_id": film(media, number, clip),
                "video_start": 0.0,
                "video_end": clip.seconds,
                "video_caption": clip_short_caption(clip),
                "merged_caption": merged,
                "video_frame_merged_caption": f"{merged} At the start: {frame_caption(clip, 0)} At the end: "
                + frame_caption(clip, clip.frames - 1),
                "video_transcript": f"so in this video {clip_short_caption(clip)[:-1].lower()}",
                "clip_captions": [
                    {"start": 0.0, "end": half, "caption": quarters[0]},
                    {"start": half, "end": clip.seconds, "caption": quarters[1]},
                ],
                "frame_captions": frames,
                "annotation_score": params.rng("score", number).randint(3, 5),
            }
        )
    return rows


def _no_captions(row: Row, number: int, media: MediaFolder) -> None:
    row.update(video_caption="", merged_caption=" ", video_frame_merged_caption="")


CAPTION_FAULTS: Sequence[faults.FaultKind] = (
    *faults.video_faults("video_id"),
    faults.FaultKind("empty_text", "merged_caption", _no_captions),
    faults.set_to("clip_start_after_end", "video_start", lambda row: row["video_end"] + 1.0),
    faults.set_to("clip_outside", "video_end", lambda row: row["video_end"] + 30.0),
    faults.DUPLICATE,
)


# -- multiple choice --------------------------------------------------------------------------------------------------------


def question_clip(
    params: Params, number: int, kind: str | None = None, fits: Callable[[Path, float], bool] | None = None
) -> tuple[Clip, Mover]:
    """One thing that slides, or comes in, among one to three that stand still; and which one it is.

    `fits(its path, seconds of the film)` turns films down.
    """
    rng = params.rng("clip", number)
    acting = kind or balanced(("slide", "enter"), number, params.name, params.seed)
    others = balanced((1, 2, 3), number, params.name, params.seed, "others")

    def draw() -> tuple[list[Look], list[str], Look]:
        looks = distinct_looks(rng, others + 1)[0]
        return looks, [acting, *["still"] * others], looks[0]

    def clear(clip: Clip, look: Look) -> bool:
        if fits is not None and not fits(next(mover.path for mover in clip.movers if mover.look == look), clip.seconds):
            return False
        return all(clip.first_seen(index) is not None for index in range(len(clip.movers)))

    clip, look = clip_with(rng, params.size, draw, clear)
    return clip, next(mover for mover in clip.movers if mover.look == look)


def choices(clip: Clip, actor: Mover, rng: random.Random) -> list[Choice]:
    """Three questions about one film."""
    looks = [mover.look for mover in clip.movers]
    total = len(looks)
    numbers = [str(number) for number in range(1, 6) if number != total]
    counting = Choice("Counting", "How many shapes are seen in the video?", str(total), tuple(rng.sample(numbers, 3)))
    if actor.path.kind == "enter":
        side = OPPOSITE[actor.path.direction]
        present = [look.words for look in looks if look != actor.look]
        invented: list[str] = []
        while len(present) + len(invented) < 3:
            words = Look(rng.choice(tuple(COLOURS)), rng.choice(SHAPES)).words
            if words not in (actor.look.words, *present, *invented):
                invented.append(words)
        return [
            Choice("Entering", "Which shape comes into the picture?", actor.look.words, tuple([*present, *invented][:3])),
            Choice(
                "Side",
                f"From which side does the {actor.look.words} come in?",
                side,
                tuple(other for other in SIDES if other != side),
            ),
            counting,
        ]
    way = WAYS[actor.path.direction]
    if rng.random() < 0.5:
        moving = Choice("Moving colour", "What colour is the shape that moves?", actor.look.colour,
                        _others(actor.look.colour, [look.colour for look in looks], tuple(COLOURS), rng))  # fmt: skip
    else:
        moving = Choice("Moving shape", "Which shape moves?", actor.look.shape,
                        _others(actor.look.shape, [look.shape for look in looks], SHAPES, rng))  # fmt: skip
    return [
        Choice(
            "Direction",
            f"In which direction does the {actor.look.words} move?",
            way,
            tuple(other for other in WAYS.values() if other != way),
        ),
        moving,
        counting,
    ]


def _others(answer: str, seen: Sequence[str], known: Sequence[str], rng: random.Random) -> tuple[str, ...]:
    """Three wrong answers, first those that are seen."""
    near = [item for item in seen if item != answer]
    far = [item for item in known if item != answer and item not in near]
    return tuple([*near, *rng.sample(far, len(far))][:3])


def build_choices(params: Params, media: MediaFolder) -> list[Row]:
    """Rows like Molmo2-VideoCapQA, three a film."""
    rows: list[Row] = []
    for number in range(-(-params.n // QUESTIONS_PER_CLIP)):
        clip, actor = question_clip(params, number)
        video = film(media, number, clip)
        rows += [_choice_row(video, choice) for choice in choices(clip, actor, params.rng("questions", number))]
    return rows[: params.n]


def _choice_row(video: str, choice: Choice) -> Row:
    return {
        "video_id": video,
        "Question": choice.question,
        "Answer": choice.answer,
        "NegativeAnswers": list(choice.wrong),
        "Category": choice.category,
    }


CHOICE_FAULTS: Sequence[faults.FaultKind] = (
    *faults.video_faults("video_id"),
    faults.blank("Answer"),
    faults.blank("Question"),
    faults.set_to("no_options", "NegativeAnswers", lambda row: []),
    faults.set_to("answer_twice", "NegativeAnswers", lambda row: [row["Answer"], *row["NegativeAnswers"][1:]]),
    faults.DUPLICATE,
)


# -- subtitles --------------------------------------------------------------------------------------------------------------


def subtitle_clip(params: Params, number: int) -> tuple[Clip, Mover, list[dict[str, Any]], list[str], int]:
    """A film into which one thing comes while one of two or three words is said: (clip, actor, subtitle, words, which word)."""
    lines, spoken = balanced(((2, 0), (2, 1), (3, 0), (3, 1)), number, params.name, params.seed, "lines")

    def within_one_line(path: Path, seconds: float) -> bool:
        return int(path.start * lines / seconds) == int(path.stop * lines / seconds) == spoken

    clip, actor = question_clip(params, number, "enter", within_one_line)
    span = clip.seconds / lines
    words = params.rng("words", number).sample(WORDS, lines)
    subtitle = [
        {"start": round(line * span + 0.1, 2), "end": round((line + 1) * span - 0.1, 2), "text": f"The word is {word}."}
        for line, word in enumerate(words)
    ]
    return clip, actor, subtitle, words, spoken


def build_subtitle_choices(params: Params, media: MediaFolder) -> list[Row]:
    """Rows like Molmo2-VideoSubtitleQA, two a film: one that needs the words only, one that needs words and pictures."""
    rows: list[Row] = []
    for number in range(-(-params.n // SUBTITLE_QUESTIONS)):
        clip, actor, subtitle, words, spoken = subtitle_clip(params, number)
        video = film(media, number, clip)
        rng = params.rng("questions", number)
        last = rng.random() < 0.5
        unsaid = [word for word in rng.sample(WORDS, 6) if word not in words]
        for alignment, category, question, answer in (
            ("subtitle", "Order of words", f"Which word is said {'last' if last else 'first'}?", words[-1 if last else 0]),
            ("subtitle and video", "Word at an event", f"Which word is said when the {actor.look.words} comes in?", words[spoken]),
        ):
            wrong = [*[word for word in words if word != answer], *unsaid][:3]
            row = _choice_row(video, Choice(category, question, answer, tuple(wrong)))
            rows.append({**row, "AlignmentType": alignment, "subtitle": subtitle})
    return rows[: params.n]


SUBTITLE_FAULTS: Sequence[faults.FaultKind] = (
    *CHOICE_FAULTS[:-1],
    faults.set_to("subtitle_reversed", "subtitle", lambda row: [{**line, "end": line["start"] - 0.5} for line in row["subtitle"]]),
    faults.set_to(
        "subtitle_outside",
        "subtitle",
        lambda row: [{**line, "start": line["start"] + 60, "end": line["end"] + 60} for line in row["subtitle"]],
    ),
    faults.DUPLICATE,
)
