"""A real `dagster dev` over a made home: what its pages know, and what becomes of a training run when somebody presses Terminate,
the server goes away in order, or is killed.

Belongs here: the three ends of a run that look alike from inside a step. Does not belong here: the launcher alone
(`tests/training_backend/launch`).
"""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from tests.molmo2_assets.graph.conftest import Made
from tests.support.graphql import WebServer
from tests.support.shell import ROOT, activated, end_group, free_port, server
from training_backend.launch.processes import Identity, is_alive

pytestmark = pytest.mark.xdist_group("graph")


@pytest.fixture
def long_home(own_home: Made) -> Iterator[Made]:
    """A copy of the home for the profile with the long stage; whatever trains in it is ended."""
    yield own_home
    for agent in agents(own_home.root):
        if is_alive(agent):
            os.kill(agent.pid, signal.SIGKILL)


def agents(root: Path) -> list[Identity]:
    return [msgspec.json.decode(path.read_bytes(), type=Identity) for path in root.glob("*/runs/train-*/agent.json")]


def long_environment(made: Made) -> dict[str, str]:
    return {**made.environment, "MOLMO2_PROFILE": "long_training"}


def running(root: Path, seconds: float = 120) -> tuple[Path, Identity]:
    """Run directory and agent of the one training run of the long profile, once it has saved something."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        for folder in root.glob("long_training/runs/train-*"):
            agent = folder / "agent.json"
            if agent.is_file() and list(folder.glob("checkpoints/step-*")):
                identity = msgspec.json.decode(agent.read_bytes(), type=Identity)
                if is_alive(identity):
                    return folder, identity
        time.sleep(0.2)
    raise AssertionError("no training run that has saved something")


def wait_until(condition: object, seconds: float = 60) -> None:
    assert callable(condition)
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.2)


def events(folder: Path) -> list[str]:
    return [msgspec.json.decode(line)["name"] for line in (folder / "events.jsonl").read_bytes().splitlines()]


def test_the_server_shows_what_the_command_line_made(made: Made, tmp_path: Path) -> None:
    port = free_port()
    with server(f"dagster dev -p {port}", made.environment, tmp_path / "log", f"http://127.0.0.1:{port}/server_info"):
        web = WebServer(port)
        assert {"raw/notes", "sft_mixture", "long_context_checkpoint", "scoreboard"} <= web.keys()
        for key in ("validated/notes", "sft_mixture", "long_context_checkpoint", "scoreboard"):
            found = made.home.store(key).current(key)
            assert found is not None
            assert web.data_version(key) == found[1].data_version
        run = web.materialise("sft_statistics")
        assert web.wait_for(run, {"SUCCESS", "FAILURE"}) == "SUCCESS"


def test_terminate_stops_and_saves_and_the_next_run_resumes(long_home: Made, tmp_path: Path) -> None:
    environment, port = long_environment(long_home), free_port()
    # The second stage's parents are those of profile `graph`: found, or made again, before anything is interrupted.
    done = activated("dagster asset materialize --select '*sft_sequences,*pretrain_checkpoint'", environment, timeout=280)
    assert done.returncode == 0, done.stdout[-3000:]
    with server(f"dagster dev -p {port}", environment, tmp_path / "log", f"http://127.0.0.1:{port}/server_info") as process:
        web = WebServer(port)
        run = web.materialise("sft_checkpoint")
        folder, agent = running(long_home.root)
        web.terminate(run)
        assert web.wait_for(run, {"CANCELED", "FAILURE", "SUCCESS"}) == "CANCELED"
        assert not is_alive(agent), "Terminate ends the training, too"
        assert events(folder)[-1] == "stopped"

        second = web.materialise("sft_checkpoint")
        folder, agent = running(long_home.root)
        wait_until(lambda: "resume" in events(folder))
        # Killed without a word: the server, its daemon and the process that ran the step.
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        end_group(process)
    time.sleep(1.0)
    assert is_alive(agent), "nobody asked the training to end"

    with server(f"dagster dev -p {port}", environment, tmp_path / "log2", f"http://127.0.0.1:{port}/server_info") as process:
        web = WebServer(port)
        third = web.materialise("sft_checkpoint")
        web.wait_for(third, {"STARTED"}, seconds=150)  # it waits in the queue until the sweep has freed the dead one's place
        wait_until(lambda: web.status(second) == "FAILURE")
        assert is_alive(agent), "the same training goes on: the new step has attached to it"
        assert len(list(long_home.root.glob("long_training/runs/train-*"))) == 2, "one run a stage, not one a try"
        # In order, as Ctrl-C on `dagster dev` or a restart of the machine's services would end it.
        os.killpg(process.pid, signal.SIGTERM)
        process.wait(30)
    assert is_alive(agent), "a server that goes away detaches"
    stopped = activated(f"molmo2 runs stop {folder.name}", environment)
    assert stopped.returncode == 0, stopped.stdout
    assert not is_alive(agent)
    assert "interrupted" in stopped.stdout


def test_a_demo_in_the_background_ends_when_it_is_asked(long_home: Made, tmp_path: Path) -> None:
    """As a script without job control starts it: SIGINT is ignored there, and Dagster gives SIGTERM whatever SIGINT has."""
    with (tmp_path / "log").open("wb") as log:
        demo = subprocess.Popen(
            ["bash", "-c", f'trap "" INT; source "{ROOT}/activate.sh" && exec molmo2 demo'],
            env=long_environment(long_home), cwd=ROOT, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True,
        )  # fmt: skip
    try:
        _, agent = running(long_home.root, 240)  # behind a first stage and its evaluations
        demo.send_signal(signal.SIGTERM)
        demo.wait(30)
        assert is_alive(agent), "a command that goes away detaches"
    finally:
        end_group(demo)
