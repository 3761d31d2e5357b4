"""Every decoder gives the same frames, of every kind of film; those that are not installed say so."""

from __future__ import annotations

import gc
import importlib
import itertools
import os
import time
from collections.abc import Callable
from pathlib import Path

import av
import numpy as np
import pytest

from tests.support import films
from tests.support.films import HEIGHT, WIDTH, counted_wrong, level, turned, without_rate, write
from training_backend.data import video_decord, video_pyav
from training_backend.data.media import Limits, MediaFault
from training_backend.data.video import VIDEO_BACKENDS, VideoReader
from training_backend.data.video_pyav import Stamps

EVEN = [125 * n for n in range(24)]
UNEVEN = [0, 125, 250, 375, 1000, 2000, 2040, 2080, 3500]
FILMS: dict[str, tuple[Callable[[Path], Path], list[int]]] = {
    "constant rate": (lambda f: write(f / "a.mp4", EVEN, options={"bf": "0"}), EVEN),
    "variable rate": (lambda f: write(f / "a.mp4", UNEVEN, options={"bf": "0"}), UNEVEN),
    "B-frames": (lambda f: write(f / "a.mp4", EVEN, options={"bf": "3", "g": "24", "b_strategy": "0"}), EVEN),
    "HEVC": (lambda f: write(f / "a.mp4", EVEN, codec="libx265"), EVEN),
    "VP9": (lambda f: write(f / "a.webm", EVEN, codec="libvpx-vp9"), EVEN),
    "rotated": (lambda f: turned(write(f / "a.mp4", EVEN, options={"bf": "0"})), EVEN),
    "starts late": (lambda f: write(f / "a.mkv", [5000 + n for n in EVEN]), [5000 + n for n in EVEN]),
    "counts one too many": (lambda f: counted_wrong(avi(f), 1), EVEN),
    "long gaps": (lambda f: write(f / "a.mp4", [500 * n for n in range(60)], options={"g": "5"}), [500 * n for n in range(60)]),
    "one frame": (lambda f: write(f / "a.mp4", [0]), [0]),
    "no rate": (lambda f: without_rate(write(f / "a.mkv", EVEN, options={"bf": "0"})), EVEN),
}


def avi(folder: Path) -> Path:
    return write(folder / "a.avi", list(range(24)), codec="mpeg4", base=8, options={"q": "2"})


def usable(name: str) -> bool:
    try:
        VIDEO_BACKENDS[name](Path(__file__), Stamps([0.0], "none", 1.0, 1.0))
    except ValueError:
        return False
    return True


@pytest.fixture(params=sorted(VIDEO_BACKENDS))
def backend(request: pytest.FixtureRequest) -> str:
    name = str(request.param)
    if not usable(name):
        pytest.skip(f"{name} cannot be loaded here: its frames are compared where it can (pip install 'nanomolmo2[{name}]')")
    return name


@pytest.mark.parametrize("kind", FILMS)
def test_every_decoder_shows_the_frame_of_the_moment(backend: str, kind: str, tmp_path: Path) -> None:
    make, begins = FILMS[kind]
    reader = VideoReader(make(tmp_path), backend)
    starts = (np.array(begins) - begins[0]) / 1000
    assert reader.facts.n_frames == len(begins)
    assert (reader.facts.width, reader.facts.height) == ((HEIGHT, WIDTH) if kind == "rotated" else (WIDTH, HEIGHT))
    frames, times = reader.frames_at(starts.tolist())
    np.testing.assert_allclose(times, starts, atol=2e-3)
    middle = frames[:, 28:36, 20:28].mean(axis=(1, 2, 3))
    np.testing.assert_allclose(middle, [level(n) for n in range(len(begins))], atol=5)
    wanted = [-1.0, float(starts[-1]) * 0.05, float(starts[-1]) * 0.61, float(starts[-1]) + 9]
    shown = [max(0, int(np.searchsorted(starts, t + 1e-3, side="right")) - 1) for t in wanted]
    frames, times = reader.frames_at(wanted)
    np.testing.assert_allclose(times, starts[shown], atol=2e-3)
    np.testing.assert_allclose(frames[:, 28:36, 20:28].mean(axis=(1, 2, 3)), [level(n) for n in shown], atol=5)


@pytest.mark.parametrize("kind", FILMS)
def test_decoders_agree_pixel_for_pixel_or_nearly(backend: str, kind: str, tmp_path: Path) -> None:
    """They scale colours a little differently; 36 dB is far above any other frame or turn."""
    if backend == "pyav":
        pytest.skip("the one that the others are compared with")
    path = FILMS[kind][0](tmp_path)
    moments = [0.0, 0.3, 0.9, 1.7]
    theirs, ours = (VideoReader(path, name).frames_at(moments)[0].astype(float) for name in (backend, "pyav"))
    assert theirs.shape == ours.shape
    assert 10 * np.log10(255**2 / max(1e-9, float(((theirs - ours) ** 2).mean()))) > 36


SPARSE = [0.0, 0.02, 0.6, 0.61, 1.1, 1.7, 2.9, 7.2, 7.6, 29.0]


@pytest.mark.parametrize("kind", FILMS)
def test_a_film_in_memory_shows_what_passes_over_its_file_show(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever is asked for, in whatever order, of a decoder that has been used before."""
    path = FILMS[kind][0](tmp_path)
    from_memory = VideoReader(path)
    monkeypatch.setattr(video_pyav, "_KEPT_BYTES", 0)
    from_file = VideoReader(path)
    assert from_file._found.packets is None
    monkeypatch.setattr(video_pyav.PyAv, "_pass", lambda *_: pytest.fail("every frame comes out under its own time stamp"))
    found = [from_memory.frames_at(times) for times in (SPARSE, SPARSE[3:], SPARSE[:2], SPARSE)]
    monkeypatch.undo()
    for times, (frames, moments) in zip((SPARSE, SPARSE[3:], SPARSE[:2], SPARSE), found, strict=True):
        others, their_moments = from_file.frames_at(times)
        assert (moments == their_moments).all()
        assert (frames == others).all()


@pytest.mark.parametrize(
    ("name", "codec", "options"),
    [
        ("a.mkv", "libx265", {"x265-params": "log-level=none:pools=1:frame-threads=1:open-gop=1:keyint=12:bframes=4"}),
        ("a.mp4", "libx264", {"x264-params": "open-gop=1:keyint=12:min-keyint=12:bframes=3:threads=1"}),
        ("a.mp4", "libx264", {"x264-params": "intra-refresh=1:keyint=12:bframes=0:threads=1"}),
        ("a.ts", "mpeg2video", {"g": "12", "bf": "2"}),
        ("a.webm", "libvpx-vp9", {"g": "12"}),
    ],
    ids=["HEVC, open groups", "H.264, open groups", "H.264, no key frames but the first", "MPEG-2, open groups", "VP9"],
)
def test_a_jump_to_a_key_frame_changes_no_pixel(name: str, codec: str, options: dict[str, str], tmp_path: Path) -> None:
    path = films.moving(tmp_path / name, codec, options)
    with av.open(str(path)) as container:
        whole = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
    reader = VideoReader(path)
    assert reader.facts.n_frames == len(whole) == 96
    for numbers in (range(0, 96, 12), range(11, 96, 13), range(7, 96, 26), (5, 6, 7, 50, 95)):
        frames, _ = reader.frames_at([number / 24 + 0.002 for number in numbers])
        assert not [number for frame, number in zip(frames, numbers, strict=True) if (frame != whole[number]).any()]


@pytest.mark.parametrize("lost", [0, 2, 4])
def test_frames_that_memory_does_not_give_are_read_from_the_file(
    lost: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = FILMS["B-frames"][0](tmp_path)
    whole, _ = VideoReader(path).frames_at(SPARSE[:6])
    given = video_pyav.PyAv._from_memory
    monkeypatch.setattr(video_pyav.PyAv, "_from_memory", lambda *words: itertools.islice(given(*words), lost))
    frames, _ = VideoReader(path).frames_at(SPARSE[:6])
    assert (frames == whole).all()


def test_the_file_is_closed_with_its_reader(tmp_path: Path) -> None:
    path = write(tmp_path / "a.mp4", EVEN)
    gc.disable()
    try:
        before = len(os.listdir("/proc/self/fd"))
        VideoReader(path).frames_at([0.0, 1.0])
        assert len(os.listdir("/proc/self/fd")) == before
    finally:
        gc.enable()


def test_what_is_kept_of_a_frame_is_said_by_the_caller(backend: str, tmp_path: Path) -> None:
    reader = VideoReader(write(tmp_path / "a.mp4", EVEN), backend)
    times = [0.0, 0.3, 0.31, 2.0]
    frames, moments = reader.frames_at(times)
    kept, same = reader.frames_at(times, lambda pixels: pixels[::2, :8])
    assert (kept == frames[:, ::2, :8]).all()
    assert (same == moments).all()
    sizes = iter([4, 8, 8, 8])
    with pytest.raises(MediaFault, match=r"change their size at 0\.25 s"):
        reader.frames_at(times, lambda pixels: pixels[: next(sizes)])


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (lambda f: cut(write(f / "a.mp4", EVEN), 0.5), "truncated"),
        (lambda f: cut(write(f / "a.mkv", EVEN), 0.5), "truncated"),
        (lambda f: counted_wrong(avi(f), 5), "truncated"),
        (lambda f: write(f / "a.mp4", [0, 30 * 3_600_000]), "too_large"),
        (lambda f: without_rate(write(f / "a.mkv", [0])), "zero_duration"),
        (lambda f: text(f), "not_a_video"),
    ],
    ids=["cut MP4", "cut Matroska", "counts five too many", "thirty hours", "no time", "HTML"],
)
def test_what_is_wrong_with_a_film_is_said_alike(backend: str, make: Callable[[Path], Path], reason: str, tmp_path: Path) -> None:
    path = make(tmp_path)
    started = time.monotonic()
    with pytest.raises(MediaFault) as caught:
        VideoReader(path, backend)
    assert caught.value.reason == reason
    assert time.monotonic() - started < 5, "by its header, not by decoding"


def cut(path: Path, share: float) -> Path:
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * share)])
    return path


def text(folder: Path) -> Path:
    (folder / "a.mp4").write_bytes(b"<!DOCTYPE html><html>404</html>")
    return folder / "a.mp4"


def test_a_transport_stream_is_read_right_or_refused(backend: str, tmp_path: Path) -> None:
    """FFmpeg cannot jump in one exactly."""
    path = write(tmp_path / "a.ts", EVEN)
    try:
        frames, _ = VideoReader(path, backend).frames_at([n / 1000 for n in EVEN[:20]])
    except MediaFault as fault:
        refused = str(fault)
    else:
        refused = ""
        np.testing.assert_allclose(frames[:, 28:36, 20:28].mean(axis=(1, 2, 3)), [level(n) for n in range(20)], atol=5)
    assert not refused or (backend != "pyav" and "read it with pyav" in refused)


def test_limits(tmp_path: Path) -> None:
    path = write(tmp_path / "a.mp4", EVEN)
    for limits in (Limits(max_frames=10), Limits(max_seconds=1.0), Limits(max_pixels=100), Limits(max_bytes=100)):
        with pytest.raises(MediaFault) as caught:
            VideoReader(path, limits=limits)
        assert caught.value.reason == "too_large"


@pytest.mark.parametrize("name", ["torchcodec", "decord"])
def test_a_decoder_that_cannot_be_loaded_says_what_to_do(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if name == "torchcodec":
        monkeypatch.setitem(importlib.import_module("sys").modules, "torchcodec.decoders", None)
    else:
        monkeypatch.setattr(video_decord, "find_spec", lambda _: None)
    with pytest.raises(ValueError, match=rf"'{name}' .*install nanomolmo2\[{name}\].*'pyav', which every installation has"):
        VideoReader(write(tmp_path / "a.mp4", EVEN), name)


HANGING = """
import time
class cpu:
    def __init__(self, number): ...
class VideoReader:
    def __init__(self, path, ctx, num_threads): ...
    def __len__(self): return 24
    def next(self): {body}
"""


@pytest.mark.parametrize(("body", "word"), [("time.sleep(600)", "silent for"), ("import os; os._exit(9)", "it died")])
def test_a_decord_that_hangs_or_dies_is_ended_and_named(
    body: str, word: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With a module of that name in its place: the true one hangs on some files only, and not on every machine."""
    (tmp_path / "decord.py").write_text(HANGING.format(body=body))
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(video_decord, "SECONDS", 5.0)
    path = write(tmp_path / "a.mp4", EVEN)
    decoder = video_decord.Decord(path, [n / 1000 for n in EVEN])
    child = decoder._running()
    with pytest.raises(MediaFault, match=word) as caught:
        list(decoder.decode([0.0, 0.125]))
    assert caught.value.reason == "decode"
    assert child.poll() is not None, "no child is left behind"


def test_levels_of_neighbours_differ() -> None:
    """Or a wrong frame would pass."""
    assert all(abs(level(n) - level(n + 1)) > 8 for n in range(60))
    assert films.WIDTH != films.HEIGHT
