"""Sets of real photographs, films, masks and words, laid out as a person would put them in place by hand.

Belongs here: where the shared sample data lies, and the folders that `manual` sources read: links to the real files, rows in the
layouts of the adapters, and beside them rows that are truly unusable, as every real set has some. Does not belong here: what
becomes of them (`tests/real`). The data is beside the checkout and never copied into it; pixels that annotations are about are
drawn only where the data has masks without their film.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from fractions import Fraction
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from molmo2_assets.sources.generated.rle import decode

REAL = Path(__file__).resolve().parents[3] / "shared" / "data" / "real"
"""Beside the checkout, as its README says; absent on most machines."""
SKIER = "coco_000000000785.jpg"
TURNED = "coco_000000000785_turned.jpg"
"""The skier as a camera stores it that was held upright: the same pixels, and a mark that says how to turn them."""
FPS = 6
"""Masks a second of the SA-V file."""
SIZE = (848, 480)
"""Height and width of its masks."""
COLOURS = ((230, 25, 75), (60, 180, 75), (0, 100, 230), (245, 130, 48), (145, 30, 180))
"""What each of its objects is painted with: shoe, near person, second person, third person, region on the torso."""


def rows_of(path: Path) -> list[dict[str, Any]]:
    """Rows of a JSONL file."""
    return [json.loads(line) for line in path.read_text().splitlines() if line.strip()]


def annotation(name: str) -> dict[str, Any]:
    """The hand-made row about one photograph."""
    return next(row for row in rows_of(REAL / "annotations.jsonl") if row["path"] == f"images/{name}")


def place_all(root: Path) -> None:
    """Write every set below `root`, which the sources know as MOLMO2_MANUAL."""
    for place in (_photos, _people, _signs, _film, _tracks, _problems):
        place(root)


def _link(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    target.symlink_to(source)


def _write(path: Path, rows: Iterable[dict[str, Any]], tail: str = "") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows) + tail)


# -- photographs ------------------------------------------------------------------------------------------------------------


def _photos(root: Path) -> None:
    """16 photographs with captions, questions, counts and points; one more that must be turned; nine rows that are no good."""
    folder = root / "real_photos"
    _link(REAL / "annotations.jsonl", folder / "annotations.jsonl")
    for path in sorted((REAL / "images").iterdir()):
        _link(path, folder / "images" / path.name)
    _turned(folder / "images" / TURNED)
    (folder / "images" / "cut.jpg").write_bytes((REAL / "images" / "sklearn_china.jpg").read_bytes()[:60_000])
    (folder / "images" / "gone.jpg").write_text("<!DOCTYPE html><html><body>404: this photo was removed</body></html>")
    coffee, skier = annotation("skimage_coffee.png"), annotation(SKIER)
    turned = [{"label": point["label"], "x": 1 - point["y"], "y": point["x"]} for point in skier["points"]]
    _write(
        folder / "more.jsonl",
        [
            {"path": f"images/{TURNED}", "width": 425, "height": 640, "points": turned,
             "counts": [{"label": "red marker pole", "count": 3, "all_pointed": True}]},
            {**skier, "path": f"images/{TURNED}"},  # size and points of an annotator whose viewer did not turn it
            {**coffee, "path": "images/never_downloaded.jpg"},
            {**coffee, "path": "images/gone.jpg"},
            {**coffee, "path": "images/cut.jpg"},
            {**coffee, "path": "../real_signs/labels.jsonl"},
            coffee,
            {"path": coffee["path"], "points": [{"label": "rim of the cup", "x": 47.8, "y": 37.5}]},  # percent
            {"path": coffee["path"], "counts": [{"label": "cup handle", "count": 2, "all_pointed": True}]},
            {"path": coffee["path"], "qa": [{"question": "What is under the saucer?", "answer": "  "}]},
        ],
        tail='{"path": "images/skimage_coffee.png", "caption": "A brown cup wi',
    )  # fmt: skip


def _turned(path: Path) -> None:
    """Put the orientation mark into the file without touching its pixels: 6, "turn clockwise to display"."""
    from PIL import Image

    mark = Image.Exif()
    mark[0x0112] = 6
    body = mark.tobytes()
    data = (REAL / "images" / SKIER).read_bytes()
    path.write_bytes(data[:2] + b"\xff\xe1" + (len(body) + 2).to_bytes(2, "big") + body + data[2:])


def skier() -> dict[str, Any]:
    """COCO's annotation of the one person in its picture: `bbox` and `segmentation` in pixels, `points` by name."""
    file = json.loads((REAL / "boxes" / "coco_000000000785.json").read_text())
    found = dict(file["annotations"][0])
    flat, names = found["keypoints"], file["categories"][0]["keypoints"]
    found["points"] = {name: (flat[3 * n], flat[3 * n + 1]) for n, name in enumerate(names)}
    return found


def _people(root: Path) -> None:
    """Key points and box of COCO in pixels, with the picture's checksum as a publisher states it; two rows are no good."""
    from training_backend.data.fingerprint import file_sha256

    folder, truth = root / "real_people", skier()
    _link(REAL / "images" / SKIER, folder / "images" / SKIER)
    digest = file_sha256(REAL / "images" / SKIER)
    left, top, width, height = truth["bbox"]

    def row(label: str, *points: Sequence[float], sha256: str = digest) -> dict[str, Any]:
        xs, ys = [point[0] for point in points], [point[1] for point in points]
        return {"image_url": SKIER, "image_sha256": sha256, "label": label, "count": len(xs), "points": {"x": xs, "y": ys}}

    both = {part: (truth["points"][f"left_{part}"], truth["points"][f"right_{part}"]) for part in ("shoulder", "knee", "ankle")}
    rows = [row(f"{part} of the skier", *points) for part, points in both.items()]
    rows += [
        row("nose of the skier", truth["points"]["nose"]),
        row("middle of the skier's box", (left + width / 2, top + height / 2)),
        row("chin of the skier", (367, 95), sha256="0" * 64),
        row("far corner", (left + width + 200, top)),
    ]
    _write(folder / "people.jsonl", rows)


# -- films ------------------------------------------------------------------------------------------------------------------

SIGNS = ("eat", "hungry", "milk", "thanks")


def _signs(root: Path) -> None:
    """Four sign-language clips with their words, and one that nobody has."""
    folder = root / "real_signs"
    for word in SIGNS:
        _link(REAL / "videos" / f"asl_{word}.mkv", folder / "videos" / f"asl_{word}.mkv")
    rows = [{"path": f"videos/asl_{word}.mkv", "label": word} for word in (*SIGNS, "water")]
    _write(folder / "labels.jsonl", rows)


def _film(root: Path) -> None:
    """The narrated film, and a copy of which the end is missing."""
    folder, film = root / "real_film", REAL / "videos" / "nasa_13013.mp4"
    _link(film, folder / "videos" / film.name)
    (folder / "videos" / "cut.mp4").write_bytes(film.read_bytes()[:400_000])
    row = {
        "path": "videos/nasa_13013.mp4",
        "narration": rows_of(REAL / "text" / "nasa_narration.jsonl"),
        "caption": "A person in a white suit stands in an orange lift basket before the golden mirror of a telescope.",
        "qa": [{"question": "What colour is the lift?", "answer": "Orange"}],
    }
    _write(folder / "film.jsonl", [row, {**row, "path": "videos/cut.mp4"}])


# -- masks ------------------------------------------------------------------------------------------------------------------


@cache
def masks() -> tuple[tuple[NDArray[np.bool_], ...], ...]:
    """Real masks [frame][object] of the SA-V file, bool [848, 480], false everywhere where an object is not seen."""
    frames = json.loads((REAL / "masks" / "sav_000001_manual.json").read_text())["masklet"]
    nothing = np.zeros(SIZE, dtype=bool)
    return tuple(tuple(decode(rle) if rle and rle["counts"] else nothing for rle in frame) for frame in frames)


def painted(frame: int) -> NDArray[np.uint8]:
    """A frame with the masks in their colours; later objects lie over earlier ones."""
    picture = np.zeros((*SIZE, 3), dtype=np.uint8)
    for number, mask in enumerate(masks()[frame]):
        picture[mask] = COLOURS[number]
    return picture


def inside(frame: int, number: int) -> tuple[float, float] | None:
    """The centre, in pixels, of the place of a mask that is furthest from its edge; None where the object is not seen."""
    from scipy.ndimage import distance_transform_edt

    mask = masks()[frame][number].copy()
    for other in masks()[frame][number + 1 :]:
        mask &= ~other  # what is painted over it
    if not mask.any():
        return None
    row, column = np.unravel_index(int(distance_transform_edt(np.pad(mask, 1))[1:-1, 1:-1].argmax()), mask.shape)
    return float(column) + 0.5, float(row) + 0.5


def _paint(path: Path) -> None:
    import av

    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=Fraction(FPS), options={"crf": "12", "preset": "veryfast", "threads": "1"})
        stream.height, stream.width, stream.pix_fmt = *SIZE, "yuv420p"
        for frame in range(len(masks())):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(painted(frame), format="rgb24")))
        container.mux(stream.encode())


PEOPLE = (1, 2, 3)
"""Objects of the masks that are people."""


def track_row(expression: str, objects: Sequence[int], **changed: Any) -> dict[str, Any]:
    """One row of allenai/molmo2-track-instruction at one moment a second; an object out of sight keeps its last place."""
    moments, last = [], dict[int, tuple[float, float]]()
    for frame in range(0, len(masks()), FPS):
        points = []
        for number in objects:
            place = inside(frame, number)
            if place is not None:
                last[number] = place
            if number in last:
                points.append({"id": number + 10, "point": list(last[number]), "occluded": place is None})
        moments.append({"frame": frame, "time": frame / FPS, "points": points})
    return {
        "id": expression, "video": "sav_000001", "expression": expression, "fps": FPS, "sampling_fps": 1,
        "height": SIZE[0], "width": SIZE[1], "frame_trajectories": moments, **changed,
    }  # fmt: skip


def _tracks(root: Path) -> None:
    """Two expressions about the masks' film, and four rows that are no good."""
    folder = root / "real_tracks"
    _paint(folder / "media" / "sav_000001.mp4")
    near = track_row("the person nearest to the camera", (1,))
    far = {"frame": 0, "time": 0.0, "points": [{"id": 1, "point": [500.0, 40.0], "occluded": False}]}
    rows = [
        near,
        track_row("every person", PEOPLE),
        {**near, "expression": "a swapped size", "height": SIZE[1], "width": SIZE[0]},
        {**near, "expression": "somebody at the edge", "frame_trajectories": [far]},
        {**near, "expression": "an uneven rate", "sampling_fps": 4},
        {**near, "expression": "another film", "video": "sav_000002"},
    ]
    _write(folder / "tracks.jsonl", rows)


# -- words ------------------------------------------------------------------------------------------------------------------


def _problems(root: Path) -> None:
    """200 problems with worked answers as published, and four lines that are no good."""
    folder, published = root / "real_problems", REAL / "text" / "gsm8k_test_first200.jsonl"
    _link(published, folder / "problems.jsonl")
    tail = '{"question": "How many?", "answer": null}\n{"question": "How many?", "answ\n["How many?", "3"]\n'
    _write(folder / "more.jsonl", [{"question": "Who wrote \x00 here?", "answer": "Nobody."}], tail)
