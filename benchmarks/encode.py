"""Encode: examples a second of the loader (decode and encode, one worker), beside transformers' `Molmo2Processor`.

Both get the same JPEG pictures and H.264 films under the released settings, the same frames, one thread each, in the same process;
a row a kind and side, the best of several passes, which the sides make in turns. Seconds are the process's own on a processor, of
all its threads, so that what else runs on the machine counts little. The peer makes tensors of one example at a time, without
packing, and normalises their pixels, which ours leaves to the model as bytes; it decodes pictures with Pillow.

Films are read for the peer in two ways. "its own reader" is what its user gets: `transformers.video_utils.load_video` opens the
file and reads the frames of the same numbers, by the back end that is named, a row for each that can be loaded here; `ratio of
videos` is that to the fastest of them. (Left to itself the processor asks for torchcodec's and knows no other.) "our reader" hands
it the frames of this project's `VideoReader`, which the peer has from nobody but us: in `ratio of videos, same reader` both sides
spend about the same on decoding, so that it tells what comes after it apart, and is the smaller one. `ratio` is the smaller of
pictures' and of films' beside the peer's own reader. Where transformers or torchvision is missing, ours alone is measured and there
is no ratio.
"""

from __future__ import annotations

import argparse
import io
import tempfile
import time
from collections.abc import Callable
from functools import partial
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
PEER = "Molmo2Processor"
OURS_READ = f"{PEER}, our reader"
READERS = ("torchcodec", "decord", "opencv", "pyav")
"""Back ends of transformers' reader. It names torchvision's too, which torchvision no longer has."""
Reader = Callable[[Media, Path], tuple[Any, Any]]
"""Frames of a film as the peer takes them, and what it wants to know of it."""
PACK = PackConfig(max_tokens=16_384, max_visual=128, window=32)
QUESTION, ANSWER = "How many red circles are there?", "There are three."
ASKED = f"<|im_start|>user\n{QUESTION}<|im_end|>\n<|im_start|>assistant\n{ANSWER}"


def options(parser: argparse.ArgumentParser) -> None:
    """How much is read."""
    parser.add_argument("--images", type=int, default=24)
    parser.add_argument("--videos", type=int, default=4)
    parser.add_argument("--seconds", type=int, default=8, help="length of a film")
    parser.add_argument("--repeats", type=int, default=5, help="passes, of which the best counts")


def run(arguments: argparse.Namespace) -> Report:
    """A row a kind and side, films beside each reader that the peer can have; `ratio` is the smaller of ours ÷ theirs."""
    import torch

    torch.set_num_threads(1)
    rows: list[dict[str, Any]] = []
    ratios: dict[str, float] = {}
    facts: dict[str, object] = {}
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
            sides = {"loader": partial(loader_seconds, folder / kind, examples, tokenizer, cache)}
            own: list[str] = []
            if peer is not None and kind == "image":
                sides[PEER] = partial(peer_seconds, peer, examples, cache)
            if peer is not None and kind == "video":
                for reader in READERS:
                    if can_read(reader, media[0], cache):
                        own.append(f"{PEER}, its own reader ({reader})")
                        sides[own[-1]] = partial(peer_seconds, peer, examples, cache, partial(their_frames, reader))
                sides[OURS_READ] = partial(peer_seconds, peer, examples, cache, our_frames)
            spent = best(sides, arguments.repeats)
            if PEER in spent:
                ratios["ratio of images"] = spent[PEER] / spent["loader"]
            if own:
                ratios["ratio of videos"] = min(spent[name] for name in own) / spent["loader"]
            if OURS_READ in spent:
                facts["ratio of videos, same reader"] = round(spent[OURS_READ] / spent["loader"], 3)
            for method, seconds in spent.items():
                rows.append({"kind": kind, "method": method, "examples": len(examples), "per second": len(examples) / seconds})
    facts = {name: round(ratio, 3) for name, ratio in ratios.items()} | facts
    facts |= {"threads": 1, "film": f"{arguments.seconds} s of {FILM[0]}×{FILM[1]} at {FILM[2]} frames a second"}
    if peer is None:
        facts["peer"] = WHY_ABSENT
    return Report("encode", rows, facts, min(ratios.values()) if ratios else None)


def best(sides: dict[str, Callable[[], float]], repeats: int) -> dict[str, float]:
    """The least seconds of each side, after one pass of each that does not count."""
    passes = [{name: side() for name, side in sides.items()} for _ in range(1 + repeats)]
    return {name: min(found[name] for found in passes[1:]) for name in sides}


def loader_seconds(folder: Path, examples: list[Example], tokenizer: Tokenizer, cache: MediaCache) -> float:
    """Processor seconds of a window, which holds every example once, read by one worker thread in steady state: what it has ready
    when the clock starts it has ready again when the clock stops. Nothing decoded is kept from one window to the next."""
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
    packs = len(loader.window(1))
    started = time.process_time()
    for _ in range(packs):
        next(batches)
    spent = time.process_time() - started
    batches.close()  # type: ignore[attr-defined]
    return spent


def peer_seconds(peer: Any, examples: list[Example], cache: MediaCache, read: Reader | None = None) -> float:
    """Processor seconds of every example once through `Molmo2Processor`; `read` reads films."""
    from PIL import Image

    started = time.process_time()
    for example in examples:
        item = example.media[0]
        path = cache.path(item.sha256)
        if read is None:
            peer(text=f"<|image|>{ASKED}", images=[Image.open(path).convert("RGB")], return_tensors="pt")
        else:
            frames, facts = read(item, path)
            peer(text=f"<|video|>{ASKED}", videos=[frames], video_metadata=[facts], do_sample_frames=False, return_tensors="pt")
    return time.process_time() - started


def moments(item: Media) -> tuple[float, ...]:
    """Seconds of a film that both sides show."""
    assert item.duration is not None
    return video.uniform_times(item.duration, 128, 2.0)


def our_frames(item: Media, path: Path) -> tuple[Any, Any]:
    """A `Reader` that is ours: [N, 3, H, W] over what we read, which spares the peer a copy."""
    import torch

    assert item.fps is not None
    shown, seconds = VideoReader(path).frames_at(moments(item))
    numbers = [round(second * item.fps) for second in seconds.tolist()]
    facts = {"total_num_frames": item.n_frames, "fps": item.fps, "frames_indices": numbers}
    return torch.from_numpy(shown).permute(0, 3, 1, 2), facts


def their_frames(backend: str, item: Media, path: Path) -> tuple[Any, Any]:
    """A `Reader` that is transformers' own, for the frames that we show."""
    from transformers.video_utils import load_video

    assert item.fps is not None
    assert item.n_frames is not None
    numbers = [min(int(moment * item.fps + 1e-4), item.n_frames - 1) for moment in moments(item)]
    frames, facts = load_video(str(path), backend=backend, sample_indices_fn=lambda metadata, **_: np.array(numbers))
    assert len(frames) == len(numbers), f"{backend} read {len(frames)} of {len(numbers)} frames"
    return frames, facts


def can_read(backend: str, item: Media, cache: MediaCache) -> bool:
    """Whether transformers reads a film by this back end here."""
    try:
        their_frames(backend, item, cache.path(item.sha256))
    except (ImportError, RuntimeError, OSError):
        return False
    return True


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
