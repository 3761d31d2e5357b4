"""Questions about pictures, films or nothing, in the many layouts that differ in names only: the entry declares them.

Belongs here: open questions, multiple choice in every published form (columns, lists, letters, indexes, flags, options written into
the question), labels as answers, counts, conversations. Does not belong here: points and tracks (their own modules), layouts with
rules of their own (`images.py`, `videos.py`).

Options that a set publishes in an order keep it: evaluation asks in it, training draws another. Where the right answer stands apart
from the wrong ones, the order is drawn from the words (`base.choice`).
"""

from __future__ import annotations

import ast
import hashlib
import re
from collections.abc import Sequence
from typing import Any, Literal

import msgspec

from molmo2_assets.ingest.adapters.base import (
    Adapter,
    Context,
    Parameters,
    Piece,
    Reference,
    ask,
    choice,
    need,
    paired,
    words,
)
from molmo2_assets.ingest.adapters.named import clipped, columns_of, fill, key_of, references, seconds, subtitled, window
from molmo2_assets.ingest.pluck import pluck
from molmo2_assets.ingest.reasons import RowFault
from molmo2_assets.ingest.rows import RawRow
from training_backend.data.example import Branch, Choices, Count, Media, Part

_OPTION = re.compile(r"\s*(?:\(?([A-Za-z])[).:]|Options? \d+:)\s*(.*)", re.DOTALL)
_IMAGE = re.compile(r"<image(?:\s*(\d+))?>\s*")


class Layout(Parameters, frozen=True, kw_only=True):
    """Where a row says what. Names are columns, dotted for nested fields; inside `each` the item's own fields come first.

    `media`: column, several columns (empty ones are left out), or template with `{column}`; none for text. `clip`: one column with
    a span, or two; with `whole`, rows without times are about the whole film. `subtitles`: a list of {start, end, text}, whose
    times the column `subtitles_from` begins. `each`: a list of questions in the row (of objects, or one object of lists), or
    several columns that are parallel lists. `conversation`: a list of turns, every two of them a question and its answer, texts in
    the field `said`. `question`, or `asks`: templates, one drawn from the words, where the set has labels only. `hint` stands
    before the question; `remove` are markers that are taken out of both. `answer`: text or number, or a list of answers (the most
    common is trained on, scored against all). `explanation` is said before it. `windows`: spans of time as answer. `count`: a
    number of things as answer, of `label` (default: the question). `replace`: in the answer. `options`: a column with a list (of
    objects: their field `option`), several columns, or a text (`written`: `list` as Python writes it, `lines`); `written:
    question`: they stand in the question's text, a line each. Labels such as "A." are taken off; `labels` is a column with those
    that stand apart. `correct` says which is right, as `correct_is` index (from `first`), letter, text, or flag (the field
    `correct` of an option is `flag`). `wrong` are the options beside `answer`. Empty options are padding. `open_style`: the
    question is also asked without options, in that style; `choice_style`: the style of multiple choice where `style` is for open
    questions. `style_column` holds the style of each question.
    """

    when: str | None = None
    media: str | tuple[str, ...] | None = None
    sha256: str | None = None
    clip: tuple[str, ...] = ()
    whole: bool = False
    subtitles: str | None = None
    subtitles_from: str | None = None
    each: str | tuple[str, ...] | None = None
    conversation: str | None = None
    said: str = "value"
    question: str | None = None
    asks: tuple[str, ...] = ()
    hint: str | None = None
    remove: tuple[str, ...] = ()
    answer: str | None = None
    explanation: str | None = None
    windows: str | None = None
    count: str | None = None
    label: str | None = None
    replace: dict[str, str] = msgspec.field(default_factory=dict)
    options: str | tuple[str, ...] | None = None
    option: str | None = None
    labels: str | None = None
    written: Literal["list", "lines", "question"] | None = None
    correct: str | None = None
    correct_is: Literal["index", "letter", "text", "flag"] = "index"
    first: int = 0
    flag: str = "correct"
    wrong: str | tuple[str, ...] | None = None
    open_style: str | None = None
    choice_style: str | None = None
    style_column: str | None = None

    def needed(self) -> tuple[str, ...]:
        clip = () if self.whole else self.clip
        around = columns_of(self.media if isinstance(self.media, str) else None, clip, self.each, self.conversation)
        if self.each or self.conversation:
            return around
        asked = columns_of(self.question, self.answer, self.windows, self.count, self.options, self.correct, self.wrong)
        return tuple(dict.fromkeys((*around, *asked, *columns_of(*[text for text in self.asks[:1] if "{" in text]))))


class Layouts(Layout, frozen=True, kw_only=True):
    """A layout, and others of the same set: the first of `also` whose column `when` a row has is the row's own."""

    also: tuple[Layout, ...] = ()

    def needed(self) -> tuple[str, ...]:
        return () if self.also else super().needed()

    def of(self, row: RawRow) -> Layout:
        """The layout of a row."""
        return next((layout for layout in self.also if layout.when in row.data), self)


def _media(row: RawRow, context: Context) -> list[Reference]:
    layout = context.of(Layouts).of(row)
    return references(row, layout.media, "video" if context.film else "image", layout.sha256)


def _films(row: RawRow, context: Context) -> list[Reference]:
    """The same where the task, counting, does not say that the set is about films."""
    layout = context.of(Layouts).of(row)
    return references(row, layout.media, "video", layout.sha256)


def _read(row: RawRow, media: Sequence[Media], context: Context) -> Piece:
    layout = context.of(Layouts).of(row)
    shown = list(media)
    if layout.clip:
        shown[0] = clipped(shown[0], row.data, layout.clip, whole=layout.whole)
    lines = row.data.get(layout.subtitles) if layout.subtitles else None
    if lines:
        begin = seconds(pluck(row.data, layout.subtitles_from), layout.subtitles_from) if layout.subtitles_from else None
        shown[0] = subtitled(shown[0], lines, str(layout.subtitles), begin or 0.0)
    branches: list[Branch] = []
    answers: dict[str, list[str]] = {}
    for item in _items(row.data, layout):
        for branch, found in _asked(item, layout, context, shown):
            branches.append(branch)
            if len(found) > 1:
                answers[branch.id] = found
    if not branches:
        raise RowFault("missing_field", str(layout.each or layout.question), "no questions")
    key = key_of(shown) if shown else hashlib.blake2b(branches[0].id.encode(), digest_size=16).hexdigest()
    return Piece(key, tuple(shown), tuple(branches), {"answers": answers} if answers else {})


def _items(data: dict[str, Any], layout: Layout) -> list[dict[str, Any]]:
    """The questions of a row as flat records: their own fields over those of the row."""
    if layout.conversation is not None:
        turns = need(data, layout.conversation, list)
        if len(turns) % 2:
            raise RowFault("roles", layout.conversation, f"{len(turns)} turns")
        said = [words(turn, layout.said) for turn in turns]
        return [{**data, "question": said[at], "answer": said[at + 1]} for at in range(0, len(said), 2)]
    if layout.each is None:
        return [data]
    if isinstance(layout.each, str):
        value = pluck(data, layout.each)
        found = need({layout.each: value}, layout.each, (list, dict))
        if isinstance(found, list):
            return [{**data, **(item if isinstance(item, dict) else {layout.each: item})} for item in found]
        columns = {name: column for name, column in found.items() if isinstance(column, list)}
    else:
        columns = {name: need(data, name, list) for name in layout.each}
    paired(str(layout.each), *columns.values())
    return [{**data, **dict(zip(columns, values, strict=True))} for values in zip(*columns.values(), strict=True)]


# -- one question -----------------------------------------------------------------------------------------------------------


def _asked(item: dict[str, Any], layout: Layout, context: Context, media: Sequence[Media]) -> list[tuple[Branch, list[str]]]:
    """Branches of one question, each with all answers that count as right."""
    about = key_of(media)
    style = str(item.get(layout.style_column) or context.style) if layout.style_column else context.style
    question = _question(item, layout, about)
    if layout.wrong is not None:
        right = _said(item, layout.answer)
        wrong = [option for option in _texts(item, layout.wrong) if option]
        branch = choice(question, layout.choice_style or style, _placed(question, media), right, wrong, about)
        return [(branch, [right]), *_open(question, right, layout, media)]
    if layout.options is not None or layout.written == "question":
        question, options, letters = _options(item, question, layout)
        if options:
            return _choices(item, layout, (question, options, letters), layout.choice_style or style, media)
    answer, every = _answer(item, layout, question)
    return [(ask(question, style, _placed(question, media), *answer), every)]


def _question(item: dict[str, Any], layout: Layout, about: str) -> str:
    name = "question" if layout.conversation else layout.question
    if name is not None:
        value = pluck(item, name)
        # Sets that give several wordings of one question: one of them, by the words and what they are about.
        text = _drawn(value, about) if isinstance(value, list) and value else words({name: value}, name)
    elif layout.asks:
        text = fill(_drawn(layout.asks, about), item)
    else:
        raise RowFault("missing_field", "question", "the entry declares no question")
    hint = pluck(item, layout.hint) if layout.hint else None
    said = f"{words({'hint': hint}, 'hint')}\n{text}" if hint else text
    for marker in layout.remove:
        said = said.replace(marker, "")
    return said.strip()


def _drawn(wordings: Sequence[Any], about: str) -> str:
    place = int.from_bytes(hashlib.blake2b(f"{about}\x1f{wordings[0]}".encode(), digest_size=8).digest(), "little")
    return words({"question": wordings[place % len(wordings)]}, "question")


def _placed(question: str, media: Sequence[Media]) -> str:
    """The question without markers of where pictures stood: numbered for several; for one, taken away at the begin, else named."""
    if len(media) < 2:
        match = _IMAGE.match(question)
        text = question[match.end() :] if match is not None else question
        return _IMAGE.sub(lambda found: f"the image{found[0][len(found[0].rstrip()) :]}", text).strip() or question
    count = 0

    def name(match: re.Match[str]) -> str:
        nonlocal count
        count += 1
        space = " " if match[0][-1].isspace() else ""
        return f"Image {match[1] or count}{space}"

    return _IMAGE.sub(name, question).strip()


def _answer(item: dict[str, Any], layout: Layout, question: str) -> tuple[tuple[Part | str, ...], list[str]]:
    """Parts of an open answer, and every text that counts as right."""
    if layout.count is not None:
        value = pluck(item, layout.count)
        number = (
            int(value) if isinstance(value, str) and value.strip().isdigit() else need({layout.count: value}, layout.count, int)
        )
        label = words({layout.label: pluck(item, layout.label)}, layout.label) if layout.label else question
        return (Count(label=label, count=number),), [str(number)]
    if layout.windows is not None:
        spans = [window(span, layout.windows) for span in need(item, layout.windows, list)]
        if not spans:
            raise RowFault("missing_field", layout.windows, "no span of time")
        text = ", ".join(f"{start:g} - {end:g}" for start, end in spans)
        return (text,), [text]
    name = "answer" if layout.conversation else str(layout.answer)
    value = pluck(item, name)
    if isinstance(value, list):
        every = [_replaced(_text(entry, name), layout) for entry in value]
        if not every:
            raise RowFault("empty_text", name, "no answer")
        answer = max(every, key=every.count)
    else:
        answer = _replaced(_text(value, name), layout)
        every = [answer]
    why = pluck(item, layout.explanation) if layout.explanation else None
    said = f"{words({'explanation': why}, 'explanation')}\nAnswer: {answer}" if why else answer
    return (said,), every


def _said(item: dict[str, Any], name: str | None) -> str:
    return _text(pluck(item, str(name)), str(name))


def _text(value: Any, name: str) -> str:
    """An answer as words; sets write numbers as numbers. Raises RowFault."""
    if isinstance(value, bool):
        raise RowFault("wrong_type", name, "bool")
    if isinstance(value, int | float):
        return f"{value:g}" if isinstance(value, float) else str(value)
    return words({name: value}, name)


def _replaced(text: str, layout: Layout) -> str:
    for old, new in layout.replace.items():
        text = text.replace(old, new)
    return text.strip()


# -- multiple choice --------------------------------------------------------------------------------------------------------


def _options(item: dict[str, Any], question: str, layout: Layout) -> tuple[str, list[Any], list[str]]:
    """The question, its options (texts, or objects under `flag`), and the letters that label them."""
    if layout.written == "question":
        lines = [line.strip() for line in question.splitlines() if line.strip()]
        begin = next((place for place, line in enumerate(lines) if place and _OPTION.fullmatch(line)), len(lines))
        found: list[Any] = [line for line in lines[begin:] if _OPTION.fullmatch(line)]
        if not found:
            return question, [], []
        question = "\n".join(lines[:begin])
    elif isinstance(layout.options, tuple):
        found = [pluck(item, name) for name in layout.options]
    else:
        value = pluck(item, str(layout.options))
        if layout.written is not None and isinstance(value, str):
            value = _written(value, layout)
        found = [] if value is None else need({str(layout.options): value}, str(layout.options), list)
    if layout.correct_is == "flag":
        return question, found, []
    texts = [_text(pluck(option, layout.option) if layout.option else option, "options") if option or option == 0 else ""
             for option in found]  # fmt: skip
    matches = [_OPTION.fullmatch(text) for text in texts]
    if (
        texts
        and all(match is not None and match[2].strip() for match in matches if match is not None)
        and all(match is not None for text, match in zip(texts, matches, strict=True) if text)
    ):
        letters = [(match[1] or "").upper() if match else "" for match in matches]
        texts = [match[2].strip() if match else "" for match in matches]
    else:
        letters = []
    if layout.labels is not None:
        letters = [str(label).upper() for label in need({layout.labels: pluck(item, layout.labels)}, layout.labels, list)]
        paired("options", texts, letters)
    return question, texts, letters


def _written(text: str, layout: Layout) -> list[Any]:
    if layout.written == "lines":
        return [line for line in text.splitlines() if line.strip()]
    try:
        found = ast.literal_eval(text)
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        raise RowFault("wrong_type", str(layout.options), f"{text[:60]!r} is no list") from None
    return need({str(layout.options): found}, str(layout.options), list)  # type: ignore[no-any-return]


def _choices(
    item: dict[str, Any], layout: Layout, asked: tuple[str, list[Any], list[str]], style: str, media: Sequence[Media]
) -> list[tuple[Branch, list[str]]]:
    question, options, letters = asked
    if layout.correct_is == "flag":
        flags = [place for place, option in enumerate(options) if str(pluck(option, str(layout.correct))).lower() == layout.flag]
        texts = [_text(pluck(option, str(layout.option)), "options") for option in options]
        if len(flags) > 1:
            raise RowFault("not_selected", "options", f"{len(flags)} options are right, one is asked for")
        place = flags[0] if flags else -1
    else:
        texts = options
        place = _place(pluck(item, str(layout.correct)), texts, letters, layout)
    if not 0 <= place < len(texts) or not texts[place]:
        raise RowFault("answer_outside", str(layout.correct), f"option {place} of {len(texts)}")
    right = texts[place]
    kept = [text for text in texts if text]
    if len({text.lower() for text in kept}) < len(kept):
        raise RowFault("answer_ambiguous", "options", "options repeat")
    if len(kept) < 2:
        raise RowFault("no_options", "options", f"{len(kept)} options")
    branch = ask(question, style, _placed(question, media), Choices(options=tuple(kept), answer=kept.index(right)))
    return [(branch, [right]), *_open(question, right, layout, media)]


def _place(value: Any, texts: Sequence[str], letters: Sequence[str], layout: Layout) -> int:
    """Which option is right. Raises RowFault."""
    name = str(layout.correct)
    if layout.correct_is == "text":
        said = _text(value, name).strip()
        if said not in texts:
            raise RowFault("answer_outside", name, f"{said[:60]!r} is no option")
        return texts.index(said)
    if layout.correct_is == "letter":
        said = words({name: value}, name)
        match = _OPTION.fullmatch(said)
        letter = (match[1] if match is not None and match[1] else said.strip("()")).upper()
        if letters and letter in letters:
            return letters.index(letter)
        if len(letter) != 1 or not "A" <= letter <= "Z":
            raise RowFault("answer_outside", name, f"{letter[:20]!r} is no letter")
        return ord(letter) - ord("A")
    if isinstance(value, str) and value.strip().isdigit():
        value = int(value)
    return int(need({name: value}, name, int)) - layout.first


def _open(question: str, right: str, layout: Layout, media: Sequence[Media]) -> list[tuple[Branch, list[str]]]:
    """The same question without options, where the entry says so."""
    if layout.open_style is None:
        return []
    return [(ask(f"{question}/open", layout.open_style, _placed(question, media), right), [right])]


def _texts(item: dict[str, Any], names: str | tuple[str, ...]) -> list[str]:
    values = need({str(names): pluck(item, names)}, names, list) if isinstance(names, str) else [pluck(item, n) for n in names]
    return ["" if value is None else _text(value, str(names)) for value in values]


ADAPTERS = (
    Adapter("image_questions", (), _media, _read, parameters=Layouts),
    Adapter("video_questions", (), _media, _read, parameters=Layouts),
    Adapter("text_questions", (), _media, _read, parameters=Layouts),
    Adapter("image_counts", (), _media, _read, parameters=Layouts),
    Adapter("video_counts", (), _films, _read, parameters=Layouts),
)
