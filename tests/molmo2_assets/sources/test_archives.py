"""Archives: what a person would get by unpacking, and what hostile ones come to."""

from __future__ import annotations

import gzip
import io
import os
import stat
import tarfile
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from molmo2_assets.profile import MediaSpec, SourceSpec
from molmo2_assets.sources import SourceError, fetch, source_identity
from molmo2_assets.sources.archives import UnpackLimits, unpack
from tests.molmo2_assets.sources.test_url import Entry, files
from tests.support.hub_server import serve_hub
from tests.support.small_sets import json_lines, picture_bytes, quiet, run, spec_of

Members = dict[str, bytes]


def zipped(members: Members, method: int = zipfile.ZIP_DEFLATED) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", method) as archive:
        for name, data in members.items():
            archive.writestr(zipfile.ZipInfo(name), data, method)
    return stream.getvalue()


def tarred(members: Members, mode: str = "w", **kinds: bytes) -> bytes:
    """`kinds`: types of members that are no plain files, by name."""
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode=mode) as archive:  # type: ignore[call-overload]
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
        for name, kind in kinds.items():
            info = tarfile.TarInfo(name)
            info.type, info.linkname = kind, "/etc/passwd"
            archive.addfile(info)
    return stream.getvalue()


GOOD = {"a.txt": b"one", "deep/er/b.txt": b"two"}


@pytest.mark.parametrize(("name", "data"), [
    ("set.zip", zipped(GOOD)), ("set.zip", zipped(GOOD, zipfile.ZIP_STORED)), ("set.tar", tarred(GOOD)),
    ("set.tar.gz", tarred(GOOD, "w:gz")), ("set.tgz", tarred(GOOD, "w:gz")), ("set.tar.bz2", tarred(GOOD, "w:bz2")),
    ("set.tar.xz", tarred(GOOD, "w:xz")), ("set.zip", zipped({f"set/{name}": data for name, data in GOOD.items()} | {"set/": b""})),
])  # fmt: skip
def test_members_take_the_place_of_their_archive(name: str, data: bytes, tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / name).write_bytes(data)
    (tmp_path / "other.zip").write_bytes(b"nobody asked for it")
    assert unpack("a set", tmp_path, ("in/*",), quiet) == {}
    assert files(tmp_path) == {"in/set/a.txt": b"one", "in/set/deep/er/b.txt": b"two", "other.zip": b"nobody asked for it"}


def test_a_single_gzipped_file(tmp_path: Path) -> None:
    (tmp_path / "rows.jsonl.gz").write_bytes(gzip.compress(b"{}\n"))
    assert unpack("a set", tmp_path, ("*.jsonl.gz",), quiet) == {}
    assert files(tmp_path) == {"rows.jsonl": b"{}\n"}


# -- hostile members ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [
    "../escaped", "a/../../escaped", "/tmp/escaped", "..\\escaped", "a/..", "set/../../escaped", "set", "manifest.json",
    "deep/manifest.json", "good.txt/below", "good.txt", "x" * 300,
])  # fmt: skip
@pytest.mark.parametrize("pack", [zipped, tarred])
def test_a_name_can_neither_leave_its_folder_nor_take_another(pack: Callable[[Members], bytes], name: str, tmp_path: Path) -> None:
    lines: list[str] = []
    raw = tmp_path / "raw"
    raw.mkdir()
    stream = {"good.txt": b"good", name: b"bad", "last.txt": b"last"}
    data = pack(stream) if name != "good.txt" else twice(pack)
    (raw / "set.zip" if pack is zipped else raw / "set.tar").write_bytes(data)
    refused = unpack("a set", raw, ("set.*",), lines.append)
    assert sum(refused.values()) == 1
    assert files(tmp_path) == {"raw/set/good.txt": b"good", "raw/set/last.txt": b"last"}
    assert "is refused" in lines[0]
    assert lines[-1].endswith("2 files, 8 bytes, 1 refused")


def twice(pack: Callable[[Members], bytes]) -> bytes:
    """An archive in which `good.txt` stands twice."""
    stream = io.BytesIO(pack({"good.txt": b"good", "last.txt": b"last"}))
    if pack is zipped:
        with zipfile.ZipFile(stream, "a") as archive, pytest.warns(UserWarning, match="Duplicate name"):
            archive.writestr("good.txt", b"evil")
    else:
        with tarfile.open(fileobj=stream, mode="a") as archive:
            info = tarfile.TarInfo("good.txt")
            info.size = 4
            archive.addfile(info, io.BytesIO(b"evil"))
    return stream.getvalue()


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.BLKTYPE, tarfile.FIFOTYPE, b"?"])
def test_what_is_no_plain_file_is_refused(kind: bytes, tmp_path: Path) -> None:
    data = tarred({"a.txt": b"one"}, door=kind)
    (tmp_path / "set.tar").write_bytes(data)
    assert unpack("a set", tmp_path, ("*",), quiet) == {"is no plain file": 1}
    assert os.listdir(tmp_path / "set") == ["a.txt"]


def test_a_link_cannot_be_written_through(tmp_path: Path) -> None:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as archive:
        link = tarfile.TarInfo("door")
        link.type, link.linkname = tarfile.SYMTYPE, str(tmp_path)
        archive.addfile(link)
        info = tarfile.TarInfo("door/escaped")
        archive.addfile(info, io.BytesIO(b""))
    raw = tmp_path / "raw"
    raw.mkdir()
    (raw / "set.tar").write_bytes(stream.getvalue())
    assert unpack("a set", raw, ("*",), quiet) == {"is no plain file": 1}
    assert files(tmp_path) == {"raw/set/door/escaped": b""}


def test_links_in_zips_are_refused(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "set.zip", "w") as archive:
        link = zipfile.ZipInfo("door")
        link.external_attr = (stat.S_IFLNK | 0o777) << 16
        archive.writestr(link, "/etc/passwd")
        archive.writestr("a.txt", b"one")
    assert unpack("a set", tmp_path, ("*",), quiet) == {"is no plain file": 1}
    assert files(tmp_path) == {"set/a.txt": b"one"}


def test_a_sparse_giant_is_refused(tmp_path: Path) -> None:
    """A member of an exabyte in one kilobyte."""
    info = tarfile.TarInfo("giant")
    info.type = tarfile.GNUTYPE_SPARSE
    header = bytearray(info.tobuf(tarfile.GNU_FORMAT))
    header[386:398], header[398:410] = b"%011o\0" % 0, b"%011o\0" % 0
    header[483:495] = tarfile.itn(1 << 60, 12, tarfile.GNU_FORMAT)
    header[148:156] = b"%06o\0 " % (256 + sum(header[:148]) + sum(header[156:512]))
    (tmp_path / "set.tar").write_bytes(bytes(header) + tarred({"a.txt": b"one"}))
    with pytest.raises(SourceError, match=r"a set: set\.tar unpacks to too much at member 'giant'"):
        unpack("a set", tmp_path, ("*",), quiet)
    header[483:495] = b"%011o\0" % 4096
    header[148:156] = b"%06o\0 " % (256 + sum(header[:148]) + sum(header[156:512]))
    (tmp_path / "set.tar").write_bytes(bytes(header) + tarred({"a.txt": b"one"}))
    assert unpack("a set", tmp_path, ("*",), quiet) == {"is sparse": 1}
    assert files(tmp_path) == {"set/a.txt": b"one"}


# -- bombs and damage ---------------------------------------------------------------------------------------------------------

ZEROS = bytes(1 << 20)
SMALL = UnpackLimits(ratio=10, floor=1000)


@pytest.mark.parametrize(("name", "data"), [
    ("set.zip", zipped({"a": b"a", "bomb": ZEROS})), ("set.tar.gz", tarred({"a": b"a", "bomb": ZEROS}, "w:gz")),
    ("set.tar.xz", tarred({"a": b"a", "bomb": ZEROS}, "w:xz")), ("bomb.gz", gzip.compress(ZEROS)),
    ("set.zip", zipped({"a": b"a", **{f"bomb{n}": ZEROS[:8000] for n in range(40)}})),
])  # fmt: skip
def test_a_bomb_is_one_error_that_names_it(name: str, data: bytes, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(data)
    with pytest.raises(SourceError, match=rf"a set: {name} unpacks to too much at member 'bomb.*10 times the archive") as caught:
        unpack("a set", tmp_path, ("*",), quiet, SMALL)
    assert sum(len(data) for path, data in files(tmp_path).items() if path != name) <= 10 * len(data) + (1 << 20)
    assert str(tmp_path) not in str(caught.value)


def test_a_bomb_that_lies_about_its_size(tmp_path: Path) -> None:
    data = bytearray(zipped({"bomb": ZEROS}))
    for magic, place in ((b"PK\3\4", 22), (b"PK\1\2", 24)):
        at = data.index(magic) + place
        data[at : at + 4] = (100).to_bytes(4, "little")
    (tmp_path / "set.zip").write_bytes(data)
    with pytest.raises(SourceError, match=r"set\.zip cannot be unpacked after member 'bomb': BadZipFile"):
        unpack("a set", tmp_path, ("*",), quiet)
    assert len(files(tmp_path)["set/bomb"]) <= 100


def test_a_header_is_not_read_into_memory_whole(tmp_path: Path) -> None:
    info = tarfile.TarInfo("header")
    info.type, info.size = tarfile.XHDTYPE, 1 << 40
    (tmp_path / "set.tar").write_bytes(info.tobuf(tarfile.GNU_FORMAT) + bytes(10_240))
    with pytest.raises(SourceError, match="a header of 1099511627776 bytes, the limit is 1048576"):
        unpack("a set", tmp_path, ("*",), quiet)


def test_members_and_their_sizes_are_limited(tmp_path: Path) -> None:
    (tmp_path / "set.tar").write_bytes(tarred({str(n): b"x" for n in range(6)}))
    with pytest.raises(SourceError, match="has more than 5 members"):
        unpack("a set", tmp_path, ("*",), quiet, UnpackLimits(max_members=5))
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "set.tar").write_bytes(tarred({"large": ZEROS}))
    with pytest.raises(SourceError, match="too much at member 'large': the limit is 1000 bytes a member"):
        unpack("a set", tmp_path / "other", ("*",), quiet, UnpackLimits(max_member_bytes=1000))


def locked() -> bytes:
    """A zip whose member wants a password."""
    data = bytearray(zipped(GOOD))
    for magic, place in ((b"PK\3\4", 6), (b"PK\1\2", 8)):
        data[data.index(magic) + place] |= 1
    return bytes(data)


@pytest.mark.parametrize(("name", "data"), [
    ("set.zip", zipped(GOOD)[:-30]), ("set.zip", b"<!doctype html>"), ("set.zip", b""), ("set.zip", locked()),
    ("set.tar.gz", tarred({"a": os.urandom(50_000)}, "w:gz")[:20_000]), ("set.tar", tarred({"a": os.urandom(50_000)})[:20_000]),
    ("set.tar", b"<!doctype html>" * 100), ("set.tgz", b"\x1f\x8b\x08" + b"\xff" * 100), ("rows.gz", b"{}"),
    ("set.zip", zipped({"a": b"x" * 1000}, zipfile.ZIP_STORED).replace(b"xxx", b"xyx", 1)),
])  # fmt: skip
def test_a_damaged_archive_is_one_error_that_names_it(name: str, data: bytes, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(data)
    with pytest.raises(SourceError, match=rf"^a set: {name} cannot be unpacked"):
        unpack("a set", tmp_path, ("*",), quiet)


def test_what_is_no_archive(tmp_path: Path) -> None:
    (tmp_path / "set.rar").write_bytes(b"Rar!")
    with pytest.raises(SourceError, match=r"a set: set\.rar is no kind of archive that is unpacked \(\.zip, \.tar,"):
        unpack("a set", tmp_path, ("*",), quiet)


# -- in a set -----------------------------------------------------------------------------------------------------------------


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Any]:
    with serve_hub() as server:
        monkeypatch.setenv("HF_ENDPOINT", server.url)
        monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
        yield server


def test_media_in_archives_of_a_repository(hub: Any, tmp_path: Path) -> None:
    """Downloaded beside the rows, unpacked, collected: a picture that its archive does not hold sets its own row aside."""
    rows = [{"image": name, "caption": "A picture."} for name in ("pictures/a.png", "pictures/deep/b.png", "pictures/door.png")]
    stream = io.BytesIO(zipped({"a.png": picture_bytes(1), "deep/b.png": picture_bytes(2), "../escaped.png": picture_bytes(3)}))
    with zipfile.ZipFile(stream, "a") as archive:
        link = zipfile.ZipInfo("door.png")
        link.external_attr = (stat.S_IFLNK | 0o777) << 16
        archive.writestr(link, "a.png")
    hub.add("some/set", {"rows.jsonl": json_lines(rows), "pictures.zip": stream.getvalue(), "other.zip": b"not wanted"})
    source = SourceSpec(kind="hub", repo="some/set", files=("rows.jsonl",), unpack=("pictures.zip",))
    spec = spec_of("captioned_images", "image_caption", MediaSpec(kind="folder", layout="{uri}"), source=source)
    found = fetch(spec, tmp_path / "raw", quiet)
    assert found.facts["refused_members"] == {"is no plain file": 1, "leaves its folder": 1}
    assert set(files(tmp_path / "raw")) == {"rows.jsonl", "pictures/a.png", "pictures/deep/b.png"}
    done = run(spec, tmp_path)
    assert (done.reasons, done.report.rows_ok) == ({2: "media_missing"}, 2)


def test_a_pattern_without_archive_is_an_error_of_the_entry(hub: Any, tmp_path: Path, entry: Entry) -> None:
    hub.add("some/set", {"rows.jsonl": b"{}\n"})
    with pytest.raises(SourceError, match=r"some/set has no archive \*\.zip; correct source\.unpack"):
        fetch(entry("hub", repo="some/set", files=("rows.jsonl",), unpack=("*.zip",)), tmp_path / "raw", quiet)


def test_archives_that_a_person_put_in_place(tmp_path: Path, entry: Entry) -> None:
    kept = tmp_path / "kept"
    kept.mkdir()
    (kept / "set.zip").write_bytes(zipped(GOOD))
    (kept / "rows.jsonl").write_bytes(b"{}\n")
    (kept / "set.zip").chmod(0o444)
    spec = entry("manual", path=str(kept), instructions="x", files=("rows.jsonl",), unpack=("set.zip",))
    fetch(spec, tmp_path / "raw", quiet)
    assert set(files(tmp_path / "raw")) == {"rows.jsonl", "set/a.txt", "set/deep/er/b.txt"}
    assert (kept / "set.zip").read_bytes() == zipped(GOOD), "the person's own is left alone"


def test_what_is_unpacked_is_part_of_what_a_set_is(entry: Entry) -> None:
    plain, packed = (entry("hub", repo="some/set", unpack=patterns) for patterns in ((), ("*.zip",)))
    assert source_identity(plain) != source_identity(packed)
