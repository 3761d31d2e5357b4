"""Rows on disk: rows that are left out afterwards leave no trace."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from training_backend.data import store
from training_backend.data.example import SCHEMA, Branch, Example, Source, Text, Turn
from training_backend.data.store import RowStore, RowWriter


def example(number: int, words: int) -> Example:
    turn = Turn(role="assistant", parts=(Text(text="word " * words),))
    return Example(
        id=f"set/{number}", schema=SCHEMA, task="text", source=Source(file=f"{number % 2}.jsonl", row=number), media=(),
        branches=(Branch(id="b", style="text", turns=(turn,)),),
    )  # fmt: skip


@given(rows=st.lists(st.tuples(st.integers(1, 40), st.booleans()), max_size=20), block=st.integers(1, 400), more=st.booleans())
@settings(max_examples=60, deadline=None)
def test_a_store_of_which_rows_were_left_out_is_one_that_never_had_them(
    rows: list[tuple[int, bool]], block: int, more: bool, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("stores")
    with pytest.MonkeyPatch.context() as patch, RowWriter(folder / "some") as some, RowWriter(folder / "never") as never:
        patch.setattr(store, "_BLOCK", block)
        for number in range(2):  # both files are named, whatever is kept of them
            for writer in (some, never):
                writer.add(example(number, 1))
        for number, (words, kept) in enumerate(rows, 2):
            some.add(example(number, words))
            if kept:
                never.add(example(number, words))
        some.keep_only(np.array([True, True, *(kept for _, kept in rows)]))
        if more:
            for writer in (some, never):
                writer.add(example(99, 3))
    for name in ("data.jsonl", "data.idx"):
        assert (folder / "some" / name).read_bytes() == (folder / "never" / name).read_bytes()
    assert some.info == never.info
    assert len(RowStore(folder / "some")) == 2 + sum(kept for _, kept in rows) + more
