"""The run kinds `import` and `export`: there and back, through the worker, and what is refused."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest
import torch

from tests.support.published import MODEL, RECIPE, VOCAB, checkpoint_at, export_spec, import_spec
from training_backend.api import RunFailed, RunSpec
from training_backend.convert import run_export, run_import
from training_backend.data.fingerprint import fingerprint, plain
from training_backend.data.manifest import read_manifest, verify_files
from training_backend.data.published import PublishedError, published_version, read_recipe
from training_backend.encode.tokens import EXTRA_TOKENS, Tokenizer, train_tokenizer
from training_backend.launch.local import LocalLauncher
from training_backend.model.tensor_files import WeightsError
from training_backend.model.weights import load_model, save_model


def quiet(message: str) -> None:
    """Nobody listens."""


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return checkpoint_at(tmp_path_factory.mktemp("home"))


@pytest.fixture(scope="module")
def published(home: Path) -> Path:
    folder = home / "hf"
    run_export(export_spec(home, materials=[{"asset": "raw/a|b", "data_version": "1\n2"}]), folder, quiet)
    return folder


def test_there_and_back(home: Path, published: Path, tmp_path: Path) -> None:
    found = run_import(import_spec(published, MODEL), tmp_path, quiet)
    assert found["counts"] == {"files": 1, "left_out": 0, "initialised": 0, "parameters": found["counts"]["parameters"]}
    assert found["facts"]["notes"] == ["released layout"]
    before, after = load_model(home / "checkpoint").state_dict(), load_model(tmp_path, MODEL).state_dict()
    assert {name for name, tensor in before.items() if torch.equal(tensor, after[name])} == set(after)
    assert read_recipe(tmp_path) == RECIPE
    ours, again = Tokenizer(home / "tokenizer", 16), Tokenizer(tmp_path / "tokenizer", 16)
    assert ours.special == again.special
    assert (ours.bos, ours.eos, ours.pad, ours.vocab_size) == (again.bos, again.eos, again.pad, again.vocab_size)
    text = "Point to the red circles <|image|> <im_patch> 0.5"
    assert ours.encode(text) == again.encode(text)
    # A second export from the imported folder alone: the same files, byte by byte.
    spec = export_spec(home, materials=[{"asset": "raw/a|b", "data_version": "1\n2"}])
    alone = msgspec.structs.replace(spec, identity={**spec.identity, "tokenizer": None}, inputs={"checkpoint": str(tmp_path)})
    run_export(alone, tmp_path / "hf", quiet)
    assert published_version(tmp_path / "hf") == published_version(published)
    assert (tmp_path / "hf" / "README.md").read_text() == (published / "README.md").read_text()


def test_the_card_holds_the_bill_of_materials(published: Path) -> None:
    card = (published / "README.md").read_text()
    assert card.startswith("---\nlibrary_name: transformers\n")
    assert "# A model of nothing" in card
    assert "| asset | data_version |\n| --- | --- |\n| raw/a\\|b | 1 2 |\n" in card


def test_a_folder_without_the_rest_is_still_weights(published: Path, tmp_path: Path) -> None:
    bare = tmp_path / "bare"
    bare.mkdir()
    for path in published.iterdir():
        if path.name in ("config.json", "model.safetensors.index.json") or path.suffix == ".safetensors":
            (bare / path.name).write_bytes(path.read_bytes())
    found = run_import(import_spec(bare), tmp_path / "ours", quiet)
    assert found["facts"]["notes"] == [
        "released layout", "no tokenizer.json: the checkpoint needs a tokenizer from elsewhere to be asked"
    ]  # fmt: skip
    recipe = read_recipe(tmp_path / "ours")
    assert recipe is not None
    assert (recipe.encode.time, recipe.encode.max_crops, recipe.encode.overlap) == ("text", 8, (4, 4))  # as released


def test_both_kinds_by_the_worker(home: Path, published: Path, tmp_path: Path) -> None:
    launcher = LocalLauncher()
    outputs = []
    for number, spec in enumerate((import_spec(published, MODEL), export_spec(home))):
        run_dir = tmp_path / str(number)
        handle = launcher.submit(spec, run_dir)
        for _ in launcher.follow(handle):
            pass
        output = Path(launcher.result(handle).output)
        manifest = read_manifest(output)
        assert manifest.recipe_fingerprint == fingerprint({"kind": spec.kind, "identity": spec.identity})
        assert verify_files(output, manifest) == []
        assert launcher.status(launcher.submit(spec, run_dir)) == "done"
        outputs.append(output)
    assert load_model(outputs[0], MODEL).config == MODEL
    assert (outputs[1] / "config.json").read_text() == (published / "config.json").read_text()


def test_a_failure_is_one_sentence(home: Path, published: Path, tmp_path: Path) -> None:
    wrong = msgspec.structs.replace(MODEL, name="other", decoder=msgspec.structs.replace(MODEL.decoder, rope_theta=5.0))
    launcher, spec = LocalLauncher(), import_spec(published, wrong)
    handle = launcher.submit(spec, tmp_path / "run")
    for _ in launcher.follow(handle):
        pass
    with pytest.raises(RunFailed, match=r"config.json is not model 'other': they differ in decoder.rope_theta \(10000.0 and 5.0\)"):
        launcher.result(handle)
    assert list((tmp_path / "run").glob("output*")) == []


def test_a_folder_that_changed_meanwhile(published: Path, tmp_path: Path) -> None:
    spec = import_spec(published)
    stale = msgspec.structs.replace(spec, identity={**spec.identity, "sources": {"folder": "000000000000"}})
    with pytest.raises(ValueError, match="the run was specified for 000000000000; start it again"):
        run_import(stale, tmp_path, quiet)


def test_folders_that_hold_no_model(tmp_path: Path) -> None:
    with pytest.raises(PublishedError, match="nowhere is not a folder"):
        published_version(tmp_path / "nowhere")
    with pytest.raises(PublishedError, match=r"holds no config\.json"):
        published_version(tmp_path)
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "pytorch_model.bin").write_bytes(b"code")
    with pytest.raises(PublishedError, match=r"holds no \*.safetensors; weights in other formats are not read"):
        published_version(tmp_path)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"time": "token"}, r"time: token \(it writes times as text\)"),
        ({"low_resolution": False}, "low_resolution: false"),
        ({"image_size": 14}, r"image_size and patch_size 14/7 \(the model has 28/7\)"),
        ({"frame_rate": 1.5}, "frame_rate: 1.5"),
    ],
)
def test_recipes_that_their_processor_cannot_follow(home: Path, tmp_path: Path, change: dict[str, object], sentence: str) -> None:
    recipe = msgspec.structs.replace(RECIPE, encode=msgspec.structs.replace(RECIPE.encode, **change))
    with pytest.raises(WeightsError, match=sentence):
        run_export(export_spec(home, recipe), tmp_path / "hf", quiet)
    assert not (tmp_path / "hf").exists()


def test_models_that_their_architecture_lacks(home: Path, tmp_path: Path) -> None:
    model = load_model(home / "checkpoint")
    model.config = msgspec.structs.replace(model.config, image_attention="within_image")
    save_model(tmp_path / "checkpoint", model)
    (tmp_path / "tokenizer").symlink_to(home / "tokenizer")
    with pytest.raises(WeightsError, match="cannot be a Hugging Face Molmo2, which has no such image_attention"):
        run_export(export_spec(tmp_path), tmp_path / "hf", quiet)


def test_the_tokenizer_of_another_model(home: Path, published: Path, tmp_path: Path) -> None:
    train_tokenizer(["red circles"] * 9, VOCAB - 20, tmp_path / "tokenizer")
    (tmp_path / "checkpoint").symlink_to(home / "checkpoint")
    with pytest.raises(WeightsError, match=r"specials.json: another vocabulary: 400 rows, the model's base table has 420"):
        run_export(export_spec(tmp_path), tmp_path / "hf", quiet)
    # A published folder whose extra tokens stand elsewhere.
    moved = tmp_path / "moved"
    moved.mkdir()
    for path in published.iterdir():
        (moved / path.name).write_bytes(path.read_bytes())
    body = json.loads((moved / "tokenizer.json").read_text())
    for token in body["added_tokens"]:
        token["id"] += token["id"] >= VOCAB + 2
    (moved / "tokenizer.json").write_text(json.dumps(body))
    with pytest.raises(WeightsError, match=r"tokenizer.json: <im_patch> is 423, the model has it at 422: another vocabulary"):
        run_import(import_spec(moved), tmp_path / "ours", quiet)


@pytest.mark.parametrize(
    ("edit", "sentence"),
    [
        (lambda body: body["added_tokens"][0].pop("id"), r"added_tokens\[0\]"),
        (lambda body: body["added_tokens"].__setitem__(3, "text"), r"added_tokens\[3\]"),
        (lambda body: body["added_tokens"][1].__setitem__("id", -1), r"added_tokens\[1\]"),
        (lambda body: body.__setitem__("added_tokens", {}), "added_tokens is"),
        (lambda body: body["model"].__setitem__("vocab", [["a", 0.0]]), r"model\.vocab"),
        (lambda body: body.__setitem__("model", None), "model is"),
        (lambda body: body["model"].__setitem__("type", "Neural"), "cannot be read by the `tokenizers` library"),
        (
            lambda body: (body["added_tokens"].pop(1), body["model"]["vocab"].pop("<|im_start|>")),
            r"lacks the chat markers \['<\|im_start\|>'\]",
        ),
        (lambda body: body["model"]["vocab"].__setitem__("red", "one"), r"model\.vocab"),
    ],
)
def test_a_tokenizer_that_is_none_is_named(published: Path, tmp_path: Path, edit: Callable[[Any], object], sentence: str) -> None:
    broken = tmp_path / "broken"
    shutil.copytree(published, broken)
    body = json.loads((broken / "tokenizer.json").read_text())
    edit(body)
    (broken / "tokenizer.json").write_text(json.dumps(body))
    with pytest.raises(ValueError, match=rf"broken/tokenizer\.json:? .*{sentence}"):
        run_import(import_spec(broken), tmp_path / "ours", quiet)


def test_identities_are_typed(tmp_path: Path) -> None:
    spec = RunSpec(kind="import", identity={"source": "base", "sources": {}, "model": None, "colour": plain(1)})
    with pytest.raises(msgspec.ValidationError, match="colour"):
        run_import(spec, tmp_path, quiet)


def test_unused_rows_are_filled_up(published: Path) -> None:
    """The library numbers tokens one by one: a table that is not full would move the extra tokens."""
    added = json.loads((published / "tokenizer.json").read_text())["added_tokens"]
    assert [token["id"] for token in added][-len(EXTRA_TOKENS) :] == list(range(VOCAB, VOCAB + len(EXTRA_TOKENS)))
    assert [token["content"] for token in added][-len(EXTRA_TOKENS) :] == list(EXTRA_TOKENS)
