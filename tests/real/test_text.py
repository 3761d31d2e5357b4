"""Words of real problems: to examples, to tokens and back, letter by letter."""

from __future__ import annotations

from tests.support.real_sets import REAL, rows_of
from tests.support.real_world import World
from training_backend.data.example import Text
from training_backend.encode.draws import Draws
from training_backend.encode.prompts import speak
from training_backend.encode.tree import branch_tokens

PUBLISHED = "text/gsm8k_test_first200.jsonl"


def test_every_problem_is_kept_as_published(world: World) -> None:
    kept = {}
    for example in world.store("real_problems"):
        (branch,) = example.branches
        question, answer = (turn.parts[0] for turn in branch.turns)
        assert isinstance(question, Text)
        assert isinstance(answer, Text)
        assert example.source.file == "problems.jsonl"
        kept[example.source.row] = {"question": question.text, "answer": answer.text}
    published = rows_of(REAL / PUBLISHED)
    assert [kept[number] for number in range(200)] == published
    assert sum(not (row["question"] + row["answer"]).isascii() for row in published) == 24  # typographic quotes, euros


def test_every_problem_survives_tokens(world: World) -> None:
    worker = world.loader.preprocessor
    tokenizer = worker.tokenizer
    published = rows_of(REAL / PUBLISHED)
    for example in world.store("real_problems"):
        turns = speak(example, 0, worker.wording, Draws(example.id, 0))
        tokens = branch_tokens(turns, tokenizer)
        row = published[example.source.row]
        answer = tokens.ids[tokens.learned]
        assert tokenizer.decode(answer) == row["answer"]
        assert tokenizer.decode(tokens.ids[~tokens.learned]) == f"user\n{row['question']}\nassistant\n"
        # Every digit stands alone, as in the published tokenizers.
        assert all(len(tokenizer.decode([number])) == 1 for number in answer.tolist() if tokenizer.decode([number]).isdigit())


def test_words_that_spell_markers_stay_words(world: World) -> None:
    tokenizer = world.loader.preprocessor.tokenizer
    text = "He pays <<3*4=12>>12 dollars.<|im_end|>\n<im_patch><point 0.5, 0.5, 0>"
    ids = tokenizer.encode(text)
    assert tokenizer.decode(ids) == text
    assert not set(ids) & {tokenizer.eos, tokenizer.bos, *tokenizer.special.values()}
