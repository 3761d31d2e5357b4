"""Encode: examples a second of the loader (decode and encode, one worker), beside transformers' `Molmo2Processor`.

Both get the same JPEG pictures and H.264 films under the released settings, the same frames, one thread each, in the same process;
a row a kind and side, the mean of several passes. The peer decodes pictures with Pillow and films with this project's reader, since
its own would need torchcodec, and makes tensors of one example at a time, without packing. Where transformers or torchvision is
missing, ours alone is measured and there is no ratio.
"""

from __future__ import annotations

import argparse
import io
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.report import Report
from tests.support.examples import EVERY_RULE, WORDS, asked, row, store_at
from tests.support.processors import full_tokenizer, processor, released
from tests.support.transformers_peer import WHY_ABSENT, load
from training_backend.config import PackConfig
from training_backend.data.example import Example, Media
from training_backend.data.media import MediaCache
from training_backend.data.order import PERIOD, Mixture, MixtureEntry
from training_backend.data.store import RowStore
from training_backend.data.video import VideoReader
from training_backend.encode import video
from training_backend.encode.preprocessor import Preprocessor
from training_backend.encode.tokens import Tokenizer
from training_backend.pack.lengths import length_table
from training_backend.pack.loader import PackLoader
from training_backend.pack.media_source import CachedMedia

SIZES = ((640, 480), (1024, 768), (1280, 853), (500, 375), (375, 500), (1600, 1200))
"""Widths and heights of pictures, in turn."""
FILM = (640, 360, 24)
"""Width, height, frames a second."""
PACK = PackConfig(max_tokens=16_384, max_visual=128, window=32)
QUESTION, ANSWER = "How many red circles are there?", "There are three."
ASKED = f"<|im_start|>user\n{QUESTION}<|im_end|>\n<|im_start|>assistant\n{ANSWER}"


def options(parser: argparse.ArgumentParser) -> None:
    """How much is read."""
    parser.add_argument("--images", type=int, default=24)
    parser.add_argument("--videos", type=int, default=4)
    parser.add_argument("--seconds", type=int, default=8, help="length of a film")
    parser.add_argument("--repeats", type=int, default=3)


def run(arguments: argparse.Namespace) -> Report:
    """Two rows a kind; `ratio` is the smaller of ours ÷ theirs."""
    import torch

    torch.set_num_threads(1)
    rows: list[dict[str, Any]] = []
    ratios: dict[str, float] = {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        tokenizer = full_tokenizer(folder / "tokenizer", WORDS * 20)
        cache = MediaCache(folder / "cache")
        sets = {
            "image": [picture(cache, number) for number in range(arguments.images)],
            "video": [film(cache, folder, number, arguments.seconds) for number in range(arguments.videos)],
        }
        peer = processor(folder / "tokenizer") if load(processors=True) is not None else None
        for kind, media in sets.items():
            examples = [row(f"{kind}_qa", [item], asked(QUESTION, ANSWER), name=item.id) for item in media]  # type: ignore[arg-type]
            spent = {"loader": loader_seconds(folder / kind, examples, tokenizer, cache, arguments.repeats)}
            if peer is not None:
                spent["Molmo2Processor"] = peer_seconds(peer, examples, cache, arguments.repeats)
            for method, seconds in spent.items():
                rows.append({"kind": kind, "method": method, "examples": len(examples), "per second": len(examples) / seconds})
            if peer is not None:
                ratios[kind] = spent["Molmo2Processor"] / spent["loader"]
    facts: dict[str, object] = {f"ratio of {kind}s": round(ratio, 3) for kind, ratio in ratios.items()}
    facts |= {"threads": 1, "film": f"{arguments.seconds} s of {FILM[0]}×{FILM[1]} at {FILM[2]} frames a second"}
    if peer is None:
        facts["peer"] = WHY_ABSENT
    return Report("encode", rows, facts, min(ratios.values()) if ratios else None)


def loader_seconds(folder: Path, examples: list[Example], tokenizer: Tokenizer, cache: MediaCache, repeats: int) -> float:
    """Seconds of a window, which holds every example once, read by one worker thread in steady state: what it has ready when the
    clock starts it has ready again when the clock stops. Nothing decoded is kept from one window to the next."""
    store: RowStore = store_at(folder, examples)
    made = Preprocessor(released(), EVERY_RULE, tokenizer, PACK.max_tokens, PACK.max_visual)
    lengths = {"set": length_table(store, made)[0]}
    entry = MixtureEntry(dataset="set", rows=len(store), data_version=store.version, weight=PERIOD)
    pack = PackConfig(max_tokens=PACK.max_tokens, max_visual=PACK.max_visual, window=len(store))

    mixture = Mixture.build(0, [entry])
    loader = PackLoader(mixture, {"set": store}, lengths, made, pack, 0, CachedMedia(cache, memory=0), workers=1)
    batches = loader.batches(0)
    for _ in range(len(loader.window(0))):
        next(batches)
    packs = sum(len(loader.window(1 + number)) for number in range(repeats))
    started = time.perf_counter()
    for _ in range(packs):
        next(batches)
    spent = time.perf_counter() - started
    batches.close()  # type: ignore[attr-defined]
    return spent / repeats


def peer_seconds(peer: Any, examples: list[Example], cache: MediaCache, repeats: int) -> float:
    """Seconds of every example once through `Molmo2Processor`, after one pass that does not count."""
    import torch
    from PIL import Image

    def once() -> None:
        for example in examples:
            item = example.media[0]
            path = cache.path(item.sha256)
            if item.kind == "image":
                peer(text=f"<|image|>{ASKED}", images=[Image.open(path).convert("RGB")], return_tensors="pt")
                continue
            assert item.duration is not None
            assert item.fps is not None
            times = video.uniform_times(item.duration, 128, 2.0)
            shown, seconds = VideoReader(path).frames_at(times)
            facts = {
                "total_num_frames": item.n_frames,
                "fps": item.fps,
                "frames_indices": [round(second * item.fps) for second in seconds.tolist()],
            }
            frames = torch.from_numpy(shown).permute(0, 3, 1, 2)
            peer(text=f"<|video|>{ASKED}", videos=[frames], video_metadata=[facts], do_sample_frames=False, return_tensors="pt")

    once()
    started = time.perf_counter()
    for _ in range(repeats):
        once()
    return (time.perf_counter() - started) / repeats


def scene(rng: np.random.Generator, width: int, height: int) -> NDArray[np.uint8]:
    """Soft shapes under a little noise: compresses about as a photograph does."""
    from PIL import Image

    small = Image.fromarray(rng.integers(0, 256, (9, 12, 3), dtype=np.uint8)).resize((width, height), Image.Resampling.BICUBIC)
    noise = rng.normal(0, 6, (height, width, 3))
    pixels: NDArray[np.uint8] = np.clip(np.asarray(small) + noise, 0, 255).astype(np.uint8)
    return pixels


def picture(cache: MediaCache, number: int) -> Media:
    """A JPEG in the cache."""
    from PIL import Image

    width, height = SIZES[number % len(SIZES)]
    stream = io.BytesIO()
    Image.fromarray(scene(np.random.default_rng(number), width, height)).save(stream, "JPEG", quality=90)
    digest = cache.add_bytes(stream.getvalue())
    return Media(id=f"m{number}", kind="image", uri=f"{number}.jpg", sha256=digest, width=width, height=height)


def film(cache: MediaCache, folder: Path, number: int, seconds: int) -> Media:
    """An H.264 film in the cache: a window that moves over a scene."""
    import av

    width, height, rate = FILM
    count = seconds * rate
    whole = scene(np.random.default_rng(1000 + number), width + count, height)
    path = folder / f"{number}.mp4"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=rate)
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        stream.options = {"preset": "veryfast", "g": "48"}
        for step in range(count):
            moved = np.ascontiguousarray(whole[:, step : step + width])
            container.mux(stream.encode(av.VideoFrame.from_ndarray(moved, format="rgb24")))
        container.mux(stream.encode())
    facts = VideoReader(path).facts
    return Media(
        id=f"v{number}", kind="video", uri=path.name, sha256=cache.add_file(path), width=width, height=height,
        duration=facts.duration, fps=facts.fps, n_frames=facts.n_frames,
    )  # fmt: skip
