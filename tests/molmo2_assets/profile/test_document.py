"""YAML with lines: which words are values, and how documents merge."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from molmo2_assets.profile.document import Mark, Node, merge, read_yaml, without_nulls


def read(tmp_path: Path, text: str) -> Node:
    path = tmp_path / "file.yaml"
    path.write_text(text)
    return read_yaml(path)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1", 1),
        ("-3", -3),
        ("1_000", 1000),
        ("1e-4", 1e-4),
        ("2.5E+3", 2500.0),
        (".5", 0.5),
        ("true", True),
        ("null", None),
        ("~", None),
        ("'1'", "1"),
        ("on", "on"),
        ("no", "no"),
        ("12:30", "12:30"),
        ("1.2.3", "1.2.3"),
        ("e5", "e5"),
        ("-", None),
        ("0x10", "0x10"),
    ],
)
def test_scalars(tmp_path, text, value):
    if text == "-":
        assert read(tmp_path, "key:\n  -\n").plain() == {"key": [None]}
    else:
        assert read(tmp_path, f"key: {text}\n").plain() == {"key": value}


def test_marks_name_the_line_of_the_key(tmp_path):
    node = read(tmp_path, "a:\n  b:\n    - 1\n    - x: 2\n")
    assert node.at("a", "b").line == 2
    assert node.at("a", "b", 1, "x").line == 4
    assert node.at("a", "c").line == 1
    assert str(node.at("a")) == f"{tmp_path / 'file.yaml'}:1"


def test_a_changed_file_is_read_again(tmp_path):
    assert read(tmp_path, "a: 1\n").plain() == {"a": 1}
    assert read(tmp_path, "a: 1000\n").plain() == {"a": 1000}


def test_merging_takes_lines_from_where_the_value_was_written(tmp_path):
    base = read(tmp_path, "a: {b: 1, c: 2}\n")
    path = tmp_path / "over.yaml"
    path.write_text("\na:\n  c: 3\n")
    merged = merge(base, read_yaml(path))
    assert merged.plain() == {"a": {"b": 1, "c": 3}}
    assert merged.at("a", "b") == Mark(tmp_path / "file.yaml", 1)
    assert merged.at("a", "c") == Mark(path, 3)


def wrap(value: Any) -> Node:
    mark = Mark(Path("x"), 1)
    if isinstance(value, dict):
        return Node({key: wrap(child) for key, child in value.items()}, mark)
    return Node([wrap(child) for child in value] if isinstance(value, list) else value, mark)


scalars = st.integers(-3, 3) | st.sampled_from(["a", "b"]) | st.lists(st.integers(0, 3), max_size=2)
keys = st.sampled_from("abc")
layers = st.dictionaries(keys, st.dictionaries(keys, scalars, max_size=3) | st.none(), max_size=3)


@settings(max_examples=60, deadline=None)
@given(layers, layers)
def test_merging_two_layers_is_a_union_in_which_the_upper_one_wins(one, two):
    merged = without_nulls(merge(wrap(one), wrap(two))).plain()
    expected = {}
    for key in {*one, *two}:
        lower, upper = one.get(key), two.get(key)
        if key in two and upper is None:
            continue
        if lower is None and upper is None:
            continue
        expected[key] = {**(lower or {}), **(upper or {})}
    assert merged == expected


@settings(max_examples=60, deadline=None)
@given(st.lists(st.dictionaries(keys, st.dictionaries(keys, scalars, max_size=3), max_size=3), min_size=3, max_size=3))
def test_merging_is_associative(three):
    a, b, c = (wrap(value) for value in three)
    assert merge(merge(a, b), c).plain() == merge(a, merge(b, c)).plain()


def test_a_null_takes_away_what_lies_below():
    upper = merge(wrap({"b": {"x": 1}}), wrap({"a": None, "b": {"x": None}}))
    assert without_nulls(merge(wrap({"a": 1, "b": {"x": 2, "y": 3}}), upper)).plain() == {"b": {"y": 3}}
