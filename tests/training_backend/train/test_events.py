"""Events: whole lines through kills and full disks, and a sign of life that a bad moment does not end."""

from __future__ import annotations

import itertools
import os
import signal
from pathlib import Path

import pytest

from tests.support.disks import fill, small_disk
from tests.support.runs import handle_of, patient, wait_until
from training_backend.data.manifest import StorageError
from training_backend.launch.local import LocalLauncher
from training_backend.train import events as module
from training_backend.train.events import EventWriter


def numbers(run_dir: Path) -> list[int]:
    found, _ = LocalLauncher().events(handle_of(run_dir, patient("quick")), 0)
    return [event.data["number"] for event in found]


def emit_for_ever(writer: EventWriter) -> None:
    for number in itertools.count(2):
        writer.emit("step", number=number, words="x" * 300)


def test_lines_are_appended_and_seen_at_once(tmp_path: Path) -> None:
    for number in (1, 2):
        with EventWriter(tmp_path) as writer:
            writer.emit("step", number=number, loss=float("nan"), words="Ünïcode\n")
            assert numbers(tmp_path)[-1] == number
    assert numbers(tmp_path) == [1, 2]
    found, _ = LocalLauncher().events(handle_of(tmp_path, patient("quick")), 0)
    assert found[0].data == {"number": 1, "loss": None, "words": "Ünïcode\n"}
    assert found[1].time >= found[0].time > 1e9


def test_a_killed_writer_s_torn_line_is_closed(tmp_path: Path) -> None:
    pid = os.fork()
    if pid == 0:
        with EventWriter(tmp_path) as writer:
            writer.emit("step", number=1)
            os.write(writer._stream, b'{"time":1.0,"name":"st')
            os.kill(os.getpid(), signal.SIGKILL)
    os.waitpid(pid, 0)
    with EventWriter(tmp_path) as writer:
        writer.emit("step", number=2)
    assert numbers(tmp_path) == [1, 2]
    assert len((tmp_path / "events.jsonl").read_bytes().splitlines()) == 3


def test_a_full_disk_is_one_sentence_and_tears_no_later_line(tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk", 64) as disk, EventWriter(disk) as writer:
        writer.emit("step", number=1)
        filler = fill(disk)
        with pytest.raises(StorageError, match=r"events\.jsonl: the disk is full"):
            emit_for_ever(writer)
        written = len(numbers(disk))
        filler.unlink()
        writer.emit("step", number=0)
        assert numbers(disk) == [*range(1, written + 1), 0]


def test_other_ranks_say_nothing(tmp_path: Path) -> None:
    with EventWriter(tmp_path, silent=True) as writer:
        writer.emit("step", number=1)
    assert list(tmp_path.iterdir()) == []


def test_the_heart_beats_until_the_end_and_through_bad_moments(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "HEARTBEAT_SECONDS", 0.02)
    folder, beat = tmp_path / "run", tmp_path / "run" / "heartbeat"
    folder.mkdir()
    with EventWriter(folder):
        wait_until(beat.exists, "a beat", 5)
        away = folder.rename(tmp_path / "away")
        folder.touch()  # what was a folder is none for a moment
        wait_until(lambda: not beat.exists(), "nothing", 5)
        folder.unlink()
        (away / "heartbeat").unlink()
        away.rename(folder)
        wait_until(beat.exists, "the next beat", 5)
    beat.unlink()
    with pytest.raises(AssertionError, match="in vain"):
        wait_until(beat.exists, "a beat after the end", 0.2)
