"""The published layouts, written out: a change of a column or a type here is a change of what adapters can rely on."""

from __future__ import annotations

from pathlib import Path

import pyarrow.parquet as pq
import pytest

POINTS = "list<element: struct<x: double, y: double>>"
WORDS = "list<element: string>"
MASK = "struct<size: list<element: int64>, counts: list<element: int64>>"
PIXMO_POINTS = {
    "image_url": "string",
    "image_sha256": "string",
    "points": POINTS,
    "count": "int64",
    "label": "string",
    "collection_method": "string",
}
PIXMO_COUNT = {
    "image_url": "string",
    "image_sha256": "string",
    "count": "int32",
    "points": "struct<x: list<element: float>, y: list<element: float>>",
    "label": "string",
}
ASK = {"image_url": "string", "image_sha256": "string", "question": "string", "answer": "string"}
CAP_QA = {"video_id": "string", "Question": "string", "Answer": "string", "NegativeAnswers": WORDS, "Category": "string"}
EXPECTED: dict[str, tuple[str, dict[str, str]]] = {
    "shapes_cap": ("data/train", {"image_url": "string", "caption": "string", "transcripts": WORDS}),
    "shapes_points": ("data/train", PIXMO_POINTS),
    "shapes_count": ("data/train", PIXMO_COUNT),
    "shapes_qa": ("data/train", ASK),
    "shapes_cap_qa": (
        "data/train",
        {
            "image_url": "string",
            "question": "string",
            "answer": "string",
            "messages": "list<element: struct<content: string, role: string>>",
        },
    ),
    "charts_qa": (
        "data/train",
        {"image": "struct<bytes: binary, path: string>", "query": "string", "label": WORDS, "human_or_machine": "int64"},
    ),
    "shapes_multi_qa": (
        "data/train",
        {"image_urls": WORDS, "qa_pairs": f"struct<question: {WORDS}, answer: {WORDS}>"},
    ),
    "shapes_multi_points": (
        "data/train",
        {
            "image_urls": WORDS,
            "image_sha256s": WORDS,
            "points": "list<element: list<element: struct<x: float, y: float>>>",
            "counts": "list<element: int64>",
            "labels": WORDS,
            "collection_method": WORDS,
        },
    ),
    "clips_cap": (
        "data/train",
        {
            "video_id": "string",
            "video_start": "double",
            "video_end": "double",
            "video_caption": "string",
            "merged_caption": "string",
            "video_frame_merged_caption": "string",
            "video_transcript": "string",
            "clip_captions": "list<element: struct<start: double, end: double, caption: string>>",
            "frame_captions": "list<element: struct<time: double, caption: string>>",
            "annotation_score": "int64",
        },
    ),
    "clips_qa": ("data/CapQA", CAP_QA),
    "clips_subtitle_qa": (
        "data/SubtitleQA",
        {
            **CAP_QA,
            "AlignmentType": "string",
            "subtitle": "list<element: struct<start: double, end: double, text: string>>",
        },
    ),
    "clips_points": (
        "object/train",
        {
            "video_id": "string",
            "video_source": "string",
            "video_duration": "double",
            "label": "string",
            "question": "string",
            "category": "string",
            "count": "int64",
            "points": f"list<element: {POINTS}>",
            "raw_timestamps": "list<element: double>",
            "raw_frames": "list<element: int64>",
            "two_fps_timestamps": "list<element: double>",
            "clip_start": "double",
            "clip_end": "double",
            "annotator_unsure": "bool",
        },
    ),
    "clips_track": (
        "track/train",
        {
            "id": "string",
            "video": "string",
            "clip": "string",
            "video_dataset": "string",
            "expression": "string",
            "fps": "int64",
            "sampling_fps": "int64",
            "width": "int64",
            "height": "int64",
            "mask_id": WORDS,
            "start_frame": "int64",
            "end_frame": "int64",
            "frame_trajectories": "list<element: struct<frame: int64, time: double, points: list<element: "
            "struct<id: int64, point: list<element: double>, occluded: bool>>>>",
        },
    ),
    "tiny_text": (
        "data/train",
        {
            "id": "string",
            "source": "string",
            "messages": "list<element: struct<content: string, role: string>>",
            "category": "string",
            "first_message_qwen3_tokens": "int64",
            "empty_messages": "bool",
            "has_special_token": "bool",
        },
    ),
    "shapes_points_eval": (
        "data/test",
        {
            "image_url": "string",
            "image_sha256": "string",
            "label": "string",
            "points": POINTS,
            "masks": "list<element: list<element: list<element: bool>>>",
        },
    ),
    "shapes_count_eval": ("data/validation", PIXMO_COUNT),
    "shapes_qa_eval": ("data/validation", ASK),
    "clips_points_eval": (
        "data/val",
        {
            "video_id": "string",
            "video_source": "string",
            "video_duration": "double",
            "label": "string",
            "count": "int64",
            "points": POINTS,
            "masks": f"list<element: list<element: struct<frame_id: int64, rle: {MASK}>>>",
            "two_fps_timestamps": "list<element: double>",
            "width": "int64",
            "height": "int64",
        },
    ),
    "clips_track_eval": (
        "data/test",
        {
            "id": "string",
            "video": "string",
            "clip": "string",
            "video_dataset": "string",
            "video_source": "string",
            "exp": "string",
            "obj_id": "list<element: int64>",
            "mask_id": WORDS,
            "points": "list<element: struct<object_id: string, points: list<element: list<element: double>>>>",
            "masks": f"list<element: struct<object_id: string, masks: list<element: {MASK}>>>",
            "start_frame": "int64",
            "end_frame": "int64",
            "w": "int64",
            "h": "int64",
            "n_frames": "int64",
            "fps": "int64",
        },
    ),
    "clips_qa_eval": ("data/CapQA", CAP_QA),
}


@pytest.mark.parametrize("name", EXPECTED)
def test_a_set_has_the_published_columns_and_types(whole_sets: dict[str, Path], name: str) -> None:
    stem, columns = EXPECTED[name]
    files = sorted(path.relative_to(whole_sets[name]).as_posix() for path in whole_sets[name].rglob("*.parquet"))
    assert files == [f"{stem}-00000-of-00001.parquet"]
    schema = pq.read_schema(whole_sets[name] / files[0])
    assert {field.name: str(field.type) for field in schema} == columns


def test_every_generator_is_pinned_here(whole_sets: dict[str, Path]) -> None:
    assert set(EXPECTED) == set(whole_sets)
