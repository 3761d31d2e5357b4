"""Published files about pictures and texts, in small (see `layouts.py`)."""

from __future__ import annotations

import hashlib

from tests.support.layouts import Published

PNG = {"bytes": b"png", "path": "a.png"}
EMBEDDED = f"embedded:a.png#{hashlib.sha256(b'png').hexdigest()[:16]}"
MANTIS = {
    "images": ["mantis-instruct/nlvr2/a.png", "mantis-instruct/nlvr2/b.png"], "mc_question": ["<image> and <image>: same?"],
    "oe_question": ["Same?"], "direct_answer": ["no"], "choices": [["yes", "no"]], "correct_choice_idx": [1], "subset": "nlvr2",
    "example_id": "7",
}  # fmt: skip

IMAGES: dict[str, Published] = {
    "vqa_v2": Published(
        {"train/0.parquet": [{"image": "images/coco/a.jpg", "message_list": [
            {"question": "What floats?", "answers": ["boat", "ship", *["boat"] * 8]},
            {"question": "Which colour?", "answers": ["red"] * 10}]}]},
        {"images/coco/a.jpg": [("vqa2", "What floats?", "boat"), ("vqa2", "Which colour?", "red")]},
    ),
    "ok_vqa": Published(
        {"train/0.parquet": [{"image": "images/coco/a.jpg", "image_id": 3, "qas": [
            {"question": "What is it for?", "answers": [
                {"raw_answer": "to sail"}, *[{"raw_answer": "to fish"}] * 9]}]}]},
        {"images/coco/a.jpg": [("okvqa", "What is it for?", "to fish")]},
    ),
    "a_okvqa_mc": Published(
        {"train/0.parquet": [{"image": "images/coco/a.jpg", "message_list": [
            {"question": "What is it for?", "choices": ["eat", "sail"], "answer_idx": 1, "direct_answers": ["sail"]}]}]},
        {"images/coco/a.jpg": [("a_okvqa_mc", "What is it for?", "eat / *sail")]},
    ),
    "a_okvqa_da": Published(
        {"train/0.parquet": [{"image": "images/coco/a.jpg", "message_list": [
            {"question": "What is it for?", "choices": ["eat", "sail"], "answer_idx": 1, "direct_answers": ["to sail", "sail",
                "sail"]}]}]},
        {"images/coco/a.jpg": [("a_okvqa_da", "What is it for?", "sail")]},
    ),
    "doc_vqa": Published(
        {"train_v1.0_withQT.json": {"dataset_name": "x", "data": [
            {"question": "Which year?", "answers": ["1999", "1999"], "image": "documents/a.png", "docId": 1, "questionId": 2,
             "data_split": "train", "question_types": ["form"]}]}},
        {"documents/a.png": [("doc_qa", "Which year?", "1999")]},
    ),
    "info_vqa": Published(
        {"infographicsVQA_train_v1.0.json": {"data": [{"question": "How much?", "answers": ["3%"],
            "image_local_name": "7.jpeg"}]}},
        {"7.jpeg": [("info_qa", "How much?", "3%")]},
    ),
    "st_vqa": Published(
        {"train_task_3.json": {"data": [{"question": "Which shop?", "answers": ["Co-op"], "file_path": "train/a.jpg",
                                         "question_id": 5}]}},
        {"train/a.jpg": [("st_qa", "Which shop?", "Co-op")]},
    ),
    "ai2d": Published(
        {"train.parquet": [{"image": PNG, "question": "Which eats grass?", "answer_texts": ["fox", "hare"], "correct_answer": 1,
                            "abc_label": False, "option_is_abc": [False, False], "has_transparent_box": False}]},
        {EMBEDDED: [("ai2_diagram", "Which eats grass?", "fox / *hare")]},
    ),
    "science_qa": Published(
        {"train-0.parquet": [
            {"image": PNG, "question": "Which is solid?", "choices": ["ice", "steam"], "answer": 0, "hint": "Look."},
            {"image": PNG, "question": "Which is hot?", "choices": ["ice", "steam"], "answer": 1, "hint": ""},
            {"image": None, "question": "No picture?", "choices": ["a", "b"], "answer": 0, "hint": ""}]},
        {EMBEDDED: [("science_qa", "Look.\nWhich is solid?", "*ice / steam"), ("science_qa", "Which is hot?", "ice / *steam")]},
        ["not_selected"],
    ),
    "tab_mwp": Published(
        {"problems_train.json": {"12": {"question": "How many?", "answer": "1,200", "choices": None, "split": "train"}}},
        {"12.png": [("tabwmp_da", "How many?", "1,200")]},
    ),
    "tally_qa": Published(
        {"train/0.parquet": [{"image": "images/vg/a.jpg", "message_list": [{"question": "How many?", "answer": 3}]}]},
        {"images/vg/a.jpg": [("tally_qa", "How many?", "3")]},
    ),
    "nlvr2": Published(
        {"train-0.parquet": [MANTIS, {**MANTIS, "images": MANTIS["images"][:1]}]},
        {"mantis-instruct/nlvr2/a.png mantis-instruct/nlvr2/b.png": [
            ("mantis_instruct_mc", "Image 1 and Image 2: same?", "yes / *no")]},
        ["not_selected"],
    ),
    "dv_qa": Published(
        {"train_qa.json": [{"image": "bar_1.png", "question": "Highest?", "answer": "7", "answer_bbox": [1, 2, 3, 4]}]},
        {"bar_1.png": [("dv_qa", "Highest?", "7")]},
    ),
    "figure_qa": Published(
        {"train1/qa_pairs.json": {"qa_pairs": [{"image_index": 4, "question_string": "Is Red low?", "answer": 0,
            "question_id": 1}],
                                  "total_distinct_questions": 15}},
        {"4.png": [("figure_qa", "Is Red low?", "0")]},
    ),
    "plot_qa": Published(
        {"qa_pairs_V2.json": {"qa_pairs": [{"image_index": 4, "question_string": "What is the mean?", "answer": 2.50}]}},
        {"4.png": [("plot_qa", "What is the mean?", "2.5")]},
    ),
    "cosyn_chart": Published(
        {"chart/train-0.parquet": [{"image": PNG, "id": "c1", "qa_pairs": {
            "question": ["Highest?", "Lowest?"], "explanation": ["It is red.", "It is blue."], "answer": ["7", "2"]}}]},
        {EMBEDDED: [("cosyn_chart_exp", "Highest?", "It is red.\nAnswer: 7"), ("cosyn_chart_exp", "Lowest?",
            "It is blue.\nAnswer: 2")]},
    ),
    "cosyn_document": Published(
        {"document/train-0.parquet": [{"image": PNG, "id": "c1", "qa_pairs": {"question": ["Who?"], "explanation": [""],
                                                                            "answer": ["Ann"]}}]},
        {EMBEDDED: [("cosyn_document", "Who?", "Ann")]},
    ),
    "molmo2_syn_multi_image_qa_chart": Published(
        {"chart/train-0.parquet": [
            {"images": [PNG, {"bytes": b"two", "path": "b.png"}], "id": "m1", "code": ["x", "y"], "metadata": {"num_images": 2},
             "qa_pairs": {"question": ["Higher?"], "explanation": ["By one."], "answer": ["The second"]}},
            {"images": [PNG] * 6, "id": "m2", "code": ["x"] * 6, "metadata": {"num_images": 6},
             "qa_pairs": {"question": ["Higher?"], "explanation": ["By one."], "answer": ["The third"]}}]},
        {f"{EMBEDDED} embedded:b.png#3fc4ccfe745870e2": [("cosyn_multidoc_chart_exp", "Higher?", "By one.\nAnswer: The second")]},
        ["not_selected"],
    ),
    "pixmo_clocks": Published(  # columns: card of allenai/pixmo-clocks
        {"data/train-0.parquet": [{"example_id": "e1", "watchface_id": "w", "watch_time": "2024-01-01 04:28", "time_format": "12h",
                                   "text": "The time is 4:28."}]},
        {"e1": [("user_qa", "What time does this clock show?", "The time is 4:28.")]},
    ),
    "pixmo_cap": Published(
        {"data/train-0.parquet": [{"image_url": "http://a.invalid/a.png", "caption": "A boat.", "transcripts": ["a boat",
            "red"]}]},
        {"http://a.invalid/a.png": [("long_caption", None, "A boat.")]},
    ),
    "pixmo_cap_with_transcripts": Published(
        {"data/train-0.parquet": [{"image_url": "http://a.invalid/a.png", "caption": "A boat.", "transcripts": ["a boat",
            "red"]}]},
        {"http://a.invalid/a.png": [("long_caption", None, "A boat."), ("transcript", None, "a boat")]},
    ),
    "pixmo_cap_qa": Published(
        {"data/train-0.parquet": [{"image_url": "http://a.invalid/a.png",
            "question": "[USER] What? [ASSISTANT] A boat. [USER] Red?",
                                   "answer": "Yes.", "messages": None}]},
        {"http://a.invalid/a.png": [("user_qa", "What? | A boat. | Red?", "Yes.")]},
    ),
    "pixmo_points_high_freq_train": Published(
        {"data/train-0.parquet": [
            {"image_url": "http://a.invalid/a.png", "image_sha256": "1" * 64, "label": "boats", "count": 2,
             "points": [{"x": 75.0, "y": 10.0}, {"x": 25.0, "y": 50.0}], "collection_method": "counting"},
            {"image_url": "http://a.invalid/a.png", "image_sha256": "1" * 64, "label": "cars", "count": 0, "points": [],
             "collection_method": "pointing"}]},
        {"http://a.invalid/a.png": [("point_count", None, "boats: 0@0.25,0.5 0@0.75,0.1; 2 × boats")]},
        ["not_selected"],
    ),
    "pixmo_multi_points": Published(
        {"data/train-0.parquet": [{"images": ["a.png", "b.png"], "labels": ["boats", "boats"], "normalized_labels": ["boat",
            "boat"],
                                   "points": [[{"x": 25.0, "y": 50.0}], []], "counts": [1, 0]}]},
        {"a.png b.png": [("multi_image_pointing", None, "boats: 0@0.25,0.5")]},
    ),
    "cosyn_point": Published(
        {"data/train-0.parquet": [{"image": PNG, "id": "p", "questions": ["Where is Red?"], "names": ["red bar"],
                                   "answer_points": [{"x": [50.0], "y": [10.0]}]}]},
        {EMBEDDED: [("cosyn_point", "Where is Red?", "red bar: 0@0.5,0.1")]},
    ),
    "molmo2_hardcodes": Published(
        {"data/train-0.parquet": [{"questions": ["Who are you?", "What are you?"], "response": "Molmo.", "images": []},
                                  {"questions": ["And here?"], "response": "A boat.", "images": ["a.png"]}]},
        {"": [("text_sft", "Who are you?", "Molmo."), ("text_sft", "What are you?", "Molmo.")]},
        ["not_selected"],
    ),
    "tulu4_max_2304": Published(
        {"data/train-0.parquet": [
            {"id": "t1", "source": "x", "category": "general", "first_message_qwen3_tokens": 3, "empty_messages": False,
             "has_special_token": False, "messages": [{"role": "user", "content": "2 + 2?"}, {"role": "assistant",
                 "content": "4"}]},
            {"id": "t2", "source": "x", "category": "code", "first_message_qwen3_tokens": 3, "empty_messages": False,
             "has_special_token": False, "messages": [{"role": "user", "content": "2 + 2?"}, {"role": "assistant",
                 "content": "4"}]},
            {"id": "t3", "source": "x", "category": "general", "first_message_qwen3_tokens": 2305, "empty_messages": False,
             "has_special_token": False, "messages": [{"role": "user", "content": "2 + 2?"}, {"role": "assistant",
                 "content": "4"}]}]},
        {"t1": [("text_sft", "2 + 2?", "4")]},
        ["not_selected", "not_selected"],
    ),
}  # fmt: skip
