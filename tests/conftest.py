"""The same tests in the background as in front.

A shell without job control starts `command &` with SIGINT ignored. Dagster gives SIGTERM whatever SIGINT has, so that from its
first run in this process on SIGTERM is ignored too, by every process that a test starts, and nothing ends when it is asked to.
"""

from __future__ import annotations

import signal

import pytest


def pytest_configure(config: pytest.Config) -> None:
    """Also in every process of pytest-xdist."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
