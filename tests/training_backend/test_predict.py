import io
from pathlib import Path

import msgspec
import numpy as np
import pytest
import torch
from PIL import Image

from tests.support.models import PATCH, SIDE, small_config
from training_backend.api import Execution, RunSpec
from training_backend.config import EncodeConfig, GenerateConfig, LossConfig
from training_backend.data.example import SCHEMA, Branch, Example, Media, Point, Points, Source, Text, Turn
from training_backend.data.fingerprint import plain
from training_backend.data.media import MediaCache
from training_backend.data.predictions import read_predictions
from training_backend.data.store import RowStore, RowWriter
from training_backend.encode.preprocessor import Preprocessor
from training_backend.encode.tokens import Tokenizer, train_tokenizer
from training_backend.model.generate import generate
from training_backend.model.molmo2 import Molmo2
from training_backend.model.weights import load_model, save_model
from training_backend.pack.collate import collate
from training_backend.pack.media_source import CachedMedia
from training_backend.predict import run_predict

ENCODE = EncodeConfig(
    point_syntax="report",
    time="token",
    prompt_style="plain",
    image_size=SIDE,
    patch_size=PATCH,
    max_crops=1,
    overlap=(0, 0),
    low_resolution=False,
)
GENERATE = GenerateConfig(max_new_tokens=6, batch_size=3)


def picture(number: int) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(np.random.default_rng(number).integers(0, 256, (SIDE, SIDE, 3), dtype=np.uint8)).save(stream, "PNG")
    return stream.getvalue()


def asked(name: str, sha256: str, questions: list[str]) -> Example:
    media = Media(id="0", kind="image", uri=f"{name}.png", sha256=sha256, width=SIDE, height=SIDE)
    answer = Turn(role="assistant", parts=(Text(text="red"),))
    branches = [
        Branch(id=f"b{number}", style="qa", turns=(Turn(role="user", parts=(Text(text=text),)), answer))
        for number, text in enumerate(questions)
    ]
    return Example(
        id=name, schema=SCHEMA, task="image_qa", source=Source(file="f", row=0), media=(media,), branches=tuple(branches)
    )


@pytest.fixture(scope="module")
def home(tmp_path_factory) -> Path:
    """Inputs of a run: five rows of one or two questions, a checkpoint and a tokenizer."""
    home = tmp_path_factory.mktemp("home")
    train_tokenizer(["What colour is this? red green 0 1 2 3 4 5 6 7 8 9"], 300, home / "tokenizer")
    torch.manual_seed(0)
    config = small_config(vocab_size=300, extra_tokens=32)
    model = Molmo2(config)
    model.init_weights(0)
    save_model(home / "checkpoint", model)
    cache = MediaCache(home / "cache")
    rows = []
    for number in range(5):
        questions = ["What colour is this?", "And what is it? " + "word " * number][: 1 + number % 2]
        rows.append(asked(f"row{number}", cache.add_bytes(picture(number)), questions))
    points = Points(label="discs", points=(Point(x=0.5, y=0.5, id=0),))
    unasked = Branch(id="points", style="pointing", turns=(Turn(role="assistant", parts=(points,)),))
    rows.append(msgspec.structs.replace(rows[0], id="label", task="image_pointing", branches=(unasked,)))
    write(home / "validated", rows)
    return home


def write(folder: Path, rows: list[Example]) -> None:
    with RowWriter(folder) as writer:
        for example in rows:
            writer.add(example)


def spec(home: Path, validated: str = "validated", **changes: object) -> RunSpec:
    identity = {
        "benchmark": "small", "dataset": RowStore(home / validated).version, "checkpoint": "c", "tokenizer": "t",
        "encode": ENCODE, "generate": GENERATE, "limit": None, "max_tokens": 128, "max_visual": 2, **changes,
    }  # fmt: skip
    names = ("checkpoint", "tokenizer", "cache")
    inputs = {name: str(home / name) for name in names} | {"validated": str(home / validated)}
    return RunSpec(kind="predict", identity=plain(identity), inputs=inputs, execution=Execution(device="cpu"))


def test_every_branch_is_answered_in_row_order_as_if_asked_alone(home, tmp_path):
    lines: list[str] = []
    found = run_predict(spec(home), tmp_path, lines.append)
    header, predictions = read_predictions(tmp_path)
    store = RowStore(home / "validated")
    questions = [(example, number) for example in store for number in range(len(example.branches))]
    assert [(item.id, item.branch) for item in predictions] == [
        (example.id, example.branches[number].id) for example, number in questions
    ]
    assert (header.rows, header.questions, header.failures) == (6, 8, 0)
    assert header.dataset == store.version
    assert found["counts"] == {"rows": 6, "questions": 8, "failures": 0}
    assert lines[-1].startswith("small: 8/8 questions in")

    model, tokenizer = load_model(home / "checkpoint").eval(), Tokenizer(home / "tokenizer", 32)
    preprocessor = Preprocessor(ENCODE, LossConfig(rules={}), tokenizer, 128, 2)
    media = CachedMedia(MediaCache(home / "cache"))
    for item, (example, number) in zip(predictions, questions, strict=True):
        prompt = preprocessor.prompt(example, number, media)
        batch = collate([[prompt]], len(prompt.tokens), (SIDE // PATCH) ** 2)
        assert item.answer == tokenizer.decode(generate(model, batch, [prompt], GENERATE, [tokenizer.eos])[0]).strip()
        assert item.prompt == preprocessor.question(example, number)
    assert {item.prompt for item in predictions if item.id == "label"} != {""}


def test_the_same_run_gives_the_same_bytes(home, tmp_path):
    for name in ("one", "two"):
        run_predict(spec(home), tmp_path / name, lambda line: None)
    assert (tmp_path / "one" / "predictions.jsonl").read_bytes() == (tmp_path / "two" / "predictions.jsonl").read_bytes()


def test_an_answer_ends_before_the_first_stop_text(home, tmp_path):
    run_predict(spec(home), tmp_path / "free", lambda line: None)
    free = {(item.id, item.branch): item.answer for item in read_predictions(tmp_path / "free")[1]}
    longest = max(free.values(), key=len)
    stop = [longest[2:4], "never said"]
    found = run_predict(spec(home, generate={**plain(GENERATE), "stop": stop}), tmp_path / "cut", lambda line: None)
    cut = {(item.id, item.branch): item.answer for item in read_predictions(tmp_path / "cut")[1]}
    assert cut == {key: answer.partition(stop[0])[0].strip() for key, answer in free.items()}
    assert cut != free
    assert found["facts"]["answers_cut_off"] < len(free)


def test_a_limit_asks_the_first_rows(home, tmp_path):
    run_predict(spec(home, limit=2), tmp_path, lambda line: None)
    header, predictions = read_predictions(tmp_path)
    store = RowStore(home / "validated")
    assert header.rows == 2
    assert {item.id for item in predictions} == {store.example(0).id, store.example(1).id}


def test_what_cannot_be_asked_is_counted_and_named(home, tmp_path):
    broken = MediaCache(home / "cache").add_bytes(b"no picture at all")
    good = RowStore(home / "validated").example(0)
    rows = [
        good,
        asked("broken", broken, ["What?"]),
        asked("gone", "f" * 64, ["What?"]),
        asked("long", good.media[0].sha256, ["x" * 500]),
    ]
    write(home / "some", rows)
    found = run_predict(spec(home, "some"), tmp_path, lambda line: None)
    _, predictions = read_predictions(tmp_path)
    failures = {item.id: item.failure for item in predictions if item.failure is not None}
    assert set(failures) == {"broken", "gone", "long"}
    assert all(item.answer == "" for item in predictions if item.failure)
    assert found["counts"]["failures"] == 3
    assert found["facts"]["failures"] == {"missing": 1, "not_an_image": 1, "oversized": 1}


def test_refusals(home, tmp_path):
    write(home / "none", [asked("gone", "f" * 64, ["What?"])])
    with pytest.raises(ValueError, match=r"none of 1 questions could be asked; the first, gone: missing"):
        run_predict(spec(home, "none"), tmp_path, lambda line: None)
    with pytest.raises(ValueError, match=r"is version 6-.*specified for other"):
        run_predict(spec(home, dataset="other"), tmp_path, lambda line: None)
    other = msgspec.structs.replace(ENCODE, image_size=2 * SIDE)
    with pytest.raises(ValueError, match=r"checkpoint/model\.json: vision\.image_size is 28, .* encode\.image_size is 56"):
        run_predict(spec(home, encode=other), tmp_path, lambda line: None)
    with pytest.raises(msgspec.ValidationError, match=r"generate\.stop"):
        run_predict(spec(home, generate={**plain(GENERATE), "stop": [""]}), tmp_path, lambda line: None)
    with pytest.raises(msgspec.ValidationError, match="max_tokens"):
        run_predict(msgspec.structs.replace(spec(home), identity={**spec(home).identity, "max_tokens": "many"}), tmp_path, print)
