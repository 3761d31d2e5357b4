"""Published files about videos, in small (see `layouts.py`)."""

from __future__ import annotations

from typing import Any

from tests.support.layouts import Published

TRACK: dict[str, Any] = {
    "id": "x", "video": "v1", "clip": "v1_0_20", "video_dataset": "mose", "expression": "the boat", "fps": 6, "sampling_fps": 2,
    "width": 400, "height": 200, "mask_id": ["5"], "qid": "3",
    "frame_trajectories": [
        {"frame": 3, "time": 0.5, "points": [{"id": 5, "point": [200.0, 20.0], "occluded": True}]},
        {"frame": 0, "time": 0.0, "points": [{"id": 5, "point": [100.0, 20.0], "occluded": False},
                                             {"id": 6, "point": [1.0, 1.0], "occluded": False}]},
        {"frame": 6, "time": 1.0, "points": [{"id": 5, "point": None, "occluded": True}]}],
}  # fmt: skip
SAMPLES = "0[0s@0.25,0.1 0.5s@0.5,0.1?]"
MASK = {"size": [200, 400], "counts": [0, 200, 79_800]}

VIDEOS: dict[str, Published] = {
    "tgif": Published(
        {"Train_action_question.csv": "gif_name\tquestion\ta1\ta2\ta3\ta4\ta5\tanswer\n"
                                      "g1\tWhat does it do?\tsit\trun\tfly\teat\tsleep\t1\n",
         "Train_count_question.csv": "gif_name\tquestion\tanswer\ng1\tHow often?\t3\n"},
        {"g1": [("video_multiple_choice", "What does it do?", "sit / *run / fly / eat / sleep"),
                ("video_short_answer", "What does it do?", "run"), ("video_short_answer", "How often?", "3")]},
    ),
    "tvqa": Published(
        {"tvqa_train.jsonl": [{"q": "Who speaks?", "a0": "Ann", "a1": "Bob", "a2": "Cy", "a3": "Di", "a4": "Ed", "answer_idx": 1,
                               "ts": "2.5-6.0", "vid_name": "show_1", "show_name": "Castle", "qid": 1}],
         "tvqa_preprocessed_subtitles.jsonl": [{"vid_name": "show_1", "sub": [
             {"start": 1.0, "end": 3.0, "text": "Hello."}, {"start": 3.5, "end": 4.0, "text": "Bob?"},
             {"start": 7.0, "end": 8.0, "text": "No."}]}]},
        {"show_1@2.5-6": [("video_multiple_choice_w_subtitle", "Who speaks?", "Ann / *Bob / Cy / Di / Ed")]},
    ),
    "paxion": Published(
        {"ssv2/antonyms/train_with_rel_path.json": [
            {"rel_vid_path": "1.webm", "label": "Opening a box", "label_action_antonym_clip_text": "Closing a box"}],
         "ego4d/egoclip_subset_action_antonyms_train_val_test_split/train.jsonl": [
             {"video_uid": "u1", "clip_start": 1.0, "clip_end": 2.0, "clip_text": "Picks up",
                 "action_antonym_clip_text": "Puts down"}]},
        {"u1@1-2": [("video_multiple_choice", "What activity does the video depict?", "*Picks up / Not sure / Puts down")],
         "1.webm": [("video_multiple_choice", "What activity does the video depict?",
             "Closing a box / Not sure / *Opening a box")]},
    ),
    "llava_video_oe": Published(
        {"0_30_s_nextqa/0_30_s_nextqa_oe_qa_processed.json": [
            {"id": "1", "data_source": "NextQA", "video": "NExTVideo/1.mp4", "conversations": [
                {"from": "human", "value": "<image>\nWho is it?"}, {"from": "gpt", "value": " A child. "},
                {"from": "human", "value": "Where?"}, {"from": "gpt", "value": "Outside."}]}]},
        {"NextQA/NExTVideo/1.mp4": [("video_short_answer", "Who is it?", "A child."), ("video_short_answer", "Where?",
            "Outside.")]},
    ),
    "perception_test": Published(
        {"all_train.json": {"video_7": {"metadata": {}, "mc_question": [
            {"question": "Which letter?", "options": ["A", "B", "C"], "answer_id": 2, "id": 0}]}}},
        {"video_7": [("video_multiple_choice", "Which letter?", "A / B / *C")]},
    ),
    "next_qa": Published(
        {"train.csv": "video,frame_count,width,height,question,answer,qid,type,a0,a1,a2,a3,a4\n"
                      "40,9,640,480,why does it run,2,6,CW,play,eat,catch the ball,sit,sleep\n",
         "map_vid_vidorID.json": {"40": "1150/40"}},
        {"1150/40": [("video_multiple_choice", "why does it run", "play / eat / *catch the ball / sit / sleep")]},
    ),
    "news_video_qa": Published(
        {"json_files/raw_files/new_train.json": [
            {"uni_clipped_id": "12x3", "question": "Which party?", "answer": "Green"},
            {"uni_clipped_id": "12x3", "question": "Which day?", "answer": ""},
            {"uni_clipped_id": "389x18", "question": "Which day?", "answer": "Monday"}]},
        {"12x3": [("video_short_answer", "Which party?", "Green")]},
        ["not_selected", "not_selected"],
    ),
    "how2qa": Published(
        {"how2QA_train_release.csv": 'vid1,[1.504:6.00],a knife,a fork,a cup,What is used?,a spoon\n'},
        {"vid1@1.504-6": [("video_multiple_choice", "What is used?", "a knife / a fork / a cup / *a spoon")]},
    ),
    "sutd_traffic_qa": Published(
        {"R2_train.jsonl": '["record_id","vid_id","vid_filename","perspective","q_body","q_type","option0","option1","option2",'
                           '"option3",'
                           '"answer"]\n[1,2,"b_1.mp4",0,"Is it wet?","U","","Yes","","No",3]\n'},
        {"b_1.mp4": [("video_multiple_choice", "Is it wet?", "Yes / *No")]},
    ),
    "social_iq2": Published(
        {"qa/qa_train.json": [{"vid_name": "v", "q": "Why?", "a0": "joy", "a1": "anger", "a2": "fear", "a3": "none",
            "answer_idx": 0}]},
        {"v": [("video_multiple_choice", "Why?", "*joy / anger / fear / none")]},
    ),
    "sports_qa": Published(
        {"meta-data/train.json": [{"video": "Volleyball/v1", "question": "Who serves?", "answer": "the left team"}]},
        {"Volleyball/v1": [("video_short_answer", "Who serves?", "the left team")]},
    ),
    "cinepile": Published(
        {"data/train-0.parquet": [{"video_id": "y1", "movie_name": "M", "subtitles": "<subtitle> Hello. <subtitle> Bye.",
            "examples": [
            {"question": "Who leaves?", "choices": ["Ann", "Bob"], "answer_key_position": 1}]}]},
        {"y1": [("video_multiple_choice_w_subtitle", "Hello. Bye.\nWho leaves?", "Ann / *Bob")]},
    ),
    "clevrer": Published(
        {"train.json": [{"scene_index": 0, "video_filename": "video_00000.mp4", "questions": [
            {"question_id": 0, "question": "What colour?", "answer": "red"},
            {"question_id": 1, "question": "Which is next?", "choices": [
                {"choice_id": 0, "choice": "a cube falls", "answer": "wrong"}, {"choice_id": 1, "choice": "a ball rolls",
                                                                                "answer": "correct"}]},
            {"question_id": 2, "question": "Which are to blame?", "choices": [
                {"choice_id": 0, "choice": "the cube", "answer": "correct"}, {"choice_id": 1, "choice": "the ball",
                                                                            "answer": "correct"}]}]}]},
        {"video_00000.mp4": [("video_short_answer", "What colour?", "red"),
                             ("video_multiple_choice", "Which is next?", "a cube falls / *a ball rolls")]},
        ["not_selected"],
    ),
    "fun_qa": Published(
        {"FunQA_train.json": [{"task": "H2", "visual_input": "H_A_1.mp4", "instruction": "What is funny?", "output": "The fall."},
                              {"task": "H1", "visual_input": "H_A_1.mp4", "instruction": "When?", "output": "[1, 2]"}],
         "Funqa_mcqa_v1.json": [{"visual_input": "H_A_1.mp4", "gt": "2", "instruction":
             "Look.\n The Question is: Why is it funny?\n The Options are: ['Options 1: the car', 'Options 2: the fall']"}]},
        {"H_A_1.mp4": [("video_short_answer", "What is funny?", "The fall."),
                       ("video_multiple_choice", "Why is it funny?", "the car / *the fall")]},
        ["not_selected"],
    ),
    "star": Published(
        {"STAR_train.json": [{"question_id": "q", "video_id": "A1", "start": 1.5, "end": 3.0, "question": "What was opened?",
                              "answer": "The door.", "choices": [{"choice_id": 0, "choice": "The box."},
                                                                {"choice_id": 1, "choice": "The door."}]}]},
        {"A1@1.5-3": [("video_multiple_choice", "What was opened?", "The box. / *The door."),
                      ("video_short_answer", "What was opened?", "The door.")]},
    ),
    "intent_qa": Published(
        {"train.csv": "video_id,frame_count,width,height,question,answer,qid,type,a0,a1,a2,a3,a4\n7,9,1,1,why,0,1,CW,a,b,c,d,e\n"},
        {"7": [("video_multiple_choice", "why", "*a / b / c / d / e"), ("video_short_answer", "why", "a")]},
    ),
    "video_localized_narratives_qa": Published(
        {"videoqa/text_output/oops_train/qa_text_output.json": {"annotations": [
            {"video_name": "train/v1", "qa_pairs": [{"question_id": "1", "raw_question": "What falls?",
                "raw_answer": "a man"}]}]}},
        {"train/v1": [("video_short_answer", "What falls?", "a man")]},
    ),
    "video_localized_narratives_caption": Published(
        {"hf_dataset/data-00000-of-00001.arrow": [{"id": "1", "video": "oops/oops_video/train/v.mp4", "captions": ["He falls.",
            "It rolls."],
                                                   "actor_names": ["the man", "the ball"]}]},
        {"oops/oops_video/train/v.mp4": [("video_object_caption", "Describe what the man does in the video.", "He falls."),
                                         ("video_object_caption", "Describe what the ball does in the video.", "It rolls.")]},
    ),
    "road_text_vqa": Published(
        {"train.json": {"data": [{"video": "1.mp4", "question": "Which road?", "answer": ["A1", "A1 road", "A1"],
            "questionId": 4}]}},
        {"1.mp4": [("video_short_answer", "Which road?", "A1")]},
    ),
    "countix": Published(
        {"countix_train_mapped.csv": "video_path,class,count\ntrain/jumping/a.mp4,jumping,5\n",
         "class_to_question.json": {"jumping": ["How often does it jump?"]}},
        {"train/jumping/a.mp4": [("video_short_answer", "How often does it jump?", "5")]},
    ),
    "camera_bench": Published(
        {"camerabench_qa.parquet": [{"video_path": "a.mp4", "mc_qa_list": [
            {"Question": "How does the camera move?", "Answer": "pan", "NegativeAnswers": ["tilt", "zoom"]}]}]},
        {"a.mp4": [("video_multiple_choice", "How does the camera move?", "zoom / *pan / tilt")]},
    ),
    "motion_bench": Published(
        {"MotionBenchCaption-train/train.jsonl": [{"video_path": "a.mp4", "motion_caption": "A boat turns."}]},
        {"a.mp4": [("video_motion_caption", "Describe the motion in the video.", "A boat turns.")]},
    ),
    "moments_in_time": Published(
        {"train.csv": "label,video_path\nwalking+slowly,walking/a.mp4\n"},
        {"walking/a.mp4": [("moments_in_time_label", "What action is performed?", "walking slowly")]},
    ),
    "kinetics_710": Published(
        {"kinetics710/k700_train_list_videos.txt": "abseiling/a_1.mp4 1\n\nb_2.mp4 7\n",
         "kinetics710/k710_label_map.txt": "riding a bike\nabseiling\n"},
        {"a_1.mp4": [("kinetics_label", "What action is performed?", "abseiling")]},
        ["missing_field"],
    ),
    "charades_sta": Published(
        {"charades_sta_train.txt": "AO8RW 0.0 6.9##a person puts a book down.\nnothing\n"},
        {"AO8RW@0-6.9": [("charades_sta", "What is the person doing?", "a person puts a book down.")]},
        ["not_csv"],
    ),
    "coin": Published(
        {"COIN.json": {"database": {"c1": {"subset": "training", "class": "x", "annotation": [
            {"id": "1", "segment": [1.0, 3.0], "label": "open the lid"}, {"id": "2", "segment": [4.0, 9.0], "label": "pour"}]},
            "c2": {"subset": "testing", "annotation": [{"id": "1", "segment": [1.0, 3.0], "label": "close"}]}}}},
        {"c1@1-3": [("coin_label", "What activity does the video depict?", "open the lid")],
         "c1@4-9": [("coin_label", "What action is performed?", "pour")]},
        ["not_selected"],
    ),
    "youcook2": Published(
        {"youcookii_annotations_trainval.json": {"database": {"y1": {"subset": "training", "annotations": [
            {"id": 0, "segment": [1, 3], "sentence": "chop onions"}]}}}},
        {"y1@1-3": [("youcook2_label", "What activity does the video depict?", "chop onions")],
         "y1": [("youcook2_label", "Describe what happens in the seconds [1, 3].", "chop onions")]},
    ),
    "activity_net": Published(
        {"activity_net.v1-3.min.json": {"database": {"n1": {"subset": "training", "annotations": [
            {"segment": [0.5, 4.0], "label": "Sailing"}]}}},
         "train_q.json": [{"video_name": "n1", "question": "is it wet", "question_id": "q1", "type": 3}],
         "train_a.json": [{"answer": "yes", "type": 3, "question_id": "q1"}]},
        {"n1@0.5-4": [("activitynet_label", "What action is performed?", "Sailing")],
         "n1": [("activitynet_label", "is it wet", "yes")]},
    ),
    "ego4d": Published(
        {"ego4d_cached_train_metadata.jsonl": [
            {"clip": "u_1.000_3.000_custom_clip.mp4", "corrupt": False, "message_list": [
                {"question": "Label the clip.", "answer": "cut_dough", "style": "ego4d_mq_label_clip"},
                {"question": "Where is the knife?", "answer": "Start: 1.00, end: 2.00", "style": "ego4d_nlq_temporal_grounding"}]},
            {"clip": "broken.mp4", "corrupt": True, "message_list": []}]},
        {"u_1.000_3.000_custom_clip.mp4": [("ego4d_mq_label_clip", "Label the clip.", "cut_dough"),
                                           ("ego4d_nlq_temporal_grounding", "Where is the knife?", "Start: 1.00, end: 2.00")]},
        ["not_selected"],
    ),
    "epic_kitchens": Published(
        {"epic-kitchens-100-annotations/EPIC_100_train.csv":
         "narration_id,participant_id,video_id,narration_timestamp,start_timestamp,stop_timestamp,narration\n"
         "P01_01_0,P01,P01_01,00:00:01.089,00:00:00.14,00:00:03.37,open door\n"},
        {"P01_01@0.14-3.37": [("epic_kitchens_label", "What action is performed?", "open door")]},
    ),
    "qv_highlights": Published(
        {"highlight_train_release.jsonl": [
            {"qid": 1, "query": "a man cooks", "vid": "v_60.0_210.0", "duration": 150, "relevant_windows": [[0, 4], [6, 10]]},
            {"qid": 2, "query": "a man eats", "vid": "v_60.0_210.0", "duration": 150, "relevant_windows": [[0, 1]] * 6}]},
        {"v_60.0_210.0": [("video_short_answer", "When does the video show this: a man cooks? Give every span in seconds.",
                           "0 - 4, 6 - 10")]},
        ["not_selected"],
    ),
    "molmo2_ask_model_anything": Published(
        {"data/HumanQA-0.parquet": [{"video_id": "y", "question": "Who?", "answer": "Ann"}, {"video_id": "y", "question": "Why?",
            "answer": ""}]},
        {"y": [("user_qa", "Who?", "Ann")]},
        ["not_selected"],
    ),
    "molmo2_video_cap_qa_long": Published(
        {"data/LongCapQA-0.parquet": [{"video_id": "y", "qa_list": [
            {"Question": "Who?", "Answer": "Ann", "NegativeAnswers": ["Bob", "Cy"]}]}]},
        {"y": [("video_multiple_choice", "Who?", "Bob / Cy / *Ann")]},
    ),
    "molmo2_video_point_6_25": Published(
        {"object/train-0.parquet": [
            {"video_id": "y", "label": "boats", "count": count, "points": [[{"x": 50.0, "y": 10.0}] * count],
             "two_fps_timestamps": [1.5], "clip_start": 1.0, "clip_end": 6.0, "annotator_unsure": False} for count in (1, 6)]},
        {"y@1-6": [("video_point", None, "boats: " + " ".join(["0.5s@0.5,0.1"] * 6)),
                   ("video_point_count", None, "boats: " + " ".join(["0.5s@0.5,0.1"] * 6) + "; 6 × boats")]},
        ["not_selected"],
    ),
    "mevis_points": Published(
        {"data/train-0.parquet": [
            {"subset": subset, "video_name": "m1", "category": "Boats", "count": 2, "timestamps": [1.0, 0.5],
                "clip_start_time": 0.0,
             "clip_end_time": 10.0, "points": [[{"x": 75.0, "y": 10.0}], [{"x": 25.0, "y": 50.0}]], "video_duration": 10.0}
            for subset in ("mevis", "ovis")]},
        {"m1": [("video_point", None, "boats: 0.5s@0.25,0.5 1s@0.75,0.1"),
                ("video_point_count", None, "boats: 0.5s@0.25,0.5 1s@0.75,0.1; 2 × boats")]},
        ["not_selected"],
    ),
    "mevis_track": Published(
        {"track/train-0.parquet": [TRACK]},
        {"v1": [("video_point_track_per_frame", None, f"the boat track at 2: {SAMPLES}")]},
    ),
    "mevis_ground": Published(
        {"ground/train-0.parquet": [TRACK]},
        {"v1": [("video_point_ground_start_end", None, f"the boat ground at 2: {SAMPLES}")]},
    ),
    "mevis_single_point": Published(
        {"single_point_track/train-0.parquet": [TRACK, {**TRACK, "mask_id": ["5", "6"]}]},
        {"v1": [("video_single_point_track_per_frame", None, f"the boat single_point at 2: {SAMPLES}")]},
        ["id_conflict"],
    ),
    "molmo2_video_track": Published(
        {"track/train-0.parquet": [TRACK, {**TRACK, "sampling_fps": 4}]},
        {"v1_0_20": [("video_point_track_per_frame", None, f"the boat track at 2: {SAMPLES}")]},
        ["rate_mismatch"],
    ),
    "molmo2_video_single_point": Published(
        {"single_point_track/train-0.parquet": [TRACK]},
        {"v1_0_20": [("video_single_point_track_per_frame", None, f"the boat single_point at 2: {SAMPLES}")]},
    ),
    "molmo2_video_ground": Published(
        {"ground/train-0.parquet": [TRACK]},
        {"v1_0_20": [("video_point_ground_start_end", None, f"the boat ground at 2: {SAMPLES}")]},
    ),
    "mevis_valid_u": Published(
        {"track/valid_u-0.parquet": [TRACK]},
        {"v1#the boat": [("video_point_track_per_frame", None, f"the boat track at 2: {SAMPLES}")]},
        [], {"valid_u/MasksRLE/v1/3.json": {"0": [MASK, None, None, MASK]}},
    ),
    "ref_davis17_eval": Published(
        {"track/valid-0.parquet": [TRACK]},
        {"v1#the boat": [("video_point_track_per_frame", None, f"the boat track at 2: {SAMPLES}")]},
        [], {"valid/MasksRLE/v1/3.json": {"5": [MASK]}},
    ),
    "ref_youtube_vos_eval": Published(
        {"track/valid-0.parquet": [TRACK]}, {}, ["missing_field"], {"valid/MasksRLE/v1/4.json": {"5": [MASK]}},
    ),
    "reason_vos": Published(
        {"track/train-0.parquet": [TRACK]},
        {"v1#the boat": [("video_point_track_per_frame", None, f"the boat track at 2: {SAMPLES}")]},
        [], {"MasksRLE/v1/3.json": {"5": [MASK]}},
    ),
}  # fmt: skip
