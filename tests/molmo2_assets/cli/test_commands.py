"""Every command as table and as JSON, on a home that `molmo2 demo` made, and on one where nothing was made."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import msgspec
import pytest

from molmo2_assets.cli import main
from molmo2_assets.home import Home
from molmo2_assets.ingest.media_table import MEDIA_FILE, read_media, write_media
from tests.support.homes import environment, molmo2, publish
from training_backend.data.example import SCHEMA, Branch, Example, Source, Text, Turn
from training_backend.data.manifest import Manifest
from training_backend.data.store import RowWriter

from .conftest import Run

SETS = ["shapes_cap", "shapes_points", "tiny_text", "shapes_points_eval"]


def test_demo_says_what_it_made_and_where_to_look(small_home: Path) -> None:
    said = (small_home / "output.txt").read_text()
    assert "  [ 20/20] scoreboard" in said
    assert "0 unchanged (cache: hit), 20 built" in said
    assert "| shapes_points | pointing_f1 | sft |" in said
    assert f"Files: {small_home}" in said


def test_profiles(run: Run) -> None:
    rows = run("profiles", "--json").json
    assert {"demo", "report", "release", "small"} <= {row["profile"] for row in rows}
    assert next(row for row in rows if row["profile"] == "small")["datasets"] == len(SETS)
    assert run("profiles").table[0].split() == ["profile", "model", "datasets", "description"]


def test_datasets(run: Run) -> None:
    rows = {row["dataset"]: row for row in run("datasets", "--json").json}
    assert list(rows) == SETS
    assert {row["state"] for row in rows.values()} == {"ready"}
    assert (rows["shapes_cap"]["rows"], rows["shapes_cap"]["set_aside"]) == (39, 1)
    table = run("datasets").table
    assert table[0].split() == ["dataset", "task", "role", "source", "access", "layout", "state", "rows", "set_aside", "licence",
                                "provenance"]  # fmt: skip
    assert table[4].split()[:5] == ["shapes_points_eval", "image_pointing", "eval", "generated", "open"]
    assert table[4].split()[6:] == ["ready", "8", "–", "Apache-2.0", "program"]
    everything = {row["dataset"] for row in run("datasets", "--all", "--json").json}
    assert {*SETS, "coin", "mmlu"} <= everything
    assert len(everything) >= 200


def test_one_dataset(run: Run) -> None:
    body = run("datasets", "show", "shapes_cap", "--json").json
    assert (body["name"], body["rows"]) == ("shapes_cap", 40)
    said = run("datasets", "show", "shapes_cap")
    assert said.code == 0
    assert any(line.split() == ["rows", "declared", "40"] for line in said.table)
    assert any(line.split()[:2] == ["validated", "ready,"] for line in said.table)
    assert said.table[-1].split() == ["to", "do", "by", "hand", "nothing"]


def test_a_dataset_that_only_a_person_can_get_says_how(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MOLMO2_MANUAL", raising=False)
    body = run("datasets", "show", "coin", "--json").json
    assert (body["state"], body["used_in"], body["layout"]) == ("not materialised", [], "confirmed")
    assert body["media_folder"] == "$MOLMO2_MANUAL/video_datasets/coin"
    assert [step.split()[0] for step in body["to_do"]] == ["Set", "Put", "Put"]
    assert "COIN.json" in body["to_do"][1]
    monkeypatch.setenv("MOLMO2_MANUAL", str(tmp_path))
    (tmp_path / "video_datasets" / "coin").mkdir(parents=True)
    body = run("datasets", "show", "coin", "--json").json
    assert body["media_folder"] == str(tmp_path / "video_datasets" / "coin")
    assert [step.split()[:2] for step in body["to_do"]] == [["Put", "COIN.json"]]
    said = run("datasets", "show", "long_video_bench")
    assert any("sign in with `hf auth login`" in line for line in said.table)
    assumed = run("datasets", "show", "pixmo_clocks", "--json").json["to_do"]
    assert assumed[-1].startswith("Look at its first rows: the layout of this entry is assumed")


def test_quarantine(run: Run) -> None:
    (row,) = run("quarantine", "show", "shapes_cap", "--json").json
    assert (row["dataset"], row["reason"], row["stage"]) == ("shapes_cap", "media_missing", "media")
    assert "media_missing" in run("quarantine", "show", "shapes_cap").table[1]
    assert run("quarantine", "show", "shapes_cap", "--reason", "media_missing", "--json").json == [row]
    assert run("quarantine", "show", "shapes_cap", "--reason", "not_json").out == "no row was set aside\n"
    assert run("quarantine", "show", "shapes_points_eval", "--json").json == []


def test_quarantine_replay(run: Run) -> None:
    (aside,) = run("quarantine", "show", "shapes_cap", "--json").json
    said = run("quarantine", "replay", "shapes_cap", "--json")
    judged = {"before": "media_missing", "now": "media_missing", "field": aside["field"], "detail": aside["detail"]}
    assert (said.code, said.json) == (0, [{"file": aside["file"], "row": aside["row"], **judged}])
    said = run("quarantine", "replay", "shapes_cap")
    assert said.table[0].split() == ["file", "row", "before", "now", "field", "detail"]
    assert said.table[1].split()[:4] == [aside["file"], str(aside["row"]), "media_missing", "media_missing"]
    assert said.err == ""
    assert run("quarantine", "replay", "shapes_cap", "--reason", "not_json").out == "no row was set aside\n"


def test_quarantine_replay_of_a_picture_that_came(small_home: Path, tmp_path: Path) -> None:
    """In a process of its own, as a person calls it: the row would be kept now, and the way there is said."""
    home = tmp_path / "copy"
    shutil.copytree(small_home, home, copy_function=os.link)
    env = environment(home, "small")
    current = Home(home, "small").store("media").current("media/shapes_cap")
    assert current is not None
    table, lines = current[0] / MEDIA_FILE, []
    for record in read_media(current[0]).values():
        there = {"state": "ok", "reason": None, "sha256": "0" * 64, "width": 9, "height": 9}
        lines.append(msgspec.structs.replace(record, **there) if record.state == "missing" else record)
    table.unlink()  # a link to the shared home's file: never write through it
    write_media(current[0], lines)
    done = molmo2(env, "quarantine", "replay", "shapes_cap", "--json")
    assert (done.returncode, done.stderr) == (0, "")
    assert [(row["before"], row["now"]) for row in json.loads(done.stdout)] == [("media_missing", "kept")]
    done = molmo2(env, "quarantine", "replay", "shapes_cap")
    assert done.stdout.splitlines()[1].split()[2:4] == ["media_missing", "kept"]
    assert done.stderr == "1 of 1 would be kept now: materialise validated/shapes_cap to keep them\n"
    shutil.rmtree(home / "shared" / "assets" / "raw" / "shapes_cap")
    done = molmo2(env, "quarantine", "replay", "shapes_cap")
    assert (done.returncode, done.stdout) == (2, "")
    assert "the version of raw/shapes_cap that these rows came from is no longer on disk" in done.stderr


def test_mixture(run: Run) -> None:
    rows = run("mixture", "show", "sft_mixture", "--json").json
    assert [row["dataset"] for row in rows] == SETS[:3]
    assert sum(row["weight"] for row in rows) == pytest.approx(1.0, abs=1e-6)
    assert len(run("mixture", "show", "sft_mixture").table) == 4


def test_scoreboard(run: Run) -> None:
    (row,) = run("scoreboard", "--json").json
    assert set(row) >= {"stage", "benchmark", "metric", "score", "baseline"}
    assert (row["stage"], row["benchmark"], row["metric"], row["n"]) == ("sft", "shapes_points", "pointing_f1", 8)
    assert run("scoreboard").table[1].split()[:3] == ["shapes_points", "sft", "pointing_f1"]


def test_runs(run: Run) -> None:
    rows = run("runs", "--json").json
    # Previews too: one of the sequences, others that tests asked for.
    assert sorted(row["kind"] for row in rows if row["kind"] != "preview") == ["plan", "predict", "tokenizer", "train"]
    assert {row["state"] for row in rows} == {"done"}
    assert len(run("runs").table) == len(rows) + 1
    train = next(row["run"] for row in rows if row["kind"] == "train")
    attached = run("runs", "attach", train)
    assert attached.code == 0
    assert [line for line in attached.table if line.startswith("step ")]
    assert attached.table[-1] == f"{train}: done"
    assert run("runs", "stop", train).out == f"{train}: done\n"


def test_stale_and_why_of_a_fresh_home(run: Run) -> None:
    assert run("stale").out == "everything that was materialised is up to date\n"
    assert run("stale", "--json").json == []
    assert run("why", "sft_checkpoint").out == "sft_checkpoint is up to date\n"
    assert run("why", "sft_checkpoint", "--json").json == []


def test_bom(run: Run) -> None:
    rows = {row["asset"]: row for row in run("bom", "scoreboard", "--json").json}
    expected = {f"{layer}/{name}" for layer in ("raw", "media", "validated") for name in SETS}
    assert expected <= set(rows)
    assert len(rows) == 19  # of 20 assets: nothing is made from the statistics
    assert rows["raw/shapes_cap"]["revision"]
    assert len(run("bom", "scoreboard").table) == 20


def test_sweep_of_a_tidy_history(run: Run) -> None:
    assert run("sweep").out == "no run was left open by a process that is gone\n"
    assert run("sweep", "--json").json == []


def test_doctor(run: Run) -> None:
    findings = run("doctor", "--json").json
    assert {finding["state"] for finding in findings} <= {"ok", "note", "missing"}
    table = run("doctor")
    assert table.code == int(any(finding["state"] == "missing" for finding in findings))
    assert len(table.table) == len(findings)


def test_an_asset_that_was_not_made_is_told_from_one_that_nobody_knows(run_empty: Run) -> None:
    said = run_empty("why", "sft_checkpoint")
    assert (said.code, said.err) == (2, "molmo2: sft_checkpoint was never materialised in profile small: run `make demo`\n")
    assert run_empty("bom", "sft_checkpoint").err == said.err


EMPTY = {
    ("stale",): (0, "nothing was materialised yet: run `make demo`"),
    ("runs",): (0, "no run yet: run `make demo`"),
    ("quarantine", "show", "shapes_cap"): (2, "validated/shapes_cap was never materialised: run `make demo`"),
    ("diff", "shapes_cap"): (2, "validated/shapes_cap was never materialised: run `make demo`"),
    ("scoreboard",): (2, "there is no scoreboard yet: run `make demo`, or materialise `scoreboard` with its upstream"),
}


@pytest.mark.parametrize("arguments", EMPTY)
def test_an_empty_home_says_what_to_do(run_empty: Run, arguments: tuple[str, ...]) -> None:
    code, sentence = EMPTY[arguments]
    said = run_empty(*arguments)
    assert said.code == code
    assert (said.out, said.err) == ((f"{sentence}\n", "") if code == 0 else ("", f"molmo2: {sentence}\n"))
    as_json = run_empty(*arguments, "--json")
    assert as_json.code == code
    assert as_json.out.strip() == ("[]" if code == 0 else "")


def test_a_mixture_that_was_not_made_is_a_preview(run_empty: Run) -> None:
    said = run_empty("mixture", "show", "sft_mixture")
    assert said.code == 0
    assert len(said.table) == 4
    assert "preview" in said.err
    assert sum(row["weight"] for row in run_empty("mixture", "show", "sft_mixture", "--json").json) == pytest.approx(1.0, abs=1e-6)


def test_every_mixture_of_every_profile_can_be_previewed(run_empty: Run) -> None:
    from molmo2_assets.profile import load_profile, profile_names

    for name in profile_names():
        for mixture, spec in load_profile(name).mixtures.items():
            rows = run_empty("--profile", name, "mixture", "show", mixture, "--json").json
            assert {row["dataset"] for row in rows} == set(spec.datasets)  # also those of unknown size, without a weight
            assert sum(row["weight"] or 0 for row in rows) == pytest.approx(1.0, abs=1e-4)


def _texts(home: Home, texts: dict[str, str], finished: float) -> Manifest:
    """A version of validated/tiny_text with these rows."""
    store = home.store("validated/tiny_text")
    identity = json.dumps(texts).encode().hex().ljust(64, "0")[:64]
    staged = store.stage("validated/tiny_text", identity)
    with RowWriter(staged) as writer:
        for number, (name, text) in enumerate(texts.items()):
            turn = Turn(role="assistant", parts=(Text(text=text),))
            source = Source(file="f", row=number)
            branches = (Branch(id="0", style="text_sft", turns=(turn,)),)
            writer.add(Example(id=name, schema=SCHEMA, task="text", source=source, media=(), branches=branches))
    assert writer.info is not None
    manifest = Manifest(kind="validated", key="validated/tiny_text", recipe=texts, recipe_fingerprint=identity,
                        data_version=writer.info.data_version, code_version="1", run={"finished": finished})  # fmt: skip
    store.publish("validated/tiny_text", staged, manifest)
    return manifest


def test_diff(run_empty: Run, tmp_path: Path) -> None:
    home = Home(tmp_path, "small")
    old = _texts(home, {"a": "one", "b": "two", "c": "three"}, 1.0)
    assert "one version on disk" in run_empty("diff", "tiny_text").err
    new = _texts(home, {"d": "four", "a": "one", "b": "2"}, 2.0)
    found = run_empty("diff", "tiny_text", "--json").json
    assert (found["from"], found["to"]) == (old.data_version, new.data_version)
    assert [found[name] for name in ("added", "removed", "changed", "unchanged")] == [1, 1, 1, 1]
    assert found["fields"] == {"text": 1, "grounding": 0, "media": 0, "meta": 0}
    assert found["examples"] == {"added": ["d"], "removed": ["c"], "changed": ["b"]}
    said = run_empty("diff", "tiny_text").table
    assert said[0] == f"{old.data_version} → {new.data_version}: +1 −1 ~1 =1"
    assert said[1:] == ["  text differs in 1 rows", "  added: d", "  removed: c", "  changed: b"]


def test_diff_of_a_change_undone_goes_back_to_the_current_version(run_empty: Run, tmp_path: Path) -> None:
    home = Home(tmp_path, "small")
    old = _texts(home, {"a": "one"}, 1.0)
    new = _texts(home, {"a": "1"}, 2.0)
    store = home.store("validated/tiny_text")
    before = store.find("validated/tiny_text", old.recipe_fingerprint)
    assert before is not None
    store.set_current("validated/tiny_text", before)
    found = run_empty("diff", "tiny_text", "--json").json
    assert (found["from"], found["to"]) == (new.data_version, old.data_version)


def test_stale_and_why_tell_the_cause_and_the_way(run_empty: Run, tmp_path: Path) -> None:
    home = Home(tmp_path, "small")
    publish(home, "raw/tiny_text")
    publish(home, "media/tiny_text", ["raw/tiny_text"])
    publish(home, "tokenizer", ["media/tiny_text"])
    now = publish(home, "raw/tiny_text", config="edited")
    rows = run_empty("stale", "--json").json
    assert [(row["asset"], row["because"]) for row in rows] == [
        ("media/tiny_text", "raw/tiny_text"),
        ("tokenizer", "raw/tiny_text"),
    ]
    assert rows[1]["through"] == "raw/tiny_text → media/tiny_text → tokenizer"
    assert rows[1]["now"] == now.data_version
    assert run_empty("why", "tokenizer").table[1].endswith("raw/tiny_text → media/tiny_text → tokenizer")
    assert len(run_empty("stale").table) == 3


def test_a_set_that_is_absent_says_why(run_empty: Run, tmp_path: Path) -> None:
    home = Home(tmp_path, "small")
    publish(home, "validated/tiny_text", state="unavailable", facts={"reason": "ask its authors"})
    for command in (("quarantine", "show", "tiny_text"), ("diff", "tiny_text")):
        assert run_empty(*command).err == "molmo2: validated/tiny_text is unavailable: ask its authors\n"
    assert run_empty("datasets", "--json").json[2]["state"] == "unavailable"


def test_damaged_files_are_named_with_the_way_out(small_home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
                                                  capsys: pytest.CaptureFixture[str]) -> None:  # fmt: skip
    home = tmp_path / "copy"
    shutil.copytree(small_home, home, copy_function=os.link)
    for name, value in environment(home, "small").items():
        if name.startswith(("MOLMO2_", "DAGSTER_")):
            monkeypatch.setenv(name, value)

    def tear(path: Path) -> Path:
        path.unlink()  # a link to the shared home's file: never write through it
        path.write_bytes(b'{"half')
        return path

    spec = tear(next((home / "small" / "runs").glob("train-*/spec.json")))
    assert main(["runs", "--json"]) == 0
    states = {row["run"]: row["state"] for row in json.loads(capsys.readouterr().out)}
    assert states.pop(spec.parent.name) == "damaged"
    assert set(states.values()) == {"done"}
    assert main(["runs", "attach", spec.parent.name]) == 2
    assert f"{spec} cannot be read" in capsys.readouterr().err

    store = Home(home, "small").store("sft_mixture")
    found = store.current("sft_mixture")
    assert found is not None
    manifest = tear(found[0] / "manifest.json")
    assert main(["stale"]) == 2
    err = capsys.readouterr().err
    assert f"{manifest} cannot be read" in err
    assert "remove the folder and materialise the asset again" in err
    assert len(err.splitlines()) == 1

    assert main(["bom", "tokenizer"]) == 0  # what does not need the damaged one still works
    pointer = tear(home / "small" / "assets" / "tokenizer" / "current")
    capsys.readouterr()
    assert main(["bom", "tokenizer"]) == 2
    assert f"{pointer} cannot be read; remove it and materialise the asset again" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["shapes_points", "shapes_points_eval", "sft_mixture", "sft_sequences"])
def test_preview(run: Run, tmp_path: Path, name: str) -> None:
    said = run("preview", name, "--count", "3", "--json")
    assert said.code == 0, said.err
    page = Path(said.json["page"])
    html = page.read_text()
    assert f"<h1>{name}</h1>" in html
    assert ("<h2>Pack 2: " in html) == (name == "sft_sequences")
    again = run("preview", name, "--count", "3", "--out", str(tmp_path / "mine.html"))
    assert again.out == f"{tmp_path / 'mine.html'}\n"
    assert (tmp_path / "mine.html").read_bytes() == page.read_bytes()


def test_a_page_of_the_first_packs_lies_beside_the_sequences(run: Run, small_home: Path) -> None:
    folder, manifest = Home(small_home, "small").store("sft_sequences").current("sft_sequences") or pytest.fail("never made")
    assert "preview.html" in {entry.path for entry in manifest.files}
    made = {path.name for path in (small_home / "small" / "runs").glob("preview-*")}
    page = Path(run("preview", "sft_sequences").out.strip())
    assert page.read_bytes() == (folder / "preview.html").read_bytes()
    assert made & set(page.parts)  # the same run; other tests may make others meanwhile
