"""Sets on the Hub in the graph: observation by its own job, what a new commit does, and sets that cannot be had for a while."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import dagster as dg
import pytest

from molmo2_assets.graph.datasets import dataset_assets
from molmo2_assets.graph.hub import hub_definitions
from molmo2_assets.home import Home
from molmo2_assets.profile import DatasetSpec, SourceSpec, load_profile
from molmo2_assets.sources import hub_client
from tests.support.hub_server import HubServer, serve_hub

REPO = "allenai/lines"
ROWS = b'{"question": "1?", "answer": "1"}\n{"question": "2?", "answer": "2"}\n'


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[HubServer]:
    with serve_hub() as server:
        monkeypatch.setenv("HF_ENDPOINT", server.url)
        monkeypatch.setattr(hub_client, "WAITS", ())
        server.add(REPO, {"rows.jsonl": ROWS})
        yield server


def spec(name: str = "lines", repo: str = REPO) -> DatasetSpec:
    return DatasetSpec(
        name=name, title="Lines", task="text", group="text", adapter="question_answer_lines", style="text",
        source=SourceSpec(kind="hub", repo=repo, files=("*.jsonl",)),
    )  # fmt: skip


def test_one_job_observes_every_set_and_one_that_fails_stops_none(hub: HubServer) -> None:
    hub.add("allenai/closed", {"a": b""}).refuse = (403, "GatedRepo")
    definitions = hub_definitions([spec(), spec("closed", "allenai/closed")])
    assert [schedule.name for schedule in definitions.schedules or []] == ["observe_hub_daily"]
    job = definitions.resolve_job_def("observe_hub_job")
    with dg.instance_for_test() as instance:
        seen = []
        for _ in range(2):
            result = job.execute_in_process(instance=instance)
            assert result.success
            events = result.get_asset_observation_events()
            assert [event.asset_key.to_user_string() for event in events if event.asset_key] == ["hub/lines"]
            record = instance.get_latest_data_version_record(dg.AssetKey(["hub", "lines"]))
            assert record is not None
            seen.append(record.asset_observation.data_version if record.asset_observation else None)
            hub.repositories[REPO].commit({"rows.jsonl": ROWS + ROWS})
        assert len(set(seen)) == 2, "the new commit"


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home(tmp_path / "home", "demo")


def materialise(home: Home, instance: dg.DagsterInstance, one: DatasetSpec) -> dg.ExecuteInProcessResult:
    assets = dataset_assets(home, load_profile("demo"), one)
    return dg.materialize(assets, instance=instance, selection=["raw/lines"], raise_on_error=False)


def said(result: dg.ExecuteInProcessResult) -> tuple[str, str]:
    (event,) = result.get_asset_materialization_events()
    metadata = event.step_materialization_data.materialization.metadata
    return str(metadata["cache"].value), str(metadata["state"].value)


def test_a_set_that_was_closed_is_asked_for_again(hub: HubServer, home: Home) -> None:
    hub.repositories[REPO].refuse = (403, "GatedRepo")
    with dg.instance_for_test() as instance:
        assert said(materialise(home, instance, spec())) == ("miss", "unavailable")
        assert said(materialise(home, instance, spec())) == ("hit", "unavailable")
        assert len(list(home.store("raw/lines").folder("raw/lines").iterdir())) == 1, "no pile of empty versions"
        hub.repositories[REPO].refuse = None
        assert said(materialise(home, instance, spec())) == ("miss", "ready")
        hub.requests.clear()
        assert said(materialise(home, instance, spec())) == ("hit", "ready")
        assert hub.requests == []


def test_passing_trouble_is_tried_again_before_a_set_is_called_unavailable(
    hub: HubServer, home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("molmo2_assets.graph.datasets.NETWORK", dg.RetryPolicy(max_retries=2))
    hub.answers = {"/api/datasets/": [(503, {}), (503, {})]}
    with dg.instance_for_test() as instance:
        assert said(materialise(home, instance, spec())) == ("miss", "ready")
        hub.repositories[REPO].refuse = (500, "Trouble")
        down = materialise(home, instance, spec(repo="allenai/down"))
        assert down.success
        assert said(down) == ("miss", "unavailable")
