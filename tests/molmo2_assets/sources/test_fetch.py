from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from molmo2_assets.sources import SourceError, fetch, source_identity
from training_backend.data.fingerprint import fingerprint

Entry = Callable[..., Any]


def test_a_generated_set_is_made_by_its_entry(tmp_path: Path, entry: Entry) -> None:
    lines: list[str] = []
    spec = entry("generated", generator="shapes_count", params={"n": 5, "faults": 0.0})
    result = fetch(spec, tmp_path / "staging" / "raw", lines.append)
    assert result.revision == "generated-2"
    assert result.facts == {
        "rows": 5,
        "media_files": 5,
        "layout": "pixmo-count",
        "annotations": ["data/train-00000-of-00001.parquet"],
    }
    assert lines == ["shapes_count: 5 rows, 5 media files, 0 rows broken on purpose"]


def test_the_identity_of_a_generated_set_has_every_parameter(entry: Entry) -> None:
    identity = source_identity(entry("generated", generator="shapes_cap", params={"n": 7}))
    assert identity == {
        "kind": "generated",
        "generator": "shapes_cap",
        "code_version": 2,
        "params": {"n": 7, "seed": 0, "split": "train", "size": 84, "faults": 0.02},
    }
    fingerprint(identity)
    with pytest.raises(SourceError, match="no parameter 'rows'"):
        source_identity(entry("generated", generator="shapes_cap", params={"rows": 7}))
    with pytest.raises(SourceError, match="There is no generator called 'other'; there are charts_qa, clips_cap"):
        source_identity(entry("generated", generator="other"))


def test_other_kinds_are_errors(tmp_path: Path, entry: Entry) -> None:
    with pytest.raises(SourceError, match="kinds are generated, hub, manual, package and url"):
        fetch(entry("ftp"), tmp_path, lambda line: None)


def test_identities_load_nothing_heavy(tmp_path: Path) -> None:
    code = (
        "import sys\n"
        "from molmo2_assets.profile import DatasetSpec, SourceSpec\n"
        "from molmo2_assets.sources import source_identity\n"
        "for kind in ('generated', 'hub', 'manual', 'package', 'url'):\n"
        "    source = SourceSpec(kind=kind, generator='shapes_cap', repo='a/b', path='x')\n"
        "    source_identity(DatasetSpec(name='n', title='', task='text', group='', source=source))\n"
        "heavy = ('torch', 'numpy', 'PIL', 'av', 'pyarrow', 'huggingface_hub', 'scipy', 'skimage', 'sklearn', 'dagster')\n"
        "heavy += ('requests', 'tqdm')\n"
        "sys.exit(', '.join(name for name in heavy if name in sys.modules) or 0)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=Path(__file__).parents[3])
    assert (done.returncode, done.stderr) == (0, "")
