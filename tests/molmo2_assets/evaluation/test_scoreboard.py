import json

import pytest

from molmo2_assets.evaluation.score import score
from molmo2_assets.evaluation.scoreboard import PICTURE_FILE, SCOREBOARD_FILE, scoreboard, table, write_scoreboard
from molmo2_assets.profile import BenchmarkSpec
from tests.support.evaluation_sets import counted, write_predictions, write_set
from training_backend.config import GenerateConfig


@pytest.fixture
def rows(tmp_path):
    validated = write_set(tmp_path / "set", [counted("a", 2), counted("b", 3), counted("c", 3)])
    evaluations = []
    for name in ("easy", "hard"):
        spec = BenchmarkSpec(
            name=name, title=name, dataset="d", metrics=("count",), headline="count", generate=GenerateConfig(max_new_tokens=8)
        )
        for stage, answers in (("pretrain", {"a": "1"}), ("sft", {"a": "2", "b": "3", "c": "3"})):
            predictions = write_predictions(tmp_path / f"p-{stage}", validated, answers)
            score(spec, predictions, validated, tmp_path / f"{stage}-{name}")
            evaluations.append((stage, tmp_path / f"{stage}-{name}"))
    return scoreboard(evaluations[::2] + evaluations[1::2])


def test_rows_stand_by_benchmark_then_stage(rows):
    assert [(row.benchmark, row.stage) for row in rows] == [
        ("easy", "pretrain"), ("easy", "sft"), ("hard", "pretrain"), ("hard", "sft"),
    ]  # fmt: skip
    assert [(row.metric, row.score, row.sees) for row in rows[:2]] == [
        ("count_accuracy", 0.0, False),
        ("count_accuracy", 1.0, True),
    ]
    assert rows[0].baseline == pytest.approx(2 / 3)
    assert "| easy | count_accuracy | sft | 100.0 | 66.7 | 3 | yes |" in table(rows)


def test_files(rows, tmp_path):
    write_scoreboard(rows, tmp_path / "board")
    body = json.loads((tmp_path / "board" / SCOREBOARD_FILE).read_text())
    assert body["rows"][1] == {
        "stage": "sft", "benchmark": "easy", "metric": "count_accuracy", "score": 1.0, "baseline": pytest.approx(2 / 3), "n": 3,
    }  # fmt: skip
    first = (tmp_path / "board" / PICTURE_FILE).read_bytes()
    write_scoreboard(rows, tmp_path / "again")
    assert first.startswith(b"\x89PNG")
    assert (tmp_path / "again" / PICTURE_FILE).read_bytes() == first


def test_a_missing_evaluation_names_its_folder(tmp_path):
    with pytest.raises(ValueError, match=r"nowhere has no scores\.json"):
        scoreboard([("sft", tmp_path / "nowhere")])
