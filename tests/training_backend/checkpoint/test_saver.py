"""Saving beside training: what is written is what was, training goes on meanwhile, and no error is lost."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest
import torch

from tests.support.states import RUN, state
from training_backend.checkpoint import saver as saver_module
from training_backend.checkpoint.saver import Saver
from training_backend.checkpoint.state import load_state, write_state


class _Slow:
    """A disk that takes a write when it is told to."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.go, self.began = threading.Event(), threading.Event()
        monkeypatch.setattr(saver_module, "write_state", self)

    def __call__(self, *arguments: object) -> Path:
        self.began.set()
        assert self.go.wait(20)
        return write_state(*arguments)  # type: ignore[arg-type]


def test_steps_go_on_and_what_is_saved_is_what_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    slow, said = _Slow(monkeypatch), []
    with Saver(tmp_path, RUN, 2, said.append) as saver:
        now = state(10)
        saver.save(now)
        assert slow.began.wait(20)
        before = {name: value.clone() for name, value in now.model.items()}
        for value in (*now.model.values(), *now.optimizer.values()):
            value.add_(1)  # the next step, in place
        now.records.append({"step": 11})
        saver.check()
        assert (said, list(tmp_path.glob("step-*"))) == ([], [])
        slow.go.set()
    assert said == [10]
    found, passed = load_state(tmp_path, RUN)
    assert found is not None
    assert passed == []
    assert all(torch.equal(found.model[name], value) for name, value in before.items())
    assert {"step": 11} not in found.records


def test_one_write_at_a_time_in_order(tmp_path: Path) -> None:
    said: list[int] = []
    with Saver(tmp_path, RUN, 2, said.append) as saver:
        for step in (10, 20, 30):
            saver.save(state(step))
        saver.wait()
        assert said == [10, 20, 30]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["step-00000020", "step-00000030"]


@pytest.mark.parametrize("way", ["save", "wait", "check", "leave"])
def test_what_a_write_met_is_raised(tmp_path: Path, way: str) -> None:
    root = tmp_path / "file"
    root.write_bytes(b"no folder")

    def use() -> None:
        with Saver(root, RUN, 1, lambda step: None) as saver:
            saver.save(state(10))
            if way == "check":
                saver._pool.shutdown()
                saver.check()
            elif way == "save":
                saver.save(state(20))
            elif way == "wait":
                saver.wait()

    with pytest.raises(OSError, match="file"):
        use()


def test_an_error_of_training_is_the_one_to_hear_of(tmp_path: Path) -> None:
    root = tmp_path / "file"
    root.write_bytes(b"no folder")

    def use() -> None:
        with Saver(root, RUN, 1, lambda step: None) as saver:
            saver.save(state(10))
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        use()
