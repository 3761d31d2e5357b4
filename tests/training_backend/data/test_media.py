"""Pixels as a person sees them, and one word for what is wrong."""

from __future__ import annotations

import io
import struct
import subprocess
import sys
import zlib
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image

from training_backend.data.media import Limits, MediaCache, MediaFault, probe, read_image
from training_backend.data.video import VideoReader

REAL = Path(__file__).resolve().parents[4] / "shared" / "data" / "real"
needs_real = pytest.mark.skipif(not REAL.is_dir(), reason="no real sample data beside the checkout")


def _bytes(image: Image.Image, kind: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def _video(path: Path, frames: int = 24, fps: int = 8, gop: int = 6, options: dict[str, str] | None = None) -> Path:
    """Frame n is grey level 8·n, modulo 256."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=fps)
        stream.width, stream.height, stream.pix_fmt = 32, 32, "yuv420p"
        stream.options = {"crf": "10", "threads": "1", "g": str(gop), **(options or {})}
        for number in range(frames):
            frame = av.VideoFrame.from_ndarray(np.full((32, 32, 3), 8 * number % 256, np.uint8), format="rgb24")
            frame.pts = number
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


def test_images_of_every_mode_become_what_is_displayed() -> None:
    red = Image.new("RGB", (4, 2), (255, 0, 0))
    assert read_image(_bytes(red, "PNG")).tolist() == [[[255, 0, 0]] * 4] * 2
    exif = Image.Exif()
    exif[0x0112] = 6
    assert read_image(_bytes(red, "JPEG", exif=exif)).shape == (4, 2, 3), "rotated by its orientation tag"
    clear = Image.new("RGBA", (2, 2), (0, 0, 0, 0))
    assert read_image(_bytes(clear, "PNG")).tolist() == [[[255] * 3] * 2] * 2, "transparency lies on white"
    deep = Image.fromarray(np.array([[0, 65535], [257, 32896]], np.uint16))
    assert read_image(_bytes(deep, "PNG"))[..., 0].tolist() == [[0, 255], [1, 128]]
    inks = read_image(_bytes(red.convert("CMYK"), "JPEG", quality=95))
    assert inks.shape == (2, 4, 3)
    assert np.abs(inks.astype(int) - (255, 0, 0)).max() <= 8, "inks become light"
    assert read_image(_bytes(red.convert("P"), "GIF", save_all=True, append_images=[red.convert("P")])).shape == (2, 4, 3)
    assert read_image(_bytes(Image.new("L", (1, 9), 7), "PNG")).tolist() == [[[7] * 3]] * 9


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "truncated"),
        (b"<!DOCTYPE html><html></html>", "not_an_image"),
        (b"GARBAGE", "not_an_image"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n%%EndComments\n", "not_an_image"),  # a program, not a picture
        (_bytes(Image.fromarray(np.random.default_rng(0).integers(0, 255, (64, 64, 3), np.uint8)), "PNG")[:3000], "truncated"),
    ],
)
def test_broken_images_say_why(data: bytes, reason: str) -> None:
    with pytest.raises(MediaFault) as caught:
        read_image(data)
    assert caught.value.reason == reason


def test_a_bomb_is_refused_by_its_header() -> None:
    bomb = _bytes(Image.new("1", (20_000, 20_000)), "PNG")
    assert len(bomb) < 100_000
    with pytest.raises(MediaFault, match="20000×20000 pixels") as caught:
        read_image(bomb)
    assert caught.value.reason == "too_large"


def _header(width: int, height: int, bits: int = 8, pixels: bytes = b"") -> bytes:
    """A PNG in colour that says this size and holds these rows, each behind its filter byte."""
    chunks = [(b"IHDR", struct.pack(">IIBBBBB", width, height, bits, 2, 0, 0, 0)), (b"IDAT", zlib.compress(pixels)), (b"IEND", b"")]
    framed = (struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body)) for name, body in chunks)
    return b"\x89PNG\r\n\x1a\n" + b"".join(framed)


@pytest.mark.parametrize(("size", "reason"), [((0, 0), "not_an_image"), ((0, 7), "not_an_image"), ((60_000, 60_000), "too_large")])
def test_pictures_of_no_size_and_of_gigapixels_are_refused_by_their_header(size: tuple[int, int], reason: str) -> None:
    with pytest.raises(MediaFault) as caught:
        read_image(_header(*size))
    assert caught.value.reason == reason


def test_colours_of_sixteen_bits_are_scaled() -> None:
    colours = (65535, 0, 257, 32896, 1028, 65535)
    pixels = read_image(_header(2, 1, 16, b"\0" + struct.pack(">6H", *colours)))
    assert pixels.tolist() == [[[255, 0, 1], [128, 4, 255]]]


def test_a_picture_lies_as_its_orientation_tag_says() -> None:
    """A camera held upright stores a lying picture and tag 6: its left edge is shown above."""
    lying = Image.new("RGB", (32, 16), (0, 0, 255))
    lying.paste((255, 0, 0), (0, 0, 16, 16))
    exif = Image.Exif()
    exif[0x0112] = 6
    pixels = read_image(_bytes(lying, "JPEG", exif=exif, quality=95)).astype(int)
    assert pixels.shape == (32, 16, 3)
    assert np.abs(pixels[:12] - (255, 0, 0)).max() < 16
    assert np.abs(pixels[20:] - (0, 0, 255)).max() < 16


@pytest.mark.parametrize("kind", ["GIF", "PNG", "WEBP"])
def test_an_animation_is_its_first_frame(kind: str) -> None:
    first, second = (Image.new("RGB", (6, 5), colour) for colour in ((255, 0, 0), (0, 0, 255)))
    pixels = read_image(_bytes(first, kind, save_all=True, append_images=[second], duration=100))
    assert pixels.shape == (5, 6, 3)
    assert np.abs(pixels.astype(int) - (255, 0, 0)).max() <= 4


def test_a_film_of_one_frame(tmp_path: Path) -> None:
    reader = VideoReader(_video(tmp_path / "one.mp4", frames=1))
    assert reader.facts.n_frames == 1
    assert reader.facts.duration is not None
    assert reader.facts.duration > 0
    frames, times = reader.frames_at([0.0, 0.5, 9.0])
    assert (times == 0).all()
    assert (frames == frames[0]).all()


def test_a_film_without_frames_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "none.mp4"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=8)
        stream.width, stream.height, stream.pix_fmt = 32, 32, "yuv420p"
        container.start_encoding()
    with pytest.raises(MediaFault) as caught:
        probe(path, kind="video")
    assert caught.value.reason in ("zero_duration", "truncated", "not_a_video")


def test_a_film_of_variable_rate_is_read_by_its_time_stamps(tmp_path: Path) -> None:
    """Four frames in the first half second, then one a second."""
    path = tmp_path / "variable.mp4"
    begins = [0, 125, 250, 375, 1000, 2000, 3000]
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=8)
        stream.width, stream.height, stream.pix_fmt = 32, 32, "yuv420p"
        stream.time_base = stream.codec_context.time_base = Fraction(1, 1000)
        stream.options = {"crf": "10", "threads": "1", "bf": "0"}
        for number, begin in enumerate(begins):
            frame = av.VideoFrame.from_ndarray(np.full((32, 32, 3), 30 * number, np.uint8), format="rgb24")
            frame.pts, frame.time_base = begin, Fraction(1, 1000)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    reader = VideoReader(path)
    assert reader.facts.n_frames == 7
    assert reader.facts.duration is not None
    assert reader.facts.duration >= 3.0
    frames, times = reader.frames_at([0.0, 0.3, 0.9, 1.0, 1.9, 2.5, 3.0])
    np.testing.assert_allclose(times, [0.0, 0.25, 0.375, 1.0, 1.0, 2.0, 3.0], atol=1e-3)
    np.testing.assert_allclose(frames.mean(axis=(1, 2, 3)), [0, 60, 90, 120, 120, 150, 180], atol=4)


def test_the_frame_shown_at_a_time(tmp_path: Path) -> None:
    reader = VideoReader(_video(tmp_path / "a.mp4"))
    facts = reader.facts
    assert (facts.width, facts.height, facts.n_frames, facts.fps, facts.duration) == (32, 32, 24, 8.0, 3.0)
    frames, times = reader.frames_at([0.0, 0.12, 0.125, 1.0, 2.875, 99.0])
    np.testing.assert_allclose(times, [0.0, 0.0, 0.125, 1.0, 2.875, 2.875], atol=1e-6)
    levels = frames.mean(axis=(1, 2, 3))
    np.testing.assert_allclose(levels, [0, 0, 8, 64, 184, 184], atol=3)
    with pytest.raises(ValueError, match="must ascend"):
        reader.frames_at([1.0, 0.5])


def test_long_gaps_seek_to_the_same_frames(tmp_path: Path) -> None:
    path = _video(tmp_path / "long.mp4", frames=31 * 8, fps=2, gop=10)
    reader = VideoReader(path)
    times = [0.0, 30.0, 30.5, 77.5, 123.5]
    one_by_one = np.concatenate([reader.frames_at([time])[0] for time in times])
    together, actual = reader.frames_at(times)
    np.testing.assert_allclose(actual, times, atol=1e-6)
    assert np.array_equal(together, one_by_one)


def test_b_frames_are_shown_in_order(tmp_path: Path) -> None:
    reader = VideoReader(_video(tmp_path / "b.mp4", options={"bf": "3", "g": "24"}))
    frames, times = reader.frames_at([n / 8 for n in range(24)])
    np.testing.assert_allclose(times, np.arange(24) / 8, atol=1e-6)
    np.testing.assert_allclose(frames.mean(axis=(1, 2, 3)), 8 * np.arange(24), atol=4)


def test_broken_videos_say_why(tmp_path: Path) -> None:
    whole = _video(tmp_path / "a.mp4").read_bytes()
    for name, data, reason in (
        ("empty", b"", "truncated"),
        ("cut", whole[: len(whole) // 2], "truncated"),
        ("text", b"hello", "not_a_video"),
    ):
        path = tmp_path / f"{name}.mp4"
        path.write_bytes(data)
        with pytest.raises(MediaFault) as caught:
            probe(path, kind="video")
        assert caught.value.reason == reason, name
    with pytest.raises(MediaFault) as caught:
        probe(tmp_path / "gone.mp4", kind="video")
    assert caught.value.reason == "missing"
    with pytest.raises(MediaFault, match="more than 10 frames"):
        probe(tmp_path / "a.mp4", Limits(max_frames=10), kind="video")


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("film", "ffconcat version 1.0\nfile other.mp4\n"),
        ("film.m3u8", "#EXTM3U\n#EXT-X-TARGETDURATION:9\n#EXTINF:9,\nother.mp4\n#EXT-X-ENDLIST\n"),
        ("film.ts", "#EXTM3U\n#EXT-X-TARGETDURATION:9\n#EXTINF:9,\nfile:///etc/passwd\n#EXT-X-ENDLIST\n"),
        (
            "film.sdp",
            "v=0\no=- 0 0 IN IP4 127.0.0.1\ns=No\nc=IN IP4 127.0.0.1\nt=0 0\nm=video 9 RTP/AVP 96\na=rtpmap:96 H264/90000\n",
        ),
    ],
)
def test_a_playlist_is_no_film(name: str, text: str, tmp_path: Path) -> None:
    """Its few bytes name another file, or a host, which FFmpeg would open and play."""
    _video(tmp_path / "other.mp4")
    (tmp_path / name).write_text(text)
    with pytest.raises(MediaFault) as caught:
        probe(tmp_path / name, kind="video")
    assert caught.value.reason == "not_a_video"


def test_the_cache_is_content_addressed_and_shared(tmp_path: Path) -> None:
    cache = MediaCache(tmp_path / "cache")
    digest = cache.add_bytes(b"abc")
    (tmp_path / "f").write_bytes(b"abc")
    assert cache.add_file(tmp_path / "f") == digest
    assert cache.path(digest).read_bytes() == b"abc"
    code = "import sys; from pathlib import Path; from training_backend.data.media import MediaCache;" + (
        "c=MediaCache(Path(sys.argv[1])); print([c.add_bytes(bytes([i])*9) for i in range(50)][-1])"
    )
    root = Path(__file__).resolve().parents[3]
    runs = [
        subprocess.Popen([sys.executable, "-c", code, str(tmp_path / "cache")], cwd=root, stdout=subprocess.PIPE) for _ in range(2)
    ]
    assert len({run.communicate()[0] for run in runs}) == 1
    assert not list((tmp_path / "cache").rglob(".*"))


def test_unknown_back_ends_name_the_known_ones(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="known: decord, pyav, torchcodec"):
        VideoReader(_video(tmp_path / "a.mp4"), backend="pvay")


@needs_real
def test_a_real_clip_has_the_frames_that_its_notes_say() -> None:
    import json

    notes = json.loads((REAL / "videos" / "nasa_13013.mp4.stream3.all_frames_info.json").read_text())
    reader = VideoReader(REAL / "videos" / "nasa_13013.mp4")
    stamps = [float(entry["pts_time"]) for entry in notes]
    assert reader.facts.n_frames == len(notes)
    wanted = stamps[:: len(stamps) // 7]
    _, times = reader.frames_at(wanted)
    np.testing.assert_allclose(times, wanted, atol=1e-4)
