"""What holds for every generated set: rows, media, reproducible bytes, parameters, planned faults; and the text set."""

from __future__ import annotations

import re
from collections import Counter
from hashlib import sha256
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from molmo2_assets.sources.generated import GENERATORS, content, generate, planned_faults, resolve
from molmo2_assets.sources.outcome import SourceError
from tests.support.published_sets import SIDE, SMALL, Sets, film, rows_of


@pytest.mark.parametrize("name", GENERATORS)
def test_rows_are_as_many_as_asked_and_all_media_decode(whole_sets: Sets, name: str) -> None:
    folder = whole_sets[name]
    assert len(rows_of(folder)) == SMALL
    for path in sorted((folder / "media").glob("*")) if (folder / "media").is_dir() else []:
        if path.suffix == ".png":
            assert np.asarray(Image.open(path)).shape == (SIDE, SIDE, 3)
        else:
            frames = film(folder, path.stem)
            assert frames[0].shape == (SIDE, SIDE, 3)
            assert 24 <= len(frames) <= 48


def hashes(folder: Path) -> dict[str, str]:
    return {
        path.relative_to(folder).as_posix(): sha256(path.read_bytes()).hexdigest() for path in folder.rglob("*") if path.is_file()
    }


@pytest.mark.parametrize("name", ["shapes_points", "charts_qa", "clips_track", "tiny_text"])
def test_equal_parameters_give_equal_bytes_and_other_seeds_other_ones(whole_sets: Sets, tmp_path: Path, name: str) -> None:
    generate(name, {"n": SMALL, "faults": 0.0}, tmp_path / "again", lambda line: None)
    generate(name, {"n": SMALL, "faults": 0.0, "seed": 5}, tmp_path / "other", lambda line: None)
    assert hashes(tmp_path / "again") == hashes(whole_sets[name])
    assert not set(hashes(tmp_path / "other").values()) & set(hashes(whole_sets[name]).values())


@pytest.mark.parametrize("name", ["clips_points", "clips_track"])
def test_processes_make_what_one_makes(whole_sets: Sets, tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(content, "MANY_FILMS", 1)
    monkeypatch.setattr(content, "processors", lambda: 2)
    made = generate(name, {"n": SMALL, "faults": 0.0}, tmp_path, lambda line: None)
    assert hashes(tmp_path) == hashes(whole_sets[name])
    assert made.facts["media_files"] == len(list((tmp_path / "media").iterdir()))


@pytest.mark.parametrize("name", ["shapes_count", "clips_qa"])
def test_fewer_rows_are_the_first_ones(whole_sets: Sets, tmp_path: Path, name: str) -> None:
    generate(name, {"n": 7, "faults": 0.0}, tmp_path, lambda line: None)
    assert rows_of(tmp_path) == rows_of(whole_sets[name])[:7]


def test_no_picture_or_film_is_in_two_sets(whole_sets: Sets) -> None:
    found = Counter(
        sha256(path.read_bytes()).hexdigest() for folder in whole_sets.values() for path in (folder / "media").glob("*")
    )
    assert found.most_common(1)[0][1] == 1
    names = Counter(path.name for folder in whole_sets.values() for path in (folder / "media").glob("*"))
    assert names.most_common(1)[0][1] == 1


def test_parameters_are_checked() -> None:
    with pytest.raises(SourceError, match="no generator called 'shapes_nothing'"):
        resolve("shapes_nothing", {})
    with pytest.raises(SourceError, match="no parameter 'rows'"):
        resolve("shapes_cap", {"rows": 3})
    for given in ({"n": 0}, {"n": 2.5}, {"size": 85}, {"size": 8}, {"faults": 0.9}, {"seed": "a"}, {"split": "../x"}):
        with pytest.raises(SourceError, match="shapes_cap needs"):
            resolve("shapes_cap", given)


def test_text_is_distinct_and_right(tmp_path: Path) -> None:
    generate("tiny_text", {"n": 500, "faults": 0.0}, tmp_path, lambda line: None)
    rows = rows_of(tmp_path)
    assert len({row["id"] for row in rows}) == 500
    pairs = []
    for row in rows:
        turns = [message for message in row["messages"] if message["role"] != "system"]
        assert [message["role"] for message in turns] == ["user", "assistant"] * (len(turns) // 2)
        pairs += [(turns[i]["content"], turns[i + 1]["content"]) for i in range(0, len(turns), 2)]
    assert len({question for question, _ in pairs}) == len(pairs)
    signs = {"plus": lambda a, b: a + b, "minus": lambda a, b: a - b, "times": lambda a, b: a * b}
    sums = 0
    for question, answer in pairs:
        if found := re.fullmatch(r"What is (\d+) (plus|minus|times) (\d+)\?", question):
            assert answer == str(signs[found[2]](int(found[1]), int(found[3])))
            sums += 1
        elif question.startswith("Sort these words: "):
            assert answer.split(", ") == sorted(question.removeprefix("Sort these words: ").split(", "))
        elif question.startswith("Repeat after me: "):
            assert question.endswith(answer)
        elif question.startswith("How many letters"):
            assert answer == str(len(question.split()[-2]))
    assert sums > 80


BREAKABLE = [name for name, made in GENERATORS.items() if made.faults]


@pytest.mark.parametrize("name", BREAKABLE)
def test_exactly_the_planned_rows_are_broken(whole_sets: Sets, tmp_path: Path, name: str) -> None:
    given = {"n": SMALL, "faults": 0.5}
    generate(name, given, tmp_path, lambda line: None)
    plan = planned_faults(name, given)
    assert len(plan) == SMALL // 2
    kinds = {kind.kind for kind in GENERATORS[name].load(GENERATORS[name].faults or "")}
    assert {fault.kind for fault in plan} == kinds
    whole, broken = rows_of(whole_sets[name]), rows_of(tmp_path)
    changed = {row for row in range(SMALL) if repr(whole[row]) != repr(broken[row])}
    assert changed == {fault.row for fault in plan}
    for fault in plan:
        if fault.kind == "duplicate":
            assert any(repr(broken[fault.row]) == repr(earlier) for earlier in broken[: fault.row])
        else:
            assert repr(whole[fault.row][fault.field]) != repr(broken[fault.row][fault.field])


@pytest.mark.parametrize(("name", "column", "suffix"), [("shapes_cap", "image_url", ""), ("clips_cap", "video_id", ".mp4")])
def test_media_faults_break_media_of_their_own(whole_sets: Sets, tmp_path: Path, name: str, column: str, suffix: str) -> None:
    given = {"n": SMALL, "faults": 0.5}
    generate(name, given, tmp_path, lambda line: None)
    before = {path.name: path.read_bytes() for path in (whole_sets[name] / "media").iterdir()}
    after = {path.name: path.read_bytes() for path in (tmp_path / "media").iterdir()}
    assert before.items() <= after.items()
    whole, broken = rows_of(whole_sets[name]), rows_of(tmp_path)
    seen = set()
    for fault in planned_faults(name, given):
        old, new = (rows[fault.row][column].rsplit("/", 1)[-1] + suffix for rows in (whole, broken))
        seen.add(fault.kind)
        if fault.kind == "missing_media":
            assert new not in after
        elif fault.kind == "html_for_image":
            assert after[new].startswith(b"<!DOCTYPE html>")
        elif fault.kind == "empty_file":
            assert after[new] == b""
        elif fault.kind == "truncated_image":
            assert before[old].startswith(after[new])
            with pytest.raises(OSError, match="truncated"):
                Image.open(BytesIO(after[new])).load()
        elif fault.kind == "truncated_video":
            assert before[old].startswith(after[new])
            assert readable_frames(tmp_path, new) < len(film(whole_sets[name], old[:-4]))
    assert {"missing_media", "duplicate", "truncated_image" if not suffix else "truncated_video"} <= seen


def readable_frames(folder: Path, file: str) -> int:
    """How many frames of a damaged film can be decoded."""
    import av

    count = 0
    try:
        with av.open(str(folder / "media" / file)) as container:
            for _ in container.decode(video=0):
                count += 1
    except av.FFmpegError:
        return count
    return count


def test_a_set_without_faults_plans_none() -> None:
    assert planned_faults("shapes_points_eval") == ()
    assert planned_faults("shapes_points", {"faults": 0.0}) == ()
    default = planned_faults("shapes_points")
    assert len(default) == round(0.02 * GENERATORS["shapes_points"].n)
    assert len({fault.row for fault in default}) == len(default)
