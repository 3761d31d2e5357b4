"""Words and tables that all commands share.

Belongs here: the error a person can put right, names that nobody knows, printing rows as a table or JSON. Does not belong here: any
command.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from molmo2_assets.profile.document import unknown

if TYPE_CHECKING:
    from molmo2_assets.home import Home
    from molmo2_assets.profile import Profile

NOTHING_YET = "nothing was materialised yet: run `make demo`"
_WIDEST = 72

__all__ = ["NOTHING_YET", "UserError", "known", "load", "print_json", "print_rows", "unknown"]


class UserError(Exception):
    """Something a person can put right; printed as one line, exit code 2."""


def load(options: Any) -> tuple[Profile, Home]:
    """The profile that was asked for, and where its things lie."""
    from molmo2_assets.home import find_home
    from molmo2_assets.profile import load_profile

    profile = load_profile(options.profile)
    return profile, find_home(profile.name)


def known(name: str, names: Iterable[str], what: str) -> str:
    """`name`, if it is one of `names`. Raises UserError naming what is known and the nearest."""
    names = list(names)
    if name not in names:
        raise UserError(unknown(what, name, names))
    return name


def print_json(value: Any) -> None:
    print(json.dumps(value, indent=1, default=str))


def print_rows(options: Any, rows: Sequence[dict[str, Any]], columns: Sequence[str], empty: str = "nothing to list") -> None:
    """Rows as JSON with `--json`, else as a table of `columns`, else the sentence `empty`."""
    if options.json:
        print_json(list(rows))
        return
    if not rows:
        print(empty)
        return
    cells = [[_cell(row.get(column)) for column in columns] for row in rows]
    widths = [max(len(column), *(len(row[place]) for row in cells)) for place, column in enumerate(columns)]
    for line in [list(columns), *cells]:
        print("  ".join(text.ljust(width) for text, width in zip(line, widths, strict=True)).rstrip())


def _cell(value: Any) -> str:
    if value is None:
        return "–"
    if isinstance(value, float):
        return f"{value:.4g}"
    text = " ".join(str(value).split())
    return text if len(text) <= _WIDEST else text[: _WIDEST - 1] + "…"
