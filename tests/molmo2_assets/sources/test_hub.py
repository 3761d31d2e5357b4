"""The true client against a local server that speaks the Hub's protocol."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from molmo2_assets.sources import SourceError, SourceUnavailable, fetch, hub_client, source_identity
from molmo2_assets.sources.hub import head_revision
from tests.support.hub_server import HubServer, serve_hub
from tests.support.shell import ROOT

REPO = "allenai/some-set"
TRAIN, TEST = "data/train-00000-of-00001.parquet", "data/test-00000-of-00001.parquet"
FILES = {TRAIN: bytes(range(256)) * 40, TEST: b"small table", "README.md": b"# a card", "media/1.mp4": b"film"}
Entry = Callable[..., Any]


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[HubServer]:
    with serve_hub() as server:
        monkeypatch.setenv("HF_ENDPOINT", server.url)
        monkeypatch.setenv("HF_TOKEN", "hf_" + "secret" * 6)
        monkeypatch.setattr(hub_client, "WAITS", (0.01, 0.01))
        server.add(REPO, FILES, license="odc-by")
        yield server


def quiet(line: str) -> None:
    assert "hf_" not in line


def downloaded(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def bodies(hub: HubServer, file: str) -> list[str | None]:
    """Range headers of the requests for a file's bytes."""
    return [wanted for method, path, wanted in hub.requests if method == "GET" and path.endswith(f"/{file}")]


def test_one_exact_commit_is_fetched_and_recorded(hub: HubServer, tmp_path: Path, entry: Entry) -> None:
    repository = hub.repositories[REPO]
    first = repository.branches["main"]
    second = repository.commit({**FILES, TEST: b"other table"})
    result = fetch(entry("hub", repo=REPO, revision=first, split="test"), tmp_path / "first", quiet)
    assert result.revision == first
    assert downloaded(tmp_path / "first") == {TEST: b"small table"}
    assert result.facts == {"repo": REPO, "commit": first, "files": 1, "bytes": 11, "licence": "odc-by", "gated": False}
    result = fetch(entry("hub", repo=REPO, split="test"), tmp_path / "second", quiet)
    assert result.revision == second
    assert downloaded(tmp_path / "second") == {TEST: b"other table"}


def test_a_new_commit_is_seen(hub: HubServer, entry: Entry) -> None:
    repository = hub.repositories[REPO]
    first = repository.branches["main"]
    assert head_revision(entry("hub", repo=REPO)) == first
    second = repository.commit({**FILES, "new.parquet": b"1"})
    assert head_revision(entry("hub", repo=REPO)) == second
    assert head_revision(entry("hub", repo=REPO, revision=first)) == second, "a pin does not hide what is new"
    third = repository.commit(FILES, branch="next")
    assert head_revision(entry("hub", repo=REPO, revision="next")) == third


def test_files_are_chosen_by_patterns_or_by_the_card_or_by_their_usual_names(hub: HubServer, tmp_path: Path, entry: Entry) -> None:
    def chosen(**source: Any) -> set[str]:
        fetch(entry("hub", repo=REPO, **source), tmp_path / str(len(list(tmp_path.iterdir()))), quiet)
        return set(downloaded(max(tmp_path.iterdir(), key=lambda path: int(path.name))))

    hub.repositories[REPO].commit(
        {**FILES, "object/train-0.parquet": b"1", "object/val-0.parquet": b"2", "animal/train-0.parquet": b"3"}
    )
    assert chosen(files=("media/*", "README.md")) == {"media/1.mp4", "README.md"}
    assert chosen(split="train") == {TRAIN}
    assert chosen(config="object", split="train") == {"object/train-0.parquet"}
    assert chosen(config="object") == {"object/train-0.parquet", "object/val-0.parquet"}
    assert chosen() == {TRAIN, TEST, "object/train-0.parquet", "object/val-0.parquet", "animal/train-0.parquet"}
    hub.repositories[REPO].card["configs"] = [
        {"config_name": "all", "data_files": [{"split": "train", "path": ["object/train-*", "animal/train-*"]}]},
        {"config_name": "one", "data_files": "animal/*"},
    ]
    assert chosen(config="all", split="train") == {"object/train-0.parquet", "animal/train-0.parquet"}
    assert chosen(config="one") == {"animal/train-0.parquet"}
    with pytest.raises(
        SourceError, match=r"has no file for config nothing, split train; it holds README\.md, animal/train-0\.parquet"
    ):
        chosen(config="nothing", split="train")


def test_an_interrupted_download_is_completed(hub: HubServer, tmp_path: Path, entry: Entry) -> None:
    hub.break_once_after[TRAIN] = 5000
    fetch(entry("hub", repo=REPO, split="train"), tmp_path, quiet)
    assert downloaded(tmp_path) == {TRAIN: FILES[TRAIN]}
    assert len(bodies(hub, TRAIN)) == 2


def test_a_second_call_keeps_what_is_complete(hub: HubServer, tmp_path: Path, entry: Entry) -> None:
    spec = entry("hub", repo=REPO, files=("data/*",))
    fetch(spec, tmp_path, quiet)
    (tmp_path / TEST).write_bytes(b"small tablE")
    hub.requests.clear()
    fetch(spec, tmp_path, quiet)
    assert downloaded(tmp_path) == {TRAIN: FILES[TRAIN], TEST: FILES[TEST]}
    assert bodies(hub, TRAIN) == []
    assert len(bodies(hub, TEST)) == 1


@pytest.mark.parametrize("wrong", [b"longer than the table", b"small tablE"], ids=["size", "bytes"])
def test_bytes_that_are_not_the_listed_ones_are_refused(hub: HubServer, tmp_path: Path, entry: Entry, wrong: bytes) -> None:
    hub.served[TEST] = wrong
    with pytest.raises(SourceError, match=rf"{TEST} of {REPO} arrived twice with other content .*{len(wrong)} bytes, listed 11"):
        fetch(entry("hub", repo=REPO, split="test"), tmp_path, quiet)


def test_a_large_file_is_checked_by_its_sha256(hub: HubServer, tmp_path: Path, entry: Entry) -> None:
    hub.served[TRAIN] = FILES[TRAIN][:-1] + b"x"
    with pytest.raises(SourceError, match="other content than the Hub lists"):
        fetch(entry("hub", repo=REPO, split="train"), tmp_path, quiet)


@pytest.mark.parametrize(
    ("refuse", "kind", "sentence"),
    [
        ((403, "GatedRepo"), SourceUnavailable, "is gated and this machine has no access to it. Accept its conditions at"),
        ((401, "RepoNotFound"), SourceUnavailable, "does not exist on the Hub, or is private"),
        ((404, "RepoNotFound"), SourceUnavailable, "does not exist on the Hub, or is private"),
        ((403, "Forbidden"), SourceUnavailable, r"The Hub refused allenai/some-set \(403\)"),
        ((500, "Trouble"), SourceUnavailable, "The Hub answered 500 for allenai/some-set"),
    ],
)
def test_refusals_are_one_sentence_without_secrets(
    hub: HubServer, tmp_path: Path, entry: Entry, refuse: tuple[int, str], kind: type[Exception], sentence: str
) -> None:
    hub.repositories[REPO].refuse = refuse
    for call in (lambda: fetch(entry("hub", repo=REPO), tmp_path, quiet), lambda: head_revision(entry("hub", repo=REPO))):
        with pytest.raises(kind, match=sentence) as caught:
            call()
        assert "hf_" not in str(caught.value)
        assert "127.0.0.1" not in str(caught.value)
        assert "\n" not in str(caught.value)
        assert caught.value.__cause__ is None


def test_a_wrong_revision_and_a_wrong_name(hub: HubServer, tmp_path: Path, entry: Entry) -> None:
    with pytest.raises(SourceError, match=r"allenai/some-set has no revision v9; correct source\.revision"):
        fetch(entry("hub", repo=REPO, revision="v9"), tmp_path, quiet)
    with pytest.raises(SourceUnavailable, match="allenai/none does not exist"):
        fetch(entry("hub", repo="allenai/none"), tmp_path, quiet)
    with pytest.raises(SourceError, match=r"names no source\.repo"):
        fetch(entry("hub"), tmp_path, quiet)


def test_no_connection_is_said_so(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, entry: Entry) -> None:
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(SourceUnavailable, match="the Hub cannot be reached, or broke off"):
        head_revision(entry("hub", repo=REPO))


def test_a_listing_that_leaves_its_folder_is_refused(hub: HubServer, tmp_path: Path, entry: Entry) -> None:
    hub.add("allenai/evil", {"../outside.parquet": b"x"})
    with pytest.raises(SourceError, match="lists a file outside its own folder"):
        fetch(entry("hub", repo="allenai/evil"), tmp_path / "in", quiet)
    assert not (tmp_path / "outside.parquet").exists()


def test_other_faults_are_not_blamed_on_the_hub(hub: HubServer, tmp_path: Path, entry: Entry) -> None:
    (tmp_path / "data").write_text("a file where a folder must be")
    with pytest.raises(OSError, match="data") as caught:
        fetch(entry("hub", repo=REPO, split="test"), tmp_path, quiet)
    assert not isinstance(caught.value, SourceError)


def test_the_identity_is_what_the_catalogue_asks_for(entry: Entry) -> None:
    assert source_identity(entry("hub", repo=REPO, config="object", split="train")) == {
        "kind": "hub",
        "repo": REPO,
        "revision": None,
        "config": "object",
        "split": "train",
        "files": [],
    }


def test_a_body_that_breaks_off_is_resumed_by_its_range(
    hub: HubServer, tmp_path: Path, entry: Entry, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.DOWNLOAD_CHUNK_SIZE", 1000)  # what is not a whole piece is not kept
    hub.break_once_after[TRAIN] = 5000
    fetch(entry("hub", repo=REPO, split="train"), tmp_path, quiet)
    first, second = bodies(hub, TRAIN)
    assert first is None
    assert second == "bytes=5000-"


@pytest.mark.parametrize("elsewhere", [False, True], ids=["small pages", "bytes stored elsewhere"])
def test_listings_in_pages_and_bytes_behind_a_redirect(hub: HubServer, tmp_path: Path, entry: Entry, elsewhere: bool) -> None:
    hub.page, hub.elsewhere = 1, elsewhere
    fetch(entry("hub", repo=REPO, files=("*",)), tmp_path, quiet)
    assert downloaded(tmp_path) == FILES


def test_a_busy_hub_is_asked_again_when_it_says(hub: HubServer, entry: Entry) -> None:
    hub.answers = {"/api/datasets/": [(503, {}), (429, {"Retry-After": "1"})]}
    assert head_revision(entry("hub", repo=REPO)) == hub.repositories[REPO].branches["main"]
    first, second, third = hub.times
    assert second - first < 0.9
    assert third - second >= 0.95


def test_files_and_listings_wait_as_a_busy_hub_says(hub: HubServer, tmp_path: Path, entry: Entry) -> None:
    """By the client itself."""
    hub.answers = {"/tree/": [(429, {"Retry-After": "0"})], "/resolve/": [(503, {"Retry-After": "0"})]}
    fetch(entry("hub", repo=REPO, split="test"), tmp_path, quiet)
    assert downloaded(tmp_path) == {TEST: b"small table"}


@pytest.mark.parametrize(("status", "passing"), [(429, True), (500, True), (503, True), (400, False)])
def test_trouble_that_passes_is_told_from_trouble_that_stays(
    hub: HubServer, tmp_path: Path, entry: Entry, status: int, passing: bool
) -> None:
    hub.repositories[REPO].refuse = (status, "Trouble")
    with pytest.raises(SourceUnavailable, match=f"The Hub answered {status}") as caught:
        fetch(entry("hub", repo=REPO), tmp_path, quiet)
    assert caught.value.passing == passing


def test_what_had_arrived_is_kept_for_the_next_fetch(hub: HubServer, tmp_path: Path, entry: Entry) -> None:
    """Also where the staging folder of the first one is gone, as after a failed step."""
    spec = entry("hub", repo=REPO, files=("data/*",))
    hub.served[TEST] = b"small tablE"
    with pytest.raises(SourceError, match="arrived twice"):
        fetch(spec, tmp_path / "first", quiet, tmp_path / "downloads")
    del hub.served[TEST]
    hub.requests.clear()
    fetch(spec, tmp_path / "second", quiet, tmp_path / "downloads")
    assert downloaded(tmp_path / "second") == {TRAIN: FILES[TRAIN], TEST: FILES[TEST]}
    assert bodies(hub, TRAIN) == []
    assert not [path for path in (tmp_path / "downloads").iterdir() if path.is_dir()]


FETCH = """
import sys
from pathlib import Path
from molmo2_assets.profile import DatasetSpec, SourceSpec
from molmo2_assets.sources import fetch
source = SourceSpec(kind="hub", repo=sys.argv[1], files=("data/*",))
spec = DatasetSpec(name="some_set", title="", task="image_qa", group="", source=source)
result = fetch(spec, Path(sys.argv[2]), print, Path(sys.argv[3]))
print("fetched", result.revision)
"""


def in_a_process(*arguments: str | Path, **environment: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", FETCH, *map(str, arguments)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        cwd=ROOT, env={**os.environ, **environment},
    )  # fmt: skip


def test_two_processes_fetch_the_same_set(hub: HubServer, tmp_path: Path) -> None:
    runs = [in_a_process(REPO, tmp_path / name, tmp_path / "downloads") for name in ("one", "two")]
    said = [run.communicate(timeout=60) for run in runs]
    assert [run.returncode for run in runs] == [0, 0], said
    for name in ("one", "two"):
        assert downloaded(tmp_path / name) == {TRAIN: FILES[TRAIN], TEST: FILES[TEST]}


def test_offline_mode_is_said_so_and_asks_nobody(hub: HubServer, tmp_path: Path) -> None:
    """The client reads the variable when it is imported: a process of its own."""
    run = in_a_process(REPO, tmp_path / "raw", tmp_path / "downloads", HF_HUB_OFFLINE="1")
    _, errors = run.communicate(timeout=60)
    assert run.returncode == 1
    assert f"SourceUnavailable: {REPO} was not fetched: HF_HUB_OFFLINE is set. Unset it to allow downloads." in errors
    assert hub.requests == []
