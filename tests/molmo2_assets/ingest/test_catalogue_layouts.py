"""Every layout of the catalogue: a small file in its published form becomes the examples that a person wrote down."""

from __future__ import annotations

import hashlib
from pathlib import Path

import msgspec
import pytest

from molmo2_assets.profile import catalogue
from molmo2_assets.sources import fetch
from tests.support.laid_out import PUBLISHED, lay_out, layout_of
from tests.support.layouts import Published, Read, read, write
from tests.support.layouts_videos import MASK
from tests.support.published_rows import LAYOUTS
from tests.support.small_sets import quiet, run
from training_backend.data.example import Subtitle

ENTRIES = catalogue().datasets


@pytest.fixture
def places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("MOLMO2_MANUAL", str(tmp_path / "kept"))
    (tmp_path / "raw").mkdir()
    return tmp_path


def made(name: str, places: Path) -> Read:
    """What entry `name` makes of its fixture."""
    published, spec = PUBLISHED[name], ENTRIES[name]
    write(places / "raw", published.files)
    write(places / "kept" / (spec.media.path or "."), published.kept)
    return read(spec, places / "raw")


def keyed(published: Published, text: bool) -> dict[str, list[tuple[str, str | None, str]]]:
    """What is expected; texts without media are named by their words."""
    if not text:
        return published.expected
    said = next(iter(published.expected.values()))
    return {hashlib.blake2b(str(said[0][1]).encode(), digest_size=16).hexdigest(): said}


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_files_become_the_examples_that_they_mean(name: str, places: Path) -> None:
    published, spec, found = PUBLISHED[name], ENTRIES[name], made(name, places)
    assert found.said == keyed(published, spec.adapter == "text_questions")
    assert found.aside == published.aside


def test_every_distinct_layout_has_a_fixture_or_a_row() -> None:
    covered = {layout_of(ENTRIES[name]) for name in PUBLISHED}
    bare = [
        name
        for name, spec in ENTRIES.items()
        if layout_of(spec) not in covered and (spec.adapter_params or spec.source.tables or spec.adapter not in LAYOUTS)
    ]
    assert bare == []


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name, spec in ENTRIES.items() if spec.source.kind not in ("generated", "package")])
def test_every_set_becomes_examples_from_files_and_media_on_disk(name: str, tmp_path: Path) -> None:
    """The whole way: files in place, media found where the entry looks for them, probed, contracts, rows written."""
    spec = lay_out(ENTRIES[name], tmp_path / "kept")
    fetch(spec, tmp_path / "raw", quiet)
    done = run(spec, tmp_path)
    meant = {"not_selected"} if spec.select is not None else set(PUBLISHED[name].aside if name in PUBLISHED else ())
    assert done.report.rows_ok or (meant and set(done.report.quarantined) == meant)
    assert done.report.rows_in == done.report.rows_ok + sum(done.report.quarantined.values()) > 0


def test_subtitles_are_cut_to_the_clip_and_count_from_its_start(places: Path) -> None:
    (film,) = made("tvqa", places).media
    assert film.subtitles == (Subtitle(start=0.0, end=0.5, text="Hello."), Subtitle(start=1.0, end=1.5, text="Bob?"))


def test_subtitles_of_a_whole_film_beside_a_clip_of_it(places: Path) -> None:
    (film,) = made("long_video_bench", places).media
    assert film.subtitles == (Subtitle(start=0.0, end=2.0, text="Ann?"), Subtitle(start=3.5, end=5.0, text="Bob."))


def test_masks_beside_the_rows_are_kept_by_track_and_second(places: Path) -> None:
    assert made("mevis_valid_u", places).meta == [{"masks": {"0": {"0.0": MASK, "0.5": MASK}}}]


def test_all_answers_are_kept_for_scoring(places: Path) -> None:
    (meta,) = made("vqa_v2", places).meta
    assert meta == {"answers": {"What floats?": ["boat", "ship", *["boat"] * 8], "Which colour?": ["red"] * 10}}


@pytest.mark.parametrize("layout", ["assumed", "confirmed"])
def test_other_columns_than_the_entry_says_are_one_plain_error(layout: str, tmp_path: Path) -> None:
    spec = msgspec.structs.replace(ENTRIES["coin"], layout=layout)
    rows = {"database": {"c": {"subset": "training", "annotation": [{"segment": [1, 2], "name": "pour"}]}}}
    write(tmp_path, {"COIN.json": rows})
    with pytest.raises(ValueError, match=r"COIN\.json lacks the columns \['label'\]; its rows have") as caught:
        read(spec, tmp_path)
    assert ("is assumed, not confirmed" in str(caught.value)) == (layout == "assumed")
