"""Weights as numbers: the square-root rule, groups, sizes counted otherwise, leaving out, factors."""

from __future__ import annotations

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from molmo2_assets.mixtures.rebalance import changes, leave_out, with_factors
from molmo2_assets.mixtures.weights import mixture_weights
from molmo2_assets.profile import MixtureGroup, MixtureItem, MixtureSpec, load_profile

sizes = st.dictionaries(st.sampled_from("abcdefgh"), st.integers(1, 10**8), min_size=2, max_size=8)
factors = st.floats(0.01, 100)


def sqrt_mixture(names, **items):
    return MixtureSpec(method="sqrt", seed=1, entries={name: items.get(name, MixtureItem()) for name in names})


@settings(max_examples=50, deadline=None)
@given(sizes, st.data())
def test_square_root_rule(rows, data):
    given_factors = {name: data.draw(factors) for name in rows}
    table = mixture_weights(sqrt_mixture(rows, **{name: MixtureItem(factor=f) for name, f in given_factors.items()}), rows)
    assert math.fsum(row.weight for row in table) == pytest.approx(1, abs=1e-12)
    total = sum(given_factors[name] * math.sqrt(rows[name]) for name in rows)
    for row in table:
        assert row.weight == pytest.approx(given_factors[row.dataset] * math.sqrt(rows[row.dataset]) / total)
        assert row.size == rows[row.dataset]


@settings(max_examples=50, deadline=None)
@given(st.dictionaries(st.sampled_from("xyz"), st.tuples(st.floats(0.01, 5), sizes), min_size=1), st.data())
def test_groups_get_their_rates_whatever_is_inside(groups, data):
    spec = MixtureSpec(
        method="grouped",
        seed=1,
        normalise=True,
        groups={
            name: MixtureGroup(rate=rate, entries={name + key: MixtureItem() for key in rows})
            for name, (rate, rows) in groups.items()
        },
    )
    rows = {name + key: count for name, (_, found) in groups.items() for key, count in found.items()}
    out = frozenset(data.draw(st.sets(st.sampled_from(sorted(rows)), max_size=len(rows) - 1)))
    table = mixture_weights(spec, rows, out)
    assert {row.dataset for row in table} == rows.keys() - out
    left = {name: rate for name, (rate, found) in groups.items() if any(name + key not in out for key in found)}
    for name, rate in left.items():
        share = math.fsum(row.weight for row in table if row.group == name)
        assert share == pytest.approx(rate / sum(left.values()))


@pytest.mark.parametrize(("size", "used"), [(None, 400.0), (0.0, 1.0), (0.25, 100.0), (1.0, 1.0), (2500.0, 2500.0)])
def test_size_counted_otherwise(size, used):
    spec = sqrt_mixture(["a", "b"], a=MixtureItem(size=size))
    first, second = mixture_weights(spec, {"a": 400, "b": 100})
    assert first.size == used
    assert first.weight / second.weight == pytest.approx(math.sqrt(used) / 10)


def test_the_release_normalises_rates_that_sum_to_more():
    spec = load_profile("release").mixtures["sft_mixture"]
    table = mixture_weights(spec, dict.fromkeys(spec.datasets, 10_000))
    share = {name: sum(row.weight for row in table if row.group == name) for name in spec.groups}
    # The percentages that the paper prints (Table 1) are the code's rates divided by their sum.
    printed = {"demo": 13.6, "image_academic": 22.7, "video_academic": 18.2, "image_pointing": 9.1, "video_pointing": 13.6}
    assert {name: round(100 * share[name], 1) for name in printed} == printed
    points = {row.dataset: row for row in table if row.group == "video_pointing"}
    assert points["molmo2_video_point_0_5"].weight == pytest.approx(0.4 * share["video_pointing"])
    assert points["molmo2_video_point_0_5"].size is None


def test_rates_that_miss_one_are_an_error_unless_said():
    groups = {"x": MixtureGroup(rate=0.6, entries={"a": MixtureItem()}), "y": MixtureGroup(rate=0.5, entries={"b": MixtureItem()})}
    with pytest.raises(ValueError, match=r"rates of the groups sum to 1\.1, not to 1"):
        mixture_weights(MixtureSpec(method="grouped", seed=1, groups=groups), {"a": 1, "b": 1})
    fixed = {"a": MixtureItem(weight=0.5), "b": MixtureItem(weight=0.4)}
    with pytest.raises(ValueError, match=r"sum to 0\.9"):
        mixture_weights(MixtureSpec(method="fixed", seed=1, entries=fixed), {"a": 1, "b": 1})
    table = mixture_weights(MixtureSpec(method="fixed", seed=1, entries=fixed, normalise=True), {"a": 1, "b": 10**6})
    assert [row.weight for row in table] == pytest.approx([5 / 9, 4 / 9])


def test_empty_datasets_and_empty_mixtures_are_errors():
    spec = sqrt_mixture(["a", "b"])
    with pytest.raises(ValueError, match="b has no rows"):
        mixture_weights(spec, {"a": 3, "b": 0})
    with pytest.raises(ValueError, match="nothing is left"):
        mixture_weights(spec, {"a": 3, "b": 3}, frozenset("ab"))


def test_leaving_out_tells_before_and_after():
    table, found = leave_out(sqrt_mixture("abc"), {"a": 100, "b": 400, "c": 900}, {"b"})
    assert [(row.dataset, row.weight) for row in table] == [("a", pytest.approx(1 / 4)), ("c", pytest.approx(3 / 4))]
    assert [(change.dataset, change.before, change.after) for change in found] == [
        ("a", pytest.approx(1 / 6), pytest.approx(1 / 4)),
        ("b", pytest.approx(2 / 6), None),
        ("c", pytest.approx(3 / 6), pytest.approx(3 / 4)),
    ]


def test_leaving_out_a_set_of_unknown_size_invents_no_weight():
    _, found = leave_out(sqrt_mixture("abc"), {"a": 100, "b": 0, "c": 900}, {"b"})
    assert [change.before for change in found] == [pytest.approx(1 / 4), None, pytest.approx(3 / 4)]


def test_factors_by_hand():
    spec, rows = sqrt_mixture("ab", a=MixtureItem(factor=2.0)), {"a": 100, "b": 100}
    pushed = with_factors(spec, {"a": 1.5})
    assert pushed.entries["a"].factor == 3.0
    found = changes(mixture_weights(spec, rows), mixture_weights(pushed, rows), spec)
    assert [(change.before, change.after) for change in found] == [
        (pytest.approx(2 / 3), pytest.approx(3 / 4)),
        (pytest.approx(1 / 3), pytest.approx(1 / 4)),
    ]
    with pytest.raises(ValueError, match="unknown dataset of this mixture 'c'"):
        with_factors(spec, {"c": 2.0})
    with pytest.raises(ValueError, match="must be greater than 0"):
        with_factors(spec, {"a": 0.0})
    fixed = MixtureSpec(method="fixed", seed=1, entries={"a": MixtureItem(weight=1.0)})
    with pytest.raises(ValueError, match=r"fixed at 1\.0"):
        with_factors(fixed, {"a": 2.0})
