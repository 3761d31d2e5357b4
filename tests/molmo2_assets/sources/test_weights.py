"""Weights from the Hub: the true client against a local server; one commit, the files that make a model, and nothing else."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest

from molmo2_assets.sources import SourceError, SourceUnavailable, hub_client
from molmo2_assets.sources.weights import INDEX, fetch_weights
from tests.support.hub_server import HubServer, serve_hub

REPO = "org/model"
FIRST, SECOND = (f"model-0000{n}-of-00002.safetensors" for n in (1, 2))
SHARDS = {FIRST: b"1" * 20_000, SECOND: b"2" * 20_000}
WORDS = {
    "config.json": b"{}",
    "tokenizer.json": b"{ }",
    "chat_template.jinja": b"words",
    INDEX: json.dumps({"weight_map": {"a": FIRST, "b": SECOND, "c": FIRST}}).encode(),
}
NEVER = {
    "pytorch_model.bin": b"pickle",
    "modeling.py": b"code",
    "README.md": b"card",
    "onnx/config.json": b"{}",
    "consolidated.safetensors": b"1",
}


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[HubServer]:
    with serve_hub() as server:
        monkeypatch.setenv("HF_ENDPOINT", server.url)
        monkeypatch.setenv("HF_TOKEN", "hf_" + "secret" * 6)
        monkeypatch.setattr(hub_client, "WAITS", (0.01,))
        server.add(REPO, {**WORDS, **SHARDS, **NEVER})
        yield server


def head(hub: HubServer) -> str:
    return hub.repositories[REPO].branches["main"]


def fetched(hub: HubServer, home: Path, revision: str | None = None) -> dict[str, bytes]:
    folder = fetch_weights(REPO, revision or head(hub), home, lambda line: None, "base_weights.decoder")
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def bodies(hub: HubServer, name: str) -> list[str | None]:
    return [wanted for method, path, wanted in hub.requests if method == "GET" and path.endswith(f"/{name}")]


def test_the_files_that_make_a_model_at_one_commit(hub: HubServer, tmp_path: Path) -> None:
    first = head(hub)
    hub.repositories[REPO].commit({**WORDS, **SHARDS, "config.json": b'{"newer": 1}'})
    assert fetched(hub, tmp_path, first) == {**WORDS, **SHARDS}
    assert not any(bodies(hub, name) for name in NEVER)
    asked = len(hub.requests)
    assert fetched(hub, tmp_path, first) == {**WORDS, **SHARDS}, "there already"
    assert len(hub.requests) == asked


def test_a_model_in_one_file(hub: HubServer, tmp_path: Path) -> None:
    files = {"config.json": b"{}", "model.safetensors": bytes(9_000)}
    commit = hub.repositories[REPO].commit({**files, **SHARDS})
    assert fetched(hub, tmp_path, commit) == files


def test_an_interrupted_download_keeps_what_is_complete(hub: HubServer, tmp_path: Path) -> None:
    hub.answers[SECOND] = [(403, {})] * 20
    with pytest.raises(SourceUnavailable):
        fetched(hub, tmp_path)
    assert not (tmp_path / "weights" / "org--model" / head(hub)).exists()
    hub.answers.clear()
    hub.requests.clear()
    assert fetched(hub, tmp_path) == {**WORDS, **SHARDS}
    assert (bodies(hub, "config.json"), bodies(hub, FIRST)) == ([], [])
    assert len(bodies(hub, SECOND)) == 1
    assert not list(tmp_path.rglob("*.partial"))


def test_the_network_may_be_off(hub: HubServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(SourceUnavailable, match=r"^org/model was not fetched: HF_HUB_OFFLINE is set\."):
        fetched(hub, tmp_path)
    assert hub.requests == []


@pytest.mark.parametrize(
    ("refuse", "message"),
    [
        ((403, "GatedRepo"), "org/model is gated and this machine has no access to it. Accept its conditions at https://"),
        ((404, "RepoNotFound"), "org/model does not exist on the Hub, or is private"),
        ((401, "Unauthorized"), r"The Hub refused org/model \(401\)"),
        ((503, "Busy"), "The Hub answered 503 for org/model"),
    ],
)  # fmt: skip
def test_what_the_hub_refuses_is_one_sentence(
    hub: HubServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, refuse: tuple[int, str], message: str
) -> None:
    from huggingface_hub.utils import _http

    monkeypatch.setattr(_http, "time", SimpleNamespace(sleep=lambda seconds: None))  # the client waits 23 s for a busy listing
    hub.repositories[REPO].refuse = refuse
    with pytest.raises(SourceUnavailable, match=message) as caught:
        fetched(hub, tmp_path)
    assert "hf_" not in str(caught.value)
    assert "\n" not in str(caught.value)


def test_what_is_no_model(hub: HubServer, tmp_path: Path) -> None:
    def said(files: dict[str, bytes]) -> str:
        commit = hub.repositories[REPO].commit(files)
        with pytest.raises(SourceError) as caught:
            fetched(hub, tmp_path, commit)
        return str(caught.value).replace(commit[:12], "COMMIT")

    assert said({"config.json": b"{}", "pytorch_model.bin": b"1"}).startswith(
        "org/model at COMMIT holds no model.safetensors and no"
    )
    assert said({**WORDS, INDEX: b"[]"}) == f"org/model at COMMIT: {INDEX} cannot be read as an index of weights."
    for name in ("gone.safetensors", "../up.safetensors", "code.bin"):
        index = json.dumps({"weight_map": {"a": name}}).encode()
        assert said({**WORDS, **SHARDS, "code.bin": b"1", INDEX: index}) == (
            f"org/model at COMMIT: {INDEX} names {name!r}, which is no safetensors file of that commit."
        )
    with pytest.raises(SourceError, match="has no revision"):
        fetched(hub, tmp_path, "f" * 40)


@pytest.mark.parametrize(("revision", "words"), [(None, "names no commit of"), ("main", "names 'main', which is no commit of")])
def test_a_branch_is_no_version(hub: HubServer, tmp_path: Path, revision: str | None, words: str) -> None:
    with pytest.raises(SourceError, match=f"^base_weights.decoder {words} org/model; it stands at {head(hub)} now"):
        fetch_weights(REPO, revision, tmp_path, lambda line: None, "base_weights.decoder")
