"""Collecting media: what is stored and known of each, and that no file, name or link, however hostile, stops its set."""

from __future__ import annotations

import hashlib
import os
import struct
import threading
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from molmo2_assets.ingest.media_table import MediaRecord
from molmo2_assets.profile import MediaSpec
from molmo2_assets.sources import media
from molmo2_assets.sources.media import collect_media
from tests.support.small_sets import Validated, picture_bytes, quiet, run, spec_of, write_film
from training_backend.data.media import DEFAULT_LIMITS, Limits, MediaCache

FILMS = MediaSpec(kind="folder", layout="media/{video_id}.mp4")


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A folder whose raw media are one good picture and one good film."""
    media = tmp_path / "raw" / "media"
    media.mkdir(parents=True)
    (media / "good.png").write_bytes(picture_bytes(1))
    write_film(media / "good.mp4")
    return tmp_path


def pictures(home: Path, *names: str, limits: Limits = DEFAULT_LIMITS) -> Validated:
    """A set with a captioned picture of each name."""
    return run(spec_of("captioned_images", "image_caption"), home, [{"image": name, "caption": name} for name in names], limits)


def films(home: Path, *names: str, limits: Limits = DEFAULT_LIMITS, media: MediaSpec = FILMS) -> Validated:
    """A set with a question about a film of each name."""
    rows = [{"video_id": name, "Question": name, "Answer": "a", "NegativeAnswers": ["b"]} for name in names]
    return run(spec_of("molmo2_video_cap_qa", "video_qa", media), home, rows, limits)


# -- what is known ------------------------------------------------------------------------------------------------------------


def test_a_picture_and_a_film_are_stored_by_content_and_probed(home: Path) -> None:
    data = picture_bytes(1)
    record = pictures(home, "https://pictures.invalid/deep/good.png").records["https://pictures.invalid/deep/good.png"]
    digest = hashlib.sha256(data).hexdigest()
    assert record == MediaRecord(
        uri="https://pictures.invalid/deep/good.png", kind="image", state="ok", sha256=digest, width=20, height=10, codec="png",
        bytes=len(data),
    )  # fmt: skip
    assert MediaCache(home / "cache").path(digest).read_bytes() == data
    film = films(home, "good").records["good"]
    assert (film.kind, film.state, film.width, film.height, film.codec) == ("video", "ok", 32, 32, "h264")
    assert (film.duration, film.fps, film.n_frames) == (2.0, 8.0, 16)


def test_a_medium_named_by_many_rows_is_collected_once(home: Path) -> None:
    done = pictures(home, "good.png", "good.png", "gone.png")
    assert done.media.counts == {"media": 2, "ok": 1, "missing": 1, "broken": 0}
    assert done.media.facts == {"reasons": {"missing": 1}, "bytes": len(picture_bytes(1))}


def test_the_version_is_about_content_and_state(home: Path) -> None:
    first = pictures(home, "good.png", "late.png").media.data_version
    assert pictures(home, "late.png", "good.png").media.data_version == first
    assert first.startswith("2-")
    (home / "raw" / "media" / "late.png").write_bytes(picture_bytes(2))
    came = pictures(home, "good.png", "late.png").media.data_version
    (home / "raw" / "media" / "late.png").unlink()
    assert came != first == pictures(home, "good.png", "late.png").media.data_version
    (home / "raw" / "media" / "good.png").unlink()
    (home / "raw" / "media" / "good.png").write_bytes(picture_bytes(3))
    assert pictures(home, "good.png", "late.png").media.data_version != first


def test_bytes_that_were_looked_at_before_are_not_decoded_again(home: Path) -> None:
    first = pictures(home, "good.png", "late.png")
    (home / "raw" / "media" / "late.png").write_bytes(picture_bytes(2))
    digest = first.records["good.png"].sha256
    assert digest is not None
    cached = MediaCache(home / "cache").path(digest)
    cached.unlink()  # a link to the raw file
    cached.write_bytes(b"whoever decodes this finds nothing")
    spec = spec_of("captioned_images", "image_caption")
    for earlier, states in ((first.records.values(), {"ok": 2}), ((), {"ok": 1, "broken": 1})):
        report = collect_media(spec, first.raw, MediaCache(home / "cache"), home / "media", quiet, earlier=earlier)
        assert {state: count for state, count in report.counts.items() if count and state != "media"} == states
    found = collect_media(spec, first.raw, MediaCache(home / "cache"), home / "media", quiet, earlier=[
        msgspec.structs.replace(first.records["good.png"], uri="another name", kind="video")
    ])  # fmt: skip
    assert found.counts["broken"] == 1, "a picture is no film"


def test_several_files_are_looked_at_together(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two looks that wait for each other: one after the other would wait for ever."""
    (home / "raw" / "media" / "late.png").write_bytes(picture_bytes(2))
    meeting, probe = threading.Barrier(2, timeout=20), media.probe

    def look(*arguments: Any) -> Any:
        meeting.wait()
        return probe(*arguments)

    monkeypatch.setattr(media, "probe", look)
    assert pictures(home, "good.png", "late.png").media.counts["ok"] == 2


def test_a_set_without_media_has_an_empty_table(tmp_path: Path) -> None:
    done = run(spec_of("question_answer_lines", "text"), tmp_path, [{"question": "a?", "answer": "b"}])
    assert (done.records, done.media.counts["media"], done.report.rows_ok) == ({}, 0, 1)


def test_pictures_inside_rows(tmp_path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    contents = [picture_bytes(1), b"", None, b"<html>", picture_bytes(1)]
    rows = [
        {"image": {"bytes": data, "path": "chart.png"}, "query": f"{n}?", "label": ["1"], "human_or_machine": 0}
        for n, data in enumerate(contents)
    ]
    (tmp_path / "raw").mkdir()
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "raw" / "rows.parquet")
    done = run(spec_of("chart_qa", "document_qa", MediaSpec(kind="embedded")), tmp_path)
    assert done.reasons == {1: "media_missing", 2: "media_missing", 3: "media_not_an_image"}
    assert done.media.counts == {"media": 3, "ok": 1, "missing": 1, "broken": 1}


def test_rows_that_cannot_be_read_name_no_media(home: Path) -> None:
    rows: list[Any] = [b"GARBAGE", {"image": 7, "caption": "a"}, {"image": "good.png", "caption": "a"}]
    done = run(spec_of("captioned_images", "image_caption"), home, rows)
    assert set(done.records) == {"good.png"}
    assert done.reasons == {0: "not_json", 1: "wrong_type"}


# -- broken media -------------------------------------------------------------------------------------------------------------


def bomb() -> bytes:
    """A PNG of a few kilobytes that would be 400 million pixels."""
    side = 20_000
    header = struct.pack(">IIBBBBB", side, side, 1, 0, 0, 0, 0)
    chunks = ((b"IHDR", header), (b"IDAT", zlib.compress(bytes(side * (1 + side // 8)), 1)), (b"IEND", b""))
    data = b"".join(
        struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body)) for kind, body in chunks
    )
    return b"\x89PNG\r\n\x1a\n" + data


def gigapixels() -> bytes:
    """A PNG of under a hundred bytes whose header says a thousand million pixels."""
    return (
        bomb()[:16]
        + (header := struct.pack(">IIBBBBB", 40_000, 25_000, 8, 2, 0, 0, 0))
        + (
            struct.pack(">I", zlib.crc32(b"IHDR" + header))
            + struct.pack(">I", 0)
            + b"IEND"
            + struct.pack(">I", zlib.crc32(b"IEND"))
        )
    )


def broken_header() -> bytes:
    """A PNG whose first chunk does not fit its checksum."""
    data = bytearray(picture_bytes(1))
    data[29] ^= 0xFF
    return bytes(data)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (lambda: b"", "truncated"),
        (lambda: picture_bytes(1)[:-200], "truncated"),
        (lambda: picture_bytes(1, 64, 64, "JPEG")[:-300], "truncated"),
        (lambda: b"\n <!doctype html><html><body>Sign in</body></html>", "not_an_image"),
        (lambda: b'{"error": "moved"}', "not_an_image"),
        (lambda: b"GIF89a", "not_an_image"),
        (lambda: b"<svg xmlns='http://www.w3.org/2000/svg'/>", "not_an_image"),
        (lambda: b"\x89PNG\r\n\x1a\n" + b"\xff" * 500, "not_an_image"),
        (broken_header, "not_an_image"),
        (bomb, "too_large"),
        (gigapixels, "too_large"),
    ],
    ids=["empty", "cut PNG", "cut JPEG", "HTML", "JSON", "no GIF", "SVG", "no PNG", "checksum of a chunk", "bomb", "gigapixels"],
)
def test_a_broken_picture_sets_its_rows_aside_and_no_other(home: Path, content: Callable[[], bytes], reason: str) -> None:
    (home / "raw" / "media" / "bad.png").write_bytes(content())
    done = pictures(home, "good.png", "bad.png")
    record = done.records["bad.png"]
    assert (record.state, record.reason, record.sha256) == ("broken", reason, None)
    assert record.detail
    assert done.reasons == {1: f"media_{reason}"}
    assert done.report.rows_ok == 1


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (lambda film: b"", "truncated"),
        (lambda film: film[: len(film) // 2], "truncated"),
        (lambda film: film[:40], "truncated"),
        (lambda film: b"<!DOCTYPE html><html>404</html>", "not_a_video"),
        (lambda film: b'{"error": "moved"}', "not_a_video"),
        (lambda film: b"ffconcat version 1.0\nfile other\n", "not_a_video"),
    ],
    ids=["empty", "half", "header only", "HTML", "JSON", "playlist"],
)
def test_a_broken_film_sets_its_rows_aside_and_no_other(home: Path, content: Callable[[bytes], bytes], reason: str) -> None:
    media = home / "raw" / "media"
    (media / "bad.mp4").write_bytes(content((media / "good.mp4").read_bytes()))
    done = films(home, "good", "bad", "gone")
    assert (done.records["bad"].state, done.records["bad"].reason) == ("broken", reason)
    assert (done.records["gone"].state, done.records["gone"].reason) == ("missing", "missing")
    assert done.reasons == {1: f"media_{reason}", 2: "media_missing"}


def test_limits_are_those_of_the_caller(home: Path) -> None:
    for limits in (Limits(max_frames=10), Limits(max_seconds=1.0), Limits(max_pixels=100), Limits(max_bytes=100)):
        assert films(home, "good", limits=limits).reasons == {0: "media_too_large"}
    for limits in (Limits(max_pixels=100), Limits(max_bytes=100)):
        assert pictures(home, "good.png", limits=limits).reasons == {0: "media_too_large"}


@pytest.mark.filterwarnings("ignore::UserWarning:PIL")
def test_random_bytes_behind_a_true_beginning_never_stop_a_set(home: Path) -> None:
    """Decoders answer hostile bytes with errors of every kind; each must end as a line of the table."""
    import random

    order = random.Random(5)
    media = home / "raw" / "media"
    whole = {kind: picture_bytes(3, 40, 30, kind) for kind in ("PNG", "JPEG", "GIF", "WEBP", "TIFF", "BMP")}
    names = []
    for kind, data in whole.items():
        for number in range(12):
            damaged = bytearray(data)
            for _ in range(order.randint(1, 40)):
                damaged[order.randrange(len(damaged))] = order.randrange(256)
            names.append(f"{kind}-{number}.png")
            (media / names[-1]).write_bytes(damaged)
    done = pictures(home, *names)
    assert done.media.counts["media"] == len(names)
    assert done.report.rows_ok == done.media.counts["ok"]
    assert 0 < done.media.counts["ok"] < len(names)


# -- paths --------------------------------------------------------------------------------------------------------------------


@pytest.fixture
def outside(home: Path) -> Path:
    """A good picture and film that lie where no set may reach."""
    (home / "secret.png").write_bytes(picture_bytes(9))
    write_film(home / "secret.mp4")
    return home


@pytest.mark.parametrize("name", ["../../secret", "../media/../../secret", "a/../../../secret"])
def test_a_path_cannot_leave_its_folder(outside: Path, name: str) -> None:
    done = films(outside, "good", name)
    assert done.reasons == {1: "media_escapes"}
    assert done.records[name].detail.endswith("leaves its folder")


def test_a_path_made_of_a_row_cannot_be_absolute(outside: Path) -> None:
    done = films(outside, str(outside / "secret.mp4"), media=MediaSpec(kind="folder", layout="{video_id}"))
    assert done.reasons == {0: "media_escapes"}


@pytest.mark.parametrize("name", ["..", "https://pictures.invalid/.."])
def test_a_url_cannot_leave_the_media_folder(outside: Path, name: str) -> None:
    assert pictures(outside, name).reasons == {0: "media_escapes"}


def test_links_are_not_followed(outside: Path) -> None:
    media = outside / "raw" / "media"
    os.symlink(outside / "secret.png", media / "link.png")
    os.symlink(media / "good.png", media / "inside.png")
    os.symlink("circle.png", media / "circle.png")
    os.symlink("nowhere.png", media / "dangling.png")
    done = pictures(outside, "link.png", "inside.png", "circle.png", "dangling.png", "good.png")
    assert done.reasons == dict.fromkeys(range(4), "media_escapes")
    os.symlink(outside, media / "folder")
    os.symlink("loop", media / "loop")
    done = films(outside, "folder/secret", "loop/secret", "good")
    assert done.reasons[0] == "media_escapes"
    assert done.reasons[1] in ("media_escapes", "media_missing")
    assert set(done.reasons) == {0, 1}


def test_an_absolute_name_is_looked_for_inside(home: Path) -> None:
    assert films(home, "/etc/passwd").reasons == {0: "media_missing"}


@pytest.mark.parametrize("name", ["x" * 5_000, "a\x00b.png", "media/", "good.png/", "folder", "pipe", "naïve 😀.png", "a\\b.png"])
def test_names_that_are_no_file_are_missing(home: Path, name: str) -> None:
    (home / "raw" / "media" / "folder").mkdir()
    os.mkfifo(home / "raw" / "media" / "pipe")
    assert pictures(home, name, "good.png").reasons == {0: "media_missing"}


def test_a_row_without_what_its_path_is_made_of_has_no_medium(home: Path) -> None:
    done = films(home, "good", media=MediaSpec(kind="folder", layout="media/{split}/{video_id}.mp4"))
    assert done.reasons == {0: "media_missing"}
    assert "lacks what 'media/{split}/{video_id}.mp4' names: 'split'" in done.records["good"].detail
