"""Model weights on disk: sharded safetensors and the model's configuration.

Belongs here: saving and loading *our* layout. Does not belong here: other people's layouts (`hf.py`), optimiser state and resuming
(`checkpoint/`). Safetensors only: nothing is unpickled.
"""

from __future__ import annotations

from pathlib import Path

import msgspec
import torch

from training_backend.config import ModelConfig
from training_backend.model.molmo2 import Molmo2
from training_backend.model.tensor_files import Spec, TensorFolder, WeightsError, check_tensors, split_shards, write_file

CONFIG_FILE = "model.json"
SHARDS = "model-*.safetensors"
SHARD_BYTES = 4 << 30


def save_model(folder: Path, model: Molmo2, shard_bytes: int = SHARD_BYTES) -> list[str]:
    """Write `model.json` and `model-00001-of-0000N.safetensors`; returns the names of the tensor files.

    Tensors lie in order of their names, so equal weights give equal bytes.
    """
    folder.mkdir(parents=True, exist_ok=True)
    tensors = model.state_dict()
    specs = {name: Spec(tensor.dtype, tuple(tensor.shape)) for name, tensor in tensors.items()}
    shards = split_shards(specs, shard_bytes)
    for file, names in shards:
        write_file(folder / file, {name: specs[name] for name in names}, lambda name: [tensors[name].cpu()])
    write_config(folder, model.config)
    return [file for file, _ in shards]


def write_config(folder: Path, config: ModelConfig) -> None:
    """Write `model.json`."""
    (folder / CONFIG_FILE).write_bytes(msgspec.json.format(msgspec.json.encode(config, order="sorted"), indent=1) + b"\n")


def read_config(folder: Path) -> ModelConfig:
    """The configuration beside the weights. Raises WeightsError."""
    path = folder / CONFIG_FILE
    try:
        return msgspec.json.decode(path.read_bytes(), type=ModelConfig)
    except FileNotFoundError:
        raise WeightsError(f"{folder} holds no {CONFIG_FILE}: it is not a checkpoint of this project.") from None
    except msgspec.MsgspecError as error:
        raise WeightsError(f"{path} cannot be read: {error}") from None


def load_model(folder: Path, config: ModelConfig | None = None) -> Molmo2:
    """The model of a checkpoint folder, on the CPU. `config`, where given, must be the stored one.

    Raises WeightsError for a missing, surplus, misshapen or torn tensor, naming file and tensor.
    """
    stored = read_config(folder)
    if config is not None and (different := unequal_fields(stored, config)):
        raise WeightsError(f"{folder / CONFIG_FILE} is not model {config.name!r}: they differ in {', '.join(different)}.")
    with torch.device("meta"):
        model = Molmo2(stored)
    source = TensorFolder(folder, SHARDS)
    check_tensors(source, {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()})
    model.load_state_dict({name: source.read(name) for name in source.entries}, assign=True)
    return model


def unequal_fields(a: ModelConfig, b: ModelConfig) -> list[str]:
    """Fields in which two models differ, with both values; names and initialisation aside."""
    out = []
    for part in ("vision", "connector", "decoder"):
        left, right = getattr(a, part), getattr(b, part)
        for field in left.__struct_fields__:
            here, there = getattr(left, field), getattr(right, field)
            if here != there:
                out.append(f"{part}.{field} ({here!r} and {there!r})")
    if a.image_attention != b.image_attention:
        out.append(f"image_attention ({a.image_attention!r} and {b.image_attention!r})")
    return out
