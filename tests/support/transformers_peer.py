"""Transformers as a peer: its models, and its processors, which are written with torchvision.

Belongs here: importing the two, and skipping where they are not installed. Does not belong here: what is compared (`peers.py`,
`processors.py`, the tests). No torch before it is asked for.

`pip` brings a torchvision that was built for CUDA beside a torch for the CPU. Its compiled operators then fail to load, its import
ends with "operator torchvision::nms does not exist", and with it the import of every model of transformers, which looks for
torchvision. The models and processors use its Python alone, so the operators are declared, without anything behind them.
"""

from __future__ import annotations

import importlib
import importlib.util
import re
from pathlib import Path
from typing import Any

WHY_ABSENT = "transformers with Molmo2 and torchvision are not installed here: make venv"
_KEPT: list[Any] = []
"""A library that is collected takes its declarations with it."""


def load(*, processors: bool = False) -> Any | None:
    """The module `transformers`; None where it is not installed, or torchvision is not and `processors` are wanted."""
    torchvision = importlib.util.find_spec("torchvision")
    if importlib.util.find_spec("transformers") is None or (torchvision is None and processors):
        return None
    if importlib.util.find_spec("transformers.models.molmo2") is None:
        return None
    if torchvision is not None and torchvision.origin is not None:
        _declare(Path(torchvision.origin).parent)
    return importlib.import_module("transformers")


def need_transformers(*, processors: bool = False) -> Any:
    """`load`, or skip the test or the module that asks."""
    import pytest

    module = load(processors=processors)
    if module is None:
        pytest.skip(WHY_ABSENT, allow_module_level=True)
    return module


def _declare(folder: Path) -> None:
    """Make `import torchvision` work, whatever torch it was built for."""
    import torch

    try:
        importlib.import_module("torchvision")
    except RuntimeError:
        source = (folder / "_meta_registrations.py").read_text()
        _KEPT.append(torch.library.Library("torchvision", "FRAGMENT"))
        for name in sorted({*re.findall(r'register_meta\("(\w+)"\)', source), *re.findall(r'"torchvision::(\w+)"', source)}):
            _KEPT[-1].define(f"{name}() -> ()")
        importlib.import_module("torchvision")
