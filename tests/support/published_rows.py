"""One small hand-written row of every published layout that has an adapter, and what it takes to read it alone.

Belongs here: rows, media and the two ways of reading a row (`piece_of`, `refusal_of`). Does not belong here: what is expected of
them (the tests next to each adapter), whole sets (`published_sets.py`, `small_sets.py`).

Round numbers throughout: pictures show 200×100 pixels, films 400×200 pixels for 10 seconds, so that conversions can be checked
by eye.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from molmo2_assets.ingest.adapters import ADAPTERS, Context, Piece
from molmo2_assets.ingest.reasons import RowFault
from molmo2_assets.ingest.rows import RawRow
from training_backend.data.example import Media, Task

Row = dict[str, Any]


@dataclass(frozen=True)
class Layout:
    """A published layout: its adapter is called like its key in LAYOUTS."""

    row: Row
    media: tuple[Media, ...]
    task: Task
    style: str
    params: dict[str, Any] = field(default_factory=dict)


def picture(uri: str = "https://pictures.invalid/a.png", width: int = 200, height: int = 100) -> Media:
    """A picture as ingest knows it after probing."""
    return Media(id="m0", kind="image", uri=uri, sha256="1" * 64, width=width, height=height)


def film(uri: str = "film", seconds: float = 10.0, fps: float = 8.0) -> Media:
    """A film of 400×200 pixels."""
    return Media(
        id="m0", kind="video", uri=uri, sha256="2" * 64, width=400, height=200, duration=seconds, fps=fps,
        n_frames=round(seconds * fps),
    )  # fmt: skip


def piece_of(name: str, changes: Row | None = None, *, media: Sequence[Media] | None = None, **params: Any) -> Piece:
    """What adapter `name` reads from its row with some fields changed. Raises RowFault."""
    layout = LAYOUTS[name]
    context = Context(layout.style, layout.task, {**layout.params, **params})
    row = RawRow("data.parquet", 0, {**layout.row, **(changes or {})})
    ADAPTERS[name].media(row, context)
    return ADAPTERS[name].read(row, layout.media if media is None else media, context)


def refusal_of(name: str, changes: Row, **params: Any) -> tuple[str, str]:
    """(reason, field) for which adapter `name` refuses its row with some fields changed."""
    try:
        piece = piece_of(name, changes, **params)
    except RowFault as fault:
        return fault.reason, fault.field
    raise AssertionError(f"{name} reads {changes} as {piece}")


def rectangle(left: int, top: int, right: int, bottom: int, width: int = 200, height: int = 100) -> list[list[bool]]:
    """A mask published as rows of booleans."""
    return [[left <= x < right and top <= y < bottom for x in range(width)] for y in range(height)]


FIRST_COLUMN = {"size": [200, 400], "counts": [0, 200, 79_800]}
"""Run lengths of a film's first column of pixels."""
LAST_COLUMN = {"size": [200, 400], "counts": [79_800, 200]}
NOTHING = {"size": [200, 400], "counts": [80_000]}

_PICTURE, _FILM = picture(), film()
_TWO = (picture("https://pictures.invalid/a.png"), picture("https://pictures.invalid/b.png"))
_URL = {"image_url": _PICTURE.uri}
_URLS = {"image_urls": [item.uri for item in _TWO]}

LAYOUTS: dict[str, Layout] = {
    "pixmo_cap": Layout(
        {**_URL, "caption": " A red boat. ", "transcripts": ["there is a boat", "", None, "a boat that is red"]},
        (_PICTURE,), "image_caption", "long_caption",
    ),
    "pixmo_points": Layout(
        {**_URL, "image_sha256": "1" * 64, "points": [{"x": 75.0, "y": 10.0}, {"x": 25.0, "y": 50.0}], "count": 2, "label": "boats",
         "collection_method": "pointing"},
        (_PICTURE,), "image_pointing", "pointing",
    ),
    "pixmo_points_eval": Layout(
        {**_URL, "label": "boats", "points": [{"x": 75.0, "y": 10.0}, {"x": 25.0, "y": 50.0}],
         "masks": [rectangle(140, 0, 160, 20), rectangle(40, 40, 60, 60)]},
        (_PICTURE,), "image_pointing", "pointing",
    ),
    "pixmo_count": Layout(
        {**_URL, "image_sha256": "1" * 64, "count": 2, "points": {"x": [150.0, 50.0], "y": [10.0, 50.0]}, "label": "boats"},
        (_PICTURE,), "counting", "count",
    ),
    "pixmo_ask_model_anything": Layout(
        {**_URL, "image_sha256": "1" * 64, "question": "What floats?", "answer": "A boat."}, (_PICTURE,), "image_qa", "user_qa",
    ),
    "chart_qa": Layout(
        {"image": {"bytes": b"png", "path": "chart.png"}, "query": "How high?", "label": ["12", "14", "14"], "human_or_machine": 1},
        (_PICTURE,), "document_qa", "chart_qa",
    ),
    "molmo2_multi_image_qa": Layout(
        {**_URLS, "qa_pairs": {"question": ["Which is red?", "Which is blue?"], "answer": ["The first.", "The second."]}},
        _TWO, "multi_image_qa", "correction_qa",
    ),
    "molmo2_multi_image_point": Layout(
        {**_URLS, "points": [[{"x": 75.0, "y": 10.0}, {"x": 25.0, "y": 50.0}], [{"x": 100.0, "y": 0.0}]], "counts": [2, 1],
         "labels": ["boats", "boats"]},
        _TWO, "multi_image_pointing", "multi_image_pointing",
    ),
    "pixmo_cap_qa": Layout(
        {**_URL, "question": "What floats?", "answer": "A boat.", "messages": []}, (_PICTURE,), "image_qa", "user_qa",
    ),
    "cosyn_point": Layout(
        {"image": {"bytes": b"png", "path": "a.png"}, "questions": ["Where are the bars?"],
         "answer_points": [{"x": [75.0, 25.0], "y": [10.0, 50.0]}], "names": ["bars"]},
        (_PICTURE,), "image_pointing", "cosyn_point",
    ),
    "masked_pointing": Layout(
        {"category": "steerable", "image_filename": "a.png", "user_input": "the boat",
         "mask": {"size": [100, 200], "counts": [0, 100, 19_900]}},
        (_PICTURE,), "image_pointing", "pointing", {"image": "{category}/{image_filename}", "question": "user_input"},
    ),
    "image_questions": Layout(
        {"image": "a.png", "question": "What floats?", "choices": ["a car", "a boat"], "answer": 1},
        (_PICTURE,), "image_qa", "science_qa",
        {"media": "image", "question": "question", "options": "choices", "correct": "answer"},
    ),
    "image_counts": Layout(
        {"image": "a.png", "question": "How many boats?", "count": 2}, (_PICTURE,), "counting", "point_count",
        {"media": "image", "question": "question", "count": "count"},
    ),
    "video_questions": Layout(
        {"video": "film", "span": [2.0, 4.0], "label": "sailing"}, (_FILM,), "video_qa", "coin_label",
        {"media": "video", "clip": ["span"], "asks": ["What is done?"], "answer": "label"},
    ),
    "video_counts": Layout(
        {"video": "film", "question": "How many boats?", "label": "boats", "count": 2}, (_FILM,), "counting", "video_count",
        {"media": "video", "question": "question", "count": "count", "label": "label"},
    ),
    "text_questions": Layout(
        {"questions": ["Who are you?", "What are you?"], "answer": "A model."}, (), "text", "text_sft",
        {"each": ["questions"], "question": "questions", "answer": "answer"},
    ),
    "fun_qa": Layout(
        {"visual_input": "film", "gt": "2", "instruction":
         "Choose.\nThe Question is: What is funny?\n The Options are: ['Options 1: the car', 'Options 2: the fall']"},
        (_FILM,), "video_qa", "video_short_answer",
    ),
    "molmo2_cap_eval": Layout(
        {"video_id": "film", "source": "vimeo", "video_start": None, "video_end": None, "aggregated_caption": "A boat leaves.",
         "atomic_statements": ["There is a boat."], "statement_categories": ["objects"]},
        (_FILM,), "video_caption", "video_long_caption",
    ),
    "captioned_images": Layout({"image": "a.png", "caption": "A boat."}, (_PICTURE,), "image_caption", "long_caption"),
    "molmo2_cap": Layout(
        {"video_id": "film", "video_start": 0.0, "video_end": 10.0, "video_caption": "A boat.", "merged_caption": "A boat leaves.",
         "video_frame_merged_caption": "A boat leaves a harbour.", "annotation_score": 4},
        (_FILM,), "video_caption", "video_long_caption",
    ),
    "molmo2_video_cap_qa": Layout(
        {"video_id": "film", "Question": "What leaves?", "Answer": "a boat", "NegativeAnswers": ["a car", "a train", "a plane"]},
        (_FILM,), "video_qa", "video_multiple_choice",
    ),
    "molmo2_video_subtitle_qa": Layout(
        {"video_id": "film", "Question": "What is said?", "Answer": "boat", "NegativeAnswers": ["car", "train"],
         "subtitle": [{"start": 0.5, "end": 2.0, "text": " The boat leaves. "}]},
        (_FILM,), "video_subtitle_qa", "video_multiple_choice",
    ),
    "molmo2_video_point": Layout(
        {"video_id": "film", "label": "boats", "count": 3, "two_fps_timestamps": [4.5, 2.0],
         "points": [[{"x": 75.0, "y": 10.0}], [{"x": 50.0, "y": 50.0}, {"x": 25.0, "y": 50.0}]],
         "clip_start": 1.0, "clip_end": 6.0, "annotator_unsure": False},
        (_FILM,), "video_pointing", "video_point",
    ),
    "molmo2_video_point_eval": Layout(
        {"video_id": "film", "label": "boats", "count": 2, "points": [{"x": 300.0, "y": 20.0}, {"x": 0.0, "y": 100.0}],
         "masks": [[{"frame_id": 9, "rle": LAST_COLUMN}],
                   [{"frame_id": 4, "rle": FIRST_COLUMN}, {"frame_id": 5, "rle": FIRST_COLUMN}]],
         "two_fps_timestamps": [4.5, 2.0], "width": 400, "height": 200},
        (_FILM,), "video_pointing", "video_point",
    ),
    "molmo2_track_instruction": Layout(
        {"video": "film", "expression": "the boats", "fps": 8, "sampling_fps": 1, "width": 400, "height": 200,
         "frame_trajectories": [
             {"frame": 0, "time": 0.0, "points": [{"id": 7, "point": [300.0, 20.0], "occluded": False}]},
             {"frame": 8, "time": 1.0, "points": [{"id": 7, "point": [320.0, 20.0], "occluded": True},
                                                  {"id": 3, "point": [100.0, 50.0], "occluded": False}]}]},
        (_FILM,), "video_tracking", "video_point_track_per_frame",
    ),
    "molmo2_video_track_eval": Layout(
        {"video": "film", "exp": "the boats", "w": 400, "h": 200, "fps": 2,
         "points": [{"object_id": "9", "points": [[300.0, 20.0], [], [320.0, 20.0]]},
                    {"object_id": "4", "points": [[], [0.0, 100.0], [4.0, 100.0]]}],
         "masks": [{"object_id": "9", "masks": [LAST_COLUMN, LAST_COLUMN, LAST_COLUMN]},
                   {"object_id": "4", "masks": [NOTHING, FIRST_COLUMN, FIRST_COLUMN]}]},
        (_FILM,), "video_tracking", "video_point_track_per_frame",
    ),
    "molmo2_tulu4": Layout(
        {"id": "tulu/1", "messages": [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "2 + 2?"},
                                      {"role": "assistant", "content": "4"}]},
        (), "text", "text_sft",
    ),
    "question_answer_lines": Layout({"question": "What is 2 + 2?", "answer": "2 + 2 = 4\n#### 4"}, (), "text", "text_sft"),
    "molmo2_examples": Layout(
        {"id": "own/1", "schema": "molmo2/1", "task": "image_pointing", "source": {"file": "data.jsonl", "row": 4},
         "media": [{"id": "m0", "kind": "image", "uri": "https://pictures.invalid/a.png", "sha256": "1" * 64, "width": 200,
                    "height": 100}],
         "branches": [{"id": "boat", "style": "pointing", "turns": [{"role": "assistant", "parts": [
             {"type": "points", "label": "boat", "points": [{"x": 0.25, "y": 0.5, "id": 0}]}]}]}]},
        (_PICTURE,), "image_pointing", "pointing",
    ),
    "annotated_images": Layout(
        {"path": "a.png", "width": 200, "height": 100, "caption": "Two boats.", "qa": [{"question": "Colour?", "answer": "Red"}],
         "counts": [{"label": "boat", "count": 2, "all_pointed": True}, {"label": "wave", "count": 9, "all_pointed": False}],
         "points": [{"label": "boat", "x": 0.75, "y": 0.1}, {"label": "boat", "x": 0.25, "y": 0.5},
                    {"label": "mast", "x": 0.5, "y": 0.5}, {"label": "wave", "x": 0.1, "y": 0.9}]},
        (_PICTURE,), "image_qa", "user_qa",
    ),
    "labelled_clips": Layout(
        {"path": "a.mp4", "label": "waving"}, (_FILM,), "video_qa", "video_label", {"question": "What is done?"},
    ),
    "narrated_videos": Layout(
        {"path": "a.mp4", "narration": [{"start": 0.0, "end": 2.5, "text": "A boat."}], "caption": "A boat leaves.",
         "qa": [{"question": "What leaves?", "answer": "A boat"}]},
        (_FILM,), "video_subtitle_qa", "video_qa",
    ),
}  # fmt: skip
