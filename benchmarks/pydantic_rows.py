"""The peer of `validate`: a row as pydantic models, with the constraints of `training_backend.data.example` and of the contract.

Belongs here: models only. What they check of one row is what the contract checks of one pointing row: types, no unknown fields,
finite coordinates inside the frame, words in every text, turns in order. Not what neither can see in one row: repeated ids.
"""

from __future__ import annotations

import itertools
from typing import Annotated, Any, Literal, NotRequired

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, model_validator
from typing_extensions import TypedDict

Fraction = Annotated[float, Field(ge=0.0, le=1.0, allow_inf_nan=False)]
_CONTROL = r"\x00-\x08\x0b\x0c\x0e-\x1f\x7f"
Words = Annotated[str, Field(min_length=1, max_length=60_000, pattern=rf"^[^{_CONTROL}]*\S[^{_CONTROL}]*$")]


class _Row(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Source(_Row):
    file: str
    row: int


class Media(_Row):
    id: str
    kind: Literal["image", "video", "frames"]
    uri: str
    sha256: str
    width: int
    height: int
    duration: float | None = None
    fps: float | None = None
    n_frames: int | None = None
    clip: tuple[float, float] | None = None
    subtitles: tuple[()] = ()


class Point(_Row):
    x: Fraction
    y: Fraction
    id: int
    image: int = Field(0, ge=0)


class Text(_Row):
    type: Literal["text"]
    text: Words


class Points(_Row):
    type: Literal["points"]
    label: Words
    points: tuple[Point, ...]


class Count(_Row):
    type: Literal["count"]
    label: Words
    count: int = Field(ge=0)


Part = Annotated[Text | Points | Count, Field(discriminator="type")]


class Turn(_Row):
    role: Literal["system", "user", "assistant"]
    parts: tuple[Part, ...] = Field(min_length=1)


class Branch(_Row):
    id: str
    style: str
    turns: tuple[Turn, ...] = Field(min_length=1)
    weight: float = 1.0

    @model_validator(mode="after")
    def _roles(self) -> Branch:
        roles = [turn.role for turn in self.turns if turn.role != "system"]
        if roles[-1:] != ["assistant"] or any(a == b for a, b in itertools.pairwise(roles)):
            raise ValueError("turns do not alternate")
        return self


class Row(_Row):
    id: str
    schema_: Literal["molmo2/1"] = Field(alias="schema")
    task: Literal["image_pointing", "counting"]
    source: Source
    media: tuple[Media, ...] = Field(min_length=1)
    branches: tuple[Branch, ...] = Field(min_length=1)
    meta: dict[str, Any] = {}


# The same without objects, the fastest that pydantic offers: no rule that needs Python.

_STRICT = ConfigDict(extra="forbid")


class _Source(TypedDict):
    __pydantic_config__ = _STRICT  # type: ignore[misc]
    file: str
    row: int


class _Media(TypedDict):
    __pydantic_config__ = _STRICT  # type: ignore[misc]
    id: str
    kind: Literal["image", "video", "frames"]
    uri: str
    sha256: str
    width: int
    height: int
    duration: NotRequired[float | None]
    fps: NotRequired[float | None]
    n_frames: NotRequired[int | None]
    clip: NotRequired[tuple[float, float] | None]
    subtitles: NotRequired[tuple[()]]


class _Point(TypedDict):
    __pydantic_config__ = _STRICT  # type: ignore[misc]
    x: Fraction
    y: Fraction
    id: int
    image: NotRequired[Annotated[int, Field(ge=0)]]


class _Text(TypedDict):
    __pydantic_config__ = _STRICT  # type: ignore[misc]
    type: Literal["text"]
    text: Words


class _Points(TypedDict):
    __pydantic_config__ = _STRICT  # type: ignore[misc]
    type: Literal["points"]
    label: Words
    points: list[_Point]


class _Count(TypedDict):
    __pydantic_config__ = _STRICT  # type: ignore[misc]
    type: Literal["count"]
    label: Words
    count: Annotated[int, Field(ge=0)]


class _Turn(TypedDict):
    __pydantic_config__ = _STRICT  # type: ignore[misc]
    role: Literal["system", "user", "assistant"]
    parts: Annotated[list[Annotated[_Text | _Points | _Count, Field(discriminator="type")]], Field(min_length=1)]


class _Branch(TypedDict):
    __pydantic_config__ = _STRICT  # type: ignore[misc]
    id: str
    style: str
    turns: Annotated[list[_Turn], Field(min_length=1)]
    weight: NotRequired[float]


class _TypedRow(TypedDict):
    __pydantic_config__ = _STRICT  # type: ignore[misc]
    id: str
    schema: Literal["molmo2/1"]
    task: Literal["image_pointing", "counting"]
    source: _Source
    media: Annotated[list[_Media], Field(min_length=1)]
    branches: Annotated[list[_Branch], Field(min_length=1)]
    meta: NotRequired[dict[str, Any]]


TYPED_ROW: TypeAdapter[Any] = TypeAdapter(_TypedRow)
