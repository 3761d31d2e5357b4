"""A local host of plain files over loopback, with the trouble that real hosts make: parts, breaks, busy answers, changed files.

Trouble is set on the object: `answers` are given before a page is served, in order; `breaks` cut its body once. Every request is
recorded, and how many were served at a time.
"""

from __future__ import annotations

import hashlib
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from typing import Any
from urllib.parse import unquote, urlsplit

from tests.support.loopback import serving


@dataclass
class WebServer:
    """What the handler reads and writes. `slow`: seconds that every answer takes."""

    pages: dict[str, bytes] = field(default_factory=dict)
    answers: dict[str, list[tuple[int, dict[str, str]]]] = field(default_factory=dict)
    breaks: dict[str, int] = field(default_factory=dict)
    changes: dict[str, bytes] = field(default_factory=dict)
    requests: list[tuple[str, str | None]] = field(default_factory=list)
    times: list[float] = field(default_factory=list)
    tags: bool = True
    slow: float = 0.0
    busiest: int = 0
    url: str = ""
    _now: int = 0
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def asked(self, path: str) -> list[str | None]:
        """Range headers of the requests for a page, in order."""
        return [wanted for name, wanted in self.requests if name == path]


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    web: WebServer

    def log_message(self, *_: Any) -> None:
        """Quiet: `WebServer.requests` is the log."""

    def do_GET(self) -> None:
        web, path = self.web, unquote(urlsplit(self.path).path)
        with web._lock:
            web.requests.append((path, self.headers.get("Range")))
            web.times.append(time.monotonic())
            web._now += 1
            web.busiest = max(web.busiest, web._now)
        time.sleep(web.slow)
        try:
            self._answer(path)
        finally:
            with web._lock:
                web._now -= 1

    def _answer(self, path: str) -> None:
        web = self.web
        if web.answers.get(path):
            self._plain(*web.answers[path].pop(0))
        elif path in web.pages:
            self._page(path)
        else:
            self._plain(404, {})

    def _page(self, path: str) -> None:
        web = self.web
        data = web.pages[path]
        tag = f'"{hashlib.sha256(data).hexdigest()[:16]}"'
        start = 0
        wanted = self.headers.get("Range")
        if wanted and self.headers.get("If-Range") == tag:
            start = int(wanted.removeprefix("bytes=").split("-")[0])
            self.send_response(206)
            self.send_header("Content-Range", f"bytes {start}-{len(data) - 1}/{len(data)}")
        else:
            self.send_response(200)
        if web.tags:
            self.send_header("ETag", tag)
        self.send_header("Content-Length", str(len(data) - start))
        self.end_headers()
        stop = web.breaks.pop(path, None)
        with suppress(ConnectionError):  # a client that has seen enough
            self.wfile.write(data[start:] if stop is None else data[start:stop])
        if stop is not None:
            if path in web.changes:
                web.pages[path] = web.changes.pop(path)
            self.wfile.flush()
            self.close_connection = True

    def _plain(self, status: int, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in {"Content-Length": "0", **headers}.items():
            self.send_header(name, value)
        self.end_headers()


@contextmanager
def serve_web() -> Iterator[WebServer]:
    """A running host; `url` is its address without the last slash."""
    web = WebServer()
    with serving(type("Handler", (_Handler,), {"web": web})) as web.url:
        yield web
