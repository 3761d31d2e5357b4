"""torchvision for transformers' processors, also where only a build for CUDA is installed beside a torch for the CPU.

Its compiled operators then fail to load and its import ends with "operator torchvision::nms does not exist"; the processors use its
Python alone. So the operators are declared, without anything behind them, and the import goes through.
"""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path

import pytest
import torch

_KEPT: list[torch.library.Library] = []
"""A library that is collected takes its declarations with it."""


def need_torchvision() -> None:
    """Make `import torchvision` work, or skip the test where it is not installed."""
    spec = importlib.util.find_spec("torchvision")
    if spec is None or spec.origin is None:
        pytest.skip("transformers' processors need torchvision")
    try:
        import torchvision
    except RuntimeError:
        source = (Path(spec.origin).parent / "_meta_registrations.py").read_text()
        names = {*re.findall(r'register_meta\("(\w+)"\)', source), *re.findall(r'"torchvision::(\w+)"', source)}
        _KEPT.append(torch.library.Library("torchvision", "DEF"))
        for name in sorted(names):
            _KEPT[0].define(f"{name}() -> ()")
        import torchvision  # noqa: F401
