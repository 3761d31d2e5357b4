"""Published files of public benchmarks, in small (see `layouts.py`)."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
from PIL import Image

from tests.support.layouts import Published
from tests.support.layouts_images import EMBEDDED, PNG

B = {"bytes": b"two", "path": "b.png"}
SECOND = "embedded:b.png#3fc4ccfe745870e2"


def _mask() -> bytes:
    """A PNG of 200×100 pixels whose first column is white."""
    pixels = np.zeros((100, 200), dtype=np.uint8)
    pixels[:, 0] = 255
    out = io.BytesIO()
    Image.fromarray(pixels).save(out, "PNG")
    return out.getvalue()


_LONG: dict[str, Any] = {
    "id": "1", "video_id": "l", "video_path": "l.mp4", "question": "Who?", "candidates": ["Ann", "Bob"], "correct_choice": 1,
    "subtitle_path": "l_en.json", "starting_timestamp_for_subtitles": 100.0, "duration": 10.0,
}  # fmt: skip

EVALUATION: dict[str, Published] = {
    "real_world_qa": Published(
        {"data/test-0.parquet": [
            {"image": PNG, "question": "What is left?\nA. a car\nB. a dog\nPlease answer directly with only the letter.",
                "answer": "B"},
            {"image": PNG, "question": "How many?\nPlease answer directly with a single word or number.", "answer": "3"}]},
        {EMBEDDED: [("eval_short_answer", "What is left?", "a car / *a dog"),
                    ("eval_short_answer", "How many?\nPlease answer directly with a single word or number.", "3")]},
    ),
    "mmmu": Published(
        {"Art/validation-0.parquet": [
            {"id": "1", "question": "<image 1> or <image 2>?", "options": "['first', 'second']", "answer": "B",
                "question_type": "multiple-choice",
             "image_1": PNG, "image_2": B, **{f"image_{n}": None for n in range(3, 8)}},
            {"id": "2", "question": "How long is <image 1>?", "options": "[]", "answer": "7", "question_type": "open",
             "image_1": PNG, "image_2": None, **{f"image_{n}": None for n in range(3, 8)}}]},
        {f"{EMBEDDED} {SECOND}": [("a_okvqa_mc", "Image 1 or Image 2?", "first / *second")],
         EMBEDDED: [("a_okvqa_mc", "How long is the image?", "7")]},
    ),
    "math_vista": Published(
        {"data/testmini-0.parquet": [
            {"pid": "1", "question": "Which?", "decoded_image": PNG, "answer": "12", "choices": ["11", "12"],
                "question_type": "multi_choice"},
            {"pid": "2", "question": "How much?", "decoded_image": PNG, "answer": "1.2", "choices": None,
                "question_type": "free_form"}]},
        {EMBEDDED: [("eval_short_answer", "Which?", "11 / *12"), ("eval_short_answer", "How much?", "1.2")]},
    ),
    "countbench_qa": Published(
        {"test.parquet": [{"image": PNG, "question": "How many boats?", "count": 4, "example_id": 1, "image_url": "x"}]},
        {EMBEDDED: [("point_count", "How many boats?", "4 × How many boats?")]},
    ),
    "point_bench": Published(
        {"data.json": [{"image_filename": "a.png", "category": "spatial", "mask_filename": "m.png", "user_input": "the left edge"},
                       {"image_filename": "a.png", "category": "spatial", "user_input": "no mask"}],
         "selected_masks/spatial/m.png": _mask()},
        {"spatial/a.png#the left edge": [("pointing", "the left edge", "the left edge: 0@0.0025,0.505")]},
        ["not_selected"],
    ),
    "muir_bench": Published(
        {"data/test-0.parquet": [{"idx": "1", "question": "<image> or <image>?", "options": ["one", "two"], "answer": "A",
                                  "image_list": [PNG, B], "task": "x"}]},
        {f"{EMBEDDED} {SECOND}": [("mantis_instruct_mc", "Image 1 or Image 2?", "*one / two")]},
    ),
    "blink": Published(
        {"Jigsaw/val-0.parquet": [{"idx": "1",
            "prompt": "Which fits?\nSelect from the following choices.\n(A) the second\n(B) the third",
                                   "choices": ["the second", "the third"], "answer": "(B)", "image_1": PNG, "image_2": B,
                                   "image_3": None, "image_4": None}]},
        {f"{EMBEDDED} {SECOND}": [("mantis_instruct_mc", "Which fits?\nSelect from the following choices.",
            "the second / *the third")]},
    ),
    "mmiu": Published(
        {"data/test-0.parquet": [
            {"input_image_path": ["./2D-spatial/a.jpg", "./2D-spatial/b.jpg"], "question": "Same?", "options": "A: yes\nB: no",
                "output": output}
            for output in ("B", "G")]},
        {"./2D-spatial/a.jpg ./2D-spatial/b.jpg": [("mantis_instruct_mc", "Same?", "yes / *no")]},
        ["answer_outside"],
    ),
    "mmlu": Published(
        {"all/test-0.parquet": [{"question": "1 + 1?", "subject": "x", "choices": ["1", "2", "3", "4"], "answer": 1}]},
        {"": [("eval_multiple_choice", "1 + 1?", "1 / *2 / 3 / 4")]},
    ),
    "gsm8k": Published(
        {"main/test-0.parquet": [{"question": "1 + 1?", "answer": "It is 2.\n#### 2"}]},
        {"": [("eval_short_answer", "1 + 1?", "It is 2.\n#### 2")]},
    ),
    "arc_challenge": Published(
        {"ARC-Challenge/test-0.parquet": [
            {"id": "1", "question": "Which is hot?", "choices": {"text": ["ice", "fire"], "label": ["1", "2"]},
                "answerKey": "2"}]},
        {"": [("eval_multiple_choice", "Which is hot?", "ice / *fire")]},
    ),
    "mbpp_plus": Published(
        {"data/test-0.parquet": [{"task_id": 2, "prompt": "Write f.", "code": "def f(): pass"}]},
        {"": [("eval_short_answer", "Write f.", "def f(): pass")]},
    ),
    "next_qa_eval": Published(
        {"MC/test-0.parquet": [{"video": 40, "question": "why", "a0": "a", "a1": "b", "a2": "c", "a3": "d", "a4": "e",
            "answer": 4, "type": "CW"}]},
        {"40": [("video_eval_multiple_choice", "why", "a / b / c / d / *e")]},
    ),
    "perception_test_eval": Published(
        {"mc_question_val/validation-0.parquet": [{"video_name": "v", "question": "Which?", "options": ["a", "b"],
            "answer_id": "1"}]},
        {"v": [("video_eval_multiple_choice", "Which?", "a / *b")]},
    ),
    "mv_bench": Published(
        {"json/action_sequence.json": [{"video": "a.mp4", "question": "What first?", "candidates": ["sat", "ran"], "answer": "ran",
                                        "start": 1.0, "end": 4.0}],
         "json/action_count.json": [{"video": "b.mp4", "question": "How often?", "candidates": ["1", "2"], "answer": "1"}]},
        {"b.mp4": [("video_eval_multiple_choice", "How often?", "*1 / 2")],
         "a.mp4@1-4": [("video_eval_multiple_choice", "What first?", "sat / *ran")]},
    ),
    "tomato": Published(
        {"data/count.json": {"c1": {"question": "How often?", "options": ["one", "two"], "answer": 0,
            "demonstration_type": "human",
                                    "key": "0001", "motion_type": "m"}}},
        {"human/0001.mp4": [("video_multiple_choice", "How often?", "*one / two")]},
    ),
    "motion_bench_eval": Published(
        {"MotionBench/video_info.meta.jsonl": [{"key": "k", "video_path": "a.mp4", "question_type": "x", "qa": [
            {"uid": "1", "question": "What moves?\nA. the cat\nB. the dog", "answer": "A"},
            {"uid": "2", "question": "What stops?\nA. the cat\nB. the dog", "answer": "NA"}]}]},
        {"a.mp4": [("video_eval_multiple_choice", "What moves?", "*the cat / the dog")]},
        ["not_selected"],
    ),
    "temporal_bench": Published(
        {"temporalbench_short_qa.json": [{"idx": 1, "video_name": "short/a.mp4", "GT": "B", "question":
            "Which caption?\nA. A boat comes.\nB. A boat leaves.\nAnswer with the option's letter from the given choices."}]},
        {"short/a.mp4": [("video_short_answer", "Which caption?", "A boat comes. / *A boat leaves.")]},
    ),
    "temp_compass": Published(
        {"multi-choice/test-0.parquet": [{"video_id": "1", "question": "What is done?\nA. running\nB. sitting",
            "answer": "B. sitting",
                                          "dim": "action"}]},
        {"1": [("video_eval_multiple_choice", "What is done?", "running / *sitting")]},
    ),
    "video_mme": Published(
        {"videomme/test-0.parquet": [{"videoID": "y1", "video_id": "001", "question": "Who?", "options": ["A. Ann.", "B. Bob."],
            "answer": "B"}]},
        {"y1": [("video_eval_multiple_choice", "Who?", "Ann. / *Bob.")]},
    ),
    "video_mme_subtitles": Published(
        {"videomme/test-0.parquet": [{"videoID": "y1", "video_id": "001", "question": "Who?", "options": ["A. Ann.", "B. Bob."],
            "answer": "B"}],
         },
        {"y1": [("video_eval_multiple_choice_w_subtitle", "Who?", "Ann. / *Bob.")]},
        [], {"subtitles.json": {"y1": {"0": {"start": 1.0, "end": 2.0, "text": "It is Bob."}}}},
    ),
    "long_video_bench": Published(
        {"lvb_val.json": [_LONG]},
        {"l.mp4": [("video_eval_multiple_choice_w_subtitle", "Who?", "Ann / *Bob")]},
        [],
        {"subtitles/l_en.json": [
            {"timestamp": [99.0, 102.0], "text": "Ann?"}, {"start": "00:01:43.5", "end": "00:01:45.0", "line": "Bob."},
            {"timestamp": [140.0, None], "text": "Later."}]},
    ),
    "mlvu": Published(
        {"MLVU/json/1_plotQA.json": [{"video": "m.mp4", "duration": 480.0, "question": "Who?", "candidates": ["Ann", "Bob"],
            "answer": "Ann"}],
         "MLVU/json/8_sub_scene.json": [{"video": "m.mp4", "question": "Describe.", "answer": "A scene."}]},
        {"m.mp4": [("video_eval_multiple_choice", "Who?", "*Ann / Bob")]},
    ),
    "lv_bench": Published(
        {"video_info.meta.jsonl": [{"key": "k1", "type": "cartoon", "qa": [
            {"uid": "1", "question": "What year?\n(A) 1636\n(B) 1366", "answer": "B", "question_type": ["x"],
                "time_reference": "00:15-00:19"}]}]},
        {"k1": [("video_eval_multiple_choice", "What year?", "1636 / *1366")]},
    ),
    "video_eval_pro": Published(
        {"data/test-0.parquet": [{"video": "a.mp4", "question": "Who?", "options": ["A. Ann", "B. Bob"], "answer": "A",
            "answer_text": "Ann"}]},
        {"a.mp4": [("video_eval_multiple_choice", "Who?", "*Ann / Bob")]},
    ),
    "ego_schema": Published(
        {"Subset/test-0.parquet": [{"question_idx": "1", "question": "Why?", "video_idx": "e", "option": ["A. to eat",
            "B. to sail"], "answer": "1"}]},
        {"e": [("video_eval_multiple_choice", "Why?", "to eat / *to sail")]},
    ),
    "molmo2_cap_eval": Published(
        {"data/test-0.parquet": [
            {"video_id": "e1", "source": "ego4d", "video_start": 0.8, "video_end": 3.0, "atomic_statements": ["It is wet."],
             "statement_categories": ["objects"], "aggregated_caption": "Rain."},
            {"video_id": "b1", "source": "bdd100k", "video_start": None, "video_end": None, "atomic_statements": ["It is dry."],
             "statement_categories": ["objects"], "aggregated_caption": "Sun."}]},
        {"e1_bounded_decimal_2_0.8_3.0": [("video_long_caption", None, "Rain.")], "b1": [("video_long_caption", None, "Sun.")]},
    ),
    "molmo2_video_count_eval": Published(
        {"data/val-0.parquet": [
            {"video_id": "y", "label": "boats", "question": "How many boats?", "count": 3, "clip_start": 1.0, "clip_end": 6.0},
            {"video_id": "y", "label": "cars", "question": "How many cars?", "count": 0, "clip_start": None, "clip_end": None}]},
        {"y@1-6": [("video_count", "How many boats?", "3 × boats")], "y": [("video_count", "How many cars?", "0 × cars")]},
    ),
    "molmo2_video_track_eval": Published(
        {"data/test-0.parquet": [{"video": "v", "clip": "v_0_2", "exp": "the boat", "w": 400, "h": 200, "fps": 2,
                                  "points": [{"object_id": "9", "points": [[100.0, 20.0], [], [200.0, 20.0]]}],
                                  "masks": [{"object_id": "9", "masks": [None, None, {"size": [200, 400], "counts": [0, 200,
                                      79800]}]}]}]},
        {"v_0_2#the boat": [("video_point_track_per_frame", None, "the boat track at 1: 0[0s@0.25,0.1 1s@0.5,0.1]")]},
    ),
    "burst_video_count": Published(
        {"data/val-0.parquet": [{"subset": "burst", "video_name": "v", "category": "Boats", "count": 1, "timestamps": [0.5],
                                 "points": [[{"x": 25.0, "y": 50.0}]], "clip_start_time": 0.0, "clip_end_time": 10.0}]},
        {"v#boats": [("video_point_count", None, "boats: 0.5s@0.25,0.5; 1 × boats")]},
    ),
}  # fmt: skip
