"""Model weights on disk: sharded safetensors and the model's configuration.

Belongs here: saving and loading *our* layout. Does not belong here: other people's layouts (`hf.py`), optimiser state and resuming
(`checkpoint/`). Safetensors only: nothing is unpickled.
"""

from __future__ import annotations

from pathlib import Path

import msgspec
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from training_backend.config import ModelConfig
from training_backend.model.molmo2 import Molmo2

CONFIG_FILE = "model.json"
SHARD_BYTES = 4 << 30


class WeightsError(ValueError):
    """A checkpoint that does not fit; the message names the file and the tensor."""


def save_model(folder: Path, model: Molmo2, shard_bytes: int = SHARD_BYTES) -> list[str]:
    """Write `model.json` and `model-00001-of-0000N.safetensors`; returns the names of the tensor files.

    Tensors lie in order of their names, so equal weights give equal bytes.
    """
    folder.mkdir(parents=True, exist_ok=True)
    shards: list[dict[str, torch.Tensor]] = [{}]
    size = 0
    for name, tensor in sorted(model.state_dict().items()):
        if size and size + tensor.nbytes > shard_bytes:
            shards.append({})
            size = 0
        shards[-1][name] = tensor.detach().cpu().contiguous()
        size += tensor.nbytes
    names = [f"model-{number:05d}-of-{len(shards):05d}.safetensors" for number in range(1, len(shards) + 1)]
    for name, shard in zip(names, shards, strict=True):
        save_file(shard, folder / name, metadata={"format": "pt"})
    (folder / CONFIG_FILE).write_bytes(msgspec.json.format(msgspec.json.encode(model.config, order="sorted"), indent=1) + b"\n")
    return names


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
    if config is not None and msgspec.structs.replace(config, name=stored.name, init=stored.init) != stored:
        different = [
            field
            for field in ("vision", "connector", "decoder", "image_attention")
            if getattr(config, field) != getattr(stored, field)
        ]
        raise WeightsError(f"{folder / CONFIG_FILE} is model {stored.name!r}; it differs from {config.name!r} in {different}.")
    with torch.device("meta"):
        model = Molmo2(stored)
    wanted = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    found: dict[str, torch.Tensor] = {}
    for path in sorted(folder.glob("model-*.safetensors")):
        try:
            with safe_open(path, framework="pt") as shard:
                for name in shard.keys():  # noqa: SIM118 - a safetensors handle is not iterable
                    if name not in wanted:
                        raise WeightsError(f"{path} holds {name}, which model {stored.name!r} does not have.")
                    tensor = shard.get_tensor(name)
                    if tuple(tensor.shape) != wanted[name]:
                        raise WeightsError(
                            f"{path}: {name} has shape {tuple(tensor.shape)}, model {stored.name!r} needs {wanted[name]}."
                        )
                    found[name] = tensor
        except (SafetensorError, OSError) as error:
            raise WeightsError(f"{path} cannot be read: {error}") from None
    missing = sorted(set(wanted) - set(found))
    if missing:
        raise WeightsError(f"{folder} lacks {len(missing)} tensors of model {stored.name!r}, the first is {missing[0]}.")
    model.load_state_dict(found, assign=True)
    return model
