"""YAML as values that know where they were written: reading, deep merging, pointing at a line.

Belongs here: `Node`, the YAML subset, `extends`-style merging. Does not belong here: what any key means.

The subset is YAML 1.2's core: plain `null`, `true`, `false`, integers and numbers (also `1e-4`, which YAML 1.1 reads as a word);
everything else is text, so `on`, `no` and `12:30` are words. Keys are words and appear once.
"""

from __future__ import annotations

import difflib
import os
import re
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import yaml

_Loader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_INTEGER = re.compile(r"[-+]?[0-9]+(_[0-9]+)*")
_NUMBER = re.compile(r"[-+]?([0-9]+(_[0-9]+)*\.?[0-9]*|\.[0-9]+)([eE][-+]?[0-9]+)?")
_SHOWN = 24
_QUOTED = ("'", '"', "|", ">")
_WORDS: dict[str, Any] = {"": None, "~": None, "null": None, "true": True, "false": False}


@dataclass(frozen=True, slots=True)
class Mark:
    """A line (from 1) of a file."""

    path: Path
    line: int

    def __str__(self) -> str:
        relative = os.path.relpath(self.path)
        return f"{self.path if relative.startswith('..') else relative}:{self.line}"


@dataclass(frozen=True, slots=True)
class Problem:
    """Something wrong at a place."""

    mark: Mark
    text: str

    def __str__(self) -> str:
        return f"{self.mark}: {self.text}"


class ProfileError(ValueError):
    """A catalogue or profile that cannot be used; every problem found, one line each, with file and line where there is one."""

    def __init__(self, problems: Iterable[Problem | str]) -> None:
        self.problems = tuple(str(problem) for problem in problems)
        super().__init__("\n".join(self.problems))


@dataclass(frozen=True, slots=True)
class Node:
    """A mapping (dict of nodes), a list (of nodes) or a scalar, and the line where it begins."""

    value: Any
    mark: Mark

    @property
    def fields(self) -> dict[str, Node]:
        """Children of a mapping; nothing for anything else."""
        return self.value if isinstance(self.value, dict) else {}

    def child(self, key: str | int) -> Node | None:
        """The entry of a mapping or list, or None."""
        if isinstance(key, str):
            return self.fields.get(key)
        return self.value[key] if isinstance(self.value, list) and key < len(self.value) else None

    def plain(self) -> Any:
        """The value without its marks."""
        if isinstance(self.value, dict):
            return {key: child.plain() for key, child in self.value.items()}
        if isinstance(self.value, list):
            return [child.plain() for child in self.value]
        return self.value

    def at(self, *path: str | int) -> Mark:
        """Where `path` is written, or the nearest thing above it that is written."""
        node = self
        for key in path:
            child = node.child(key)
            if child is None:
                break
            node = child
        return node.mark


@dataclass(frozen=True, slots=True)
class Site:
    """A node under examination: problems are reported at a path below it."""

    node: Node
    problems: list[Problem]
    prefix: str = ""

    def add(self, text: str, *path: str | int) -> None:
        """Report `text` where `path` is written."""
        self.problems.append(Problem(self.node.at(*path), self.prefix + text))

    def below(self, *path: str | int) -> Site:
        """The same for what `path` leads to, if it is there; else for the nearest thing above it."""
        node = self.node
        for key in path:
            node = node.child(key) or node
        return Site(node, self.problems, self.prefix)


def merge(base: Node, over: Node) -> Node:
    """`over` on top of `base`: mappings merge by key, everything else replaces.

    A null replaces too and stays, so that it can still take away what a later layer has below it; `without_nulls` ends that.
    """
    if not isinstance(base.value, dict) or not isinstance(over.value, dict):
        return over
    merged = dict(base.value)
    for key, child in over.value.items():
        merged[key] = merge(merged[key], child) if key in merged else child
    return Node(merged, over.mark)


def without_nulls(node: Node) -> Node:
    """Keys whose value is null are as good as not written."""
    if not isinstance(node.value, dict):
        return node
    return Node({key: without_nulls(child) for key, child in node.value.items() if child.value is not None}, node.mark)


def read_yaml(path: Path) -> Node:
    """The document in `path`, a mapping. Raises ProfileError with every duplicate key, or the syntax error, and its line."""
    try:
        stamp = path.stat()
    except OSError as error:
        raise ProfileError([f"{path} cannot be read: {error.strerror}"]) from None
    return _read(path, stamp.st_mtime_ns, stamp.st_size)


@lru_cache(maxsize=256)
def _read(path: Path, _changed: int, _bytes: int) -> Node:
    try:
        root = yaml.compose(path.read_text(encoding="utf-8"), Loader=_Loader)
    except UnicodeDecodeError as error:
        raise ProfileError([f"{path} is not UTF-8 text (byte {error.start})"]) from None
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = mark.line + 1 if mark else 1
        raise ProfileError([Problem(Mark(path, line), f"this is not YAML: {error.problem or error.context}")]) from None
    except yaml.YAMLError as error:
        raise ProfileError([f"{path} is not YAML: {error}"]) from None
    if root is None:
        return Node({}, Mark(path, 1))
    problems: list[Problem] = []
    node = _convert(root, path, problems)
    if not problems and not isinstance(node.value, dict):
        problems.append(Problem(node.mark, "a mapping of names to values is expected here"))
    if problems:
        raise ProfileError(problems)
    return node


def _convert(node: yaml.Node, path: Path, problems: list[Problem]) -> Node:
    mark = Mark(path, node.start_mark.line + 1)
    if isinstance(node, yaml.ScalarNode):
        return Node(_scalar(node), mark)
    if isinstance(node, yaml.SequenceNode):
        return Node([_convert(child, path, problems) for child in node.value], mark)
    fields: dict[str, Node] = {}
    for key, child in node.value:
        here = Mark(path, key.start_mark.line + 1)
        if not isinstance(key, yaml.ScalarNode):
            problems.append(Problem(here, "a key must be a word"))
        elif key.value in fields:
            problems.append(Problem(here, f"{key.value} stands here a second time (first in line {fields[key.value].mark.line})"))
        else:
            converted = _convert(child, path, problems)
            # A block value starts on the line after its key; the key's line is what a reader looks for.
            fields[key.value] = Node(converted.value, here)
    return Node(fields, mark)


def _scalar(node: yaml.ScalarNode) -> Any:
    text = node.value
    if node.style in _QUOTED:
        return text
    if text in _WORDS:
        return _WORDS[text]
    if _INTEGER.fullmatch(text):
        return int(text)
    if _NUMBER.fullmatch(text):
        return float(text)
    return text


def nearest(name: str, known: Iterable[str]) -> str:
    """` Did you mean x?` for the nearest known name, or nothing."""
    close = difflib.get_close_matches(name, list(known), n=1, cutoff=0.6)
    return f" Did you mean {close[0]}?" if close else ""


def unknown(what: str, name: str, known: Iterable[str]) -> str:
    """One line on a name that nobody knows: what is known (the first of them, where there are many), and the nearest."""
    names = sorted(known)
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return f"unknown {what} {name!r}; known: {', '.join(names[:_SHOWN]) or 'none'}{more}.{nearest(name, names)}"
