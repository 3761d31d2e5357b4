"""The plan run and the way back to its batches: files that repeat, a report that adds up, inputs that belong together."""

from __future__ import annotations

import io
import itertools
import json
from pathlib import Path

import msgspec
import numpy as np
import pytest
from PIL import Image

from tests.support.examples import EVERY_RULE, asked, branch, many, mixture_of, picture, recipe, row, store_at, tokenizer_at
from training_backend.api import Execution, RunSpec
from training_backend.config import LossConfig, LossRule, PackConfig
from training_backend.data.example import Text
from training_backend.data.fingerprint import plain
from training_backend.data.manifest import list_files
from training_backend.data.media import MediaCache
from training_backend.data.store import RowStore
from training_backend.encode.preprocessor import OversizedError
from training_backend.pack import sequences
from training_backend.pack.lengths import Lengths
from training_backend.pack.sequences import SequenceError, build_sequences, open_batches, read_sequences

PACK = PackConfig(max_tokens=500, max_visual=24, window=128)


def stored_pictures(cache: MediaCache, count: int) -> list:  # type: ignore[type-arg]
    made = []
    for number in range(count):
        stream = io.BytesIO()
        Image.fromarray(np.full((84, 84, 3), number, dtype=np.uint8)).save(stream, "PNG")
        media = msgspec.structs.replace(picture(f"m{number}"), sha256=cache.add_bytes(stream.getvalue()))
        caption = branch(("assistant", [Text(text="A large red square. " * (1 + number % 4))]), style="long_caption")
        made.append(row("image_caption", [media], caption, asked("What?", "red", "q"), name=f"picture{number}"))
    return made


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    home = tmp_path_factory.mktemp("home")
    tokenizer_at(home / "tokenizer")
    cache = MediaCache(home / "cache")
    texts = [row("text", [], asked("What is it?", "red " * (n % 9 + 1)), name=f"text{n}") for n in range(20)]
    stores = {"pictures": store_at(home / "pictures", stored_pictures(cache, 40)), "texts": store_at(home / "texts", texts)}
    mixture_of(stores).save(home / "mixture")
    return home


def plan_spec(home: Path, **changes: object) -> RunSpec:
    identity = {"stage": "sft", "encode": recipe(), "loss": EVERY_RULE, "pack": PACK, "seed": 5} | changes
    inputs = {"mixture": "mixture", "tokenizer": "tokenizer", "validated/pictures": "pictures", "validated/texts": "texts"}
    return RunSpec(kind="plan", identity=plain(identity), inputs={name: str(home / path) for name, path in inputs.items()})


def train_spec(home: Path, sequences: Path, execution: Execution | None = None, **changes: object) -> RunSpec:
    plan = plan_spec(home, **changes)
    inputs = {**plan.inputs, "sequences": str(sequences), "cache": str(home / "cache")}
    return RunSpec(
        kind="train", identity={**plan.identity, "steps": 3}, inputs=inputs, execution=execution or Execution(micro_batch=2)
    )


@pytest.fixture(scope="module")
def built(home: Path) -> Path:
    build_sequences(plan_spec(home), home / "sequences", lambda message: None)
    return home / "sequences"


def test_files_repeat(home: Path, built: Path, tmp_path: Path) -> None:
    said: list[str] = []
    found = build_sequences(plan_spec(home), tmp_path, said.append)
    assert list_files(tmp_path) == list_files(built)
    assert [entry.path for entry in list_files(built)] == [
        "lengths/pictures.npz",
        "lengths/texts.npz",
        "report.json",
        "sequences.json",
    ]
    assert found["counts"]["rows"] == 60
    assert 0 < found["facts"]["fill"] <= 1
    assert any("pictures: 40 rows" in line for line in said)


def test_processes_measure_what_one_does(home: Path, built: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sequences, "ROWS", 7)
    monkeypatch.setattr(sequences, "MANY_ROWS", 1)
    monkeypatch.setattr(sequences, "LOG_SECONDS", 0.0)
    monkeypatch.setattr(sequences, "processors", lambda: 2)
    said: list[str] = []
    build_sequences(plan_spec(home), tmp_path / "two", said.append)
    assert list_files(tmp_path / "two") == list_files(built)
    assert any("pictures: 14 of 40 rows measured" in line for line in said)
    store_at(home / "huge", [row("text", [], asked("Where?", "x" * 9000), name="set/huge")])
    mixture_of({"huge": RowStore(home / "huge")}).save(tmp_path / "mixture")
    spec = plan_spec(home, encode=recipe(oversized="refuse"), pack=PackConfig(max_tokens=120, max_visual=6))
    inputs = {**spec.inputs, "mixture": str(tmp_path / "mixture"), "validated/huge": str(home / "huge")}
    with pytest.raises(OversizedError, match="set/huge"):
        build_sequences(RunSpec(kind="plan", identity=spec.identity, inputs=inputs), tmp_path / "no", said.append)


def test_the_report_adds_up(built: Path) -> None:
    report = json.loads((built / "report.json").read_text())
    assert report["positions"] >= 4096
    assert report["windows"] * PACK.window == report["positions"]
    assert sum(report["examples"].values()) == report["positions"]
    assert sum(report["loss_by_task"].values()) == pytest.approx(1, abs=1e-4)
    assert set(report["loss_by_dataset"]) == {"pictures", "texts"}
    assert report["loss_by_task"]["image_caption"] == report["loss_by_dataset"]["pictures"]
    assert report["fill"] <= report["bound"] <= 1
    assert report["fill"] == pytest.approx(max(report["token_fill"], report["visual_fill"]), abs=1e-5)
    assert report["fill"] > 0.9
    assert 0 < report["longest_wait"] < PACK.window
    assert report["examples_left_out"] == report["truncated_branches"] == report["dropped_frames"] == 0
    made = read_sequences(built)
    assert (made.datasets["pictures"].rows, made.settings.pack) == (40, PACK)


def test_what_is_left_out_is_reported(home: Path, tmp_path: Path) -> None:
    store = store_at(home / "long", [*many(6), row("text", [], asked("Where?", "x" * 9000), name="huge")])
    mixture_of({"long": store}).save(tmp_path / "mixture")
    spec = plan_spec(home, pack=PackConfig(max_tokens=120, max_visual=6, window=64))
    inputs = {**spec.inputs, "mixture": str(tmp_path / "mixture"), "validated/long": str(home / "long")}
    small = RunSpec(kind="plan", identity=spec.identity, inputs=inputs)
    build_sequences(small, tmp_path / "out", lambda message: None)
    report = json.loads((tmp_path / "out" / "report.json").read_text())
    assert report["rows_left_out"]["long"]["no_branch_fits"] == 1
    # Each of the seven rows comes equally often.
    rows = sum(report["rows_left_out"]["long"].values())
    assert report["examples_left_out"] == pytest.approx(report["positions"] * rows / 7, rel=0.01)
    assert report["truncated_branches"] >= report["examples_left_out"]
    refusing = plan_spec(home, encode=recipe(oversized="refuse"), pack=PackConfig(max_tokens=120, max_visual=6))
    refusing = RunSpec(kind="plan", identity=refusing.identity, inputs=inputs)
    with pytest.raises(OversizedError):
        build_sequences(refusing, tmp_path / "no", lambda message: None)


def test_coarser_pooling_is_reported(home: Path, tmp_path: Path) -> None:
    spec = plan_spec(home, encode=recipe(oversized="coarser_pooling"), pack=PackConfig(max_tokens=48, max_visual=6, window=64))
    build_sequences(spec, tmp_path / "coarse", lambda message: None)
    report = json.loads((tmp_path / "coarse" / "report.json").read_text())
    pictures = report["examples"]["pictures"]
    assert 0 < report["coarser_pictures"] <= pictures, "one picture an example"
    assert report["dropped_frames"] < report["coarser_pictures"]
    fewer = plan_spec(home, pack=PackConfig(max_tokens=48, max_visual=6, window=64))
    build_sequences(fewer, tmp_path / "fewer", lambda message: None)
    usual = json.loads((tmp_path / "fewer" / "report.json").read_text())
    assert usual["dropped_frames"] > report["dropped_frames"]
    assert "coarser_pictures" not in usual


def test_batches_of_a_train_run(home: Path, built: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    batches = open_batches(train_spec(home, built))
    first = list(itertools.islice(batches(0), 4))
    assert [batch.tokens.shape for batch in first] == [(2, 500)] * 4
    assert all(batch.failures == 0 for batch in first)
    assert all(batch.loss_weight.sum() > 0 for batch in first)
    again = next(open_batches(train_spec(home, built), tmp_path)(4))
    assert (again.tokens == first[2].tokens).all()
    assert (again.crops == first[2].crops).all()
    # Two ranks share the same packs between them.
    halves = []
    for rank in range(2):
        monkeypatch.setenv("RANK", str(rank))
        monkeypatch.setenv("WORLD_SIZE", "2")
        halves.append(next(open_batches(train_spec(home, built, Execution(micro_batch=1, workers=2)))(0)))
    assert (np.concatenate([half.tokens for half in halves]) == first[0].tokens).all()


def test_inputs_that_do_not_belong_together_are_refused(home: Path, built: Path, tmp_path: Path) -> None:
    other = LossConfig(rules={**EVERY_RULE.rules, "text": LossRule(weight=9)})
    with pytest.raises(SequenceError, match="other settings"):
        open_batches(train_spec(home, built, loss=other))
    with pytest.raises(SequenceError, match="other settings"):
        open_batches(train_spec(home, built, seed=6))
    spec = plan_spec(home)
    without = RunSpec(kind="plan", identity=spec.identity, inputs={k: v for k, v in spec.inputs.items() if k != "validated/texts"})
    with pytest.raises(SequenceError, match="no input validated/texts"):
        build_sequences(without, tmp_path, lambda message: None)
    store_at(tmp_path / "changed", many(3))
    changed = RunSpec(kind="plan", identity=spec.identity, inputs={**spec.inputs, "validated/texts": str(tmp_path / "changed")})
    with pytest.raises(SequenceError, match="the mixture was made for"):
        build_sequences(changed, tmp_path, lambda message: None)
    with pytest.raises(SequenceError, match=r"sequences\.json is missing"):
        open_batches(train_spec(home, tmp_path / "nothing"))


def test_tables_of_other_sequences_are_refused(home: Path, built: Path, tmp_path: Path) -> None:
    folder = tmp_path / "copy"
    (folder / "lengths").mkdir(parents=True)
    (folder / "sequences.json").write_bytes((built / "sequences.json").read_bytes())
    table = Lengths.load(built / "lengths" / "texts.npz", 20)
    for name in ("texts", "pictures"):
        table.save(folder / "lengths" / f"{name}.npz")
    with pytest.raises(ValueError, match="the set has 40"):
        open_batches(train_spec(home, folder))
