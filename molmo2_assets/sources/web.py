"""One file over HTTP: resumed where it broke off, checked, and polite to its host.

Belongs here: a request's whole life, the turn-taking of a host. Does not belong here: which files a set needs (`url.py`,
`media.py`), which addresses may be asked (`addresses.py`), what bytes mean.
"""

from __future__ import annotations

import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from training_backend.data.fingerprint import file_sha256

AGENT = "nanomolmo2 (downloads a published dataset)"
TIMEOUT = (10.0, 30.0)
"""Seconds to connect, and between two pieces of a body."""
TRIES = 4
WAITS = (0.5, 2.0, 4.0)
"""Seconds before another try, where the answer's Retry-After does not say."""
LONGEST_WAIT = 60.0
PER_HOST = 4
"""Requests that one host has to serve at a time."""
_BUSY = (408, 425, 429, 500, 502, 503, 504)
_BLOCK = 1 << 16


class WebFault(Exception):
    """A file cannot be had. `answer` is the status, or a word where there was none; `passing` trouble may be gone tomorrow."""

    def __init__(self, answer: str, message: str, *, passing: bool) -> None:
        super().__init__(message)
        self.answer, self.passing = answer, passing


class Web:
    """Downloads from many hosts: a few requests a host at a time, and none before the time that it named."""

    def __init__(self, per_host: int = PER_HOST) -> None:
        self._turns: dict[str, threading.Semaphore] = defaultdict(lambda: threading.Semaphore(per_host))
        self._not_before: dict[str, float] = defaultdict(float)
        self._lock = threading.Lock()
        self._local = threading.local()

    @contextmanager
    def _turn(self, host: str) -> Iterator[None]:
        with self._lock:
            turns = self._turns[host]
        with turns:
            time.sleep(max(0.0, self._not_before[host] - time.monotonic()))
            yield

    def download(
        self,
        url: str,
        path: Path,
        *,
        sha256: str | None = None,
        max_bytes: int = 1 << 40,
        told: Callable[[int], Any] = id,
    ) -> str:
        """Write the bytes at `url` to `path`; returns their sha256. A file that is there already is gone on with.

        `told` hears of bytes as they arrive. Raises WebFault; then what has arrived stays at `path` where more may come.
        """
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise WebFault("address", "not an http or https address", passing=False)
        fault: WebFault | None = None
        for number in range(TRIES):
            with self._turn(parts.netloc):
                try:
                    self._once(url, path, max_bytes, told)
                except WebFault as error:
                    fault = error
                    if not error.passing:
                        path.unlink(missing_ok=True)
                        raise
                else:
                    digest = file_sha256(path)
                    if sha256 is None or digest == sha256:
                        return digest
                    path.unlink()
                    fault = WebFault(
                        "checksum", f"the bytes have sha256 {digest[:12]}…, published is {sha256[:12]}…", passing=False
                    )
                    if number:
                        raise fault  # twice the same answer: it is another file
                    continue
            if number + 1 < TRIES:
                time.sleep(0 if self._not_before[parts.netloc] > time.monotonic() else WAITS[min(number, len(WAITS) - 1)])
        assert fault is not None
        raise fault

    def _once(self, url: str, path: Path, max_bytes: int, told: Callable[[int], None]) -> None:
        """One request. A part that is there is asked to be continued, if it is still part of the same file (If-Range)."""
        import requests
        import urllib3

        from molmo2_assets.sources.addresses import PrivateAddress

        have, mark = path.stat().st_size if path.is_file() else 0, _mark(path)
        headers = {"User-Agent": AGENT, "Accept-Encoding": "identity"}
        if have and mark:
            headers |= {"Range": f"bytes={have}-", "If-Range": mark}
        try:
            with self._session().get(url, headers=headers, stream=True, timeout=TIMEOUT) as answer:
                if answer.status_code in _BUSY:
                    self._wait(urlsplit(url).netloc, answer.headers.get("Retry-After", ""))
                    raise WebFault(str(answer.status_code), f"the host answers {answer.status_code}", passing=True)
                if answer.status_code == 416 and have:  # nothing follows what is there: it was another file's, or all of it
                    path.unlink()
                    raise WebFault("416", "the host has nothing after what arrived before", passing=True)
                if answer.status_code not in (200, 206):
                    raise WebFault(str(answer.status_code), f"the host answers {answer.status_code}", passing=False)
                begin = have if answer.status_code == 206 else 0
                if begin and not answer.headers.get("Content-Range", "").startswith(f"bytes {have}-"):
                    path.unlink()
                    raise WebFault("range", "the host continues at another place than it was asked to", passing=True)
                length = answer.headers.get("Content-Length", "")
                whole = begin + int(length) if length.isdigit() else None
                _set_mark(path, answer.headers)
                with path.open("ab" if begin else "wb") as stream:
                    for block in answer.iter_content(_BLOCK):
                        stream.write(block)
                        told(len(block))
                        if stream.tell() > max_bytes:
                            raise WebFault("too_large", f"more than {max_bytes} bytes", passing=False)
        except PrivateAddress as error:
            raise WebFault("private_address", str(error), passing=False) from None
        except (requests.RequestException, urllib3.exceptions.HTTPError) as error:
            raise WebFault(type(error).__name__, f"no answer ({type(error).__name__})", passing=True) from None
        size = path.stat().st_size
        if whole is not None and size < whole:
            raise WebFault("cut", f"{size} of {whole} bytes arrived", passing=True)
        _mark_file(path).unlink(missing_ok=True)

    def _wait(self, host: str, named: str) -> None:
        if named.isdigit():
            self._not_before[host] = time.monotonic() + min(float(named), LONGEST_WAIT)

    def _session(self) -> Any:
        """One session a thread: they are not made to be shared."""
        if not hasattr(self._local, "session"):
            from molmo2_assets.sources.addresses import session

            self._local.session = session()
            self._local.session.max_redirects = 10
        return self._local.session


def _mark_file(path: Path) -> Path:
    return path.with_name(path.name + ".etag")


def _mark(path: Path) -> str:
    """What the host called the version that a part belongs to; empty where it said nothing, and the part cannot be gone on with."""
    try:
        return _mark_file(path).read_text()
    except FileNotFoundError:
        return ""


def _set_mark(path: Path, headers: Any) -> None:
    tag = headers.get("ETag", "")
    mark = tag if tag and not tag.startswith("W/") else headers.get("Last-Modified", "")
    if mark:
        _mark_file(path).write_text(mark)
    else:
        _mark_file(path).unlink(missing_ok=True)
