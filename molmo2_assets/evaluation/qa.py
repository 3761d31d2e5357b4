"""Short answers: exact match, multiple choice, ANLS, relaxed accuracy, VQA score.

Belongs here: comparing one answer text with one or several references; extraction of an option from free text. Does not belong
here: judges (a model that grades a model), where references come from (`records.py`).

Harnesses differ in small ways that move numbers; each function names the one it follows and what it leaves out.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"

_NUMBER_WORDS = {
    word: str(number)
    for number, word in enumerate(("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten"))
} | {"none": "0"}
_ARTICLES = {"a", "an", "the"}
_PUNCTUATION = ';/[]"{}()=+\\_-><@`,?!'
_CONTRACTIONS = """
ain't aren't can't couldn't didn't doesn't don't hadn't hasn't haven't he'd he's how's i'm i've isn't it'd it'll let's ma'am
mightn't might've mustn't must've needn't not've o'clock shan't she's shouldn't should've somebody's someone's something's
that's there'd there're there's they'd they'll they're they've wasn't we've weren't what'll what're what's what've when's
where'd where's where've who'd who'll who's who've why'll why're why's won't wouldn't would've y'all you'd you'll you're you've
"""
_FULL_FORM = {full.replace("'", ""): full for full in _CONTRACTIONS.split()}


def short_answer(text: str) -> str:
    """What stands behind the last `Answer:`, if there is one; lower case, single spaces, one final full stop removed."""
    text = re.split(r"answer:", text, flags=re.IGNORECASE)[-1]
    return " ".join(text.lower().split()).removesuffix(".").rstrip()


def exact_match(answer: str, references: Sequence[str]) -> float:
    """1 where the short answer equals any reference after the same normalisation."""
    return float(short_answer(answer) in {short_answer(reference) for reference in references})


def choice_letter(answer: str, n_options: int) -> int | None:
    """The option that a letter in `answer` names, or None.

    In this order: the answer begins with an option letter that is marked or stands alone (`B`, `B.`, `(b)`, `B: red`); the last
    "answer is X" or "answer: X"; exactly one option letter in capitals stands alone in the whole text. The words "a" and "I" in
    front of another word are no letters.
    """
    big = LETTERS[:n_options]
    letters = big + big.lower()
    start = re.match(rf"\(?([{letters}])(?:[).:,]|\s*$)", answer.strip())
    if start:
        return LETTERS.index(start.group(1).upper())
    said = re.findall(rf"(?i:answer\s+is:?)\s*\(?(?!a\s+\w)([{letters}])(?![\w'])", answer)
    said = said or re.findall(rf"(?i:answer:)\s*\(?(?![AaI]\s+\w)([{letters}])(?![\w'])", answer)
    if said:
        return LETTERS.index(said[-1].upper())
    alone = set(re.findall(rf"(?<![\w'])(?![AI]\s+[a-z])([{big}])(?![\w'])", answer))
    return LETTERS.index(alone.pop()) if len(alone) == 1 else None


def chosen_option(answer: str, options: Sequence[str]) -> int | None:
    """The option that `answer` means: its whole text equals an option, else a letter (`choice_letter`), else the one option whose
    text it contains as words (the longest of nested ones). None where it names none or several: such an answer counts as wrong
    and is reported as unparsable. (Video-MME skips these, MMMU draws at random, others take the nearest: see `nearest_option`.)
    """
    given = short_answer(answer)
    texts = [short_answer(option) for option in options]
    if texts.count(given) == 1:
        return texts.index(given)
    letter = choice_letter(answer, len(options))
    if letter is not None:
        return letter
    lower = " ".join(answer.lower().split())
    found = [number for number, text in enumerate(texts) if text and re.search(rf"(?<!\w){re.escape(text)}(?!\w)", lower)]
    found = [number for number in found if not any(texts[number] in texts[other] and number != other for other in found)]
    return found[0] if len(found) == 1 else None


def nearest_option(answer: str, options: Sequence[str]) -> int:
    """The released `select_mc_option` rule, which never abstains: equal, else option a prefix of the answer, else contained in
    it, else smallest edit distance; the first of equals."""
    given = answer.strip().lower()
    texts = [option.strip().lower() for option in options]
    for test in (given.__eq__, given.startswith, given.__contains__):
        for number, text in enumerate(texts):
            if test(text):
                return number
    distances = [edit_distance(given, text) for text in texts]
    return distances.index(min(distances))


def edit_distance(left: str, right: str) -> int:
    """Levenshtein distance in characters."""
    if len(left) < len(right):
        left, right = right, left
    row = list(range(len(right) + 1))
    for number, char in enumerate(left, 1):
        previous, row[0] = row[0], number
        for column, other in enumerate(right, 1):
            previous, row[column] = row[column], min(row[column] + 1, row[column - 1] + 1, previous + (char != other))
    return row[-1]


def anls(answer: str, references: Sequence[str]) -> float:
    """Average normalised Levenshtein similarity, as the official RRC script: lower case, stripped, white space collapsed; distance
    over the longer of the *raw* lengths; the best reference; below 0.5 it is 0, and 0.5 itself stays. (The release asks for more
    than half and leaves white space as it is.)
    """
    given = " ".join(answer.lower().split())
    best = 0.0
    for reference in references:
        wanted = " ".join(reference.lower().split())
        length = max(len(answer), len(reference))
        best = max(best, 1 - edit_distance(given, wanted) / length if length else 1.0)
    return best if best >= 0.5 else 0.0


def _as_float(text: str) -> float | None:
    try:
        if text.endswith("%"):
            return float(text.removesuffix("%")) / 100
        return float(text)
    except ValueError:
        return None


def relaxed_accuracy(answer: str, reference: str) -> float:
    """ChartQA: numbers within 5 % of a target that is not 0; anything else equal but for case, not stripped.

    A trailing % divides by 100 (so 50 against 50% fails); `1,000` is no number; years are numbers.
    """
    given, wanted = _as_float(answer), _as_float(reference)
    if given is not None and wanted:
        return float(abs(given - wanted) / abs(wanted) <= 0.05)
    return float(answer.lower() == reference.lower())


def vqa_normalise(text: str) -> str:
    """Normalisation of the official VQA script; contractions are restored from our own table of common ones.

    Its oddity is kept: a punctuation mark vanishes if it touches a space anywhere in the text (or if the text has a comma between
    digits), and otherwise becomes a space.
    """
    out = text
    digits_comma = re.search(r"\d,\d", text) is not None
    for mark in _PUNCTUATION:
        if mark in text:
            out = out.replace(mark, "" if f"{mark} " in text or f" {mark}" in text or digits_comma else " ")
    out = re.sub(r"\.(?!\d)", "", out)
    words = [_NUMBER_WORDS.get(word, word) for word in out.lower().split()]
    return " ".join(_FULL_FORM.get(word, word) for word in words if word not in _ARTICLES)


def vqa_score(answer: str, references: Sequence[str]) -> float:
    """Official VQA v2 accuracy over ten annotators: for each, min(1, matches among the *other nine* / 3); their mean.

    One to four agreeing annotators give 0.3, 0.6, 0.9, 1. Texts are normalised only if the ten are not all equal, as officially:
    "Yes" against ten "yes" scores 0. Raises ValueError for another number of annotators.
    """
    if len(references) != 10:
        raise ValueError(f"the VQA score needs ten annotators, not {len(references)}; use exact_match")
    given = answer.replace("\n", " ").replace("\t", " ").strip()
    wanted = [reference.replace("\n", " ").replace("\t", " ").strip() for reference in references]
    if len(set(wanted)) > 1:
        given, wanted = vqa_normalise(given), [vqa_normalise(reference) for reference in wanted]
    equal = [reference == given for reference in wanted]
    return sum(min(1.0, (sum(equal) - own) / 3) for own in equal) / 10
