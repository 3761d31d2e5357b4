import json

import msgspec
import pytest

from molmo2_assets.evaluation.score import ROWS_FILE, SCORES_FILE, metric_versions, score
from molmo2_assets.profile import BenchmarkSpec
from tests.support.evaluation_sets import counted, pointed, row, write_predictions, write_set
from training_backend.config import GenerateConfig
from training_backend.data.example import Text


def benchmark(*metrics: str, headline: str) -> BenchmarkSpec:
    return BenchmarkSpec(
        name="small", title="Small", dataset="d", metrics=metrics, headline=headline, generate=GenerateConfig(max_new_tokens=8)
    )


@pytest.fixture
def pointing(tmp_path):
    examples = [pointed("a", [(0.5, 0.5)]), pointed("b", []), pointed("c", [(0.2, 0.2), (0.8, 0.8)]), pointed("d", [(0.1, 0.5)])]
    validated = write_set(tmp_path / "set", examples)
    answers = {"a": "<point 0.5, 0.5, 0>", "b": "There are none.", "c": "<point 0.2, 0.2, 0>", "d": "disc"}
    return validated, write_predictions(tmp_path / "predictions", validated, answers)


def test_scores_and_rows(pointing, tmp_path):
    validated, predictions = pointing
    report = score(benchmark("pointing", "count_points", headline="pointing"), predictions, validated, tmp_path / "out")
    assert report.headline == "pointing_f1"
    assert report.metrics["pointing_f1"] == pytest.approx((1 + 1 + 2 / 3 + 0) / 4)
    assert report.metrics["count_points_accuracy"] == 0.5
    assert report.metrics["count_points_close"] == 0.75  # "disc" is no count of 0
    assert report.n == 4
    assert report.unparsable == {"pointing": 1, "count_points": 1}
    body = json.loads((tmp_path / "out" / SCORES_FILE).read_text())
    assert set(body["baseline"]) == set(body["metrics"])
    assert {label: its["n"] for label, its in body["bins"]["pointing"].items()} == {"0": 1, "1": 2, "2-3": 1}
    lines = [json.loads(line) for line in (tmp_path / "out" / ROWS_FILE).read_text().splitlines()]
    assert sum(line["values"]["pointing_f1"] for line in lines) / 4 == pytest.approx(report.metrics["pointing_f1"])
    assert {line["id"]: line["unparsable"] for line in lines}["d"] == ["pointing", "count_points"]


def test_scoring_twice_gives_the_same_bytes(pointing, tmp_path):
    validated, predictions = pointing
    spec = benchmark("pointing", "pointing_distance", headline="pointing_distance_recall")
    for name in ("one", "two", "two"):
        score(spec, predictions, validated, tmp_path / name)
    for file in (SCORES_FILE, ROWS_FILE):
        assert (tmp_path / "one" / file).read_bytes() == (tmp_path / "two" / file).read_bytes()


def test_failures_count_as_wrong_and_are_counted(pointing, tmp_path):
    validated, _ = pointing
    predictions = write_predictions(tmp_path / "other", validated, {}, failures=["b"])
    report = score(benchmark("pointing", headline="pointing_f1"), predictions, validated, tmp_path / "out")
    assert report.metrics["pointing_f1"] == 0.0
    assert report.failures == 1


def test_questions_that_no_metric_suits_are_counted(tmp_path):
    validated = write_set(tmp_path / "set", [counted("a", 2), row("b", "image_caption", [Text(text="a disc")])])
    predictions = write_predictions(tmp_path / "predictions", validated, {"a": "2", "b": "a disc"})
    score(benchmark("count", headline="count"), predictions, validated, tmp_path / "out")
    body = json.loads((tmp_path / "out" / SCORES_FILE).read_text())
    assert (body["n"], body["unscored"], body["metrics"]["count_accuracy"]) == (1, 1, 1.0)


def test_another_version_of_the_set_is_refused(pointing, tmp_path):
    _, predictions = pointing
    other = write_set(tmp_path / "other", [pointed("a", [(0.5, 0.5)])])
    with pytest.raises(ValueError, match=r"answers version 4-.* is 1-"):
        score(benchmark("pointing", headline="pointing"), predictions, other, tmp_path / "out")


def test_refusals(pointing, tmp_path):
    validated, predictions = pointing
    out = tmp_path / "out"
    with pytest.raises(ValueError, match=r"no metric blue; there are pointing"):
        metric_versions(("pointing", "blue"))
    with pytest.raises(ValueError, match="headline 'hota' is none of its values pointing_f1"):
        score(benchmark("pointing", headline="hota"), predictions, validated, out)
    with pytest.raises(ValueError, match="metric hota suits none of the 4 questions"):
        score(benchmark("hota", headline="hota"), predictions, validated, out)
    file = predictions / "predictions.jsonl"
    lines = file.read_bytes().splitlines(keepends=True)
    file.write_bytes(b"".join(lines[1:]))
    with pytest.raises(ValueError, match="has no answer for"):
        score(benchmark("pointing", headline="pointing"), predictions, validated, out)
    file.write_bytes(b"".join([lines[0], *lines]))
    with pytest.raises(ValueError, match="answers 1 questions twice"):
        score(benchmark("pointing", headline="pointing"), predictions, validated, out)
    stranger = msgspec.json.encode({"id": "zz", "branch": "0", "prompt": "", "answer": ""})
    file.write_bytes(b"".join([*lines, stranger, b"\n"]))
    with pytest.raises(ValueError, match=r"answers \('zz', '0'\), which is not in"):
        score(benchmark("pointing", headline="pointing"), predictions, validated, out)
    file.write_bytes(b"{")
    with pytest.raises(ValueError, match="cannot be read"):
        score(benchmark("pointing", headline="pointing"), predictions, validated, out)
    file.unlink()
    with pytest.raises(ValueError, match="is missing: materialise the predictions again"):
        score(benchmark("pointing", headline="pointing"), predictions, validated, out)
