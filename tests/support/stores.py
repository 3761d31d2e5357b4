"""Small validated stores for tests: rows written by the real writer, with a manifest beside them."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from training_backend.data.example import SCHEMA, Branch, Example, Media, Source, Text, Turn
from training_backend.data.manifest import Manifest
from training_backend.data.store import RowWriter


def image(sha256: str) -> Media:
    """A picture whose bytes have this (short, made up) hash."""
    return Media(id="m0", kind="image", uri=f"{sha256}.png", sha256=sha256.ljust(64, "0"), width=84, height=84)


def example(number: int, question: str | None, *media: Media, task: Any = "image_qa", answer: str = "yes") -> Example:
    """One question and its answer."""
    asked = (Turn(role="user", parts=(Text(text=question),)),) if question is not None else ()
    turns = (*asked, Turn(role="assistant", parts=(Text(text=answer),)))
    return Example(
        id=f"row-{number}",
        schema=SCHEMA,
        task=task,
        source=Source(file="rows.jsonl", row=number),
        media=media,
        branches=(Branch(id="b0", style="user_qa", turns=turns),),
    )


def write_store(folder: Path, name: str, examples: Iterable[Example]) -> tuple[Path, Manifest]:
    """`folder/name` as a validated asset folder; its manifest is returned, not written."""
    with RowWriter(folder / name) as writer:
        for row in examples:
            writer.add(row)
    assert writer.info is not None
    manifest = Manifest(
        kind="validated",
        key=f"validated/{name}",
        recipe={},
        recipe_fingerprint="0" * 64,
        data_version=writer.info.data_version,
        code_version="1",
        counts={"rows_ok": writer.info.rows},
    )
    return folder / name, manifest
