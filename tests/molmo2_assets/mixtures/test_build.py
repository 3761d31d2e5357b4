"""A mixture asset on disk: what it holds, what it refuses, leaks, statistics."""

from __future__ import annotations

import msgspec
import numpy as np
import pytest

from molmo2_assets.mixtures.build import MixtureRefused, build_mixture, read_weights
from molmo2_assets.mixtures.leaks import find_leaks
from molmo2_assets.mixtures.statistics import mixture_statistics
from molmo2_assets.profile import DatasetSpec, LicenceRule, MixtureItem, MixtureSpec, ProvenanceRule, SourceSpec
from tests.support.stores import example, image, write_store
from training_backend.data.order import PERIOD, Mixture


def dataset(name, **fields):
    source = SourceSpec(kind="generated", generator="x")
    return DatasetSpec(**{"name": name, "title": name, "source": source, "task": "image_qa", "group": "g", **fields})


def rows(first, count, prefix="a", task="image_qa"):
    return [example(number, f"What is {number}?", image(f"{prefix}{number}"), task=task) for number in range(first, first + count)]


def spec(*names, **fields):
    return MixtureSpec(**{"method": "sqrt", "seed": 5, "entries": {name: MixtureItem() for name in names}, **fields})


@pytest.fixture(scope="module")
def stores(tmp_path_factory):
    """Two datasets: 4 rows of one task, 36 rows of two."""
    folder = tmp_path_factory.mktemp("stores")
    return {
        "small": write_store(folder, "small", rows(0, 4)),
        "large": write_store(folder, "large", [*rows(100, 30, "b"), *rows(200, 6, "c", "counting")]),
    }


@pytest.fixture
def pair(stores):
    return dict(stores), {"small": dataset("small"), "large": dataset("large", provenance="human")}


@pytest.fixture(scope="module")
def built(stores, tmp_path_factory):
    """The mixture of both (the schedule costs seconds, so it is built once)."""
    folder = tmp_path_factory.mktemp("mixture") / "out"
    datasets = {"small": dataset("small"), "large": dataset("large", provenance="human")}
    return folder, build_mixture(spec("small", "large"), stores, datasets, {}, folder, "refuse", planned_examples=64)


def test_mixture_holds_what_was_asked(built):
    folder, report = built
    mixture = Mixture.load(folder)
    assert [(entry.dataset, entry.rows) for entry in mixture.entries] == [("small", 4), ("large", 36)]
    assert sum(entry.weight for entry in mixture.entries) == PERIOD
    drawn, _, _ = mixture.window(0, 4000)
    assert np.bincount(drawn).tolist() == [1000, 3000]
    table = read_weights(folder).rows
    assert [row.weight for row in table] == pytest.approx([0.25, 0.75], abs=2 / PERIOD)
    assert [row.repeats for row in table] == pytest.approx([4.0, 64 * 0.75 / 36])
    assert table == report.table
    assert report.counts == {"datasets": 2, "rows": 40, "left_out": 0}
    assert report.facts == {
        "leaks": [], "shared_wordings": {}, "left_out": [], "unchecked_evaluation_sets": [], "unknown_provenance": ["small"],
        "unknown_licence": ["large", "small"], "exceptions": {},
    }  # fmt: skip


def test_the_version_follows_content(built, pair, tmp_path):
    validated, datasets = pair
    again = build_mixture(spec("small", "large"), validated, datasets, {}, tmp_path / "again", "refuse")
    assert again.data_version == built[1].data_version
    validated["small"] = write_store(tmp_path, "small", [*rows(0, 3), example(3, "What is 3?", image("a3"), answer="no")])
    changed = build_mixture(spec("small", "large"), validated, datasets, {}, tmp_path / "changed", "refuse")
    assert changed.data_version != again.data_version


def test_absent_sets_are_refused_or_left_out(pair, tmp_path):
    validated, datasets = pair
    folder, manifest = validated["small"]
    gone = msgspec.structs.replace(manifest, state="unavailable", facts={"reason": "no adapter yet"})
    validated = {**validated, "small": (folder, gone)}
    datasets = {**datasets, "never": dataset("never"), "small": dataset("small", weight_rows=4)}
    with pytest.raises(MixtureRefused) as caught:
        build_mixture(spec("small", "large", "never"), validated, datasets, {}, tmp_path / "out", "refuse")
    first, second = str(caught.value).splitlines()
    assert first.startswith("small is absent (unavailable: no adapter yet); materialise it")
    assert second.startswith("never is absent (never materialised)")
    assert not (tmp_path / "out").exists()
    report = build_mixture(spec("small", "large", "never"), validated, datasets, {}, tmp_path / "out", "leave_out")
    assert [(row.dataset, row.before, row.weight) for row in report.table] == [("large", pytest.approx(0.75), 1.0)]
    assert [(gone.dataset, gone.before) for gone in report.left_out] == [("small", pytest.approx(0.25)), ("never", None)]
    assert report.facts["left_out"][0]["reason"] == "unavailable: no adapter yet"


def test_empty_sets_and_provenance_are_refused_together(pair, tmp_path):
    validated, datasets = pair
    validated = {**validated, "empty": write_store(tmp_path, "empty", [])}
    datasets = {**datasets, "empty": dataset("empty", provenance="proprietary")}
    rule = ProvenanceRule(allow=("human", "open-model:*"))
    with pytest.raises(MixtureRefused) as caught:
        build_mixture(spec("small", "large", "empty"), validated, datasets, {}, tmp_path / "out", "leave_out", provenance=rule)
    assert [line.split(";")[0] for line in str(caught.value).splitlines()] == [
        "small has provenance unknown, this recipe allows human, open-model:*",
        "empty has provenance proprietary, this recipe allows human, open-model:*",
        "empty has no rows",
    ]


def test_licences_are_refused_like_provenance_unless_they_are_excepted(pair, tmp_path):
    validated, datasets = pair
    datasets = {"small": dataset("small", licence="CC-BY-NC-4.0"), "large": dataset("large", licence="ODC-BY-1.0")}
    rule = LicenceRule(allow=("ODC-BY-*", "Apache-2.0"))
    with pytest.raises(MixtureRefused) as caught:
        build_mixture(spec("small", "large"), validated, datasets, {}, tmp_path / "out", "refuse", licences=rule)
    assert str(caught.value) == (
        "small has licence CC-BY-NC-4.0, this recipe allows ODC-BY-*, Apache-2.0; take it out, or name it in the rule's exceptions"
    )
    excepted = LicenceRule(allow=rule.allow, exceptions={"small": "a research run"})
    report = build_mixture(spec("small", "large"), validated, datasets, {}, tmp_path / "out", "refuse", licences=excepted)
    assert report.facts["exceptions"] == {"small": "a research run"}
    assert report.facts["unknown_licence"] == []


def test_repeats_are_capped_over_the_planned_examples(pair, tmp_path):
    validated, datasets = pair
    capped = spec("small", "large", max_repeats=10.0)
    with pytest.raises(MixtureRefused, match=r"each of the 4 rows of small would be seen 12\.5 times over 200 examples"):
        build_mixture(capped, validated, datasets, {}, tmp_path / "long", "refuse", planned_examples=200)


def test_leaks_are_found_and_reported(pair, tmp_path):
    validated, datasets = pair
    text = write_store(tmp_path, "text", [example(1, "Spell  Cat", task="text"), example(2, "Spell dog", task="text")])
    evaluation = {
        "same_picture": write_store(tmp_path, "same_picture", [example(0, "Another question", image("a2"))]),
        "same_question": write_store(
            tmp_path, "same_question", [example(0, "What is 1?", image("a1")), example(1, "x", image("z"))]
        ),
        "same_words": write_store(tmp_path, "same_words", [example(0, "What is 3?", image("y"))]),
        "same_text": write_store(tmp_path, "same_text", [example(0, "spell cat", task="text")]),
        "clean": write_store(tmp_path, "clean", [example(0, "Who?", image("x"))]),
    }
    report = build_mixture(
        spec("small", "text"),
        {**validated, "text": text},
        {**datasets, "text": dataset("text", task="text")},
        evaluation,
        tmp_path / "out",
        "refuse",
    )
    assert report.facts["leaks"] == [
        {"dataset": "small", "evaluation": "same_picture", "media_rows": 1, "question_rows": 0, "ids": ["row-2"]},
        {"dataset": "small", "evaluation": "same_question", "media_rows": 1, "question_rows": 1, "ids": ["row-1"]},
        {"dataset": "text", "evaluation": "same_text", "media_rows": 0, "question_rows": 1, "ids": ["row-1"]},
    ]
    assert report.facts["shared_wordings"] == {"small": {"same_words": 1}}


def test_a_picture_without_a_question_still_leaks(tmp_path):
    training, _ = write_store(tmp_path, "caption", [example(0, None, image("a"), task="image_caption")])
    evaluation, _ = write_store(tmp_path, "asked", [example(0, "What?", image("b"), image("a"))])
    (leak,) = find_leaks({"caption": training}, {"asked": evaluation}).leaks
    assert (leak.media_rows, leak.question_rows) == (1, 0)


def test_evaluation_sets_that_are_not_there_are_named(pair, tmp_path):
    validated, datasets = pair
    folder, manifest = write_store(tmp_path, "later", [])
    later = {"later": (folder, msgspec.structs.replace(manifest, state="unavailable"))}
    report = build_mixture(
        spec("small", max_repeats=10.0), validated, datasets, later, tmp_path / "out", "refuse", planned_examples=40
    )
    assert report.facts["unchecked_evaluation_sets"] == ["later"]


def test_statistics_by_task_and_by_dataset(built, stores):
    tables = mixture_statistics(built[0], stores)
    large, small = tables["by_dataset"]
    assert (large["dataset"], large["tasks"], large["rows"]) == ("large", {"image_qa": 30, "counting": 6}, 36)
    assert large["share"] == pytest.approx(0.9)
    assert (small["expected_share"], small["examples_per_epoch"]) == (pytest.approx(0.25), pytest.approx(16, abs=0.01))
    questions, counting = tables["by_task"]
    assert (questions["task"], questions["rows"], questions["datasets"]) == ("image_qa", 34, 2)
    assert counting["expected_share"] == pytest.approx(0.75 * 6 / 36, abs=1e-5)
    for table in tables.values():
        assert sum(row["expected_share"] for row in table) == pytest.approx(1)
        assert sum(row["share"] for row in table) == pytest.approx(1)


def test_a_damaged_table_names_itself(tmp_path):
    with pytest.raises(ValueError, match=r"weights.json is missing: materialise the mixture again"):
        read_weights(tmp_path)
    (tmp_path / "weights.json").write_text("{}")
    with pytest.raises(ValueError, match=r"weights.json cannot be read"):
        read_weights(tmp_path)
