"""What a conversion holds in memory: never more than the largest shard and a tenth, for checkpoints of many times that.

A worker of its own converts folders as transformers writes them. What counts is its resident memory at its peak, less what it held
once everything was imported; files are read and written, not mapped, so the page cache is no part of it.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support import peers
from tests.support.models import PATCH, SIDE
from tests.support.published import RECIPE, import_spec
from tests.support.transformers_peer import need_transformers
from training_backend.api import RunSpec, encode_spec
from training_backend.data.fingerprint import plain
from training_backend.data.manifest import read_manifest
from training_backend.data.published import published_version
from training_backend.encode.tokens import train_tokenizer

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="reads Linux's own account of memory"),
]
transformers = need_transformers()
WIDTH, DEPTH, WORDS = 512, 12, 20_000
MODEL = peers.released_config(
    width=WIDTH, layers=DEPTH, heads=8, kv_heads=4, head_dim=64, mlp_width=4096, vocab_size=WORDS, rope_theta=1e6
)
SHARD = "100MB"
_MEASURE = """
import sys
from pathlib import Path
from training_backend import convert, worker
from training_backend.model.tensor_files import TensorFolder

def held(name):
    return next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith(name)) * 1024

before = held("VmRSS")
WORK
print(held("VmHWM") - before)
"""


def growth(work: str, *arguments: Path) -> int:
    """Bytes that a process grew by at its peak while it did `work`."""
    command = [sys.executable, "-c", _MEASURE.replace("WORK", work), *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return int(done.stdout.splitlines()[-1])


def run(spec: RunSpec, run_dir: Path) -> int:
    """Growth of the worker of one run, which must succeed."""
    run_dir.mkdir()
    (run_dir / "spec.json").write_bytes(encode_spec(spec))
    grown = growth("assert worker.main(['--spec', sys.argv[1], '--run-dir', sys.argv[2]]) == 0", run_dir / "spec.json", run_dir)
    assert (run_dir / "result.json").is_file()
    print(f"{run_dir.name}: {grown:,} bytes")
    return grown


def largest(folder: Path) -> int:
    """Size of the largest of several shards, all of them several times that."""
    shards = [path.stat().st_size for path in folder.glob("*.safetensors")]
    assert sum(shards) > 4 * max(shards) > 200e6
    return max(shards)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """`hf`, a Molmo2 of half a gigabyte; `decoder` and `vision`, base models of the same sizes."""
    folder = tmp_path_factory.mktemp("memory")
    peers.saved_peer(peers.peer(MODEL), folder / "hf", max_shard_size=SHARD)
    decoder, vision = MODEL.decoder, MODEL.vision
    words = transformers.Qwen3Config(
        hidden_size=WIDTH, intermediate_size=decoder.mlp_width, num_attention_heads=decoder.heads, vocab_size=WORDS,
        rms_norm_eps=1e-6, num_key_value_heads=decoder.kv_heads, head_dim=decoder.head_dim, num_hidden_layers=DEPTH,
        tie_word_embeddings=False, rope_theta=1e6,
    )  # fmt: skip
    pixels = transformers.SiglipVisionConfig(
        hidden_size=vision.width, intermediate_size=vision.mlp_width, num_hidden_layers=vision.layers,
        num_attention_heads=vision.heads, patch_size=PATCH, image_size=SIDE,
    )  # fmt: skip
    peers.saved_peer(transformers.Qwen3ForCausalLM(words), folder / "decoder", max_shard_size=SHARD)
    peers.saved_peer(transformers.SiglipVisionModel(pixels), folder / "vision")
    yield folder
    shutil.rmtree(folder)  # pytest would keep gigabytes of the last three sessions


@pytest.mark.parametrize("precision", ["keep", "bfloat16"])
def test_importing_and_exporting_a_molmo2(place: Path, precision: Any) -> None:
    limit = 1.1 * largest(place / "hf")
    grown = run(import_spec(place / "hf", precision=precision), place / precision)
    assert grown <= limit, f"import: {grown:,} bytes, {limit:,.0f} allowed"
    made, tokenizer = place / precision / "output", place / f"{precision}-tokenizer"
    train_tokenizer(["red circles"] * 9, WORDS, tokenizer)
    spec = RunSpec(
        kind="export",
        identity={
            "checkpoint": read_manifest(made).data_version, "tokenizer": "t", "recipe": plain(RECIPE), "card": {"title": "Large"},
            "precision": precision,
        },
        inputs={"checkpoint": str(made), "tokenizer": str(tokenizer)},
    )  # fmt: skip
    grown = run(spec, place / f"{precision}-export")
    assert grown <= limit, f"export: {grown:,} bytes, {limit:,.0f} allowed"


def test_importing_base_weights(place: Path) -> None:
    limit = 1.1 * largest(place / "decoder")
    sources = {name: place / name for name in ("decoder", "vision")}
    identity = {
        "source": "base", "model": plain(MODEL), "precision": "float32", "seed": 0,
        "sources": {name: published_version(folder) for name, folder in sources.items()},
    }  # fmt: skip
    spec = RunSpec(kind="import", identity=identity, inputs={name: str(folder) for name, folder in sources.items()})
    grown = run(spec, place / "base")
    assert grown <= limit, f"{grown:,} bytes, {limit:,.0f} allowed"


def test_whoever_held_two_shards_would_be_seen(place: Path) -> None:
    limit = 1.1 * largest(place / "hf")
    work = "\n".join(
        (
            "folder, kept = TensorFolder(Path(sys.argv[1])), []",
            "for name in folder.entries:",
            "    if folder.path(name).name.startswith(('model-00001', 'model-00002')):",
            "        kept.append(folder.read(name))",
        )
    )
    assert growth(work, place / "hf") > limit
