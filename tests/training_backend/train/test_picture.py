"""The loss picture: a whole PNG at any moment, a line a task, equal bytes for equal records."""

from __future__ import annotations

import threading
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from training_backend.data.example import TASKS
from training_backend.train.picture import draw_losses, task_color

RECORDS = [
    {"step": step, "loss": 5.0 / step, "tasks": {"image_caption": 6.0 / step, **({"text": 1.0} if step > 3 else {})}}
    for step in range(1, 9)
]


def colours(path: Path) -> set[tuple[int, ...]]:
    pixels = np.asarray(Image.open(path).convert("RGB")).reshape(-1, 3)
    values, count = np.unique(pixels, axis=0, return_counts=True)
    return {tuple(map(int, value)) for value, many in zip(values, count, strict=True) if many > 60}


def test_every_task_has_a_line(tmp_path: Path) -> None:
    draw_losses(RECORDS, tmp_path / "loss.png", "sft")
    draw_losses([{**record, "tasks": {}} for record in RECORDS], tmp_path / "bare.png", "sft")
    image = Image.open(tmp_path / "loss.png")
    assert image.format == "PNG"
    assert image.size[0] >= 600
    assert len(colours(tmp_path / "loss.png") - colours(tmp_path / "bare.png")) >= 2


def test_no_two_tasks_share_a_colour() -> None:
    assert len({task_color(task) for task in TASKS}) == len(TASKS)


@pytest.mark.parametrize(
    "records", [[], RECORDS[:1], [{"step": 1, "loss": 0.0, "tasks": {}}, {"step": 2, "loss": 9.0, "tasks": {}}]]
)
def test_few_or_odd_records_are_a_picture_too(tmp_path: Path, records: list[dict[str, object]]) -> None:
    draw_losses(records, tmp_path / "loss.png", "t")
    Image.open(tmp_path / "loss.png").load()


def test_equal_records_are_equal_bytes(tmp_path: Path) -> None:
    for name in ("one", "two"):
        draw_losses(RECORDS, tmp_path / name, "sft")
    assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes()


def test_a_viewer_never_sees_half(tmp_path: Path) -> None:
    path, ended, broken = tmp_path / "loss.png", threading.Event(), []
    draw_losses(RECORDS, path, "0")

    def look() -> None:
        while not ended.is_set():
            try:
                Image.open(path).load()
            except Exception as error:
                broken.append(error)

    viewer = threading.Thread(target=look)
    viewer.start()
    for number in range(4):
        draw_losses(RECORDS[: 2 + number], path, str(number))
    ended.set()
    viewer.join()
    assert broken == []
    assert [entry.name for entry in tmp_path.iterdir()] == ["loss.png"]
