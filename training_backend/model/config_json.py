"""Reading other people's `config.json`: one error that names file and key, whatever stands there.

Belongs here: typed look-ups with defaults and aliases, and bounds that keep a hostile file from asking for a billion layers. Does
not belong here: what a key means (`hf_config.py`, `base_weights.py`).
"""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

from training_backend.model.tensor_files import WeightsError

CONFIG_FILE = "config.json"
LARGEST = 1 << 26
"""Of any size; the largest table of words has a few hundred thousand rows."""
_DEEPEST = 1024
_MAY_BE_ZERO = {"additional_vocab_size"}


def read_json(path: Path) -> dict[str, Any]:
    """A configuration file. Raises WeightsError."""
    try:
        body = json.loads(path.read_bytes())
    except OSError as error:
        raise WeightsError(f"{path} cannot be read: {error.strerror}") from None
    except (ValueError, RecursionError) as error:
        raise WeightsError(f"{path} is not JSON: {error}") from None
    if not isinstance(body, dict):
        raise WeightsError(f"{path} is not a JSON object.")
    return body


class Section:
    """One table of a configuration file; a wrong or missing key is named with its file."""

    def __init__(self, path: Path, name: str, table: object) -> None:
        if not isinstance(table, dict):
            raise WeightsError(f"{path}: {name or 'the file'} is missing or not a table.")
        self.path, self.name, self.table = path, name, table

    def key(self, key: str) -> str:
        return f"{self.name}.{key}" if self.name else key

    def get(self, key: str, kind: type | tuple[type, ...], default: Any = ..., *aliases: str) -> Any:
        """The value under `key` or an older name of it; null and absent both mean the default, where there is one."""
        for name in (key, *aliases):
            value: Any = self.table.get(name)
            if value is None:
                continue
            if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
                raise WeightsError(f"{self.path}: {self.key(name)} is {value!r}.")
            if type(value) is int and kind is int and not (0 < value <= LARGEST or (value == 0 and key in _MAY_BE_ZERO)):
                raise WeightsError(f"{self.path}: {self.key(name)} is {value!r}; it is a size.")
            return value
        if default is ...:
            raise WeightsError(f"{self.path}: {self.key(key)} is missing.")
        return default

    def number(self, key: str, default: float | None, *aliases: str) -> float:
        """A float, also where an integer is written."""
        value = float(self.get(key, (int, float), ... if default is None else default, *aliases))
        if not 0 < value < math.inf:
            raise WeightsError(f"{self.path}: {self.key(key)} is {value!r}; it is a positive number.")
        return value

    def layers(self, default: Any = ...) -> int:
        """`num_hidden_layers`, small enough to list their tensors."""
        layers: int = self.get("num_hidden_layers", int, default)
        if layers > _DEEPEST:
            raise WeightsError(f"{self.path}: {self.key('num_hidden_layers')} is {layers:,}; more than {_DEEPEST:,} are refused.")
        return layers

    def divides(self, part: int, whole: int, key: str) -> None:
        """`whole` is shared out among `part`."""
        if whole % part:
            raise WeightsError(f"{self.path}: {self.key(key)} is {part}, which does not divide {whole}.")

    def expect(self, key: str, wanted: object, default: object, *aliases: str) -> None:
        """A key that our architecture knows one value of."""
        value = next((self.table[name] for name in (key, *aliases) if self.table.get(name) is not None), default)
        if value != wanted:
            raise WeightsError(f"{self.path}: {self.key(key)} is {value!r}; this architecture has {wanted!r}.")
