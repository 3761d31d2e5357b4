"""Raw to checkpoint over real files: what was kept, what was set aside and why, under which licences; and nothing twice."""

from __future__ import annotations

import json
import math
from collections import Counter

import dagster as dg
import pytest

from molmo2_assets.ingest.quarantine import read_quarantine
from molmo2_assets.lineage.bom import bill_of_materials
from tests.support.real_sets import REAL
from tests.support.real_world import SETS, World
from training_backend.data.fingerprint import file_sha256
from training_backend.data.order import Mixture

# rows, examples, rows set aside by reason: counted by hand from tests/support/real_sets.py and the files that it links.
EXPECTED = {
    "real_photos": (27, 17, {
        "count_mismatch": 1, "duplicate": 1, "empty_text": 1, "media_escapes": 1, "media_missing": 1, "media_not_an_image": 1,
        "media_truncated": 1, "not_json": 1, "point_outside": 1, "size_mismatch": 1,
    }),
    "real_people": (7, 1, {"media_checksum": 1, "point_outside": 1}),  # five good rows about one picture
    "real_signs": (5, 4, {"media_missing": 1}),
    "real_film": (2, 1, {"media_truncated": 1}),
    "real_tracks": (6, 1, {"media_missing": 1, "point_outside": 1, "rate_mismatch": 1, "size_mismatch": 1}),
    "real_problems": (204, 200, {"control_character": 1, "missing_field": 1, "not_json": 2}),
}  # fmt: skip


@pytest.mark.parametrize("name", SETS)
def test_every_row_is_kept_or_set_aside_with_its_reason(world: World, name: str) -> None:
    rows, examples, reasons = EXPECTED[name]
    folder, manifest = world.asset(f"validated/{name}")
    assert manifest.state == "ready"
    assert manifest.counts["rows_in"] == rows == world.profile.datasets[name].rows
    assert manifest.counts["rows_ok"] == rows - sum(reasons.values())
    assert manifest.counts["examples"] == len(world.store(name)) == examples
    assert manifest.counts["quarantined"] == reasons
    assert Counter(item.reason for item in read_quarantine(folder)) == reasons


def test_a_row_that_was_set_aside_can_be_found_again(world: World) -> None:
    """Byte range and file lead to the very line; the file that is not there is named."""
    raw, _ = world.asset("raw/real_photos")
    folder, _ = world.asset("validated/real_photos")
    by_reason = {item.reason: item for item in read_quarantine(folder)}
    missing = by_reason["media_missing"]
    assert (missing.stage, missing.field, missing.row) == ("media", "images/never_downloaded.jpg", 2)
    assert missing.byte_offset is not None
    assert missing.byte_length is not None
    line = (raw / missing.file).read_bytes()[missing.byte_offset : missing.byte_offset + missing.byte_length]
    assert json.loads(line)["path"] == "images/never_downloaded.jpg"
    assert by_reason["size_mismatch"].detail == "stated 640×425, shown 425×640"
    assert by_reason["media_not_an_image"].detail == "the bytes are an HTML page"


def test_media_are_stored_once_by_content(world: World) -> None:
    _, manifest = world.asset("media/real_photos")
    # 16 + the turned one; missing: never_downloaded; broken: gone.jpg, cut.jpg, and the path that leaves its folder
    assert manifest.counts == {"media": 21, "ok": 17, "missing": 1, "broken": 3}
    skier = file_sha256(REAL / "images" / "coco_000000000785.jpg")
    for name in ("real_photos", "real_people"):
        assert any(media.sha256 == skier for example in world.store(name) for media in example.media)
    published = {entry["path"]: entry["sha256"] for entry in json.loads((REAL / "MANIFEST.json").read_text())}
    for example in world.store("real_photos"):
        if example.media[0].uri in published:
            assert example.media[0].sha256 == published[example.media[0].uri]


def test_licences_are_recorded_with_the_raw_sets(world: World) -> None:
    (page,) = world.results[0].asset_materializations_for_node("raw__real_photos")
    recorded = str(page.metadata["licence"].value).lower()
    for entry in json.loads((REAL / "MANIFEST.json").read_text()):
        if entry["path"].startswith("images/"):
            named = entry["licence"].split("(")[0].split(",")[0].strip().lower()
            assert named in recorded, entry["path"]
    for name in SETS:
        (event,) = world.results[0].asset_materializations_for_node(f"raw__{name}")
        assert event.metadata["licence"].value == world.profile.datasets[name].licence != "see source"
        assert event.metadata["provenance"].value == "human"


def test_the_checks_of_every_layer_passed(world: World) -> None:
    checks = world.results[0].get_asset_check_evaluations()
    assert all(check.passed for check in checks)
    assert {check.check_name for check in checks} >= {
        "available", "contract", "non_empty", "weights_sum_to_one", "no_leaks", "packing_fill", "loss_finite", "checkpoint_loads",
    }  # fmt: skip


def test_the_mixture_is_the_square_root_of_the_sizes(world: World) -> None:
    mixture = Mixture.load(world.asset("sft_mixture")[0])
    roots = {name: math.sqrt(EXPECTED[name][1]) for name in SETS}
    for entry in mixture.entries:
        assert entry.rows == EXPECTED[entry.dataset][1]
        assert entry.weight / mixture.file.period == pytest.approx(roots[entry.dataset] / sum(roots.values()), abs=1e-6)


def test_nothing_was_left_out_on_the_way_to_the_batches(world: World) -> None:
    report = json.loads((world.asset("sft_sequences")[0] / "report.json").read_text())
    assert report["examples_left_out"] == report["truncated_branches"] == report["dropped_frames"] == 0
    assert set(report["examples"]) == set(SETS)


def test_a_few_steps_train_a_checkpoint_from_it(world: World) -> None:
    _, manifest = world.asset("sft_checkpoint")
    assert manifest.state == "ready"
    assert manifest.counts["steps"] == 4
    assert manifest.counts["failures"] == manifest.counts["skipped_steps"] == 0
    # A vocabulary of 1,024 + 128: a model that knows nothing loses about ln 1152 = 7.05 a token.
    assert manifest.counts["first"]["loss"] == pytest.approx(math.log(1152), abs=0.5)
    assert manifest.counts["last"]["loss"] < manifest.counts["first"]["loss"]
    materials = {row["asset"] for row in bill_of_materials(world.home, "sft_checkpoint")}
    assert materials >= {f"{layer}/{name}" for layer in ("raw", "media", "validated") for name in SETS}


def test_a_second_run_finds_everything_done(world: World) -> None:
    before = sorted(path.name for path in world.home.runs.iterdir())
    result = world.materialise()
    events = [event for event in result.all_events if event.event_type == dg.DagsterEventType.ASSET_MATERIALIZATION]
    caches = {str(event.asset_key): event.materialization.metadata["cache"].value for event in events}
    assert len(caches) == 3 * len(SETS) + 6  # mixture, statistics, tokenizer, sequences, checkpoint, scoreboard
    assert set(caches.values()) == {"hit"}
    assert sorted(path.name for path in world.home.runs.iterdir()) == before
