"""Pixels through the cache on disk and a small memory."""

from __future__ import annotations

import io
import threading
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from training_backend.data.example import Media
from training_backend.data.media import MediaCache, MediaFault
from training_backend.encode.images import resize
from training_backend.pack import media_source
from training_backend.pack.media_source import CachedMedia


def stored(cache: MediaCache, number: int) -> tuple[Media, np.ndarray]:
    pixels = np.random.default_rng(number).integers(0, 256, (20, 30, 3), dtype=np.uint8)
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "PNG")
    media = Media(id="0", kind="image", uri="a", sha256=cache.add_bytes(stream.getvalue()), width=30, height=20)
    return media, pixels


def filmed(cache: MediaCache, folder: Path, frames: int = 24) -> Media:
    """Three seconds at 8 frames a second; frame n has grey level 8n."""
    import av

    path = folder / "clip.mp4"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=8)
        stream.width, stream.height, stream.pix_fmt = 32, 32, "yuv420p"
        stream.bit_rate = 4_000_000
        for number in range(frames):
            frame = av.VideoFrame.from_ndarray(np.full((32, 32, 3), 8 * number, dtype=np.uint8), format="rgb24")
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return Media(
        id="v",
        kind="video",
        uri="v",
        sha256=cache.add_file(path),
        width=32,
        height=32,
        duration=frames / 8,
        fps=8.0,
        n_frames=frames,
    )


def test_pictures_come_back_and_stay(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cache = MediaCache(tmp_path)
    media, pixels = stored(cache, 0)
    source = CachedMedia(cache)
    assert (source.image(media) == pixels).all()
    cache.path(media.sha256).unlink()
    assert (source.image(media) == pixels).all()
    with pytest.raises(ValueError, match="read-only"):
        source.image(media)[0] = 0
    with pytest.raises(MediaFault, match="not there"):
        CachedMedia(cache).image(media)


def test_the_memory_is_bounded(tmp_path: Path) -> None:
    cache = MediaCache(tmp_path)
    every = [stored(cache, number) for number in range(6)]
    source = CachedMedia(cache, memory=3 * 20 * 30 * 3)
    for media, pixels in every * 2:
        assert (source.image(media) == pixels).all()
    assert sum(kept.nbytes for kept in source._kept.values()) <= 3 * 20 * 30 * 3
    small = CachedMedia(cache, memory=10)
    assert (small.image(every[0][0]) == every[0][1]).all()
    assert not small._kept


def test_frames_come_in_the_size_that_is_asked_for(tmp_path: Path) -> None:
    cache = MediaCache(tmp_path)
    media = filmed(cache, tmp_path)
    source = CachedMedia(cache)
    whole = source.frames(media, (0.0, 1.0, 2.0))
    assert (source.frames(media, (0.0, 1.0, 2.0), (20, 44)) == resize(whole, 20, 44)).all()
    assert source.frames(media, (0.0, 1.0, 2.0)).shape == whole.shape, "sizes are remembered apart"


def test_frames_are_shown_at_their_second_of_the_clip(tmp_path: Path) -> None:
    cache = MediaCache(tmp_path)
    media = filmed(cache, tmp_path)
    source = CachedMedia(cache)
    levels = source.frames(media, (0.0, 1.0, 2.0, 3.0)).mean(axis=(1, 2, 3))
    np.testing.assert_allclose(levels, [0, 64, 128, 184], atol=6)
    part = Media(**{name: getattr(media, name) for name in Media.__struct_fields__} | {"clip": (1.0, 2.0)})
    levels = source.frames(part, (0.0, 0.5, 1.0)).mean(axis=(1, 2, 3))
    np.testing.assert_allclose(levels, [64, 96, 128], atol=6)


def test_a_repeated_clip_is_decoded_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cache = MediaCache(tmp_path)
    media = filmed(cache, tmp_path)
    opened: list[Path] = []
    reader = media_source.VideoReader
    monkeypatch.setattr(media_source, "VideoReader", lambda path, limits: opened.append(path) or reader(path, limits=limits))
    source = CachedMedia(cache)
    for _ in range(3):
        source.frames(media, (0.0, 1.0))
    assert len(opened) == 1
    source.frames(media, (0.0, 1.5))
    assert len(opened) == 2


def test_threads_share_it(tmp_path: Path) -> None:
    cache = MediaCache(tmp_path)
    every = [stored(cache, number) for number in range(8)]
    source = CachedMedia(cache, memory=4 * 1800)
    wrong: list[int] = []

    def work(seed: int) -> None:
        for index in np.random.default_rng(seed).integers(0, 8, 60):
            if not (source.image(every[index][0]) == every[index][1]).all():
                wrong.append(int(index))

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong
    assert source._room == 4 * 1800 - sum(kept.nbytes for kept in source._kept.values()) >= 0
