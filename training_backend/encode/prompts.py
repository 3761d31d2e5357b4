"""A branch in words: questions, answers, options, grounding, and the chat layout around them.

Belongs here: which words a branch becomes under a prompt style. Does not belong here: the syntax of points (`data/points.py`),
token ids (`tokens.py`), what fits (`preprocessor.py`).

A branch's question is used as it stands. Where the data has none (a caption, a pointing label) one is made from a template of the
answer's kind. Styles: `plain` always takes the first template; `report` lets the row's draws choose; `release` does the same, tags
questions that are not conversation with their style, and varies how options are written. Options come in a drawn order in
training, and as stored when draws are None, which is how evaluation asks.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

from training_backend.data.example import Branch, Choices, Count, Example, Part, Points, Text, TimedPoint, TimedPoints, Tracks
from training_backend.data.points import Mode, Special, Syntax, clip_tracks, pieces, shown_samples
from training_backend.encode.draws import Draws
from training_backend.encode.templates import CHOOSE, CONVERSATIONAL, TEMPLATES

LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
_TURN_START, _TURN_END = Special("<|im_start|>"), Special("<|im_end|>")
Role = Literal["system", "user", "assistant"]


class Wording(NamedTuple):
    """What decides the words of a recipe: prompt style, point syntax, decimals."""

    style: Literal["plain", "report", "release"]
    syntax: Syntax
    digits: int


@dataclass(frozen=True, slots=True)
class Spoken:
    """One turn as pieces of text, of which some are `Special`."""

    role: Role
    pieces: tuple[str, ...]

    @property
    def text(self) -> str:
        return "".join(self.pieces)


def speak(example: Example, number: int, wording: Wording, draws: Draws | None, last_time: float | None = None) -> list[Spoken]:
    """Branch `number` in words, roles in turn, questions before answers.

    `last_time`: the video is shown up to this second only, and tracks end there. Raises ValueError naming the branch where an
    answer has no question and none can be made.
    """
    branch = example.branches[number]
    choose = _Choose(wording, draws, number)
    out: list[Spoken] = []
    for turn in branch.turns:
        if turn.role != "assistant":
            said = _join([_words(part, wording, example) for part in turn.parts])
            if any(piece.strip() for piece in said):
                out.append(Spoken(turn.role, tuple(said)))
            continue
        parts = [
            clip_tracks(part, last_time) if isinstance(part, Tracks) and last_time is not None else part for part in turn.parts
        ]
        if not out or out[-1].role != "user":
            out.append(Spoken("user", tuple(_question(example, branch, parts, wording, choose))))
        chosen = next((part for part in parts if isinstance(part, Choices)), None)
        if chosen is not None:
            out[-1], answer = choose.options(out[-1], chosen)
        else:
            answer = _answer(parts, wording, example)
        out.append(Spoken("assistant", tuple(answer)))
    if not out or out[-1].role != "assistant":
        raise ValueError(f"{example.id}, branch {branch.id}: it ends without an answer, so there is nothing to learn or to ask")
    if wording.style == "release" and branch.style not in CONVERSATIONAL and not _has_choices(branch):
        first = next(place for place, turn in enumerate(out) if turn.role == "user")
        out[first] = Spoken("user", (f"{branch.style}: ", *out[first].pieces))
    return out


class _Choose:
    """Choices of one branch: the first of everything without draws or in style `plain`."""

    def __init__(self, wording: Wording, draws: Draws | None, number: int) -> None:
        self.draws, self.number = draws, number
        self.vary = wording.style != "plain" and draws is not None
        self.varied_options = wording.style == "release" and draws is not None

    def template(self, kind: str) -> str:
        """One of the templates of a kind."""
        options = TEMPLATES[kind]
        if not self.vary:
            return options[0]
        assert self.draws is not None
        return options[self.draws.below(len(options), self.number, "template")]

    def options(self, question: Spoken, part: Choices) -> tuple[Spoken, list[str]]:
        """The question with its options written below it, and the answer."""
        if self.draws is None:
            order = list(range(len(part.options)))
        else:
            order = self.draws.permutation(len(part.options), self.number, "options")
        names = [f"{LETTERS[place]}." for place in range(len(order))]
        instruction = f"\n{CHOOSE}\n"
        if self.varied_options:
            assert self.draws is not None
            # Shares of the release: 10 % canonical; of the rest 80 % with letters, some in other marks.
            if self.draws.chance(self.number, "canonical") >= 0.1:
                instruction = ("\n", "\nChoose one.\n", f"\n{CHOOSE}\n")[self.draws.below(3, self.number, "instruction")]
                mark = ("{}.", "{})", "({})", "{}:")[self.draws.below(4, self.number, "mark")]
                labelled = self.draws.chance(self.number, "labelled") < 0.8
                names = [mark.format(LETTERS[place]) if labelled else "" for place in range(len(order))]
        lines = [f"{name} {part.options[place]}".lstrip() for name, place in zip(names, order, strict=True)]
        asked = Spoken(question.role, (*question.pieces, instruction + "\n".join(lines)))
        return asked, [lines[order.index(part.answer)]]


def _question(example: Example, branch: Branch, parts: Sequence[Part], wording: Wording, choose: _Choose) -> list[str]:
    kind, fields = _kind(example, branch, parts)
    before, points, after = choose.template(kind).partition("{points}")
    if not points:
        return [before.format(**fields)]
    track = next(part for part in parts if isinstance(part, Tracks))
    return [before.format(**fields), *_first_point(track, wording), after.format(**fields)]


def _first_point(part: Tracks, wording: Wording) -> list[str]:
    seen = [sample for track in part.tracks for sample in shown_samples(track, part.mode)]
    if not seen:
        return [part.query]
    first = min(seen, key=lambda sample: sample.t)
    start = TimedPoints(label=part.query, points=(TimedPoint(t=first.t, x=first.x, y=first.y, id=0),))
    return pieces(start, wording.syntax, wording.digits)


def _kind(example: Example, branch: Branch, parts: Sequence[Part]) -> tuple[str, dict[str, str]]:
    """Key of TEMPLATES and what to fill in, from the first grounding part of an answer, else from the branch's style."""
    counted = any(isinstance(part, Count) for part in parts)
    for part in parts:
        if isinstance(part, Tracks):
            return part.mode, {"label": part.query, "fps": f"{part.fps:g}"}
        if isinstance(part, Points | TimedPoints):
            prefix = "video_" if isinstance(part, TimedPoints) else ""
            return f"{prefix}point{'_count' if counted else ''}", {"label": part.label}
        if isinstance(part, Count):
            return "count", {"label": part.label}
    style = branch.style
    medium = "video" if any(media.kind != "image" for media in example.media) else "image"
    for word, kind in (("transcript", "transcript"), ("short", "short_caption"), ("caption", "caption")):
        if word in style or (kind == "caption" and example.family == "caption"):
            return kind, {"medium": medium}
    raise ValueError(f"{example.id}, branch {branch.id}: style {style!r} has no question in the data and no template")


def _answer(parts: Sequence[Part], wording: Wording, example: Example) -> list[str]:
    """Parts of an answer; points followed by their count become one statement."""
    said: list[list[str]] = []
    skip = False
    for place, part in enumerate(parts):
        if skip:
            skip = False
            continue
        following = parts[place + 1] if place + 1 < len(parts) else None
        if isinstance(part, Points | TimedPoints) and isinstance(following, Count):
            said.append(_words(part, wording, example, "point_count", following.count))
            skip = True
        else:
            said.append(_words(part, wording, example))
    return _join(said)


def _words(part: Part, wording: Wording, example: Example, mode: Mode = "point", count: int | None = None) -> list[str]:
    if isinstance(part, Text):
        return [part.text]
    if isinstance(part, Choices):
        return [part.options[part.answer]]
    return pieces(part, wording.syntax, wording.digits, n_images=len(example.media), mode=mode, count=count)


def _join(said: Sequence[list[str]]) -> list[str]:
    """Texts of parts behind each other, a space between two that have none."""
    out: list[str] = []
    for part in said:
        if out and part and not out[-1][-1:].isspace() and not part[0][:1].isspace():
            out.append(" ")
        out += part
    return out


def _has_choices(branch: Branch) -> bool:
    return any(isinstance(part, Choices) for turn in branch.turns for part in turn.parts)


def opening(turn: Spoken) -> list[str]:
    """Pieces of a system or user turn with its markers, in the layout of Qwen's chats."""
    return _merge([_TURN_START, f"{turn.role}\n", *turn.pieces, _TURN_END, "\n"])


def answer_opening() -> list[str]:
    """Pieces that stand before every answer; an answer is closed by the end token alone."""
    return [_TURN_START, "assistant\n"]


def _merge(said: Sequence[str]) -> list[str]:
    """Neighbouring plain texts as one, so that BPE sees words whole."""
    out: list[str] = []
    for piece in said:
        if out and not isinstance(piece, Special) and not isinstance(out[-1], Special):
            out[-1] += piece
        elif piece:
            out.append(piece)
    return out
