"""Media at addresses: downloaded once, kept apart, and dead or troubled links as lines of the table."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path

import pytest

from molmo2_assets.profile import MediaSpec
from molmo2_assets.sources import links, web
from tests.support.small_sets import Validated, picture_bytes, run, spec_of
from tests.support.web_server import WebServer, serve_web
from training_backend.data.media import DEFAULT_LIMITS, Limits, MediaCache


@pytest.fixture
def host(monkeypatch: pytest.MonkeyPatch) -> Iterator[WebServer]:
    monkeypatch.setattr(web, "WAITS", (0.0,))
    with serve_web() as server:
        yield server


def linked(home: Path, *urls: str, sha256: str | None = None, limits: Limits = DEFAULT_LIMITS) -> Validated:
    """A set with a question about the picture at each address."""
    rows = [{"image_url": url, "image_sha256": sha256, "question": f"{n}?", "answer": "a"} for n, url in enumerate(urls)]
    return run(spec_of("pixmo_ask_model_anything", "image_qa", MediaSpec(kind="urls")), home, rows, limits)


def test_pictures_at_addresses_are_downloaded_and_those_of_two_hosts_kept_apart(host: WebServer, tmp_path: Path) -> None:
    host.pages = {"/a/photo.png": picture_bytes(1), "/b/photo.png": picture_bytes(2, 30, 30)}
    with serve_web() as other:
        other.pages = {"/a/photo.png": picture_bytes(3, 7, 9)}
        urls = [f"{host.url}/a/photo.png", f"{host.url}/b/photo.png", f"{other.url}/a/photo.png"]
        done = linked(tmp_path, *urls)
    assert [(done.records[url].width, done.records[url].height) for url in urls] == [(20, 10), (30, 30), (7, 9)]
    assert done.report.rows_ok == 3
    assert len({record.sha256 for record in done.records.values()}) == 3
    assert list((tmp_path / "cache" / "downloads").iterdir()) == []


def test_what_was_had_before_is_not_asked_for_again(host: WebServer, tmp_path: Path) -> None:
    host.pages = {f"/{n}.png": picture_bytes(n) for n in range(6)}
    urls = [f"{host.url}/{n}.png" for n in range(8)]
    first = linked(tmp_path, *urls)
    assert first.media.counts == {"media": 8, "ok": 6, "missing": 2, "broken": 0}
    assert first.media.facts["dead_links"] == {"404": 2}
    assert set(first.reasons.values()) == {"media_missing"}
    asked = len(host.requests)
    again = linked(tmp_path, *urls)
    assert len(host.requests) == asked, "dead links neither"
    assert again.media == first.media


def test_a_link_that_comes_back_or_dies_changes_the_version(
    host: WebServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(links, "DEAD_SECONDS", 0.0)
    host.pages = {"/0.png": picture_bytes(0)}
    urls = [f"{host.url}/0.png", f"{host.url}/1.png"]
    first = linked(tmp_path, *urls).media.data_version
    host.pages["/1.png"] = picture_bytes(1)
    whole = linked(tmp_path, *urls)
    assert whole.media.data_version != first
    assert whole.report.rows_ok == 2
    del host.pages["/1.png"]
    digest = whole.records[urls[1]].sha256
    assert digest is not None
    MediaCache(tmp_path / "cache").path(digest).unlink()
    assert linked(tmp_path, *urls).media.data_version == first


def test_trouble_of_the_host_is_a_line_of_the_table(host: WebServer, tmp_path: Path) -> None:
    host.pages = {
        "/good.png": picture_bytes(1), "/page.png": b"<!DOCTYPE html><html>Sign in</html>", "/cut.png": picture_bytes(2)[:200],
        "/busy.png": picture_bytes(3), "/broken.png": picture_bytes(4), "/large.png": picture_bytes(5, 200, 200),
    }  # fmt: skip
    host.answers = {"/busy.png": [(429, {"Retry-After": "0"}), (503, {})], "/down.png": [(500, {})] * 9}
    host.breaks = {"/broken.png": 100}
    names = ["good", "page", "cut", "busy", "broken", "large", "down", "gone"]
    urls = [f"{host.url}/{name}.png" for name in names] + ["ftp://a.invalid/x.png", "not an address", "http://127.0.0.1:9/x.png"]
    done = linked(tmp_path, *urls, limits=Limits(max_image_bytes=50_000))
    assert done.reasons == {
        1: "media_not_an_image", 2: "media_truncated", 5: "media_too_large", 6: "media_missing", 7: "media_missing",
        8: "media_missing", 9: "media_missing", 10: "media_missing",
    }  # fmt: skip
    assert done.media.facts["dead_links"] == {"address": 2, "404": 1, "500": 1, "ConnectionError": 1, "too_large": 1}


def test_published_hashes_are_demanded_of_downloads(host: WebServer, tmp_path: Path) -> None:
    host.pages = {"/a.png": picture_bytes(1)}
    url = f"{host.url}/a.png"
    assert linked(tmp_path / "right", url, sha256=hashlib.sha256(picture_bytes(1)).hexdigest()).report.rows_ok == 1
    assert linked(tmp_path / "wrong", url, sha256="0" * 64).reasons == {0: "media_checksum"}


def test_one_host_serves_a_few_at_a_time(host: WebServer, tmp_path: Path) -> None:
    host.pages = {f"/{n}.png": picture_bytes(n) for n in range(24)}
    host.slow = 0.02
    linked(tmp_path, *(f"{host.url}/{n}.png" for n in range(24)))
    assert 2 <= host.busiest <= web.PER_HOST
