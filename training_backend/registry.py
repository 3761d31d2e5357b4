"""Launchers by name: built-in ones, and those that installed packages offer as entry points `molmo2.launchers`.

Belongs here: finding. Imports no torch.
"""

from __future__ import annotations

import difflib
from importlib.metadata import entry_points

from training_backend.api import Launcher
from training_backend.launch.local import LocalLauncher

_GROUP = "molmo2.launchers"


def launcher_names() -> list[str]:
    """Every launcher that can be asked for."""
    return sorted({"local", *(point.name for point in entry_points(group=_GROUP))})


def find_launcher(name: str) -> Launcher:
    """A launcher by name. Raises ValueError listing the known names and the nearest."""
    if name == "local":
        return LocalLauncher()
    for point in entry_points(group=_GROUP):
        if point.name == name:
            launcher: Launcher = point.load()()
            return launcher
    known = launcher_names()
    near = difflib.get_close_matches(name, known, n=1)
    hint = f"; did you mean {near[0]!r}?" if near else ""
    raise ValueError(f"There is no launcher {name!r}; known: {', '.join(known)}{hint}")
