"""Small examples, recipes, pixels and stores for tests of encoding and packing."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from training_backend.config import EncodeConfig, LossConfig, LossRule
from training_backend.data.example import (
    SCHEMA,
    TASKS,
    Branch,
    Choices,
    Count,
    Example,
    Media,
    Part,
    Point,
    Points,
    Source,
    Subtitle,
    Task,
    Text,
    TimedPoint,
    TimedPoints,
    Track,
    Tracks,
    TrackSample,
    Turn,
)
from training_backend.data.media import MediaFault
from training_backend.data.order import PERIOD, Mixture, MixtureEntry
from training_backend.data.store import RowStore, RowWriter
from training_backend.encode.preprocessor import Preprocessor
from training_backend.encode.tokens import Tokenizer, train_tokenizer
from training_backend.pack.batch import PREFIX, Encoded

WORDS = (
    "Point to the red circles in the picture. Count the blue squares by pointing. user assistant system Image 0 1 2 3",
    "The picture shows three shapes on a white background. A large red square is at the top left. There are none.",
    "Track the green star at 2 FPS. Describe the video. What colour is the triangle? A. red B. blue C. green",
    "Counting the red circles shows a total of 3. How many are there? Only return the correct answer option. subtitle",
)
EVERY_RULE = LossConfig(rules={task: LossRule(kind="root" if "qa" in task else "flat", weight=2.0) for task in TASKS})


def tokenizer_at(folder: Path, vocab_size: int = 400) -> Tokenizer:
    """A tokenizer trained on WORDS."""
    train_tokenizer(WORDS * 20, vocab_size, folder)
    return Tokenizer(folder)


def recipe(**changes: object) -> EncodeConfig:
    """The demo's sizes: 84-pixel crops of 6×6 patches."""
    fields = {
        "point_syntax": "report", "time": "token", "prompt_style": "report", "image_size": 84, "patch_size": 14, "max_crops": 4,
        "overlap": (1, 1), "max_frames": 16, "max_images": 4,
    }  # fmt: skip
    return EncodeConfig(**(fields | changes))  # type: ignore[arg-type]


def worker(tokenizer: Tokenizer, tokens: int = 700, visual: int = 24, **changes: object) -> Preprocessor:
    """A preprocessor of that recipe with two budgets."""
    return Preprocessor(recipe(**changes), EVERY_RULE, tokenizer, tokens, visual)


IMAGE_TOKENS = ("<im_start>", "<im_end>", "<im_patch>", "<im_col>", "<low_res_im_start>", "<frame_start>", "<frame_end>")


def check_fields(encoded: Encoded, tokenizer: Tokenizer) -> None:
    """What `pack.batch` promises."""
    size = len(encoded.tokens)
    for field in (encoded.targets, encoded.weights, encoded.position, encoded.branch, encoded.image):
        assert field.shape == (size,)
    prefix = encoded.branch == PREFIX
    start = int(prefix.sum())
    assert prefix[:start].all()
    assert encoded.tokens[0] == tokenizer.bos
    assert (encoded.position[:start] == np.arange(start)).all()
    numbers = encoded.branch[start:]
    assert (np.diff(numbers) >= 0).all()
    assert not encoded.weights[:start].any()
    for number in np.unique(numbers):
        mine = np.flatnonzero(encoded.branch == number)
        assert (encoded.position[mine] == start + np.arange(len(mine))).all()
        assert (encoded.targets[mine[:-1]] == encoded.tokens[mine[1:]]).all()
        assert encoded.targets[mine[-1]] == tokenizer.eos
        assert encoded.weights[mine[-1]] > 0
    special = {tokenizer.special[name] for name in IMAGE_TOKENS}
    assert ((encoded.image >= 0) == np.isin(encoded.tokens, list(special))).all()
    patch = tokenizer.special["<im_patch>"]
    assert (np.flatnonzero(encoded.tokens == patch) == encoded.slot).all()
    assert not np.isin(encoded.targets[encoded.weights > 0], list(special)).any()
    assert len(encoded.pool) == len(encoded.slot)
    if len(encoded.pool):
        assert encoded.pool.max() < len(encoded.crops) * 36
        # A visual token looks at crops of its own image or frame only.
        crop_of = np.where(encoded.pool >= 0, encoded.pool // 36, -1)
        owner = encoded.image[encoded.slot]
        for crop in range(len(encoded.crops)):
            assert len(np.unique(owner[(crop_of == crop).any(axis=1)])) <= 1


def picture(name: str = "m0", width: int = 84, height: int = 84) -> Media:
    """An image whose hash is made of its name."""
    return Media(id=name, kind="image", uri=name, sha256=f"{hash_of(name):064x}", width=width, height=height)


def clip(seconds: float = 3.0, subtitles: Sequence[Subtitle] = (), start: float | None = None) -> Media:
    """A video of 8 frames a second."""
    return Media(
        id="v0", kind="video", uri="v", sha256=f"{hash_of('v'):064x}", width=96, height=72,
        duration=seconds + (start or 0), fps=8.0, n_frames=int(seconds * 8),
        clip=None if start is None else (start, start + seconds), subtitles=tuple(subtitles),
    )  # fmt: skip


def hash_of(name: str) -> int:
    """A whole number for a name, the same in every process."""
    return int.from_bytes(name.encode()[:16], "little")


def branch(*turns: tuple[str, Sequence[Part]], name: str = "0", style: str = "user_qa", weight: float = 1.0) -> Branch:
    """A branch from (role, parts) pairs."""
    made = tuple(Turn(role=role, parts=tuple(parts)) for role, parts in turns)  # type: ignore[arg-type]
    return Branch(id=name, style=style, turns=made, weight=weight)


def asked(question: str, answer: str, name: str = "0", style: str = "user_qa") -> Branch:
    """A question and an answer in words."""
    return branch(("user", [Text(text=question)]), ("assistant", [Text(text=answer)]), name=name, style=style)


def row(task: Task, media: Sequence[Media], *branches: Branch, name: str = "row") -> Example:
    """An example."""
    source = Source(file="a", row=0)
    return Example(id=name, schema=SCHEMA, task=task, source=source, media=tuple(media), branches=branches)


def pointing(name: str = "p", count: int = 3, width: int = 84, height: int = 84) -> Example:
    """Points, and the same with a count, on one image."""
    points = Points(label="red circles", points=tuple(Point(x=0.9 - 0.1 * n, y=0.05 + 0.1 * n, id=n) for n in range(count)))
    total = Count(label="red circles", count=count)
    branches = (
        branch(("assistant", [points]), name="a", style="pointing"),
        branch(("assistant", [points, total]), name="b", style="point_count"),
    )
    return row("image_pointing", [picture(name, width, height)], *branches, name=name)


def tracking(name: str = "t", seconds: float = 3.0, fps: float = 2.0) -> Example:
    """Two tracks through a clip, the second one hidden for a moment."""
    steps = int(seconds * fps) + 1
    tracks = tuple(
        Track(
            id=n,
            samples=tuple(TrackSample(t=s / fps, x=0.1 + 0.2 * n, y=s / steps, occluded=n == 1 and s == 1) for s in range(steps)),
        )
        for n in range(2)
    )
    answer = Tracks(query="the green stars", tracks=tracks, fps=fps)
    return row("video_tracking", [clip(seconds)], branch(("assistant", [answer]), style="video_point_track_per_frame"), name=name)


def many(count: int, seed: int = 0) -> list[Example]:
    """A demo-like mix of all families."""
    rng = np.random.default_rng(seed)
    made: list[Example] = []
    for number in range(count):
        name, kind = f"row{seed}-{number}", int(rng.integers(7))
        sentences = " ".join(["A large red square is at the top left."] * int(rng.integers(1, 6)))
        if kind == 0:
            made.append(pointing(name, int(rng.integers(0, 6)), int(rng.integers(40, 200)), int(rng.integers(40, 200))))
        elif kind == 1:
            made.append(tracking(name, float(rng.integers(1, 5))))
        elif kind == 2:
            caption = branch(("assistant", [Text(text=sentences)]), style="long_caption")
            made.append(row("image_caption", [picture(name)], caption, name=name))
        elif kind == 3:
            options = Choices(options=("red", "dark blue", "green"), answer=int(rng.integers(3)))
            mc = branch(("user", [Text(text="What colour?")]), ("assistant", [options]), style="video_multiple_choice")
            lines = [Subtitle(start=0.5, end=1.0, text="the red square"), Subtitle(start=9.0, end=9.5, text="far away")]
            made.append(row("video_subtitle_qa", [clip(2.0, lines)], mc, asked("Where?", "on the left", "1"), name=name))
        elif kind == 4:
            media = [picture(f"{name}/{n}", 100, 60) for n in range(int(rng.integers(2, 4)))]
            points = Points(label="stars", points=tuple(Point(x=0.5, y=0.1, id=n, image=n) for n in range(len(media))))
            made.append(
                row("multi_image_pointing", media, branch(("assistant", [points]), style="multi_image_pointing"), name=name)
            )
        elif kind == 5:
            timed = TimedPoints(label="the star", points=(TimedPoint(t=1.5, x=0.25, y=0.75, id=0),))
            made.append(
                row("video_pointing", [clip(4.0, start=1.0)], branch(("assistant", [timed]), style="video_point"), name=name)
            )
        else:
            turns = branch(
                ("system", [Text(text="Be brief.")]),
                ("user", [Text(text="What is 2 + 2?")]), ("assistant", [Text(text="4")]),
                ("user", [Text(text="And 3 + 3?")]), ("assistant", [Text(text=sentences)]), style="text_sft",
            )  # fmt: skip
            made.append(row("text", [], turns, name=name))
    return made


class Pixels:
    """A media source that paints each medium from its hash; names in `broken` fail."""

    def __init__(self, broken: Iterable[str] = ()) -> None:
        self.broken = set(broken)

    def image(self, media: Media) -> NDArray[np.uint8]:
        if media.id in self.broken:
            raise MediaFault("missing", f"{media.id} is not there")
        rng = np.random.default_rng(int(media.sha256, 16) % (1 << 64))
        return rng.integers(0, 256, (media.height, media.width, 3), dtype=np.uint8)

    def frames(self, media: Media, times: Sequence[float], size: tuple[int, int] | None = None) -> NDArray[np.uint8]:
        if media.id in self.broken:
            raise MediaFault("truncated", f"{media.id} is cut off")
        assert list(times) == sorted(times)
        shade = (np.asarray(times) * 10 % 256).astype(np.uint8)
        return np.broadcast_to(shade[:, None, None, None], (len(times), media.height, media.width, 3)).copy()


def store_at(folder: Path, examples: Iterable[Example]) -> RowStore:
    """A written and opened store."""
    with RowWriter(folder) as writer:
        for example in examples:
            writer.add(example)
    return RowStore(folder)


def mixture_of(stores: dict[str, RowStore], seed: int = 3) -> Mixture:
    """Equal weights."""
    share = PERIOD // len(stores)
    entries = [MixtureEntry(dataset=n, rows=len(s), data_version=s.version, weight=share) for n, s in stores.items()]
    first = entries[0]
    rest = PERIOD - share * len(stores)
    entries[0] = MixtureEntry(dataset=first.dataset, rows=first.rows, data_version=first.data_version, weight=share + rest)
    return Mixture.build(seed, entries)
