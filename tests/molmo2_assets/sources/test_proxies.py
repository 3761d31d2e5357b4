"""Proxies of films: the same frames at every moment that is shown, other content with its own hash, and no leak that hides."""

from __future__ import annotations

import errno
from pathlib import Path

import msgspec
import numpy as np
import pytest

from molmo2_assets.ingest.media_table import PUBLISHED_FILE, read_media
from molmo2_assets.mixtures.leaks import find_leaks
from molmo2_assets.profile import MediaSpec, ProxySpec
from molmo2_assets.sources import media, proxies
from molmo2_assets.sources.media import collect_media
from molmo2_assets.sources.proxies import write_proxy
from tests.support.films import HEIGHT, WIDTH, turned, write
from tests.support.small_sets import Validated, quiet, run, spec_of
from training_backend.data.fingerprint import file_sha256
from training_backend.data.manifest import StorageError
from training_backend.data.media import DEFAULT_LIMITS, Limits, MediaCache, MediaFault
from training_backend.data.video import VideoReader
from training_backend.encode.video import uniform_times

PROXY = ProxySpec(fps=2.0, crf=4)
EVEN = [125 * n for n in range(37)]
UNEVEN = [0, 125, 250, 375, 1000, 2000, 2040, 2080, 3500]


def proxied(tmp_path: Path, begins: list[int], proxy: ProxySpec = PROXY) -> tuple[VideoReader, VideoReader]:
    """A film and its proxy."""
    film = write(tmp_path / "film.mp4", begins)
    write_proxy(film, tmp_path / "proxy.mp4", proxy, DEFAULT_LIMITS)
    return VideoReader(film), VideoReader(tmp_path / "proxy.mp4")


@pytest.mark.parametrize("begins", [EVEN, UNEVEN, [0], [5000 + n for n in EVEN]], ids=["even", "uneven", "one frame", "late"])
def test_at_every_moment_that_is_shown_it_shows_the_film_s_frame(tmp_path: Path, begins: list[int]) -> None:
    film, proxy = proxied(tmp_path, begins)
    duration = film.facts.duration
    assert duration is not None
    times = uniform_times(duration, 384, 2.0)
    there, there_at = film.frames_at(times)
    here, here_at = proxy.frames_at(times)
    assert np.abs(there_at - here_at).max() < 1e-4
    assert there.shape == here.shape
    assert np.abs(there.mean(axis=(1, 2, 3)) - here.mean(axis=(1, 2, 3))).max() < 2 < 9  # neighbours differ by 9 (`films.level`)


def test_every_frame_is_a_key_frame_and_none_is_kept_twice(tmp_path: Path) -> None:
    import av

    _, proxy = proxied(tmp_path, UNEVEN)
    with av.open(str(tmp_path / "proxy.mp4")) as container:
        frames = list(container.decode(video=0))
    assert all(frame.key_frame for frame in frames)
    assert len(frames) == proxy.facts.n_frames == 6  # at 0, 0.375, 1, 2, 2.08 and 3.5 s


def test_equal_films_have_equal_proxies(tmp_path: Path) -> None:
    film = write(tmp_path / "film.mp4", EVEN)
    for name in ("a", "b"):
        write_proxy(film, tmp_path / name, PROXY, DEFAULT_LIMITS)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_a_film_that_lies_on_its_side_stands_up(tmp_path: Path) -> None:
    film = turned(write(tmp_path / "film.mp4", EVEN))
    write_proxy(film, tmp_path / "proxy.mp4", PROXY, DEFAULT_LIMITS)
    facts = VideoReader(tmp_path / "proxy.mp4").facts
    assert (facts.width, facts.height) == (HEIGHT, WIDTH)


def test_odd_sides_stay(tmp_path: Path) -> None:
    import av

    with av.open(str(tmp_path / "film.mkv"), "w") as container:
        stream = container.add_stream("ffv1", rate=4)
        stream.width, stream.height, stream.pix_fmt = 33, 47, "bgr0"
        for number in range(8):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(np.full((47, 33, 3), 20 * number, np.uint8), format="rgb24")))
        container.mux(stream.encode())
    write_proxy(tmp_path / "film.mkv", tmp_path / "proxy.mp4", PROXY, DEFAULT_LIMITS)
    facts = VideoReader(tmp_path / "proxy.mp4").facts
    assert (facts.width, facts.height, facts.n_frames) == (33, 47, 5)


# -- in a set -----------------------------------------------------------------------------------------------------------------


def films(home: Path, *names: str, proxy: ProxySpec | None = PROXY, limits: Limits = DEFAULT_LIMITS) -> Validated:
    """A set with a question about a film of each name."""
    rows = [{"video_id": name, "Question": name, "Answer": "a", "NegativeAnswers": ["b"]} for name in names]
    spec = spec_of("molmo2_video_cap_qa", "video_qa", MediaSpec(kind="folder", layout="media/{video_id}.mp4", proxy=proxy))
    return run(spec, home, rows, limits)


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A folder whose raw media are a good film and one that ends too early."""
    folder = tmp_path / "raw" / "media"
    folder.mkdir(parents=True)
    write(folder / "good.mp4", EVEN)
    (folder / "cut.mp4").write_bytes((folder / "good.mp4").read_bytes()[:700])
    return tmp_path


def test_rows_are_about_the_proxy_and_the_table_names_the_film(home: Path) -> None:
    film = home / "raw" / "media" / "good.mp4"
    done = films(home, "good", "cut", "gone")
    record = done.records["good"]
    assert (record.published, record.proxy) == (file_sha256(film), "2 fps, crf 4")
    assert record.published_sha256 == file_sha256(film) != record.sha256
    assert record.duration == VideoReader(film).facts.duration
    assert record.n_frames == 10  # that at 4.5 s is the last one too
    (example,) = (done.store.example(number) for number in range(len(done.store)))
    assert example.media[0].sha256 == record.sha256
    assert VideoReader(MediaCache(home / "cache").path(example.media[0].sha256)).facts.n_frames == 10
    assert done.records["cut"].state == "broken"
    assert done.records["gone"].state == "missing"
    assert not list((home / "cache" / "downloads").iterdir())


def test_how_proxies_are_made_is_part_of_the_version(home: Path) -> None:
    versions = {films(home, "good", proxy=proxy).media.data_version for proxy in (None, PROXY, ProxySpec(fps=1.0, crf=4))}
    assert len(versions) == 3
    assert films(home, "good").media.data_version in versions


def test_a_proxy_that_is_known_is_not_made_again(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = films(home, "good")
    made: list[Path] = []

    def counted(film: Path, dest: Path, proxy: ProxySpec, limits: Limits) -> None:
        made.append(film)
        proxies.write_proxy(film, dest, proxy, limits)

    monkeypatch.setattr(media, "write_proxy", counted)
    for proxy, times in ((PROXY, 0), (ProxySpec(fps=1.0, crf=4), 1), (None, 1)):
        spec = spec_of("molmo2_video_cap_qa", "video_qa", MediaSpec(kind="folder", layout="media/{video_id}.mp4", proxy=proxy))
        (home / "again").mkdir(exist_ok=True)
        known = first.records.values()
        report = collect_media(spec, first.raw, MediaCache(home / "cache"), home / "again", quiet, earlier=known)
        assert len(made) == times
        assert (report.data_version == first.media.data_version) == (proxy == PROXY)
        assert (read_media(home / "again")["good"].proxy is None) == (proxy is None)


def test_a_film_leaks_through_its_proxy(home: Path, tmp_path: Path) -> None:
    training = films(home, "good")
    asked = tmp_path / "asked"
    (asked / "raw" / "media").mkdir(parents=True)
    (asked / "raw" / "media" / "other.mp4").write_bytes((home / "raw" / "media" / "good.mp4").read_bytes())
    evaluation = films(asked, "other", proxy=None)
    assert (training.folder / PUBLISHED_FILE).is_file()
    assert not (evaluation.folder / PUBLISHED_FILE).exists()
    (leak,) = find_leaks({"training": training.folder}, {"asked": evaluation.folder}).leaks
    assert leak.media_rows == 1


def test_a_full_disk_is_no_fault_of_the_film(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(film: Path, dest: Path, proxy: ProxySpec, limits: Limits) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(media, "write_proxy", full)
    with pytest.raises(StorageError, match="the disk is full"):
        films(home, "good")


def test_what_a_decoder_says_of_a_film_is_a_fault_of_the_film(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    said = iter([RuntimeError("odd bytes"), MediaFault("truncated", "the frame at 1.00 s cannot be decoded")])

    def odd(film: Path, dest: Path, proxy: ProxySpec, limits: Limits) -> None:
        raise next(said)

    monkeypatch.setattr(media, "write_proxy", odd)
    first, second = films(home, "good"), films(home, "good")
    assert [first.records["good"].reason, second.records["good"].reason] == ["decode", "truncated"]


def test_records_without_proxies_are_read_as_ever() -> None:
    line = b'{"uri":"a","kind":"video","state":"ok","sha256":"00","width":1,"height":1,"duration":1.0,"fps":1.0,"n_frames":1}'
    record = msgspec.json.decode(line, type=media.MediaRecord)
    assert (record.published, record.published_sha256) == (None, "00")
