"""Golden manifests and the life of an asset folder."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from training_backend.data.fingerprint import canonical_bytes, fingerprint
from training_backend.data.manifest import (
    AssetStore,
    Manifest,
    ManifestError,
    StorageError,
    list_files,
    manifest_sha256,
    parent_entry,
    read_manifest,
    verify_files,
    write_manifest,
)

RECIPE = {
    "kind": "validated",
    "key": "validated/a",
    "code_version": "1",
    "config": {"limit": 0.05, "n": 3},
    "parents": {"raw/a": "v1"},
}


def _manifest(folder: Path, **run: object) -> Manifest:
    return Manifest(
        kind="validated",
        key="validated/a",
        recipe=RECIPE,
        recipe_fingerprint=fingerprint(RECIPE),
        data_version="1-00",
        code_version="1",
        files=list_files(folder),
        counts={"rows": 1},
        run=run,
    )


def test_golden_canonical_bytes_and_fingerprint() -> None:
    assert canonical_bytes({"b": [1, 1.0, None], "a": "é"}) == '{"a":"é","b":[1,1.0,null]}'.encode()
    assert fingerprint(RECIPE) == "cdeedb7ac85bd0cc47aa630836f63c3bdc352a042cb768b92077e456c83e4d67"
    with pytest.raises(ValueError, match="nan cannot be part of an identity"):
        fingerprint({"x": float("nan")})


def test_golden_manifest(tmp_path: Path) -> None:
    (tmp_path / "data.jsonl").write_bytes(b"{}\n")
    manifest = _manifest(tmp_path, seconds=1.5)
    assert manifest_sha256(manifest) == "ce5f6e4506c48c593be63ffa5e5c709071869373ecd6a4769d28e7fd770c0f18"
    assert manifest_sha256(manifest) == manifest_sha256(_manifest(tmp_path, seconds=9.0)), "when and where is not part of what"
    write_manifest(tmp_path, manifest)
    assert read_manifest(tmp_path) == manifest
    assert parent_entry(manifest).recipe == fingerprint(RECIPE)


def _publish(store: AssetStore, content: bytes) -> Path:
    staged = store.stage("validated/a", fingerprint(RECIPE))
    (staged / "data.jsonl").write_bytes(content)
    return store.publish("validated/a", staged, _manifest(staged))


def test_publish_find_current_and_attempts(tmp_path: Path) -> None:
    store = AssetStore(tmp_path)
    assert store.find("validated/a", fingerprint(RECIPE)) is None
    assert store.current("validated/a") is None
    first = _publish(store, b"1")
    assert first.name == fingerprint(RECIPE)[:12]
    second = _publish(store, b"2")
    assert second.name == f"{first.name}.attempt-2"
    assert store.find("validated/a", fingerprint(RECIPE)) == second
    store.set_current("validated/a", first)
    current = store.current("validated/a")
    assert current is not None
    assert current[0] == first
    assert store.keys() == ["validated/a"]


def test_readers_of_one_store_have_their_own_current(tmp_path: Path) -> None:
    """Two profiles share the versions of a set, and neither moves what the other calls current."""
    one, two = (AssetStore(tmp_path / "assets", pointers=tmp_path / name) for name in ("one", "two"))
    first, second = _publish(one, b"1"), _publish(two, b"2")
    assert [store.current("validated/a")[0] for store in (one, two)] == [first, second]  # type: ignore[index]
    assert one.find("validated/a", fingerprint(RECIPE)) == second, "the versions themselves are shared"
    assert one.keys() == two.keys() == ["validated/a"]
    assert not list((tmp_path / "assets").rglob("current"))


def test_a_folder_without_manifest_is_nobody(tmp_path: Path) -> None:
    store = AssetStore(tmp_path)
    half = tmp_path / "validated/a" / fingerprint(RECIPE)[:12]
    half.mkdir(parents=True)
    (half / "data.jsonl").write_bytes(b"half")
    assert store.find("validated/a", fingerprint(RECIPE)) is None
    with pytest.raises(ManifestError, match="never finished"):
        read_manifest(half)
    assert _publish(store, b"whole") == half, "the next run takes the half-written folder's place"


def test_leftovers_of_dead_builders_go_and_live_ones_stay(tmp_path: Path) -> None:
    store = AssetStore(tmp_path)
    code = (
        "import sys; from pathlib import Path; from training_backend.data.manifest import AssetStore;"
        "print(AssetStore(Path(sys.argv[1])).stage('validated/a', '0'*64))"
    )
    root = Path(__file__).resolve().parents[2]
    dead = Path(subprocess.check_output([sys.executable, "-c", code, str(tmp_path)], text=True, cwd=root).strip())
    assert dead.is_dir()
    mine = store.stage("validated/a", "0" * 64)
    assert not dead.exists()
    store.stage("validated/a", "0" * 64)
    assert mine.is_dir()


def test_torn_manifest_and_changed_files_are_named(tmp_path: Path) -> None:
    store = AssetStore(tmp_path)
    folder = _publish(store, b"12345")
    manifest = read_manifest(folder)
    (folder / "data.jsonl").write_bytes(b"54321")
    assert verify_files(folder, manifest, hashes=False) == []
    assert "differs from the sha256" in verify_files(folder, manifest)[0]
    (folder / "data.jsonl").write_bytes(b"5")
    assert "has 1 bytes, its manifest says 5" in verify_files(folder, manifest, hashes=False)[0]
    whole = (folder / "manifest.json").read_bytes()
    (folder / "manifest.json").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ManifestError, match="cannot be read"):
        store.find("validated/a", fingerprint(RECIPE))


def test_a_full_disk_is_one_sentence(tmp_path: Path) -> None:
    code = (
        "import resource, sys; from pathlib import Path; from training_backend.data.manifest import replace_file, StorageError;"
        "import signal; signal.signal(signal.SIGXFSZ, signal.SIG_IGN); resource.setrlimit(resource.RLIMIT_FSIZE, (10, 10))\n"
        "try: replace_file(Path(sys.argv[1])/'f', b'x'*100)\n"
        "except StorageError as error: print(error)"
    )
    root = Path(__file__).resolve().parents[2]
    out = subprocess.check_output([sys.executable, "-c", code, str(tmp_path)], text=True, cwd=root)
    assert "cannot write" in out
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_no_permission_is_one_sentence(tmp_path: Path) -> None:
    tmp_path.chmod(stat.S_IRUSR | stat.S_IXUSR)
    with pytest.raises(StorageError, match="no permission to write; choose another MOLMO2_HOME"):
        AssetStore(tmp_path).stage("validated/a", "0" * 64)


def test_keys_cannot_leave_the_store(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="is not an asset key"):
        AssetStore(tmp_path).stage("../elsewhere", "0" * 64)
