"""How far something has come: a bar where somebody looks, else a line now and then."""

from __future__ import annotations

import io
import sys
import threading

import pytest

from molmo2_assets.sources import progress
from molmo2_assets.sources.progress import Progress


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_a_terminal_gets_a_bar_and_the_log_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    screen, lines = Terminal(), list[str]()
    monkeypatch.setattr(sys, "stderr", screen)
    with Progress("some_set", 2048, "B", lines.append) as shown:
        for _ in range(4):
            shown.add(512)
    assert "some_set:" in screen.getvalue()
    assert "2.05k" in screen.getvalue()
    assert lines == []


def test_a_log_gets_a_line_in_thirty_seconds(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 100.0
    monkeypatch.setattr(progress.time, "monotonic", lambda: now)
    lines: list[str] = []
    with Progress("some_set", 9, "media", lines.append) as shown:
        for _ in range(9):
            now += 11
            shown.add()
    assert lines == ["some_set: 3 of 9 media", "some_set: 6 of 9 media", "some_set: 9 of 9 media"]


def test_nothing_is_lost_between_threads() -> None:
    with Progress("some_set", None, "B", lambda line: None) as shown:
        threads = [threading.Thread(target=lambda: [shown.add(3) for _ in range(2000)]) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert shown.done == 24_000
