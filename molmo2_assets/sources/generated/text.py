"""Instructions without pictures: small exercises with one right answer each.

Belongs here: the exercises and rows in the layout of the filtered Tulu mixture. Does not belong here: anything seen.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence

from molmo2_assets.sources.generated import faults
from molmo2_assets.sources.generated.content import MediaFolder, Params, Row
from molmo2_assets.sources.generated.describe import NUMBERS
from molmo2_assets.sources.generated.seeds import balanced

WORDS = (
    "apple", "river", "stone", "cloud", "green", "house", "light", "mouse", "night", "ocean", "paper", "queen", "road", "sun",
    "tree", "under", "voice", "water", "yellow", "zebra", "bird", "cat", "door", "egg", "fish", "glass", "hat", "ink", "jar", "key",
)  # fmt: skip
OPPOSITES = (("hot", "cold"), ("big", "small"), ("up", "down"), ("old", "new"), ("open", "closed"), ("left", "right"),
             ("early", "late"), ("full", "empty"), ("hard", "soft"), ("fast", "slow"))  # fmt: skip
COLOUR_FACTS = (("a ripe banana", "yellow"), ("fresh grass", "green"), ("snow", "white"), ("coal", "black"),
                ("a ripe tomato", "red"), ("a clear sky", "blue"), ("a carrot", "orange"), ("milk", "white"))  # fmt: skip
DAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")

Exercise = tuple[str, str]


def _add(rng: random.Random) -> Exercise:
    a, b = rng.randint(0, 50), rng.randint(0, 49)
    return f"What is {a} plus {b}?", str(a + b)


def _subtract(rng: random.Random) -> Exercise:
    a, b = sorted((rng.randint(0, 60), rng.randint(0, 60)), reverse=True)
    return f"What is {a} minus {b}?", str(a - b)


def _times(rng: random.Random) -> Exercise:
    a, b = rng.randint(0, 10), rng.randint(0, 10)
    return f"What is {a} times {b}?", str(a * b)


def _sort(rng: random.Random) -> Exercise:
    words = rng.sample(WORDS, rng.randint(3, 4))
    return f"Sort these words: {', '.join(words)}", ", ".join(sorted(words))


def _copy(rng: random.Random) -> Exercise:
    words = " ".join(rng.sample(WORDS, rng.randint(3, 5)))
    return f"Repeat after me: {words}", words


def _reverse(rng: random.Random) -> Exercise:
    words = rng.sample(WORDS, 3)
    return f"Say these words in reverse order: {' '.join(words)}", " ".join(words[::-1])


def _letter(rng: random.Random) -> Exercise:
    word, first = rng.choice(WORDS), rng.random() < 0.5
    return f"What is the {'first' if first else 'last'} letter of {word}?", word[0] if first else word[-1]


def _length(rng: random.Random) -> Exercise:
    word = rng.choice(WORDS)
    return f"How many letters does the word {word} have?", str(len(word))


def _upper(rng: random.Random) -> Exercise:
    word = rng.choice(WORDS)
    return f"Write {word} in capital letters.", word.upper()


def _opposite(rng: random.Random) -> Exercise:
    pair = rng.choice(OPPOSITES)
    left, right = pair if rng.random() < 0.5 else pair[::-1]
    return f"What is the opposite of {left}?", right


def _colour(rng: random.Random) -> Exercise:
    thing, colour = rng.choice(COLOUR_FACTS)
    return f"What colour is {thing}?", colour


def _day(rng: random.Random) -> Exercise:
    day, after = rng.randrange(7), rng.random() < 0.5
    return f"Which day comes {'after' if after else 'before'} {DAYS[day]}?", DAYS[(day + (1 if after else -1)) % 7]


def _larger(rng: random.Random) -> Exercise:
    a, b = rng.sample(range(100), 2)
    return f"Which number is larger, {a} or {b}?", str(max(a, b))


def _spell(rng: random.Random) -> Exercise:
    number = rng.randint(1, 9)
    return (
        (f"Write {number} as a word.", NUMBERS[number])
        if rng.random() < 0.5
        else (f"Write {NUMBERS[number]} in digits.", str(number))
    )


EXERCISES: dict[str, Callable[[random.Random], Exercise]] = {
    "math": _add, "math-2": _subtract, "math-3": _times, "math-4": _larger,
    "words": _sort, "words-2": _copy, "words-3": _reverse, "words-4": _letter, "words-5": _length, "words-6": _upper,
    "facts": _opposite, "facts-2": _colour, "facts-3": _day, "facts-4": _spell,
}  # fmt: skip
_LARGE = ("math", "math-2", "math-4", "words", "words-2", "words-3")
"""Exercises of which there are thousands; the small ones run out and these take over."""


def build_text(params: Params, media: MediaFolder) -> list[Row]:
    """Rows like allenai/molmo2-tulu4-classified, no question asked twice; every eighth row goes on for another turn.

    The column of token counts holds words: nobody here has that tokenizer.
    """
    rng = params.rng("text")
    seen: set[str] = set()
    rows: list[Row] = []
    for row in range(params.n):
        messages: list[dict[str, str]] = []
        category = balanced(tuple(EXERCISES), row, params.name, params.seed)
        for turn in range(2 if row % 8 == 7 else 1):
            category, question, answer = _fresh(rng, category if turn == 0 else rng.choice(_LARGE), seen)
            messages += [{"content": question, "role": "user"}, {"content": answer, "role": "assistant"}]
        if row % 10 == 3:
            messages.insert(0, {"content": "Answer briefly.", "role": "system"})
        words = sum(len(message["content"].split()) for message in messages[:1])
        rows.append(
            {
                "id": f"{params.name}-{params.seed}-{row:05d}",
                "source": f"exercises/{category.split('-')[0]}",
                "messages": messages,
                "category": category.split("-")[0],
                "first_message_qwen3_tokens": words,
                "empty_messages": False,
                "has_special_token": False,
            }
        )
    return rows


def _fresh(rng: random.Random, category: str, seen: set[str]) -> tuple[str, str, str]:
    """An exercise that was not asked before, of another category where this one is used up."""
    while True:
        for _ in range(30):
            question, answer = EXERCISES[category](rng)
            if question not in seen:
                seen.add(question)
                return category, question, answer
        category = rng.choice(_LARGE)


def _drop_answer(row: Row) -> list[dict[str, str]]:
    return [message if message["role"] != "assistant" else {**message, "content": ""} for message in row["messages"]]


def _two_users(row: Row) -> list[dict[str, str]]:
    user = next(message for message in row["messages"] if message["role"] == "user")
    return [user, *[message for message in row["messages"] if message["role"] != "system"]]


TEXT_FAULTS: Sequence[faults.FaultKind] = (
    faults.set_to("empty_text", "messages", _drop_answer),
    faults.set_to("roles_do_not_alternate", "messages", _two_users),
    faults.set_to("no_messages", "messages", lambda row: []),
    faults.set_to("control_character", "messages", lambda row: [{**m, "content": m["content"] + "\x00"} for m in row["messages"]]),
    faults.DUPLICATE,
)
