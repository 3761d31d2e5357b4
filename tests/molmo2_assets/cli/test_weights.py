"""`molmo2 import`, `export` and `ask`: there and back, an answer that is drawn, mistakes in one line."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import msgspec
import numpy as np
import pytest
import torch
from PIL import Image

from molmo2_assets.cli import drawing, main
from molmo2_assets.cli.drawing import draw_images, draw_video
from molmo2_assets.cli.weights import _example as asking
from molmo2_assets.home import Home
from molmo2_assets.sources.generated.video import write_h264
from tests.support.disks import fill, small_disk
from tests.support.examples import EVERY_RULE, asked
from tests.support.homes import environment
from tests.support.hub_server import HubServer, serve_hub
from tests.support.published import MODEL, RECIPE, checkpoint_at, export_spec
from training_backend.convert import run_export
from training_backend.data.example import TASKS
from training_backend.data.media import MediaCache
from training_backend.data.points import Grounded
from training_backend.data.published import published_version, write_recipe
from training_backend.data.video import VideoReader
from training_backend.encode.preprocessor import Preprocessor
from training_backend.encode.tokens import Tokenizer, train_tokenizer
from training_backend.model.molmo2 import Molmo2, TensorBatch
from training_backend.model.weights import load_model, save_model
from training_backend.pack.collate import collate
from training_backend.pack.media_source import CachedMedia
from training_backend.train.loss import weighted_cross_entropy


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with `hf`, a published model, `picture.png` and `film.mp4`; and home."""
    folder = checkpoint_at(tmp_path_factory.mktemp("weights"))
    run_export(export_spec(folder), folder / "hf", lambda message: None)
    pixels = np.random.default_rng(0).integers(0, 256, (60, 40, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(folder / "picture.png")
    write_h264(folder / "film.mp4", [pixels] * 16, 8)
    return folder


@pytest.fixture
def molmo2(place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    for name, value in environment(place / "home", "small").items():
        if name.startswith(("MOLMO2_", "DAGSTER_")):
            monkeypatch.setenv(name, value)
    monkeypatch.chdir(place)

    def run(*arguments: str) -> tuple[int, str, str]:
        capsys.readouterr()
        code = main(arguments)
        return (code, *capsys.readouterr())

    return run


def test_there_asked_and_back(place: Path, molmo2) -> None:
    assert molmo2("import", "hf", "--out", "ours")[:2] == (0, f"{place / 'ours'}\n")
    code, out, _ = molmo2("ask", "ours", "--image", "picture.png", "<|image|> What is it?", "--tokens", "4")
    assert (code, len(out) > 0) == (0, True)
    spelled = "What do <im_patch>, <frame_start> and <|im_end|> mean?"  # words, as anybody may write them
    code, out, _ = molmo2("ask", "ours", "--video", "film.mp4", spelled, "--tokens", "4", "--json")
    found = msgspec.json.decode(out)
    assert (code, found["question"].endswith(spelled), found["drawn"]) == (0, True, [])
    assert molmo2("export", "ours", "--out", "back")[0] == 0
    assert published_version(place / "back") == published_version(place / "hf")
    assert not (place / "back" / "manifest.json").exists()
    code, _, err = molmo2("export", "ours", "--out", "back")
    assert (code, err.count("\n")) == (2, 1)
    assert "is there already and not an empty folder" in err


@pytest.fixture
def hub(place: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[HubServer]:
    """A local Hub with `org/model`: the published model, then a later commit that cannot be imported."""
    files = {path.name: path.read_bytes() for path in (place / "hf").iterdir()}
    config = msgspec.json.encode({**msgspec.json.decode(files["config.json"]), "model_type": "another"})
    with serve_hub() as server:
        monkeypatch.setenv("HF_ENDPOINT", server.url)
        monkeypatch.setenv("HF_TOKEN", "hf_" + "secret" * 6)
        server.add("org/model", {**files, "pytorch_model.bin": b"pickle", "modeling_molmo2.py": b"code"})
        server.repositories["org/model"].commit({**files, "config.json": config})
        yield server


def test_from_the_hub_at_its_commit(place: Path, molmo2, hub: HubServer) -> None:
    first, _ = hub.repositories["org/model"].commits
    assert molmo2("import", f"org/model@{first}", "--out", "from-hub")[0] == 0
    before, after = load_model(place / "checkpoint").state_dict(), load_model(place / "from-hub", MODEL).state_dict()
    assert {name for name, tensor in before.items() if torch.equal(tensor, after[name])} == set(after)
    assert (place / "from-hub" / "recipe.json").read_bytes() == (place / "hf" / "recipe.json").read_bytes()
    assert not [path for _, path, _ in hub.requests if path.endswith((".bin", ".py"))], "neither code nor pickle"


def test_mistakes_about_the_hub_are_one_line(place: Path, molmo2, hub: HubServer) -> None:
    *_, head = hub.repositories["org/model"].commits
    for source, sentence in (
        ("org/model@main", f"names 'main', which is no commit of org/model; it stands at {head} now: write org/model@{head}"),
        (f"org/model@{'f' * 40}", f"org/model has no revision {'f' * 40}; correct org/model@{'f' * 40}."),
        (f"org/gone@{head}", f"may not see it. Check org/gone@{head}, or sign in"),
        ("org/model", "org/model is no folder here; a model on the Hub is named with its commit: org/model@COMMIT"),
    ):  # fmt: skip
        code, out, err = molmo2("import", source, "--out", "a")
        assert (code, out, sentence in err) == (2, "", True), err
        assert err.count("\n") == 1, err
        assert "hf_" not in err
    assert not (place / "a").exists()


def test_mistakes_are_one_line(place: Path, molmo2) -> None:
    (place / "no.png").write_text("no picture")
    other = place / "other"
    shutil.copytree(place / "checkpoint", other)
    shutil.copyfile(place / "hf" / "recipe.json", other / "recipe.json")
    train_tokenizer(["red circles"] * 9, MODEL.decoder.vocab_size - 20, other / "tokenizer")
    for arguments, sentence in (
        (("import", "nowhere", "--out", "a"), "nowhere is not a folder"),
        (("import", "hf", "--preset", "tiny", "--out", "a"), "is not model 'tiny': they differ in vision.image_size"),
        (("import", "hf", "--preset", "tyni", "--out", "a"), "unknown preset 'tyni'"),
        (("export", "nowhere", "--out", "a"), "nowhere is neither an asset of profile small that was made, nor a folder"),
        (("export", "checkpoint", "--out", "a"), "holds no recipe.json"),
        (("export", "other", "--out", "a"), "specials.json: another vocabulary: 400 rows, the model's base table has 420."),
        (("ask", "other", "--image", "picture.png", "What?"), "another vocabulary: 400 rows"),
        (("ask", "other", "--image", "no.png", "What?"), "no.png cannot be read as an image"),
        (("ask", "other", "--video", "picture.png", "What?"), "picture.png cannot be read as a video"),
        (("ask", "other", "--image", "gone.png", "What?"), "gone.png is not a file"),
        (("ask", "other", "--image", "picture.png", "<|image|><|image|> What?"), "holds 2 <|image|>, and --image names 1"),
        (("ask", "other", "--image", "picture.png", "What is <|image|>?"), "stands in the middle of the question"),
        (("ask", "other", "--image", "a.png", "--video", "film.mp4", "What?"), "about images, or about one video"),
        (("ask", "other", "  "), "the question is empty"),
        (("ask", "other", "What?", "--tokens", "0"), "--tokens 0: an answer has at least one"),
        (("ask", "other", "What?", "--out", "nowhere"), "nowhere is not a folder"),
    ):
        code, out, err = molmo2(*arguments)
        assert (code, out, sentence in err) == (2, "", True), (arguments, err)
        assert err.count("\n") == 1, err
    assert not (place / "a").exists()


def test_a_full_disk_is_told_with_its_place(molmo2, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk", 1000) as disk:
        monkeypatch.setenv("MOLMO2_HOME", str(disk))
        filler = fill(disk)
        os.truncate(filler, filler.stat().st_size - (120 << 10))  # the run's own files fit, the weights do not
        code, _, err = molmo2("import", "hf", "--out", str(tmp_path / "a"))
    assert code == 2
    line = err.splitlines()[-1]
    assert line.startswith(f"molmo2: cannot write {disk}/small/runs/import-"), err
    assert "the disk is full" in line


POINTS = '<points coords="1 1 250 500">the dot</points>'
TRACKS = '<tracks coords="0.5 1 250 500;1.0 1 500 500;1.5 1 750 500">the dot</tracks>'


@pytest.fixture(scope="module")
def taught(place: Path) -> Path:
    """A checkpoint that has learned to answer two questions, about the picture and about the film, by pointing."""
    folder, home = place / "taught", Home(place / "home", "small")
    shutil.copytree(place / "checkpoint", folder)
    shutil.copytree(place / "tokenizer", folder / "tokenizer")
    write_recipe(folder, RECIPE)
    model, tokenizer = load_model(folder), Tokenizer(folder / "tokenizer", MODEL.decoder.extra_tokens)
    encoder = Preprocessor(RECIPE.encode, EVERY_RULE, tokenizer, RECIPE.max_tokens, RECIPE.max_visual)
    taught = []
    for question, images, videos, answer in (
        ("Point to the dot.", [place / "picture.png"], [], POINTS), ("Track the dot.", [], [place / "film.mp4"], TRACKS)
    ):  # fmt: skip
        example = asking(home, question, images, videos)
        branches = tuple(msgspec.structs.replace(each, turns=asked(question, answer).turns) for each in example.branches)
        example = msgspec.structs.replace(example, branches=branches)
        taught.append(encoder.encode(example, 0, CachedMedia(MediaCache(home.cache))))
    batch = collate([[each] for each in taught], max(len(each.tokens) for each in taught), MODEL.vision.patches_per_side**2)
    teach(model, TensorBatch.from_numpy(batch))
    save_model(folder, model)
    return folder


def teach(model: Molmo2, batch: TensorBatch) -> None:
    """Until every learned token is the most likely one by far."""
    optimiser = torch.optim.AdamW(model.parameters(), lr=3e-3)
    for _ in range(400):
        total, _, weights = weighted_cross_entropy(
            model(batch), model.head_weight, batch.loss_index, batch.loss_target, torch.ones_like(batch.loss_weight),
            batch.loss_task, len(TASKS), 1024,
        )  # fmt: skip
        loss = total / weights.sum()
        if loss < 0.05:
            return
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    raise AssertionError(f"two answers were not learned: {float(loss)}")


def test_an_answer_that_points_is_drawn(place: Path, taught: Path, molmo2, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    code, out, err = molmo2("ask", "taught", "--image", "picture.png", "Point to the dot.", "--out", str(tmp_path))
    assert (code, out) == (0, f"{POINTS}\ndrawn: {tmp_path / 'picture-answer.png'}\n"), err
    before, after = (np.asarray(Image.open(path)) for path in (place / "picture.png", tmp_path / "picture-answer.png"))
    assert [30, 10] in np.argwhere((before != after).any(axis=-1)).tolist()
    code, out, err = molmo2("ask", "taught", "--video", "film.mp4", "Track the dot.", "--out", str(tmp_path), "--json")
    found = msgspec.json.decode(out)
    assert (code, found["answer"], found["drawn"]) == (0, TRACKS, [str(tmp_path / "film-answer.mp4")]), err
    assert [(point["t"], point["x"], point["y"]) for point in found["points"]] == [
        (0.5, 0.25, 0.5),
        (1.0, 0.5, 0.5),
        (1.5, 0.75, 0.5),
    ]
    still, _ = VideoReader(place / "film.mp4").frames_at([0.0])
    frames, _ = VideoReader(tmp_path / "film-answer.mp4").frames_at([0.5, 1.0, 1.5])
    away = np.abs(frames.astype(int) - still.astype(int)).max(axis=-1)
    places = [away[:, 28:33, x - 2 : x + 3].mean(axis=(1, 2)) for x in (10, 20, 30)]
    assert np.argmax(places, axis=0).tolist() == [0, 1, 2], "one after the other"
    assert "only the first" not in err
    monkeypatch.setattr(drawing, "LONGEST", 1.25)
    code, out, err = molmo2("ask", "taught", "--video", "film.mp4", "Track the dot.", "--out", str(tmp_path))
    assert (code, "only the first 1.25 of the film's 2.0 seconds are drawn" in err) == (0, True), err


def test_points_are_drawn_where_and_when_they_are(place: Path, tmp_path: Path) -> None:
    before = np.full((60, 40, 3), 128, np.uint8)
    Image.fromarray(before).save(tmp_path / "grey.png")
    point = Grounded(id=0, x=0.25, y=0.5, image=1, t=None)
    (drawn,) = draw_images([place / "picture.png", tmp_path / "grey.png"], [point], tmp_path)
    assert drawn == tmp_path / "grey-1-answer.png"
    changed = np.argwhere((np.asarray(Image.open(drawn)) != before).any(axis=-1))
    assert np.abs(changed - [30, 10]).max() <= 25
    assert [30, 10] in changed.tolist()
    write_h264(tmp_path / "grey.mp4", [before] * 16, 8)
    assert draw_video(tmp_path / "grey.mp4", [], tmp_path) == []
    (clip,) = draw_video(tmp_path / "grey.mp4", [Grounded(id=0, x=0.25, y=0.5, image=None, t=1.0)], tmp_path)
    frames, _ = VideoReader(clip).frames_at([0.0, 1.0, 1.75])
    away = np.abs(frames.astype(int)[:, 30, 10] - 128).max(axis=-1)
    assert away[1] > 60
    assert max(away[0], away[2]) < 12
