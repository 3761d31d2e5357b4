"""Rows that were set aside, judged again after something changed."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from molmo2_assets.ingest import contracts
from molmo2_assets.ingest.replay import WHOLE_SET, replay
from molmo2_assets.sources.media import collect_media
from tests.support.small_sets import picture_bytes, quiet, run, spec_of
from training_backend.data.media import MediaCache

SPEC = spec_of("pixmo_ask_model_anything", "image_qa")


def test_each_row_is_judged_by_what_holds_now(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    media = tmp_path / "raw" / "media"
    media.mkdir(parents=True)
    (media / "a.png").write_bytes(picture_bytes(1))

    def ask(name: str, question: str, answer: str = "yes") -> dict[str, object]:
        return {"image_url": f"x/{name}.png", "image_sha256": None, "question": question, "answer": answer}

    rows = [ask("a", "1?"), b"GARBAGE", ask("late", "2?"), ask("gone", "3?"), ask("a", "1?"), ask("a", "4?", "x" * 60_001)]
    done = run(SPEC, tmp_path, rows)
    before = ["not_json", "media_missing", "media_missing", "duplicate", "text_too_long"]
    assert [item.reason for item in done.aside] == before
    assert [item.now for item in replay(SPEC, done.raw, tmp_path / "media", done.aside)] == [
        "not_json", "media_missing", "media_missing", WHOLE_SET, "text_too_long",
    ]  # fmt: skip
    (media / "late.png").write_bytes(picture_bytes(2))
    collect_media(SPEC, done.raw, MediaCache(tmp_path / "cache"), tmp_path / "media", quiet)
    monkeypatch.setitem(contracts._RANGE, "max_text", ("text_too_long", None, 70_000))
    contracts._contract.cache_clear()
    try:
        found = replay(SPEC, done.raw, tmp_path / "media", done.aside)
    finally:
        monkeypatch.undo()
        contracts._contract.cache_clear()
    assert [(item.row, item.before) for item in found] == list(zip(range(1, 6), before, strict=True))
    assert [item.now for item in found] == ["not_json", None, "media_missing", WHOLE_SET, None]
    lines = (done.raw / "rows.jsonl").read_bytes().splitlines(keepends=True)
    (done.raw / "rows.jsonl").write_bytes(b"".join(lines[:3]))
    assert [item.now for item in replay(SPEC, done.raw, tmp_path / "media", done.aside)][2:] == ["gone"] * 3
    json.dumps([item.now for item in found])
