"""From raw rows to examples: every row accounted for, equal bytes for equal input, nothing decided by the order of the source."""

from __future__ import annotations

import dataclasses
import json
import random
import shutil
from pathlib import Path
from typing import Any

import pytest

from molmo2_assets.ingest.adapters import ADAPTERS
from molmo2_assets.ingest.quarantine import QUARANTINE_FILE, by_reason
from molmo2_assets.ingest.rows import RawRow
from molmo2_assets.ingest.validate import SAMPLES_FILE, validate
from molmo2_assets.profile import MediaSpec
from tests.support.published_rows import rectangle
from tests.support.small_sets import picture_bytes, quiet, run, spec_of, write_film
from training_backend.data.example import Choices, Example
from training_backend.data.store import DATA_FILE, INDEX_FILE

ASK = "pixmo_ask_model_anything"


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A folder whose raw media are a.png, b.png, a page in place of page.png and a film."""
    media = tmp_path / "raw" / "media"
    media.mkdir(parents=True)
    (media / "a.png").write_bytes(picture_bytes(1))
    (media / "b.png").write_bytes(picture_bytes(2))
    (media / "page.png").write_bytes(b"<!DOCTYPE html><html>404</html>")
    write_film(media / "film.mp4")
    return tmp_path


def ask(picture: str, question: str, answer: str = "yes", **more: Any) -> dict[str, Any]:
    return {"image_url": f"https://pictures.invalid/{picture}.png", "question": question, "answer": answer, **more}


def files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def only(examples: Any) -> Example:
    (example,) = examples
    return example


# -- accounting -------------------------------------------------------------------------------------------------------------

MIXED: list[Any] = [
    ask("a", "one?"), b"GARBAGE", ask("a", "two?"), ask("b", ""), ask("gone", "three?"), ask("page", "four?"), ask("a", "one?"),
    ask("b", "five?", "a\x00b"), ask("b", "six?", image_sha256="0" * 64), {"question": "seven?"}, ask("b", "eight?"),
]  # fmt: skip


def test_every_row_is_kept_or_set_aside_with_its_reason(home: Path) -> None:
    done = run(spec_of(ASK, "image_qa", style="user_qa"), home, MIXED)
    assert done.reasons == {
        1: "not_json", 3: "empty_text", 4: "media_missing", 5: "media_not_an_image", 6: "duplicate", 7: "control_character",
        8: "media_checksum", 9: "missing_field",
    }  # fmt: skip
    report = done.report
    assert (report.rows_in, report.rows_ok, report.examples, report.rejected) == (11, 3, 2, False)
    assert report.rows_in == report.rows_ok + len(done.aside)
    assert report.quarantined == by_reason(done.aside)
    assert report.facts["bad_fraction"] == round(8 / 11, 6)
    assert report.facts["tasks"] == {"image_qa": 2}
    stages = [item.stage for item in done.aside]
    assert stages == ["parse", "layout", "media", "media", "cross", "contract", "media", "layout"]


def test_rows_about_one_picture_become_one_example_with_a_branch_each(home: Path) -> None:
    done = run(spec_of(ASK, "image_qa", style="user_qa"), home, MIXED)
    example = done.store.example(done.store.find("set/https://pictures.invalid/a.png") or 0)
    assert (example.id, example.task) == ("set/https://pictures.invalid/a.png", "image_qa")
    assert [branch.id for branch in example.branches] == ["one?", "two?"]
    assert (example.source.file, example.source.row) == ("rows.jsonl", 0)
    (medium,) = example.media
    assert (medium.id, medium.width, medium.height) == ("m0", 20, 10)
    assert medium.sha256 == done.records[medium.uri].sha256
    assert set(json.loads((done.folder / SAMPLES_FILE).read_bytes())) == {item.id for item in done.store}


def test_a_set_without_rows_is_empty_not_broken(home: Path) -> None:
    done = run(spec_of(ASK, "image_qa"), home, [])
    assert (done.report.rows_in, done.report.rows_ok, done.report.rejected, len(done.store)) == (0, 0, False, 0)
    (home / "raw" / "rows.jsonl").unlink()
    with pytest.raises(ValueError, match="set: its raw files hold no annotations that match a known type"):
        run(spec_of(ASK, "image_qa"), home)


def test_a_file_that_lost_a_column_stops_the_set(home: Path) -> None:
    (home / "raw" / "rows.csv").write_text("image_url,question\na,b\n")
    with pytest.raises(ValueError, match=r"rows\.csv lacks the columns \['image_sha256', 'answer'\]"):
        run(spec_of(ASK, "image_qa"), home)


@pytest.mark.parametrize("share", [0.25, 0.24])
def test_more_than_the_allowed_share_publishes_nothing(home: Path, share: float) -> None:
    rows = [ask("a", "one?"), ask("a", "two?"), ask("b", "three?"), b"GARBAGE"]
    done = run(spec_of(ASK, "image_qa", max_bad_fraction=share), home, rows)
    assert done.report.rejected == (share < 0.25)
    kept = {DATA_FILE, INDEX_FILE, QUARANTINE_FILE, SAMPLES_FILE}
    assert set(files(done.folder)) == ({QUARANTINE_FILE} if done.report.rejected else kept)
    assert (done.report.data_version == "rejected") == done.report.rejected
    assert (done.report.rows_in, done.report.rows_ok, done.reasons) == (4, 3, {3: "not_json"})


def test_a_row_that_its_adapter_did_not_foresee_is_set_aside(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    known = ADAPTERS[ASK]

    def read(row: RawRow, media: Any, context: Any) -> Any:
        return {}["nothing"] if row.data["question"] == "odd?" else known.read(row, media, context)

    monkeypatch.setitem(ADAPTERS, ASK, dataclasses.replace(known, read=read))
    done = run(spec_of(ASK, "image_qa"), home, [ask("a", "odd?"), ask("a", "even?")])
    assert done.reasons == {0: "wrong_type"}
    assert "KeyError" in done.aside[0].detail


# -- the same input, the same bytes ------------------------------------------------------------------------------------------


def test_equal_input_gives_equal_bytes(home: Path) -> None:
    first = run(spec_of(ASK, "image_qa"), home, MIXED)
    again = home / "again"
    again.mkdir()
    report = validate(spec_of(ASK, "image_qa"), first.raw, home / "media", again, quiet)
    assert files(again) == files(first.folder)
    assert report == first.report


GROUPS: list[Any] = [
    ask("a", "one?"), ask("b", "two?"), ask("a", "one?", "no"), ask("a", "one?"), ask("a", "zero?"), ask("b", "one?"), b"GARBAGE",
    ask("a", "one?", "maybe"),
]  # fmt: skip


@pytest.mark.parametrize("seed", range(3))
def test_the_order_of_the_source_changes_no_version(home: Path, seed: int) -> None:
    first = run(spec_of(ASK, "image_qa"), home, GROUPS)
    shuffled = GROUPS.copy()
    random.Random(seed).shuffle(shuffled)
    shutil.copytree(home / "raw" / "media", home / "second" / "raw" / "media")
    second = run(spec_of(ASK, "image_qa"), home / "second", shuffled)
    assert second.report.data_version == first.report.data_version
    assert second.report.quarantined == first.report.quarantined
    assert [item.branches for item in second.store] == [item.branches for item in first.store], "rows keep their numbers too"
    names = [branch.id for example in first.store for branch in example.branches]
    assert sorted(names) == ["one?", "one?", "one?~2", "one?~3", "two?", "zero?"]


def test_a_changed_word_changes_the_version_and_a_moved_file_does_not(home: Path) -> None:
    spec = spec_of(ASK, "image_qa")
    first = run(spec, home, [ask("a", "one?")]).report.data_version
    assert run(spec, home, [ask("a", "one!")]).report.data_version != first
    run(spec, home, [ask("a", "one?")])
    (home / "raw" / "rows.jsonl").rename(home / "raw" / "moved.jsonl")
    assert run(spec, home).report.data_version == first


# -- several rows about the same ---------------------------------------------------------------------------------------------


def subtitled(question: str, words: str) -> dict[str, Any]:
    return {
        "video_id": "film", "Question": question, "Answer": "a", "NegativeAnswers": ["b", "c"],
        "subtitle": [{"start": 0.0, "end": 1.0, "text": words}],
    }  # fmt: skip


@pytest.mark.parametrize("order", [[0, 1, 2], [2, 1, 0], [1, 2, 0]])
def test_rows_that_contradict_the_others_about_a_medium_are_conflicts(home: Path, order: list[int]) -> None:
    rows = [subtitled("one?", "hello"), subtitled("two?", "hello"), subtitled("one?", "goodbye")]
    spec = spec_of("molmo2_video_subtitle_qa", "video_subtitle_qa", MediaSpec(kind="folder", layout="media/{video_id}.mp4"))
    done = run(spec, home, [rows[place] for place in order])
    assert done.reasons == {order.index(2): "id_conflict"}, "also where it says word for word what another row says"
    example = only(done.store)
    assert [line.text for line in example.media[0].subtitles] == ["hello"]
    assert [branch.id for branch in example.branches] == ["one?", "two?"]


def test_of_two_equally_many_the_order_of_the_source_decides_nothing(home: Path) -> None:
    rows = [subtitled("one?", "hello"), subtitled("two?", "goodbye")]
    spec = spec_of("molmo2_video_subtitle_qa", "video_subtitle_qa", MediaSpec(kind="folder", layout="media/{video_id}.mp4"))
    first, second = run(spec, home, rows), run(spec, home, rows[::-1])
    assert list(first.reasons.values()) == list(second.reasons.values()) == ["id_conflict"]
    assert first.report.data_version == second.report.data_version


def test_rows_that_name_other_masks_for_the_same_points_are_conflicts(home: Path) -> None:
    def row(left: int) -> dict[str, Any]:
        mask = rectangle(left, 0, left + 2, 2, 20, 10)
        return {"image_url": "x/a.png", "label": "dot", "points": [{"x": 50.0, "y": 50.0}], "masks": [mask]}

    done = run(spec_of("pixmo_points_eval", "image_pointing"), home, [row(0), row(4), row(0)])
    assert done.reasons == {1: "id_conflict", 2: "duplicate"}


def test_accepted_answers_follow_their_branch(home: Path) -> None:
    """The same question may be asked twice of one chart: each branch keeps the answers that its own annotators gave."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    image = {"bytes": picture_bytes(), "path": "chart.png"}
    rows = [{"image": image, "query": "How high?", "label": [word] * 2, "human_or_machine": 0} for word in ("12", "14")]
    pq.write_table(pa.Table.from_pylist(rows), home / "raw" / "rows.parquet")
    done = run(spec_of("chart_qa", "document_qa", MediaSpec(kind="embedded")), home)
    example = only(done.store)
    said = {branch.id: branch.turns[-1].parts[0].text for branch in example.branches}  # type: ignore[union-attr]
    assert set(said) == {"How high?", "How high?~2"}
    assert example.meta["answers"] == {branch: [text, text] for branch, text in said.items()}


# -- media --------------------------------------------------------------------------------------------------------------------


def test_a_row_needs_all_of_its_media(home: Path) -> None:
    def row(*pictures: str) -> dict[str, Any]:
        return {"image_urls": [f"x/{name}.png" for name in pictures], "qa_pairs": {"question": ["one?"], "answer": ["yes"]}}

    rows = [row("a", "b"), row("a", "gone"), row("page", "b"), row("b", "a")]
    done = run(spec_of("molmo2_multi_image_qa", "multi_image_qa"), home, rows)
    assert done.reasons == {1: "media_missing", 2: "media_not_an_image"}
    assert [item.field for item in done.aside] == ["x/gone.png", "x/page.png"]
    assert {tuple(medium.id for medium in example.media) for example in done.store} == {("m0", "m1")}
    assert len({example.id for example in done.store}) == 2, "the order of pictures matters"


def test_a_medium_that_nobody_collected_sets_its_row_aside(home: Path) -> None:
    spec = spec_of(ASK, "image_qa")
    done = run(spec, home, [ask("a", "one?")])
    (home / "raw" / "rows.jsonl").write_text(json.dumps(ask("b", "one?")) + "\n")
    report = validate(spec, done.raw, home / "media", done.folder, quiet)
    assert report.quarantined == {"media_missing": 1}


def test_options_are_stored_in_an_order_that_tells_nothing(home: Path) -> None:
    spec = spec_of("molmo2_video_cap_qa", "video_qa", MediaSpec(kind="folder", layout="media/{video_id}.mp4"))
    rows = [{"video_id": "film", "Question": f"{n}?", "Answer": "a", "NegativeAnswers": ["b", "c", "d"]} for n in range(40)]
    example = only(run(spec, home, rows).store)
    places = [part.answer for branch in example.branches for part in branch.turns[-1].parts if isinstance(part, Choices)]
    assert len(places) == 40
    assert set(places) == {0, 1, 2, 3}
