"""Hugging Face folders written, read back and refused; transformers itself is in `test_hf_peer.py`."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest
import torch

from tests.support import peers
from training_backend.config import ModelConfig
from training_backend.encode.tokens import train_tokenizer
from training_backend.model.hf import export_hf, import_hf
from training_backend.model.hf_config import from_hf, to_hf
from training_backend.model.hf_names import our_shapes, table
from training_backend.model.hf_tokenizer import write_tokenizer
from training_backend.model.molmo2 import Molmo2
from training_backend.model.tensor_files import Spec, TensorFolder, WeightsError, write_file
from training_backend.model.weights import load_model, save_model


def _saved(folder: Path, config: ModelConfig, dtype: torch.dtype = torch.float32) -> Molmo2:
    model = Molmo2(config)
    peers.randomise(model, 1)
    model = model.to(dtype)
    save_model(folder, model, 20_000)
    return model


@pytest.mark.parametrize("layout", ["released", "modules"])
@pytest.mark.parametrize("predict_extra", [False, True])
@pytest.mark.parametrize("variant", list(peers.VARIANTS))
def test_export_and_import_are_bitwise(tmp_path: Path, variant: str, predict_extra: bool, layout: Any) -> None:
    config = peers.released_config(**{**peers.VARIANTS[variant], "predict_extra": predict_extra})
    _saved(tmp_path / "first", config)
    files = export_hf(tmp_path / "first", tmp_path / "hf", layout=layout, shard_bytes=15_000)
    assert sorted(files) == sorted(path.name for path in (tmp_path / "hf").iterdir())
    imported = import_hf(tmp_path / "hf", tmp_path / "second", preset=config, shard_bytes=20_000)
    assert (imported.config, imported.left_out, imported.initialised) == (config, [], [])
    for path in (tmp_path / "first").iterdir():
        assert path.read_bytes() == (tmp_path / "second" / path.name).read_bytes()


def test_half_precision_goes_there_and_back(tmp_path: Path) -> None:
    """bf16 files become fp32 parameters and the same bf16 files again."""
    config = peers.released_config()
    _saved(tmp_path / "ours", config, torch.bfloat16)
    export_hf(tmp_path / "ours", tmp_path / "hf")
    assert json.loads((tmp_path / "hf" / "config.json").read_text())["dtype"] == "bfloat16"
    import_hf(tmp_path / "hf", tmp_path / "wide", precision="float32")
    assert {tensor.dtype for tensor in load_model(tmp_path / "wide").state_dict().values()} == {torch.float32}
    export_hf(tmp_path / "wide", tmp_path / "again", precision="bfloat16")
    for path in (tmp_path / "hf").iterdir():
        assert path.read_bytes() == (tmp_path / "again" / path.name).read_bytes()


def _as_released(folder: Path, edit: Callable[[dict[str, Any]], object] = lambda body: None) -> dict[str, Any]:
    """Drop our section from `config.json`, as a folder that we did not write, and edit the rest."""
    body = json.loads((folder / "config.json").read_text())
    body.pop("nanomolmo2", None)
    edit(body)
    (folder / "config.json").write_text(json.dumps(body))
    return body


def test_a_released_folder_says_everything_itself(tmp_path: Path) -> None:
    config = peers.released_config(**peers.VARIANTS["scaled on some layers"])
    _saved(tmp_path / "ours", config)
    export_hf(tmp_path / "ours", tmp_path / "hf")
    _as_released(tmp_path / "hf")
    imported = import_hf(tmp_path / "hf", tmp_path / "back")
    assert msgspec.structs.replace(imported.config, name=config.name, init=config.init) == config


def test_a_head_that_repeats_the_embeddings_is_a_tied_one(tmp_path: Path) -> None:
    """Released files never say that the 4B model is tied: they hold the same numbers twice."""
    config = peers.released_config(tied=True)
    _saved(tmp_path / "ours", config)
    export_hf(tmp_path / "ours", tmp_path / "hf", shard_bytes=15_000)
    assert not _as_released(tmp_path / "hf")["tie_word_embeddings"]
    assert import_hf(tmp_path / "hf", tmp_path / "back").config.decoder.tied
    loose = msgspec.structs.replace(config, decoder=msgspec.structs.replace(config.decoder, tied=False))
    assert not import_hf(tmp_path / "hf", tmp_path / "loose", preset=loose).config.decoder.tied
    _saved(tmp_path / "untied", peers.released_config())
    export_hf(tmp_path / "untied", tmp_path / "hf2")
    _as_released(tmp_path / "hf2")
    with pytest.raises(WeightsError, match=r"lm_head\.weight differs from the embeddings"):
        import_hf(tmp_path / "hf2", tmp_path / "no", preset=config)


def test_what_their_architecture_cannot_say_is_not_exported(tmp_path: Path) -> None:
    for decoder, field in (({"sliding_window": 4, "full_attention_every": 2}, "sliding_window"), ({"qk_norm": "none"}, "qk_norm")):
        with pytest.raises(WeightsError, match=field):
            to_hf(peers.released_config(**decoder))
    causal = msgspec.structs.replace(peers.released_config(), image_attention="causal")
    with pytest.raises(WeightsError, match="image_attention"):
        to_hf(causal)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A released folder in one file."""
    _saved(tmp_path / "ours", peers.released_config())
    export_hf(tmp_path / "ours", tmp_path / "hf")
    return tmp_path / "hf"


def _set(part: str, key: str, value: object) -> Callable[[dict[str, Any]], object]:
    return lambda body: (body[part] if part else body).__setitem__(key, value)


BAD_CONFIGS = [
    (_set("", "model_type", "qwen3"), r"config\.json: model_type is 'qwen3'.*another architecture"),
    (_set("", "image_patch_id", 51), r"config\.json: image_patch_id is 51, <im_patch> is 52 here: another vocabulary"),
    (_set("", "text_config", None), r"config\.json: text_config is missing"),
    (_set("text_config", "hidden_size", "wide"), r"config\.json: text_config\.hidden_size is 'wide'"),
    (_set("text_config", "rope_theta", None), r"config\.json: text_config\.rope_theta is missing"),
    (_set("text_config", "qkv_bias", True), r"config\.json: text_config\.attention_bias is True"),
    (_set("text_config", "qk_norm_type", "new"), r"text_config\.qk_norm_type is 'new'"),
    (_set("text_config", "rope_scaling", {"rope_type": "longrope"}), r"rope_type is 'longrope'"),
    (_set("vit_config", "hidden_act", "relu"), r"vit_config\.hidden_act is 'relu'"),
    (_set("adapter_config", "vit_layers", [9]), r"adapter_config\.vision_feature_layer is \[9\]"),
    (_set("text_config", "num_hidden_layers", 10**6), r"text_config\.num_hidden_layers is 1,000,000; more"),
    (_set("text_config", "hidden_size", -32), r"text_config\.hidden_size is -32; it is a size"),
    (_set("text_config", "num_attention_heads", 0), r"text_config\.num_attention_heads is 0; it is a size"),
    (_set("text_config", "num_key_value_heads", 3), r"text_config\.num_key_value_heads is 3, which does not divide 4"),
    (_set("text_config", "rope_theta", float("nan")), r"text_config\.rope_theta is nan"),
    (_set("vit_config", "num_attention_heads", 7), r"vit_config\.num_attention_heads is 7, which does not divide 24"),
    (_set("text_config", "vocab_size", 49), r"image_start_token_id is 50, <im_start> is 49 here: another vocabulary"),
    (_set("text_config", "additional_vocab_size", 15), r"new_embedding has shape \[16, 32\], the model needs \[15, 32\]"),
    (_set("text_config", "num_hidden_layers", 2), r"holds 8 that the model does not have: model\.transformer\.blocks\.2\."),
    (_set("text_config", "num_hidden_layers", 4), r"lacks 8 tensors: model\.transformer\.blocks\.3\."),
]


@pytest.mark.parametrize(("edit", "message"), BAD_CONFIGS, ids=[message for _, message in BAD_CONFIGS])
def test_a_wrong_config_names_file_and_key(folder: Path, edit: Callable[[dict[str, Any]], object], message: str) -> None:
    _as_released(folder, edit)
    with pytest.raises(WeightsError, match=message):
        import_hf(folder, folder / "out")


def test_another_preset_and_a_lying_section(folder: Path) -> None:
    wide = peers.released_config(width=64)
    with pytest.raises(WeightsError, match=r"config\.json is not model 'small': they differ in decoder\.width \(32 and 64\)"):
        import_hf(folder, folder / "out", preset=wide)
    body = json.loads((folder / "config.json").read_text())
    body["nanomolmo2"]["decoder"]["rope_theta"] = 7.0
    (folder / "config.json").write_text(json.dumps(body))
    with pytest.raises(WeightsError, match=r"nanomolmo2 section describes another model; .*rope_theta"):
        from_hf(folder / "config.json")


@pytest.mark.parametrize(
    ("part", "field", "value", "said"),
    [
        ("vision", "heads", 0, r"nanomolmo2\.vision\.heads is 0; it is a size"),
        ("vision", "patch_size", 0, r"nanomolmo2\.vision\.patch_size is 0; it is a size"),
        ("vision", "layers", 4000, r"vit_config\.num_hidden_layers is 4,000; more than"),
        ("vision", "feature_layers", [], r"vision_feature_layer is \[\] of 3 layers"),
        ("vision", "heads", "two", r"cannot be read: Expected `int`.*\$\.vision\.heads"),
        ("connector", "heads", -1, r"nanomolmo2\.connector\.heads is -1; it is a size"),
        ("decoder", "rope_theta", -1.0, r"text_config\.rope_theta is -1\.0"),
        ("decoder", "sliding_window", 4, r"no such decoder\.sliding_window"),
    ],
)
def test_a_section_that_describes_no_model_is_named(folder: Path, part: str, field: str, value: object, said: str) -> None:
    body = json.loads((folder / "config.json").read_text())
    body["nanomolmo2"][part][field] = value
    (folder / "config.json").write_text(json.dumps(body))
    with pytest.raises(WeightsError, match=rf"config\.json: (its )?nanomolmo2 .*{said}"):
        from_hf(folder / "config.json")


def test_missing_and_surplus_tensors_are_listed(folder: Path) -> None:
    (path,) = folder.glob("*.safetensors")
    source = TensorFolder(folder)
    tensors = {name: source.read(name) for name in source.entries}
    tensors["model.surplus"] = torch.zeros(2)
    for name in ("model.transformer.ln_f.weight", "lm_head.weight"):
        del tensors[name]
    write_file(path, {name: Spec(t.dtype, tuple(t.shape)) for name, t in tensors.items()}, lambda name: [tensors[name]])
    with pytest.raises(WeightsError, match=r"index\.json says that model-00001.* holds lm_head\.weight; it does not"):
        import_hf(folder, folder / "out")
    (folder / "model.safetensors.index.json").unlink()
    with pytest.raises(WeightsError, match=r"lacks 2 tensors: lm_head\.weight, model\.trans.*ln_f\.weight; it holds 1 .*surplus"):
        import_hf(folder, folder / "out")


def test_an_index_cannot_leave_its_folder(folder: Path) -> None:
    path = folder / "model.safetensors.index.json"
    body = json.loads(path.read_text())
    body["weight_map"]["lm_head.weight"] = "../ours/model-00001-of-00001.safetensors"
    path.write_text(json.dumps(body))
    with pytest.raises(WeightsError, match="no safetensors file of this folder"):
        import_hf(folder, folder / "out")


def test_pickled_weights_are_refused(tmp_path: Path, folder: Path) -> None:
    for path in [*folder.glob("*.safetensors"), folder / "model.safetensors.index.json"]:
        path.unlink()
    (folder / "pytorch_model.bin").write_bytes(b"\x80\x04K\x01.")
    with pytest.raises(WeightsError, match=r"pytorch_model\.bin, but nothing is unpickled"):
        import_hf(folder, tmp_path / "out")


def test_every_tensor_of_ours_is_in_their_tables() -> None:
    for variant in peers.VARIANTS.values():
        for layout in ("released", "modules"):
            config = peers.released_config(**variant)
            rows = table(config, layout)
            names = [name for row in rows for name in row.ours]
            assert set(names) == set(our_shapes(config))
            assert len(names) - len(set(names)) == config.decoder.tied, "only a tied head stands twice"


_MEASURE = """
import sys
from pathlib import Path
from training_backend.model.hf import export_hf, import_hf

def peak():
    return next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith("VmHWM")) * 1024

source, folder = Path(sys.argv[1]), Path(sys.argv[2])
before = peak()
export_hf(source, folder / "hf", shard_bytes=100 << 20)
import_hf(folder / "hf", folder / "back", shard_bytes=100 << 20)
print(peak() - before)
"""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="reads Linux's own account of memory")
def test_converting_needs_less_than_one_shard(tmp_path: Path) -> None:
    config = peers.released_config(width=256, vocab_size=90_000)
    model = Molmo2(config)
    for parameter in model.parameters():
        torch.nn.init.constant_(parameter, 0.5)
    save_model(tmp_path / "ours", model, 100 << 20)
    done = subprocess.run([sys.executable, "-c", _MEASURE, str(tmp_path / "ours"), str(tmp_path)], check=True, capture_output=True)
    shards = [path.stat().st_size for path in (tmp_path / "hf").glob("*.safetensors")]
    assert len(shards) > 1
    assert int(done.stdout) <= 1.1 * max(shards), f"{int(done.stdout):,} bytes for shards of {max(shards):,}"


def test_a_tokenizer_that_read_points_can_be_published(tmp_path: Path) -> None:
    """Training texts hold special tokens spelled out, as often as the words of a demo's answers."""
    texts = ["<point 0.5, 0.25, 0> <point 1.0, 0.5, 1> red circles", "<|image|> 3 <im_start><im_patch><im_end>"] * 30
    train_tokenizer(texts, 420, tmp_path / "ours")
    (tmp_path / "hf").mkdir()
    config = msgspec.structs.replace(peers.released_config().decoder, vocab_size=420)
    assert write_tokenizer(tmp_path / "ours", tmp_path / "hf", config, 512) == ["tokenizer.json", "tokenizer_config.json"]
