"""Plain addresses against a real local host: parts, breaks, busy and changed files, checksums."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from molmo2_assets.sources import SourceError, SourceUnavailable, fetch, source_identity, web
from molmo2_assets.sources.url import names_of
from molmo2_assets.sources.web import Web, WebFault
from tests.support.web_server import WebServer, serve_web

Entry = Callable[..., Any]
ROWS = bytes(range(256)) * 4000


def quiet(line: str) -> None:
    """Nobody reads it."""


@pytest.fixture
def host(monkeypatch: pytest.MonkeyPatch) -> Iterator[WebServer]:
    monkeypatch.setattr(web, "WAITS", (0.0,))
    with serve_web() as server:
        server.pages["/sets/rows.jsonl"] = ROWS
        yield server


def files(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_files_arrive_under_their_names_and_are_hashed(host: WebServer, tmp_path: Path, entry: Entry) -> None:
    host.pages["/sets/more rows.csv"] = b"a,b\n"
    spec = entry("url", files=(f"{host.url}/sets/rows.jsonl?key=secret", f"{host.url}/sets/more%20rows.csv"))
    result = fetch(spec, tmp_path / "raw", quiet, tmp_path / "downloads")
    assert files(tmp_path / "raw") == {"rows.jsonl": ROWS, "more_rows.csv": b"a,b\n"}
    assert result.facts["sha256"]["rows.jsonl"] == hashlib.sha256(ROWS).hexdigest()
    assert (result.facts["files"], result.facts["bytes"]) == (2, len(ROWS) + 4)
    assert result.revision.startswith("url-")
    assert [path for path in (tmp_path / "downloads").iterdir() if path.is_dir()] == []


def test_two_hosts_with_one_name_do_not_collide() -> None:
    urls = ("http://a.invalid/x/data.json", "http://b.invalid/x/data.json", "http://b.invalid/x/other.json")
    assert [str(path) for path in names_of(urls).values()] == ["a.invalid/data.json", "b.invalid/data.json", "other.json"]
    same_host = names_of(("http://a.invalid/x/data.json", "http://a.invalid/y/data.json"))
    assert len(set(same_host.values())) == 2
    with pytest.raises(SourceError, match="names no file"):
        names_of(("http://a.invalid/x/",))


@pytest.mark.parametrize("url", ["http://a.invalid/..", "http://a.invalid/%2e%2e", "http://a.invalid/x/."])
def test_a_name_cannot_leave_its_folder(url: str) -> None:
    with pytest.raises(SourceError, match="names no file"):
        names_of((url,))


def test_a_cut_connection_is_resumed_where_it_broke(host: WebServer, tmp_path: Path, entry: Entry) -> None:
    host.breaks["/sets/rows.jsonl"] = 600_000
    fetch(entry("url", files=(f"{host.url}/sets/rows.jsonl",)), tmp_path / "raw", quiet)
    assert files(tmp_path / "raw") == {"rows.jsonl": ROWS}
    first, second = host.asked("/sets/rows.jsonl")
    assert first is None
    assert second is not None
    assert 400_000 < int(second.removeprefix("bytes=").removesuffix("-")) <= 600_000


def test_a_file_that_changed_meanwhile_is_fetched_whole(host: WebServer, tmp_path: Path, entry: Entry) -> None:
    host.breaks["/sets/rows.jsonl"], host.changes["/sets/rows.jsonl"] = 600_000, ROWS[::-1]
    fetch(entry("url", files=(f"{host.url}/sets/rows.jsonl",)), tmp_path / "raw", quiet)
    assert files(tmp_path / "raw") == {"rows.jsonl": ROWS[::-1]}, "never the head of one and the tail of another"


def test_a_host_without_tags_cannot_be_resumed(host: WebServer, tmp_path: Path, entry: Entry) -> None:
    host.tags = False
    host.breaks["/sets/rows.jsonl"] = 600_000
    fetch(entry("url", files=(f"{host.url}/sets/rows.jsonl",)), tmp_path / "raw", quiet)
    assert host.asked("/sets/rows.jsonl") == [None, None]
    assert files(tmp_path / "raw") == {"rows.jsonl": ROWS}


def test_a_fetch_that_failed_goes_on_where_it_was(host: WebServer, tmp_path: Path, entry: Entry) -> None:
    spec = entry("url", files=(f"{host.url}/sets/rows.jsonl", f"{host.url}/gone.json"))
    with pytest.raises(SourceUnavailable, match=r"some_set: http://127\S+/gone\.json cannot be had: the host answers 404"):
        fetch(spec, tmp_path / "first", quiet, tmp_path / "downloads")
    host.pages["/gone.json"] = b"[]"
    fetch(spec, tmp_path / "second", quiet, tmp_path / "downloads")
    assert files(tmp_path / "second") == {"rows.jsonl": ROWS, "gone.json": b"[]"}
    assert len(host.asked("/sets/rows.jsonl")) == 1


def test_published_hashes_are_demanded(host: WebServer, tmp_path: Path, entry: Entry) -> None:
    url = f"{host.url}/sets/rows.jsonl"
    right = hashlib.sha256(ROWS).hexdigest()
    good = entry("url", files=(url,), params={"sha256": {url: right}})
    fetch(good, tmp_path / "raw", quiet)
    bad = entry("url", files=(url,), params={"sha256": {url: "0" * 64}})
    with pytest.raises(SourceUnavailable, match=r"the bytes have sha256 .*, published is 000000000000…") as caught:
        fetch(bad, tmp_path / "bad", quiet)
    assert not caught.value.passing
    assert files(tmp_path / "bad") == {}
    assert source_identity(good) != source_identity(bad)


def test_busy_hosts_are_asked_again_when_they_say(host: WebServer, tmp_path: Path) -> None:
    host.answers["/sets/rows.jsonl"] = [(503, {}), (429, {"Retry-After": "1"})]
    Web().download(f"{host.url}/sets/rows.jsonl", tmp_path / "rows")
    first, second, third = host.times
    assert second - first < 0.9
    assert third - second >= 0.95


@pytest.mark.parametrize(("status", "passing", "requests"), [(404, False, 1), (410, False, 1), (403, False, 1), (500, True, 4)])
def test_refusals(host: WebServer, tmp_path: Path, status: int, passing: bool, requests: int) -> None:
    host.answers["/x"] = [(status, {})] * 9
    with pytest.raises(WebFault) as caught:
        Web().download(f"{host.url}/x", tmp_path / "x")
    assert (caught.value.answer, caught.value.passing) == (str(status), passing)
    assert len(host.requests) == requests


def test_addresses_that_are_none(tmp_path: Path) -> None:
    for url in ("file:///etc/passwd", "ftp://a.invalid/x", "nothing", "http:///x"):
        with pytest.raises(WebFault, match="not an http"):
            Web().download(url, tmp_path / "x")
    assert not (tmp_path / "x").exists()


def test_a_redirect_to_a_file_is_not_followed(host: WebServer, tmp_path: Path) -> None:
    host.answers["/x"] = [(302, {"Location": "file:///etc/passwd"})] * 4
    with pytest.raises(WebFault):
        Web().download(f"{host.url}/x", tmp_path / "x")
    assert not (tmp_path / "x").exists()


def test_an_endless_body_stops_at_the_limit(host: WebServer, tmp_path: Path) -> None:
    with pytest.raises(WebFault, match="more than 1000 bytes") as caught:
        Web().download(f"{host.url}/sets/rows.jsonl", tmp_path / "x", max_bytes=1000)
    assert caught.value.answer == "too_large"
    assert not (tmp_path / "x").exists()


def test_an_unreachable_host_is_passing_trouble(tmp_path: Path, entry: Entry, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(web, "WAITS", (0.0,))
    with pytest.raises(SourceUnavailable, match="no answer") as caught:
        fetch(entry("url", files=("http://127.0.0.1:9/x.json?key=secret",)), tmp_path, quiet)
    assert caught.value.passing
    assert "secret" not in str(caught.value)


def test_an_entry_without_addresses(tmp_path: Path, entry: Entry) -> None:
    with pytest.raises(SourceError, match=r"names none in source\.files"):
        fetch(entry("url"), tmp_path, quiet)
