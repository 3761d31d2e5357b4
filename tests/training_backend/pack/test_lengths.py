"""Length tables: exact for every realisation, the same bytes every time, refused where they do not belong."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tests.support.examples import EVERY_RULE, Pixels, asked, many, picture, recipe, row, store_at, tokenizer_at
from training_backend.data.example import Example
from training_backend.encode.draws import VARIANTS
from training_backend.encode.preprocessor import OversizedError, Preprocessor
from training_backend.encode.tokens import Tokenizer
from training_backend.pack.batch import Encoded
from training_backend.pack.lengths import LengthError, Lengths, joined, length_table, measure, pieces, realisations


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Tokenizer:
    return tokenizer_at(tmp_path_factory.mktemp("tokenizer"))


def test_the_table_is_what_encoding_makes(tmp_path: Path, tokenizer: Tokenizer) -> None:
    store = store_at(tmp_path, [*many(25), row("image_qa", [picture()], asked("Where?", "x" * 9000), name="huge")])
    made = Preprocessor(recipe(), EVERY_RULE, tokenizer, 150, 6)
    table, reasons = length_table(store, made)
    for number in range(len(store)):
        for variant in range(VARIANTS):
            encoded = made.encode(store.example(number), variant, Pixels())
            assert table.tokens[number, variant] == len(encoded.tokens)
            assert table.visual[number, variant] == len(encoded.crops)
            assert table.truncated[number, variant] == encoded.truncated_branches
            assert table.dropped[number, variant] == encoded.dropped_frames
    assert reasons["no_branch_fits"] == 1
    assert table.left_out.all(axis=1).sum() == 1
    assert (np.ptp(table.tokens, axis=1) > 0).any(), "questions differ in length"


def test_a_store_in_pieces_or_without_rows_has_its_table(tmp_path: Path, tokenizer: Tokenizer) -> None:
    made = Preprocessor(recipe(), EVERY_RULE, tokenizer, 150, 6)
    for count in (0, 1, 5, 10):
        store = store_at(tmp_path / str(count), many(count))
        whole, reasons = length_table(store, made)
        parts = [measure(store, made, rows) for rows in pieces(store, 4)]
        table, again = joined(store, made, parts)
        assert (len(table), reasons) == (count, again)
        for name in Lengths.__slots__:
            np.testing.assert_array_equal(getattr(table, name), getattr(whole, name))


def test_a_table_of_other_arithmetic_than_the_encoders_is_an_error(
    tmp_path: Path, tokenizer: Tokenizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = Preprocessor(recipe(), EVERY_RULE, tokenizer, 500, 24)
    encode = made.encode
    cut = {name: slice(None, -1) for name in ("tokens", "targets", "weights")}

    def other(example: Example, key: int, media: None) -> Encoded:
        encoded = encode(example, key, media)
        return replace(encoded, **{name: getattr(encoded, name)[part] for name, part in cut.items()})

    monkeypatch.setattr(made, "encode", other)
    with pytest.raises(AssertionError, match=r"the table has .* encoding makes"):
        length_table(store_at(tmp_path, many(3)), made)


def test_rows_without_choices_are_realised_once(tmp_path: Path, tokenizer: Tokenizer) -> None:
    store = store_at(tmp_path, [row("image_qa", [picture()], asked("Where?", "left"), asked("What?", "red", "1"))])
    plans = realisations(store, 0, Preprocessor(recipe(), EVERY_RULE, tokenizer, 150, 6))
    assert len(plans) == VARIANTS
    assert len(set(map(id, plans))) == 1


def test_tables_come_back_and_repeat(tmp_path: Path, tokenizer: Tokenizer) -> None:
    store = store_at(tmp_path / "rows", many(10))
    table, _ = length_table(store, Preprocessor(recipe(), EVERY_RULE, tokenizer, 500, 24))
    for name in ("a", "b"):
        table.save(tmp_path / name / "demo.npz")
    assert (tmp_path / "a" / "demo.npz").read_bytes() == (tmp_path / "b" / "demo.npz").read_bytes()
    again = Lengths.load(tmp_path / "a" / "demo.npz", 10)
    for name in Lengths.__slots__:
        np.testing.assert_array_equal(getattr(again, name), getattr(table, name))
    with pytest.raises(LengthError, match="the set has 11"):
        Lengths.load(tmp_path / "a" / "demo.npz", 11)
    with pytest.raises(LengthError, match=r"c\.npz is missing"):
        Lengths.load(tmp_path / "c.npz", 10)
    whole = (tmp_path / "a" / "demo.npz").read_bytes()
    (tmp_path / "torn.npz").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(LengthError, match="materialise"):
        Lengths.load(tmp_path / "torn.npz", 10)


def test_refusing_recipes_stop_at_the_row(tmp_path: Path, tokenizer: Tokenizer) -> None:
    store = store_at(tmp_path, [row("text", [], asked("Where?", "x" * 9000), name="demo/huge")])
    with pytest.raises(OversizedError, match="demo/huge"):
        length_table(store, Preprocessor(recipe(oversized="refuse"), EVERY_RULE, tokenizer, 150, 6))
