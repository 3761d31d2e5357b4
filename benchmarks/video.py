"""Video: frames a second of every reader, sampling a generated 1080p H.264 clip at 2 frames a second, beside a bare ffmpeg decode.

Each reader opens the file, reads its time stamps and gives uint8 frames, as training does. `bare ffmpeg` decodes every frame of the
clip in FFmpeg's own libraries (through PyAV, one thread) and converts none: what no reader that decodes all can beat; where there
is an `ffmpeg` program, it is measured too. `proxy` is the default reader on the clip's proxy of 2 frames a second. `ratio` is the
default reader's frames ÷ those of the bare decode at the same rate.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from benchmarks.report import Report
from molmo2_assets.profile import ProxySpec
from molmo2_assets.sources.proxies import write_proxy
from training_backend.data.media import DEFAULT_LIMITS
from training_backend.data.video import VIDEO_BACKENDS, VideoReader

WIDTH, HEIGHT, RATE = 1920, 1080, 30
SAMPLED = 2.0


def options(parser: argparse.ArgumentParser) -> None:
    """How long a clip, how often."""
    parser.add_argument("--seconds", type=int, default=20)
    parser.add_argument("--height", type=int, default=HEIGHT)
    parser.add_argument("--repeats", type=int, default=2)


def run(arguments: argparse.Namespace) -> Report:
    """One row a reader that can be loaded; the others are named in the facts."""
    with tempfile.TemporaryDirectory() as folder:
        path = write_clip(Path(folder) / "clip.mp4", arguments.seconds, arguments.height)
        times = np.arange(0, arguments.seconds, 1 / SAMPLED).tolist()
        seconds: dict[str, float] = {}
        missing: dict[str, str] = {}
        for name in VIDEO_BACKENDS:
            try:
                VideoReader(path, name)
            except ValueError as error:
                missing[name] = str(error)
                continue
            seconds[name] = _best(arguments.repeats, lambda name=name: _sample(path, name, times))  # type: ignore[misc]
        proxy = Path(folder) / "proxy.mp4"
        making = _best(1, lambda: write_proxy(path, proxy, ProxySpec(fps=SAMPLED), DEFAULT_LIMITS))
        seconds["pyav, proxy"] = _best(arguments.repeats, lambda: _sample(proxy, "pyav", times))
        seconds["bare ffmpeg"] = _best(arguments.repeats, lambda: _bare(path))
        if shutil.which("ffmpeg"):
            seconds["ffmpeg program"] = _best(arguments.repeats, lambda: _program(path))
        size, proxy_size = path.stat().st_size, proxy.stat().st_size
    rows = [
        {"reader": name, "seconds": spent, "sampled frames per s": len(times) / spent, "times real time": arguments.seconds / spent}
        for name, spent in seconds.items()
    ]
    facts = {
        "clip": f"{arguments.seconds} s, {arguments.height} lines, {RATE} frames a second, {size} bytes",
        "cannot be loaded": missing,
        "proxy": f"made in {making:.2f} s, {proxy_size} bytes",
    }
    return Report("video", rows, facts, round(seconds["bare ffmpeg"] / seconds["pyav"], 3))


def write_clip(path: Path, seconds: int, height: int) -> Path:
    """A picture of noise that moves, a key frame every two seconds: what an encoder of real films writes, not a still."""
    import av

    width = height * WIDTH // HEIGHT // 2 * 2
    draw = np.random.default_rng(0)
    coarse = draw.integers(0, 255, (height // 8 + 2, width // 8 + 64, 3), np.uint8)
    field = np.kron(coarse, np.ones((8, 8, 1), np.uint8))
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=RATE)
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        stream.options = {"preset": "veryfast", "crf": "26", "g": str(2 * RATE)}
        for number in range(seconds * RATE):
            left = 4 * (number % 100)
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(field[:height, left : left + width]), format="rgb24")
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


def _sample(path: Path, backend: str, times: list[float]) -> None:
    frames, _ = VideoReader(path, backend).frames_at(times)
    if len(frames) != len(times):
        raise SystemExit(f"{backend} gave {len(frames)} of {len(times)} frames")


def _bare(path: Path) -> None:
    import av

    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        stream.thread_count = 1
        for _ in container.decode(stream):
            pass


def _program(path: Path) -> None:
    subprocess.run(["ffmpeg", "-v", "error", "-threads", "1", "-i", str(path), "-f", "null", "-"], check=True)


def _best(repeats: int, work: Callable[[], None]) -> float:
    best = float("inf")
    for _ in range(repeats):
        started = time.perf_counter()
        work()
        best = min(best, time.perf_counter() - started)
    return best
