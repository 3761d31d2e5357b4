"""Weights written and read back, and what a wrong folder says."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest
import torch
from safetensors.torch import load_file, save_file

from tests.support.models import small_config
from training_backend.model.molmo2 import Molmo2
from training_backend.model.weights import WeightsError, load_model, save_model


def _saved(folder: Path, shard_bytes: int = 20_000) -> Molmo2:
    model = Molmo2(small_config())
    model.init_weights(1)
    save_model(folder, model, shard_bytes)
    return model


def test_round_trip_in_shards_is_bitwise(tmp_path: Path) -> None:
    model = _saved(tmp_path / "a")
    assert len(list((tmp_path / "a").glob("*.safetensors"))) > 2
    loaded = load_model(tmp_path / "a", small_config())
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, loaded.state_dict()[name]), name
    save_model(tmp_path / "b", loaded, 20_000)
    for path in (tmp_path / "a").iterdir():
        assert path.read_bytes() == (tmp_path / "b" / path.name).read_bytes(), "equal weights, equal bytes"


def test_wrong_folders_name_file_and_tensor(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match=r"holds no model\.json"):
        load_model(tmp_path)
    _saved(tmp_path)
    other = msgspec.structs.replace(small_config(), decoder=small_config(width=64).decoder)
    with pytest.raises(WeightsError, match=r"model\.json is not model 'small': they differ in decoder\.width \(32 and 64\)"):
        load_model(tmp_path, other)
    first = sorted(tmp_path.glob("*.safetensors"))[0]
    whole = first.read_bytes()
    first.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(WeightsError, match=first.name):
        load_model(tmp_path)
    first.unlink()
    with pytest.raises(WeightsError, match=r"lacks .* tensors"):
        load_model(tmp_path)
    first.write_bytes(whole)
    tensors = load_file(first)
    name = next(iter(tensors))
    save_file({**tensors, name: tensors[name].flatten()[:-1].clone()}, first)
    with pytest.raises(WeightsError, match=f"{name} has shape"):
        load_model(tmp_path)
    save_file({**tensors, "surplus": torch.zeros(1)}, first)
    with pytest.raises(WeightsError, match="holds 1 that the model does not have: surplus"):
        load_model(tmp_path)


def test_a_huge_header_is_refused(tmp_path: Path) -> None:
    _saved(tmp_path)
    first = sorted(tmp_path.glob("*.safetensors"))[0]
    first.write_bytes((1 << 62).to_bytes(8, "little") + b"{}")
    with pytest.raises(WeightsError, match=first.name):
        load_model(tmp_path)
