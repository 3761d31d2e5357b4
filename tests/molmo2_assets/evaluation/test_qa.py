import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from molmo2_assets.evaluation import qa

OPTIONS = ("red", "dark red", "a dog", "green")


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        ("B", 1),
        ("b", 1),
        (" (b) ", 1),
        ("B. dark red", 1),
        ("B: because", 1),
        ("The answer is C because I think so", 2),
        ("the answer is d", 3),
        ("Answer: B", 1),
        ("answer is a dog", None),  # an article, no letter
        ("A dog runs", None),
        ("I would say D", 3),
        ("B or D", None),
        ("E", None),  # beyond the options
        ("banana", None),
        ("Bananas", None),
        ("", None),
    ],
)
def test_letters(answer, expected):
    assert qa.choice_letter(answer, 4) == expected


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        ("Dark red.", 1),
        ("It is dark red", 1),  # the longer of nested options
        ("It is a red thing", 0),
        ("a dog", 2),
        ("A dog", 2),
        ("A", 0),
        ("it is hatred", None),  # contained as words only
        ("green or a dog", None),  # two options: unreadable, not the first
        ("blue", None),
        ("Answer: green", 3),
    ],
)
def test_an_answer_means_the_option_that_it_names(answer, expected):
    assert qa.chosen_option(answer, OPTIONS) == expected


def test_the_nearest_rule_never_abstains():
    assert qa.nearest_option("blue", OPTIONS) in range(4)
    assert qa.nearest_option("grean", OPTIONS) == 3
    assert qa.nearest_option("green or a dog", OPTIONS) == 3
    assert qa.nearest_option("it is a dog", OPTIONS) == 2


def test_exact_match():
    assert qa.exact_match("  Two  Dogs. ", ["two dogs"]) == 1.0
    assert qa.exact_match("I count. Answer: 2", ["two", "2"]) == 1.0
    assert qa.exact_match("two dog", ["two dogs"]) == 0.0


def slow_distance(left: str, right: str) -> int:
    if not left or not right:
        return len(left) + len(right)
    return min(
        slow_distance(left[1:], right) + 1,
        slow_distance(left, right[1:]) + 1,
        slow_distance(left[1:], right[1:]) + (left[0] != right[0]),
    )


@given(st.text("ab ", max_size=5), st.text("ab ", max_size=5))
@settings(max_examples=60, deadline=None)
def test_edit_distance_against_its_recursion(left, right):
    assert qa.edit_distance(left, right) == slow_distance(left, right)


def test_anls_at_a_half_and_with_odd_spaces():
    assert qa.anls("ab", ["ax"]) == 0.5  # exactly half stays
    assert qa.anls("abc", ["axx"]) == 0.0
    assert qa.anls("A  b", ["a b"]) == 1.0
    # The distance is of collapsed texts, the length of raw ones.
    assert qa.anls("a   c", ["a b"]) == pytest.approx(1 - 1 / 5)
    assert qa.anls("dog", ["cat", "dogs"]) == 0.75
    assert qa.anls("", ["cat"]) == 0.0


@pytest.mark.parametrize(
    ("answer", "target", "expected"),
    [
        ("105", "100", 1),
        ("95", "100", 1),
        ("105.1", "100", 0),
        ("-95", "-100", 1),
        ("50", "50%", 0),
        ("50%", "50%", 1),
        ("0.5", "50%", 1),
        ("0", "0", 1),
        ("0.0", "0", 0),  # a target of 0 falls to text
        ("1,000", "1000", 0),
        ("1,000", "1,000", 1),
        ("Yes", "yes", 1),
        ("yes ", "yes", 0),  # not stripped
        ("2019", "2020", 1),  # years are numbers
        ("yes", "5", 0),
    ],
)
def test_relaxed_accuracy(answer, target, expected):
    assert qa.relaxed_accuracy(answer, target) == expected


@pytest.mark.parametrize(("agreeing", "expected"), [(0, 0.0), (1, 0.3), (2, 0.6), (3, 0.9), (4, 1.0), (9, 1.0), (10, 1.0)])
def test_vqa_score_leaves_one_out(agreeing, expected):
    references = ["cat"] * agreeing + [f"other{number}" for number in range(10 - agreeing)]
    assert qa.vqa_score("cat", references) == pytest.approx(expected)


def test_vqa_normalises_only_where_annotators_differ():
    assert qa.vqa_score("Yes", ["yes"] * 10) == 0.0
    assert qa.vqa_score("Yes", ["yes"] * 9 + ["no"]) == 1.0
    with pytest.raises(ValueError, match="ten annotators"):
        qa.vqa_score("yes", ["yes"])


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("The Two dogs", "2 dogs"),
        ("none", "0"),
        ("dont", "don't"),
        ("red-blue", "red blue"),  # touches no space: becomes one
        ("red- blue", "red blue"),  # touches one: vanishes
        ("a-b c -d", "ab c d"),  # touching once is enough for all
        ("1,000", "1000"),
        ("3.5 cm.", "3.5 cm"),
        ("u.s.", "us"),
    ],
)
def test_vqa_normalisation(text, expected):
    assert qa.vqa_normalise(text) == expected
