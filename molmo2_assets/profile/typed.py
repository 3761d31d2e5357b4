"""From written values to typed structs, with every problem found on the way.

Belongs here: turning a `Node` into a struct of a given type. Does not belong here: what values mean together (`checks.py`).

msgspec alone would stop at the first mistake and could not say in which line it is.
"""

from __future__ import annotations

from collections.abc import Hashable
from functools import lru_cache
from types import NoneType, UnionType
from typing import Any, Literal, TypeVar, Union, cast, get_args, get_origin

import msgspec

from molmo2_assets.profile.document import Node, Problem, nearest, unknown

T = TypeVar("T")


def typed(node: Node, kind: type[T], place: str, problems: list[Problem], *, inject: dict[str, Any] | None = None) -> T | None:
    """`node`, called `place` in messages, as a `kind`; None after adding its problems.

    `inject` gives fields of a struct that are never written (its name, where that is the key above it).
    """
    before = len(problems)
    _check(node, kind, place, problems, frozenset(inject or ()))
    if len(problems) > before:
        return None
    value = node.plain()
    return msgspec.convert({**value, **inject} if inject else value, kind)


@lru_cache(maxsize=64)
def _fields(kind: Hashable) -> dict[str, msgspec.structs.FieldInfo]:
    return {field.encode_name: field for field in msgspec.structs.fields(cast(type[msgspec.Struct], kind))}


def _check(node: Node, kind: Any, place: str, problems: list[Problem], injected: frozenset[str] = frozenset()) -> None:
    if isinstance(kind, type) and issubclass(kind, msgspec.Struct):
        _check_struct(node, kind, place, problems, injected)
        return
    origin, arguments = get_origin(kind), get_args(kind)
    if origin in (Union, UnionType):
        if node.value is None and NoneType in arguments:
            return
        rest = [argument for argument in arguments if argument is not NoneType]
        if len(rest) == 1:
            _check(node, rest[0], place, problems)
            return
    elif origin is dict and arguments[1] is not Any:
        if _expect_mapping(node, place, problems):
            for key, child in node.fields.items():
                _check(child, arguments[1], _join(place, key), problems)
        return
    elif origin is tuple and arguments[-1] is Ellipsis and isinstance(node.value, list):
        for number, child in enumerate(node.value):
            _check(child, arguments[0], f"{place}[{number}]", problems)
        return
    elif origin is Literal:
        if not isinstance(node.value, str) or node.value not in arguments:
            text = f"{place} is {_say(node.value)}; known: {', '.join(arguments)}.{nearest(str(node.value), arguments)}"
            problems.append(Problem(node.mark, text))
        return
    try:
        msgspec.convert(node.plain(), kind)
    except msgspec.ValidationError as error:
        reason = str(error).replace("`", "").partition(" - at ")[0]
        problems.append(Problem(node.mark, f"{place}: {reason[0].lower()}{reason[1:]} ({_say(node.value)} stands there)"))


def _check_struct(node: Node, kind: type[Any], place: str, problems: list[Problem], injected: frozenset[str]) -> None:
    if not _expect_mapping(node, place, problems):
        return
    fields = _fields(cast(Hashable, kind))
    writable = [name for name in fields if name not in injected]
    for key, child in node.fields.items():
        if key not in writable:
            problems.append(Problem(child.mark, f"{_join(place, key)}: {unknown('field', key, writable)}"))
        else:
            _check(child, fields[key].type, _join(place, key), problems)
    missing = [name for name in writable if fields[name].required and name not in node.fields]
    if missing:
        problems.append(Problem(node.mark, f"{place or 'this'} lacks {', '.join(missing)}"))


def _expect_mapping(node: Node, place: str, problems: list[Problem]) -> bool:
    if isinstance(node.value, dict):
        return True
    problems.append(Problem(node.mark, f"{place}: a mapping of names to values is expected, {_say(node.value)} stands there"))
    return False


def _join(place: str, key: str) -> str:
    return f"{place}.{key}" if place else key


def _say(value: Any) -> str:
    if value is None:
        return "nothing"
    if isinstance(value, dict):
        return "a mapping"
    if isinstance(value, list):
        return "a list"
    return repr(value) if isinstance(value, str) else str(value).lower() if isinstance(value, bool) else str(value)
