"""`molmo2 import`, `export` and `ask`: there and back, an answer that is drawn, mistakes in one line."""

from __future__ import annotations

import shutil
from pathlib import Path

import msgspec
import numpy as np
import pytest
from PIL import Image

from molmo2_assets.cli import main
from molmo2_assets.cli.drawing import draw_images, draw_video
from molmo2_assets.sources.generated.video import write_h264
from tests.support.homes import environment
from tests.support.published import MODEL, checkpoint_at, export_spec
from training_backend.convert import run_export
from training_backend.data.points import Grounded
from training_backend.data.published import published_version
from training_backend.data.video import VideoReader
from training_backend.encode.tokens import train_tokenizer


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
    code, out, _ = molmo2("ask", "ours", "--video", "film.mp4", "What is it?", "--tokens", "4", "--json")
    found = msgspec.json.decode(out)
    assert (code, found["question"].endswith("What is it?"), found["drawn"]) == (0, True, [])
    assert molmo2("export", "ours", "--out", "back")[0] == 0
    assert published_version(place / "back") == published_version(place / "hf")
    assert not (place / "back" / "manifest.json").exists()
    code, _, err = molmo2("export", "ours", "--out", "back")
    assert (code, err.count("\n")) == (2, 1)
    assert "is there already and not an empty folder" in err


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
        (("ask", "other", "What?", "--out", "nowhere"), "nowhere is not a folder"),
    ):
        code, out, err = molmo2(*arguments)
        assert (code, out, sentence in err) == (2, "", True), (arguments, err)
        assert err.count("\n") == 1, err
    assert not (place / "a").exists()


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
