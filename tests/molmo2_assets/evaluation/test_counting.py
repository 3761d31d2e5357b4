import pytest

from molmo2_assets.evaluation.counting import count_bin, count_score


@pytest.mark.parametrize(
    ("predicted", "true", "margin", "expected"),
    [
        (3, 3, "fixed", (1, 1)),
        (4, 3, "fixed", (0, 1)),
        (5, 3, "fixed", (0, 0)),
        (22, 20, "fixed", (0, 0)),
        (22, 20, "relative", (0, 1)),
        (17, 20, "relative", (0, 0)),
        (18, 19, "relative", (0, 1)),
        (17, 19, "relative", (0, 0)),
        (37, 40, "relative", (0, 1)),
        (36, 40, "relative", (0, 0)),
        (0, 0, "relative", (1, 1)),
        (None, 0, "relative", (0, 0)),
        (None, 1, "fixed", (0, 0)),
    ],
)
def test_margins(predicted, true, margin, expected):
    assert count_score(predicted, true, margin) == expected


def test_the_relative_margin_is_the_published_formula():
    for true in range(500):
        for step in range(30):
            assert count_score(true + step, true, "relative").close == float(step <= 1 + int(0.05 * true))


def test_bins_are_half_open():
    assert [count_bin(n) for n in (0, 4, 5, 9, 10, 19, 20, 24, 25, 300)] == [
        "0-5", "0-5", "5-10", "5-10", "10-15", "15-20", "20-25", "20-25", "25+", "25+",
    ]  # fmt: skip
