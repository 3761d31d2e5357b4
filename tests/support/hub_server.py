"""A local server that speaks the part of the Hub's protocol that the true client uses for datasets and models, over loopback.

Repositories are dicts of commits; files are plain bytes. Listings come in pages of `page` entries; with `elsewhere`, large files
are answered by a redirect to where their bytes are stored, as the true Hub does. Trouble is set on the server object: gated or
refused repositories, answers given before the true one (busy, out of order), bodies that break off, bytes that differ from the
listing. Every request is recorded.
"""

from __future__ import annotations

import hashlib
import json
import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from typing import Any
from urllib.parse import parse_qs, quote, unquote, urlsplit

from tests.support.loopback import serving


@dataclass
class Repository:
    """Commits of one dataset, oldest first; `branches` name one each."""

    commits: dict[str, dict[str, bytes]] = field(default_factory=dict)
    branches: dict[str, str] = field(default_factory=dict)
    card: dict[str, Any] = field(default_factory=dict)
    refuse: tuple[int, str] | None = None

    def commit(self, files: dict[str, bytes], branch: str = "main") -> str:
        """Add a commit on a branch; returns its id."""
        seed = repr((branch, len(self.commits), sorted(files))).encode()
        name = hashlib.sha1(seed, usedforsecurity=False).hexdigest()
        self.commits[name] = dict(files)
        self.branches[branch] = name
        return name


@dataclass
class HubServer:
    """What the handler reads and writes."""

    repositories: dict[str, Repository] = field(default_factory=dict)
    large: int = 1 << 12
    requests: list[tuple[str, str, str | None]] = field(default_factory=list)
    break_once_after: dict[str, int] = field(default_factory=dict)
    served: dict[str, bytes] = field(default_factory=dict)
    answers: dict[str, list[tuple[int, dict[str, str]]]] = field(default_factory=dict)
    times: list[float] = field(default_factory=list)
    page: int = 1000
    elsewhere: bool = False
    resume: bool = True
    url: str = ""

    def add(self, name: str, files: dict[str, bytes], **card: Any) -> Repository:
        """A repository with one commit on main."""
        repository = Repository(card=card)
        repository.commit(files)
        self.repositories[name] = repository
        return repository


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    hub: HubServer

    def log_message(self, *_: Any) -> None:
        """Quiet: `HubServer.requests` is the log."""

    def do_HEAD(self) -> None:
        self._answer(body=False)

    def do_GET(self) -> None:
        self._answer(body=True)

    def _answer(self, body: bool) -> None:
        path = unquote(urlsplit(self.path).path)
        self.hub.requests.append((self.command, path, self.headers.get("Range")))
        self.hub.times.append(time.monotonic())
        for part, waiting in self.hub.answers.items():
            if part in path and waiting:
                status, headers = waiting.pop(0)
                return self._error(status, "Trouble", headers)
        if path.startswith("/stored/"):
            commit, _, file = path.removeprefix("/stored/").partition("/")
            data = next(
                found[file] for found in (r.commits.get(commit, {}) for r in self.hub.repositories.values()) if file in found
            )
            return self._file(file, self.hub.served.get(file, data), commit, body)
        api = path.startswith("/api/")
        rest = re.sub("^/(api/)?(datasets/|models/)?", "", path).split("/")
        name, action = "/".join(rest[:2]), rest[2:]
        repository = self.hub.repositories.get(name)
        if repository is None:
            return self._error(401, "RepoNotFound")
        if repository.refuse is not None:
            return self._error(*repository.refuse)
        revision = action[1] if len(action) > 1 else "main"
        commit = repository.branches.get(revision, revision)
        if commit not in repository.commits:
            return self._error(404, "RevisionNotFound")
        if api and (not action or action[0] == "revision"):
            card = {"cardData": repository.card} if repository.card else {}
            return self._json({"id": name, "sha": commit, "gated": False, "private": False, "tags": [], **card}, body)
        if api and action[0] == "tree":
            entries = [self._entry(path, data) for path, data in sorted(repository.commits[commit].items())]
            first = int(parse_qs(urlsplit(self.path).query).get("cursor", ["0"])[0])
            more = first + self.hub.page < len(entries)
            link = {"Link": f'<{self.hub.url}{path}?recursive=true&cursor={first + self.hub.page}>; rel="next"'} if more else {}
            return self._json(entries[first : first + self.hub.page], body, link)
        file = "/".join(action[2:])
        if action[0] == "resolve" and file in repository.commits[commit]:
            data = repository.commits[commit][file]
            if self.hub.elsewhere and len(data) >= self.hub.large:
                return self._redirect(file, data, commit)
            return self._file(file, self.hub.served.get(file, repository.commits[commit][file]), commit, body)
        return self._error(404, "EntryNotFound")

    def _entry(self, path: str, data: bytes) -> dict[str, Any]:
        entry: dict[str, Any] = {"type": "file", "path": path, "size": len(data), "oid": _blob(data)}
        if len(data) >= self.hub.large:
            digest = hashlib.sha256(data).hexdigest()
            entry["lfs"] = {"oid": digest, "size": len(data), "pointerSize": 127}
        return entry

    def _file(self, name: str, data: bytes, commit: str, body: bool) -> None:
        start = 0
        wanted = self.headers.get("Range")
        if wanted and self.hub.resume and body:
            start = int(wanted.removeprefix("bytes=").split("-")[0])
            self.send_response(206)
            self.send_header("Content-Range", f"bytes {start}-{len(data) - 1}/{len(data)}")
        else:
            self.send_response(200)
        large = len(data) >= self.hub.large
        self.send_header("ETag", f'"{hashlib.sha256(data).hexdigest() if large else _blob(data)}"')
        self.send_header("X-Repo-Commit", commit)
        self.send_header("Accept-Ranges", "bytes")
        self.send_header("Content-Length", str(len(data) - start))
        self.end_headers()
        if not body:
            return
        stop = self.hub.break_once_after.pop(name, None)
        self.wfile.write(data[start:] if stop is None else data[start:stop])
        if stop is not None:
            self.wfile.flush()
            self.close_connection = True

    def _redirect(self, name: str, data: bytes, commit: str) -> None:
        self.send_response(302)
        self.send_header("Location", f"{self.hub.url}/stored/{commit}/{quote(name)}")
        self.send_header("X-Repo-Commit", commit)
        self.send_header("X-Linked-Size", str(len(data)))
        self.send_header("X-Linked-Etag", f'"{hashlib.sha256(data).hexdigest()}"')
        self.send_header("Content-Length", "0")
        self.end_headers()

    def _json(self, value: Any, body: bool, headers: dict[str, str] | None = None) -> None:
        data = json.dumps(value).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        for header, text in (headers or {}).items():
            self.send_header(header, text)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        if body:
            self.wfile.write(data)

    def _error(self, status: int, code: str, headers: dict[str, str] | None = None) -> None:
        data = json.dumps({"error": code}).encode()
        self.send_response(status)
        for header, text in (headers or {}).items():
            self.send_header(header, text)
        self.send_header("X-Error-Code", code)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)


def _blob(data: bytes) -> str:
    """Git's hash of a file."""
    return hashlib.sha1(b"blob %d\0" % len(data) + data, usedforsecurity=False).hexdigest()


@contextmanager
def serve_hub() -> Iterator[HubServer]:
    """A running server; `url` is its endpoint."""
    hub = HubServer()
    with serving(type("Handler", (_Handler,), {"hub": hub})) as hub.url:
        yield hub
