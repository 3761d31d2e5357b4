"""The whole graph, made once by the command of the README: what is there, what a second run does, what an edit re-does.

Belongs here: the promises about a materialised home. Does not belong here: servers, cancelling, detaching (`test_server.py`).
"""

from __future__ import annotations

import json
import re
from pathlib import Path

import dagster as dg
import pytest

from molmo2_assets.graph import stages
from molmo2_assets.graph.build import build_definitions
from tests.molmo2_assets.graph.conftest import Made, graph_profile, write_notes
from tests.support.homes import history_at
from tests.support.shell import activated
from training_backend.data.manifest import read_manifest, verify_files

pytestmark = pytest.mark.xdist_group("graph")
ALL = build_definitions(graph_profile()).resolve_asset_graph()
KEYS = sorted(key.to_user_string() for key in ALL.get_all_asset_keys())


def versions(made: Made) -> dict[str, tuple[str, str]]:
    """Key → (folder, data version) of everything that is current."""
    found = {}
    for key in KEYS:
        folder, manifest = made.home.store(key).current(key)  # type: ignore[misc]
        found[key] = (folder.name, manifest.data_version)
    return found


def built(output: str) -> set[str]:
    """Keys that a run of `molmo2 demo` built rather than found."""
    lines = re.findall(r"^  \[ *\d+/\d+\] (\S+) +(.*)$", output, re.M)
    return {key for key, rest in lines if rest != "cache: hit"}


def test_everything_is_made_and_valid(made: Made) -> None:
    for key in KEYS:
        found = made.home.store(key).current(key)
        assert found is not None, key
        folder, manifest = found
        assert verify_files(folder, manifest) == [], key
        assert manifest.state == "ready", key
        for parent, entry in manifest.parents.items():
            current = made.home.store(parent).current(parent)
            assert current is not None
            assert entry.data_version == current[1].data_version, f"{key} was made from another {parent}"
        recorded = {parent.to_user_string() for parent in ALL.get(dg.AssetKey(key.split("/"))).parent_keys}
        assert {name for name in recorded if not name.startswith("hub/")} == set(manifest.parents), f"{key}: graph and manifest"
    assert built(made.output) == set(KEYS)


def test_manifests_name_no_place_of_this_machine(made: Made) -> None:
    for key in KEYS:
        folder, _ = made.home.store(key).current(key)  # type: ignore[misc]
        assert str(made.root) not in (folder / "manifest.json").read_text(), key


def test_rows_are_all_accounted_for(made: Made) -> None:
    reasons: set[str] = set()
    for key in (key for key in KEYS if key.startswith("validated/")):
        counts = made.home.store(key).current(key)[1].counts  # type: ignore[index]
        assert counts["rows_in"] == counts["rows_ok"] + sum(counts["quarantined"].values()), key
        reasons |= set(counts["quarantined"])
    assert len(reasons) >= 5, "rows are broken on purpose, in several ways"


def test_dagster_knows_what_the_manifests_say(made: Made) -> None:
    """History as another process reads it: versions, pages, checks, and the pulse of training."""
    with history_at(made.home.dagster) as instance:
        for key in KEYS:
            event = instance.get_latest_materialization_event(dg.AssetKey(key.split("/")))
            assert event is not None, key
            materialisation = event.asset_materialization
            assert materialisation is not None
            folder, manifest = made.home.store(key).current(key)  # type: ignore[misc]
            assert (materialisation.tags or {})["dagster/data_version"] == manifest.data_version
            assert materialisation.metadata["folder"].value == str(folder)
        for check in ALL.asset_check_keys:
            records = instance.event_log_storage.get_asset_check_execution_history(check, limit=1)
            assert records, f"{check} was never looked at"
            # After four steps of training nothing is above blind; that is a warning, not a failure.
            assert records[0].status.value == "SUCCEEDED" or check.name == "above_blind", check
        for stage in ("pretrain", "sft", "long_context"):
            fetched = instance.fetch_observations(dg.AssetKey(f"{stage}_checkpoint"), limit=200)
            assert 1 <= len(fetched.records) <= 100
            beat = fetched.records[0].asset_observation
            assert beat is not None
            assert {"step", "loss", "tokens_per_second"} <= set(beat.metadata)


def page(made: Made, key: str) -> dict[str, dg.MetadataValue]:
    with history_at(made.home.dagster) as instance:
        event = instance.get_latest_materialization_event(dg.AssetKey(key.split("/")))
        assert event is not None
        assert event.asset_materialization is not None
        return dict(event.asset_materialization.metadata)


def test_pages_lead_to_encoded_examples(made: Made) -> None:
    for key, name in (("validated/clips_track", "clips_track"), ("sft_mixture", "sft_mixture"), ("sft_sequences", "sft_sequences")):
        assert page(made, key)["preview"].value == f"`molmo2 preview {name} --open`"
    assert Path(str(page(made, "sft_sequences")["preview_page"].value)).read_text().startswith("<!doctype html>")


@pytest.mark.parametrize(
    ("key", "pictures", "tables"),
    [
        ("validated/shapes_points", {"samples", "lengths"}, {"rows", "quantiles", "styles"}),
        ("validated/clips_track", {"samples", "lengths"}, {"rows", "quantiles", "styles"}),
        ("sft_mixture", {"shares"}, {"weights"}),
        ("sft_statistics", set(), {"by_task", "by_dataset"}),
        ("sft_sequences", {"loss_by_task"}, {"packing", "loss_by_dataset"}),
        ("sft_checkpoint", {"loss_curve"}, {"loss_by_task"}),
        ("predictions/sft_checkpoint/shapes_points", set(), {"first_answers"}),
        ("evaluation/sft_checkpoint/shapes_points", set(), {"scores"}),
        ("scoreboard", {"picture"}, {"scoreboard"}),
    ],
)
def test_pages_show_tables_and_pictures(made: Made, key: str, pictures: set[str], tables: set[str]) -> None:
    metadata = page(made, key)
    drawn = {
        name
        for name, value in metadata.items()
        if isinstance(value, dg.MarkdownMetadataValue) and "data:image/" in str(value.value)
    }
    listed = {name for name, value in metadata.items() if isinstance(value, dg.TableMetadataValue) and value.records}
    assert drawn == pictures
    assert listed == tables


def test_the_scoreboard_has_every_stage_beside_its_blind_baseline(made: Made) -> None:
    done = activated("molmo2 scoreboard --json", made.environment)
    rows = json.loads(done.stdout)
    assert {(row["stage"], row["benchmark"]) for row in rows} == {
        (stage, name) for stage in ("pretrain", "sft", "long_context") for name in ("shapes_points", "clips_track")
    }
    assert all({"stage", "benchmark", "metric", "score", "baseline"} <= set(row) for row in rows)
    assert all(row["baseline"] > 0 for row in rows)


def test_again_nothing_is_trained_and_nothing_moves(made: Made) -> None:
    before = versions(made)
    done = activated("molmo2 demo", made.environment)
    assert done.returncode == 0, done.stdout[-3000:]
    assert built(done.stdout) == set()
    assert f"{len(KEYS)} unchanged (cache: hit), 0 built" in done.stdout
    assert versions(made) == before


ALL_BELOW = {"sft_mixture", "sft_checkpoint", "long_context_sequences", "long_context_checkpoint", "scoreboard"}
ONE_BELOW = {"sft_mixture", "sft_statistics", "sft_sequences", "long_context_sequences"}


def run_in(made: Made, folder: Path, selection: str) -> set[str]:
    """Keys that the literal command materialised, as another process reads them in the history of the UI."""
    done = activated(f"dagster asset materialize --select '{selection}'", made.environment, cwd=folder)
    assert done.returncode == 0, done.stdout[-3000:]
    assert not list(folder.iterdir()), "no second history beside it"
    with history_at(made.home.dagster) as instance:
        newest = instance.get_runs(limit=1)[0]
        assert newest.status is dg.DagsterRunStatus.SUCCESS
        records = instance.get_records_for_run(newest.run_id, of_type=dg.DagsterEventType.ASSET_MATERIALIZATION, limit=500).records
        return {record.asset_key.to_user_string() for record in records if record.asset_key}


def test_the_literal_command_from_any_folder(made: Made, tmp_path: Path) -> None:
    """Word for word as the README has it, in a folder that is not the project's."""
    assert run_in(made, tmp_path, "sft_mixture+") >= ONE_BELOW
    keys = run_in(made, tmp_path, "key:sft_mixture+")
    assert keys >= ALL_BELOW
    assert not {"pretrain_checkpoint", "tokenizer"} & keys
    listed = activated("dagster asset list --select 'key:sft_mixture+'", made.environment, cwd=tmp_path)
    assert keys == {line.strip() for line in listed.stdout.splitlines() if re.fullmatch(r"[\w/]+", line.strip())}


def test_upstream_a_bare_plus_is_one_layer(made: Made, tmp_path: Path) -> None:
    """Dagster 1.13.27 reads `sft_mixture+` with its old reader (one layer) and `key:sft_mixture+` with its new one (everything
    below). README and `molmo2 demo` say so; this tells us when it changes."""
    assert run_in(made, tmp_path, "sft_mixture+") == ONE_BELOW


def test_on_a_fresh_home_the_literal_command_says_what_is_missing(made: Made, tmp_path: Path) -> None:
    environment = {**made.environment, "MOLMO2_HOME": str(tmp_path / "fresh")}
    done = activated("dagster asset materialize --select 'sft_mixture+'", environment)
    assert done.returncode != 0
    assert re.search(r"sft_mixture needs validated/\w+, which was never materialised here: run `make demo`", done.stdout)


SCORED = [f"{stage}_checkpoint/{name}" for stage in ("sft", "long_context") for name in ("shapes_points", "clips_track")]
AFTER_NOTES = {
    *(f"{layer}/notes" for layer in ("raw", "media", "validated")),
    *("sft_mixture", "sft_statistics", "sft_sequences", "sft_checkpoint"),
    *("long_context_sequences", "long_context_checkpoint", "scoreboard"),
    *(f"{layer}/{name}" for layer in ("predictions", "evaluation") for name in SCORED),
}


def test_one_edited_row_redoes_exactly_what_depends_on_it(own_home: Made) -> None:
    """The same length, so that only content tells; undone again, everything is found again."""
    before = versions(own_home)
    file = own_home.notes / "notes.jsonl"
    original = file.read_text()
    file.write_text(original.replace('"It is 8."', '"It is 9."'))
    assert len(file.read_text()) == len(original)
    done = activated("molmo2 demo", own_home.environment, timeout=280)
    assert done.returncode == 0, done.stdout[-3000:]
    # After four steps the model may say the same words as before: then scores have the same parents and are found.
    alike = {"media/notes", "scoreboard", *(key for key in AFTER_NOTES if key.startswith("evaluation/"))}
    assert AFTER_NOTES - alike <= built(done.stdout)
    assert built(done.stdout) <= AFTER_NOTES
    after = versions(own_home)
    assert {key for key in KEYS if after[key][1] != before[key][1]} <= AFTER_NOTES
    for key in ("raw/notes", "validated/notes", "sft_mixture", "sft_sequences", "sft_checkpoint", "long_context_checkpoint"):
        assert after[key][1] != before[key][1], key
    file.write_text(original)
    done = activated("molmo2 demo", own_home.environment)
    assert built(done.stdout) == set()
    assert versions(own_home) == before


def test_a_change_that_means_nothing_stops_where_it_means_nothing(own_home: Made) -> None:
    """Other order, same rows: raw is another, validated is the same, nothing is trained."""
    before = versions(own_home)
    file = own_home.notes / "notes.jsonl"
    file.write_text("".join(reversed(file.read_text().splitlines(keepends=True))))
    done = activated("molmo2 demo", own_home.environment)
    assert done.returncode == 0, done.stdout[-3000:]
    assert built(done.stdout) <= {"raw/notes", "media/notes", "validated/notes"}
    after = versions(own_home)
    assert after["raw/notes"][1] != before["raw/notes"][1]
    assert {key for key in KEYS if after[key][1] != before[key][1]} == {"raw/notes"}


def test_raw_files_do_not_change_when_a_person_edits_theirs(own_home: Made) -> None:
    folder, manifest = own_home.home.store("raw/notes").current("raw/notes")  # type: ignore[misc]
    with (own_home.notes / "notes.jsonl").open("r+") as stream:
        stream.write("#")
    assert verify_files(folder, read_manifest(folder)) == []
    assert manifest.state == "ready"


def test_a_raised_code_version_reaches_the_run(own_home: Made, monkeypatch: pytest.MonkeyPatch) -> None:
    """The launcher reuses a run that is done: the recipe alone would let new code hand out what the old one made."""
    before = {path.name for path in own_home.home.runs.glob("tokenizer-*")}
    monkeypatch.setattr(stages, "TOKENIZER_VERSION", "raised")
    (asset,) = (each for each in stages.stage_assets(own_home.home, graph_profile()) if each.key == dg.AssetKey("tokenizer"))
    with dg.instance_for_test() as instance:
        assert dg.materialize([asset], instance=instance).success
    assert len({path.name for path in own_home.home.runs.glob("tokenizer-*")} - before) == 1


def test_force_builds_again_beside_the_old_one(own_home: Made) -> None:
    config = json.dumps({"ops": {"sft_statistics": {"config": {"force": True}}}})
    done = activated(f"dagster asset materialize --select sft_statistics --config-json '{config}'", own_home.environment)
    assert done.returncode == 0, done.stdout[-3000:]
    folder, manifest = own_home.home.store("x").current("sft_statistics")  # type: ignore[misc]
    assert folder.name.endswith(".attempt-2")
    assert read_manifest(folder.parent / folder.name.removesuffix(".attempt-2")).data_version == manifest.data_version


def test_a_missing_set_is_an_error_where_the_profile_refuses(own_home: Made) -> None:
    (own_home.notes / "notes.jsonl").unlink()
    done = activated("molmo2 demo", own_home.environment)
    assert done.returncode == 1
    assert re.search(r"FAILED  sft_mixture: sft_mixture is refused:\s+notes is absent", done.stdout), done.stdout[-2000:]
    assert "pretrain_checkpoint" in done.stdout
    write_notes(own_home.notes)
    done = activated("molmo2 demo", own_home.environment)
    assert done.returncode == 0, done.stdout[-2000:]
    assert built(done.stdout) == set()
