import json
import subprocess
import sys
from argparse import ArgumentParser
from pathlib import Path

import numpy as np
import pytest

from benchmarks import __main__ as frame
from benchmarks import definitions, encode, generate_cpu, length_model, mixture, packing, peers, step_cpu, steps, validate, video
from benchmarks.pool import pool_knapsack
from benchmarks.report import Report
from benchmarks.token_packers import greedy_knapsack
from molmo2_assets.profile import load_profile
from tests.support.evaluation_sets import asked, write_set
from tests.support.examples import tokenizer_at
from tests.support.transformers_peer import need_transformers
from training_backend.api import RunSpec
from training_backend.config import EncodeConfig, LossConfig, LossRule, PackConfig
from training_backend.data.example import decode_row, encode_row
from training_backend.data.fingerprint import plain
from training_backend.data.order import PERIOD, Mixture, MixtureEntry
from training_backend.data.store import RowStore
from training_backend.encode.tokens import train_tokenizer
from training_backend.pack import sequences


def arguments(module, *words: str):
    parser = ArgumentParser()
    module.options(parser)
    return parser.parse_args(list(words))


def test_the_table_aligns_and_the_last_line_is_json(capsys, monkeypatch):
    report = Report("mixture", [{"what": "a", "n": 1234, "x": 0.5}, {"what": "longer", "n": 7, "x": 1e6}], {"seed": 0})
    monkeypatch.setattr(mixture, "run", lambda _: report)
    assert frame.main(["mixture"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[:3] == ["what        n          x", "a       1,234        0.5", "longer      7  1,000,000"]
    body = json.loads(lines[-1])
    assert body["rows"] == report.rows
    assert body["seed"] == 0


def test_every_benchmark_has_help_and_an_unknown_name_is_refused(capsys):
    for name in frame.NAMES:
        with pytest.raises(SystemExit) as ended:
            frame.main([name, "--help"])
        assert ended.value.code == 0
    with pytest.raises(SystemExit):
        frame.main(["nothing"])
    assert "packing" in capsys.readouterr().err


def test_generation_says_the_same_beside_transformers():
    need_transformers()
    words = ["--width", "32", "--layers", "2", "--vocab", "60", "--prompts", "3", "--longest", "12", "--new", "5", "--repeats", "1"]
    report = generate_cpu.run(arguments(generate_cpu, *words))
    assert [row["what"] for row in report.rows] == ["ours", "transformers"]
    assert all(row["new tokens per second"] > 0 for row in report.rows)
    assert report.facts["prompt tokens"] == 3 + 7 + 12
    assert json.loads(report.json_line())["ratio"] > 0


def test_a_step_has_the_loss_of_transformers():
    need_transformers()
    words = ["--width", "64", "--layers", "2", "--vocab", "60", "--examples", "4", "--longest", "16", "--repeats", "1"]
    report = step_cpu.run(arguments(step_cpu, *words))
    packed, padded = report.rows
    assert packed["positions"] < padded["positions"]
    assert packed["supervised tokens per second"] > 0
    assert json.loads(report.json_line())["ratio"] > 0


def test_mixture_measures_the_real_order():
    report = mixture.run(arguments(mixture, "--datasets", "3", "--positions", "2000", "--window", "500", "--seek", "5000000"))
    assert report.rows[0]["worst count error"] < 1
    assert all(row["ns per example"] > 0 for row in report.rows)


def test_packing_measures_the_real_planner():
    report = packing.run(arguments(packing, "--examples", "192", "--window", "64"))
    assert {row["stage"] for row in report.rows} == {"pretrain", "sft", "long_context"}
    for row in report.rows:
        assert row["examples"] == 192
        assert 0 < row["fill"] <= 1
    assert report.ratio is not None
    assert report.facts["sft, method and window"] == "cheap, 64"
    assert report.facts["sft, restart"]["state bytes"] < 4096


def test_encode_measures_the_real_loader():
    report = encode.run(arguments(encode, "--images", "2", "--videos", "1", "--seconds", "1", "--repeats", "1"))
    ours = [row for row in report.rows if row["method"] == "loader"]
    assert [(row["kind"], row["examples"]) for row in ours] == [("image", 2), ("video", 1)]
    assert all(row["per second"] > 0 for row in report.rows)
    assert (report.ratio is None) == (len(report.rows) == 2), "a ratio where the peer is there"


def test_steps_measures_the_real_graph():
    report = steps.run(arguments(steps, "--datasets", "shapes_qa_eval", "--layers", "raw", "media", "--repeats", "1"))
    assert [row["what"] for row in report.rows][2:] == ["profile demo, first run", "profile demo, again, best"]
    assert {row["steps"] for row in report.rows} == {2}
    assert all(row["ms per step"] > 0 for row in report.rows)


def test_definitions_measures_a_fresh_interpreter_and_refuses_heavy_imports(monkeypatch):
    found = arguments(definitions, "--profile", "demo", "--repeats", "1")
    row = definitions.run(found).rows[1]
    assert row["assets"] > 50
    assert row["heavy"] == "-"
    monkeypatch.setattr(definitions, "HEAVY", ("dagster",))
    with pytest.raises(SystemExit, match=r"imported what it must not: .*dagster"):
        definitions.run(found)


def test_definitions_observes_and_runs_again_real_sets():
    found = arguments(definitions, "--profile", "demo", "--repeats", "1", "--graph", "release", "--datasets", "3")
    facts = definitions.run(found).facts
    assert (facts["sets on the hub"], facts["sets"], facts["sets ready"], facts["steps"]) == (3, 3, 3, 9)
    assert facts["observe seconds"] > 0
    assert facts["no-op seconds"] > 0
    assert facts["validated alone seconds"] > 0


def test_validate_measures_the_real_engine_beside_pydantic():
    pytest.importorskip("pydantic", reason="the peer")
    report = validate.run(arguments(validate, "--rows", "3000", "--adapter-rows", "400", "--rounds", "2"))
    facts = report.facts
    assert facts["rows_per_s"] > 0
    assert facts["pydantic_rows_per_s"] > 0
    assert facts["adapter_rows_per_s"] > 0
    assert 0 < facts["peak_mb"] < 1024
    assert 0 < facts["pandera share"] < 1
    assert report.ratio is not None
    assert facts["typed_dict_ratio"] > 0


def test_video_measures_every_reader_that_can_be_loaded():
    report = video.run(arguments(video, "--seconds", "2", "--height", "120", "--repeats", "1"))
    names = {row["reader"] for row in report.rows}
    others = {"pyav, proxy", "bare ffmpeg", "ffmpeg program"}
    assert {"pyav", "pyav, proxy", "bare ffmpeg"} <= names
    assert names - others | set(report.facts["cannot be loaded"]) == {"pyav", "torchcodec", "decord"}
    assert all(row["sampled frames per s"] > 0 for row in report.rows)


def test_packing_measures_materialised_sequences(tmp_path, monkeypatch):
    """Budgets, order and lengths are those that the loader sees: the report of the plan run has the same fill."""
    store = RowStore(write_set(tmp_path / "set", [asked(f"row{n}", "word " * (1 + n % 40), "red") for n in range(60)]))
    train_tokenizer(["word red"], 300, tmp_path / "tokenizer")
    entry = MixtureEntry(dataset="d", rows=len(store), data_version=store.version, weight=PERIOD)
    Mixture.build(3, [entry]).save(tmp_path / "mixture")
    encode = EncodeConfig(
        point_syntax="report", time="token", prompt_style="plain", image_size=28, patch_size=14, max_crops=1, overlap=(0, 0)
    )
    pack = PackConfig(max_tokens=200, max_visual=8, window=256)
    identity = plain({"encode": encode, "loss": LossConfig(rules={"image_qa": LossRule()}), "pack": pack, "seed": 5})
    inputs = {"mixture": str(tmp_path / "mixture"), "tokenizer": str(tmp_path / "tokenizer"), "validated/d": str(tmp_path / "set")}
    made = tmp_path / "sft_sequences" / "0123"
    made.mkdir(parents=True)
    monkeypatch.setattr(sequences, "REPORT_POSITIONS", 512)
    report = sequences.build_sequences(RunSpec(kind="plan", identity=identity, inputs=inputs), made, lambda line: None)
    words = ["--sequences", str(made), "--mixture", str(tmp_path / "mixture"), "--examples", "512", "--window", "256"]
    rows = packing.run(arguments(packing, *words)).rows
    assert {row["stage"] for row in rows} == {"sft_sequences"}
    assert rows[0]["planner"] == "portfolio"
    assert rows[0]["sequences"] == report["counts"]["packs"]
    assert rows[0]["fill"] == pytest.approx(report["facts"]["fill"], abs=1e-5)
    with pytest.raises(SystemExit, match="needs --mixture"):
        packing.run(arguments(packing, "--sequences", str(made)))


def test_a_plan_that_cheats_is_no_measurement():
    lengths = np.array([5, 5, 5]), np.array([1, 1, 1])
    packing.check([[0, 1], [2]], *lengths, 10, 2)
    with pytest.raises(SystemExit, match="exceeded a budget"):
        packing.check([[0, 1, 2]], *lengths, 10, 9)
    with pytest.raises(SystemExit, match="lost or repeated"):
        packing.check([[0, 1]], *lengths, 10, 2)


def test_the_greedy_knapsack_by_hand():
    assert greedy_knapsack(np.array([6, 5, 4, 5, 1]), 10) == [[0, 2], [1, 3], [4]]
    assert greedy_knapsack(np.array([6, 4, 6, 4]), 10, buffer=3) == [[1, 2], [0], [3]]


def test_how_long_an_example_waits():
    assert packing.longest_wait([[0, 1], [2]]) == 0
    assert packing.longest_wait([[1, 2], [3], [0]]) == 3


def test_the_length_model_is_the_encoder_s_arithmetic(tmp_path):
    profile = load_profile("report")
    stage, tokenizer = profile.stages["sft"], tokenizer_at(tmp_path)
    model = length_model.LengthModel(profile, stage, tokenizer)
    assert set(model.mixture.datasets) == set(profile.mixtures["sft_mixture"].datasets), "none is left out"
    tokens, visual = model.lengths(200)
    again = length_model.LengthModel(profile, stage, tokenizer).lengths(200)
    assert (tokens == again[0]).all()
    assert (visual == again[1]).all()
    assert tokens.max() <= stage.pack.max_tokens
    assert visual.max() <= stage.pack.max_visual
    for task in length_model.SHAPES:
        spec = next(spec for spec in profile.datasets.values() if spec.task == task)
        example = length_model.example_of(spec, 3)
        assert decode_row(encode_row(example)) == example
        assert (example.task, bool(example.media)) == (task, task != "text")


def test_absent_peers_are_one_sentence(tmp_path, monkeypatch):
    monkeypatch.setenv(peers.VARIABLE, str(tmp_path / "python"))
    with pytest.raises(peers.PeersAbsent, match="make peers"):
        peers.ask("trl_bfd")


def test_the_released_packer_by_hand():
    tokens, visual = np.array([6, 5, 4, 5, 10, 3]), np.array([1, 1, 1, 1, 9, 0])
    packs = pool_knapsack(tokens, visual, 10, 9)
    packing.check(packs, tokens, visual, 10, 9)
    assert packs[0] == [4], "fills the budget alone, leaves at once"
    assert sorted(packs[1:3]) == [[0, 2], [1, 3]]
    many = np.arange(1, 61)
    packing.check(pool_knapsack(many, many % 3, 64, 5), many, many % 3, 64, 5)


def test_python_m_benchmarks_prints_json_last():
    words = ["pack", "--examples", "64", "--window", "64"]
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks", *words], cwd=Path(__file__).parents[1], capture_output=True, text=True, check=True
    )
    assert json.loads(done.stdout.splitlines()[-1])["benchmark"] == "packing"
