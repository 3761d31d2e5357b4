"""Addresses that stand in rows: only the public internet is asked, and what a person allows."""

from __future__ import annotations

import ipaddress
import socket
from pathlib import Path
from typing import Any

import pytest

from molmo2_assets.profile import MediaSpec
from molmo2_assets.sources import SourceError, SourceUnavailable, fetch
from molmo2_assets.sources.addresses import VARIABLE, allowed_networks, is_allowed
from molmo2_assets.sources.web import Web, WebFault
from tests.molmo2_assets.sources.test_url import Entry
from tests.support.small_sets import picture_bytes, quiet, run, spec_of
from tests.support.web_server import serve_web


@pytest.fixture(autouse=True)
def nothing_allowed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(VARIABLE)


@pytest.mark.parametrize("address", [
    "127.0.0.1", "127.8.9.10", "10.0.0.1", "172.16.0.1", "192.168.1.1", "169.254.169.254", "100.64.0.1", "0.0.0.0", "224.0.0.1",
    "255.255.255.255", "::1", "::", "fe80::1", "fc00::1", "ff02::1", "::ffff:127.0.0.1", "::ffff:10.0.0.1", "64:ff9b::a9fe:a9fe",
    "2002:7f00:1::1",
])  # fmt: skip
def test_addresses_that_are_not_public(address: str) -> None:
    assert not is_allowed(ipaddress.ip_address(address), ())


@pytest.mark.parametrize("address", ["8.8.8.8", "2606:4700::1111", "::ffff:8.8.8.8", "64:ff9b::808:808"])
def test_public_addresses(address: str) -> None:
    assert is_allowed(ipaddress.ip_address(address), ())


def test_a_person_allows_networks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, "10.1.0.0/16, 127.0.0.1 fc00::/7")
    networks = allowed_networks()
    wanted = {"10.1.2.3": True, "10.2.0.1": False, "::ffff:10.1.0.1": True, "fd00::1": True}
    assert {text: is_allowed(ipaddress.ip_address(text), networks) for text in wanted} == wanted
    monkeypatch.setenv(VARIABLE, "10.1.0.0/16,mirror")
    with pytest.raises(SourceError, match=f"{VARIABLE} names 'mirror', which is no network"):
        allowed_networks()


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "2130706433", "0x7f.1", "[::ffff:127.0.0.1]"])
def test_a_host_of_this_machine_is_never_connected_to(host: str, tmp_path: Path) -> None:
    """However its address is written."""
    with serve_web() as server:
        server.pages = {"/x": b"secret"}
        port = server.url.rpartition(":")[2]
        with pytest.raises(WebFault, match="not an address of the public internet") as caught:
            Web().download(f"http://{host}:{port}/x", tmp_path / "x")
    assert (caught.value.answer, caught.value.passing) == ("private_address", False)
    assert server.requests == []
    assert not (tmp_path / "x").exists()


def test_a_redirect_is_looked_at_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with serve_web() as host, serve_web() as inner:
        monkeypatch.setenv(VARIABLE, "127.0.0.1")
        host.answers = {"/x": [(302, {"Location": inner.url.replace("127.0.0.1", "127.0.0.2") + "/x"})]}
        inner.pages = {"/x": b"secret"}
        with pytest.raises(WebFault, match=r"127\.0\.0\.2 not an address of the public internet"):
            Web().download(f"{host.url}/x", tmp_path / "x")
        assert len(host.requests) == 1
    assert inner.requests == []
    assert not (tmp_path / "x").exists()


def test_a_name_is_resolved_once_and_that_address_is_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A name that answers a public address first and this machine's the second time (rebinding)."""
    true, asked = socket.getaddrinfo, []

    def resolve(host: Any, port: Any, *rest: Any, **more: Any) -> Any:
        if host != "rebinding.invalid":
            asked.append(host)
            return true(host, port, *rest, **more)
        address = "127.0.0.1" if "name" in asked else "240.0.0.1"
        asked.append("name")
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port))]

    with serve_web() as server:
        server.pages = {"/x": b"secret"}
        monkeypatch.setattr(socket, "getaddrinfo", resolve)
        monkeypatch.setenv(VARIABLE, "240.0.0.0/4")
        monkeypatch.setattr("molmo2_assets.sources.web.TRIES", 1)
        monkeypatch.setattr("molmo2_assets.sources.web.TIMEOUT", (0.2, 0.2))
        with pytest.raises(WebFault, match="no answer"):
            Web().download(f"http://rebinding.invalid:{server.url.rpartition(':')[2]}/x", tmp_path / "x")
    assert asked == ["name", "240.0.0.1"]
    assert server.requests == []


def test_a_proxy_is_not_asked_for_an_address_of_this_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with serve_web() as proxy:
        monkeypatch.setenv("http_proxy", proxy.url)
        monkeypatch.setenv("no_proxy", "")
        with pytest.raises(WebFault, match=r"169\.254\.169\.254 not an address of the public internet"):
            Web().download("http://169.254.169.254/latest/meta-data", tmp_path / "x")
        assert proxy.requests == []
        proxy.pages = {"/x": b"public"}
        Web().download("http://some.invalid/x", tmp_path / "x")  # the person's own proxy may stand anywhere
    assert (tmp_path / "x").read_bytes() == b"public"


def test_such_links_are_dead_ones_until_they_are_allowed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spec = spec_of("pixmo_ask_model_anything", "image_qa", MediaSpec(kind="urls"))
    with serve_web() as server:
        server.pages = {"/a.png": picture_bytes(1)}
        urls = [f"{server.url}/a.png", "http://169.254.169.254/latest/meta-data"]
        rows = [{"image_url": url, "image_sha256": None, "question": "a?", "answer": "b"} for url in urls]
        done = run(spec, tmp_path, rows)
        assert done.reasons == {0: "media_missing", 1: "media_missing"}
        assert done.media.facts["dead_links"] == {"private_address": 2}
        assert server.requests == []
        monkeypatch.setenv(VARIABLE, "127.0.0.0/8")
        done = run(spec, tmp_path, rows)
    assert done.reasons == {1: "media_missing"}
    assert done.media.facts["dead_links"] == {"private_address": 1}


def test_a_set_at_such_an_address_says_what_to_do(tmp_path: Path, entry: Entry) -> None:
    message = rf"some_set: http://10\.1\.2\.3/x\.json cannot be had: 10\.1\.2\.3 not an .*{VARIABLE} to allow it"
    with pytest.raises(SourceUnavailable, match=message) as caught:
        fetch(entry("url", files=("http://10.1.2.3/x.json",)), tmp_path, quiet)
    assert not caught.value.passing
