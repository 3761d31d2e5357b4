"""A change of what an adapter reads must raise its code version: otherwise sets on people's disks would stay as they were.

When this fails and the change is meant: raise `code_version` of that adapter and add its new line to GOLDEN; never edit a line.
"""

from __future__ import annotations

import msgspec
import pytest

from molmo2_assets.ingest.adapters import ADAPTERS, Context, find_adapter
from molmo2_assets.ingest.reasons import REASONS_VERSION
from molmo2_assets.ingest.rows import RawRow
from molmo2_assets.ingest.versions import MEDIA_VERSION, VALIDATE_VERSION, media_version, validated_version
from tests.support.published_rows import LAYOUTS
from training_backend.data.fingerprint import fingerprint, short

GOLDEN: dict[tuple[str, int], str] = {
    ("pixmo_cap", 1): "a3f95df1ad29",
    ("pixmo_points", 1): "1f607869aaf9",
    ("pixmo_points_eval", 2): "e76fa687bc38",
    ("pixmo_count", 1): "0c87efa7d5e9",
    ("pixmo_ask_model_anything", 1): "a10d765d4f0d",
    ("chart_qa", 1): "dfd204ffcb0d",
    ("molmo2_multi_image_qa", 1): "e1eb5a511c1d",
    ("molmo2_multi_image_point", 1): "2f60028a2220",
    ("pixmo_cap_qa", 1): "91f1ebcf1303",
    ("captioned_images", 1): "13fa8b9b0317",
    ("molmo2_cap", 1): "58313f310a7d",
    ("molmo2_video_cap_qa", 2): "dabb53d7fa26",
    ("molmo2_video_subtitle_qa", 2): "94aaa16f3bba",
    ("molmo2_video_point", 1): "09e1f9d6d2ee",
    ("molmo2_video_point_eval", 1): "ea469d8989ce",
    ("molmo2_track_instruction", 1): "fb3461e0a394",
    ("molmo2_video_track_eval", 1): "16f70ae5d6a9",
    ("molmo2_tulu4", 1): "3936d694fe22",
    ("question_answer_lines", 2): "7605d89cf789",
    ("annotated_images", 1): "77b065c7c7ff",
    ("labelled_clips", 1): "c3169a0060f7",
    ("molmo2_examples", 1): "a66030f69cc7",
    ("narrated_videos", 1): "e35f8a983454",
    ("image_questions", 1): "b743b883b9e1",
    ("video_questions", 1): "fcf5863ea139",
    ("text_questions", 1): "438677d2f97f",
    ("image_counts", 1): "c9f7d1239fbb",
    ("video_counts", 1): "de5e14447329",
    ("cosyn_point", 1): "afac6d8f9abc",
    ("fun_qa", 1): "fb97a21432ee",
    ("molmo2_cap_eval", 1): "01e063cf2de9",
    ("masked_pointing", 1): "fa9e43fbc8f2",
}


def digest_of(name: str) -> str:
    """Identity of everything that an adapter makes of its row in LAYOUTS."""
    layout, adapter = LAYOUTS[name], ADAPTERS[name]
    context = Context(layout.style, layout.task, layout.params)
    row = RawRow("data.parquet", 0, layout.row)
    piece = adapter.read(row, layout.media, context)
    references = [[item.uri, item.kind, item.sha256] for item in adapter.media(row, context)]
    return short(fingerprint([references, piece.key, list(piece.media), msgspec.to_builtins(piece.branches), piece.meta]))


@pytest.mark.parametrize("name", ADAPTERS)
def test_what_an_adapter_reads_changes_with_its_code_version_only(name: str) -> None:
    version = ADAPTERS[name].code_version
    assert (name, version) in GOLDEN, f"add ({name!r}, {version}): {digest_of(name)!r} to GOLDEN"
    assert digest_of(name) == GOLDEN[name, version], f"{name} reads its row differently: raise its code_version"


def test_every_adapter_has_a_row_and_the_columns_that_it_asks_for() -> None:
    assert LAYOUTS.keys() == ADAPTERS.keys()
    optional = {"human_or_machine", "collection_method"}
    for name, layout in LAYOUTS.items():
        assert set(ADAPTERS[name].columns) <= set(layout.row) | optional, name


@pytest.mark.parametrize("name", ADAPTERS)
def test_a_raised_version_asks_for_validating_again(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    adapter = ADAPTERS[name]
    before = media_version(name), validated_version(name)
    assert before == (
        f"{MEDIA_VERSION}-{name}.{adapter.code_version}",
        f"{VALIDATE_VERSION}.{REASONS_VERSION}-{name}.{adapter.code_version}",
    )
    raised = type(adapter)(adapter.name, adapter.columns, adapter.media, adapter.read, adapter.code_version + 1)
    monkeypatch.setitem(ADAPTERS, name, raised)
    assert media_version(name) != before[0]
    assert validated_version(name) != before[1]


def test_a_set_without_adapter_has_a_version_all_the_same() -> None:
    assert media_version(None) == f"{MEDIA_VERSION}-none"


def test_an_unknown_adapter_is_answered_with_the_nearest() -> None:
    with pytest.raises(ValueError, match="did you mean 'pixmo_points'"):
        find_adapter("pixmo_pionts")
