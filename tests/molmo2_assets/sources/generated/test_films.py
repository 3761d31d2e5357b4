"""Truth of the generated sets of films, checked against their clips and against decoded frames."""

from __future__ import annotations

import json
from collections import Counter

import numpy as np

from molmo2_assets.sources.generated import rle, tracks, video_points, videos
from tests.support.published_sets import SIDE, SMALL, Sets, film, is_colour, params_of, rows_of


def test_points_in_films_are_on_what_the_label_means_when_they_say(whole_sets: Sets) -> None:
    folder = whole_sets["clips_points"]
    for number, row in enumerate(rows_of(folder)):
        clip, labels, window = video_points.points_clip(params_of("clips_points"), number // 2)
        label, frames = labels[number % 2], film(folder, row["video_id"])
        assert row["video_duration"] == clip.seconds == len(frames) / 8
        assert (row["clip_start"], row["clip_end"]) == (window or (None, None))
        assert row["count"] == sum(len(points) for points in row["points"]) == len(clip.matching(label))
        assert len(row["points"]) == len(row["two_fps_timestamps"]) == len(row["raw_frames"])
        hit = []
        for time, points in zip(row["two_fps_timestamps"], row["points"], strict=True):
            assert time % 0.5 == 0
            assert (window or (0, clip.seconds))[0] <= time < (window or (0, clip.seconds))[1]
            for point in points:
                x, y, frame = int(point["x"] * SIDE / 100), int(point["y"] * SIDE / 100), round(time * 8)
                owner = int(clip.drawing(frame).owner[y, x])
                look = clip.movers[owner].look
                assert label.matches(look)
                assert look.shape == "ring" or is_colour(frames[frame][y, x], look.colour)
                hit.append(owner)
        assert len(set(hit)) == len(hit)


def test_held_out_points_in_films_are_inside_their_masks(whole_sets: Sets) -> None:
    for row in rows_of(whole_sets["clips_points_eval"]):
        assert row["count"] == len(row["points"]) == len(row["masks"]) == len(row["two_fps_timestamps"])
        for point, masks, time in zip(row["points"], row["masks"], row["two_fps_timestamps"], strict=True):
            by_time = {mask["frame_id"] / 2: rle.decode(mask["rle"]) for mask in masks}
            assert by_time[time].shape == (row["height"], row["width"])
            assert by_time[time][int(point["y"]), int(point["x"])]
            assert by_time[time][round(point["y"]), round(point["x"])]
            assert max(by_time) - min(by_time) <= 3.0
            assert all(mask.any() for mask in by_time.values())


def test_tracks_follow_their_things(whole_sets: Sets) -> None:
    folder = whole_sets["clips_track"]
    rates, hidden = Counter(), 0
    for number, row in enumerate(rows_of(folder)):
        clip, labels = tracks.track_clip(params_of("clips_track"), number // 2)
        objects = clip.matching(labels[number % 2])
        frames = film(folder, row["clip"])
        assert row["mask_id"] == [str(index) for index in objects]
        assert row["expression"] == tracks.expression(labels[number % 2], len(objects))
        assert (row["width"], row["height"], row["fps"]) == (SIDE, SIDE, 8)
        assert (row["start_frame"], row["end_frame"]) == (0, len(frames) - 1)
        rates[row["sampling_fps"]] += 1
        moments = row["frame_trajectories"]
        assert [moment["frame"] for moment in moments] == list(range(0, len(frames), 8 // row["sampling_fps"]))
        for moment in moments:
            assert moment["time"] == moment["frame"] / 8
            for sample in moment["points"]:
                mover, thing = clip.movers[sample["id"]], clip.things(moment["frame"])[sample["id"]]
                x, y = sample["point"]
                assert 0 <= x < SIDE
                assert 0 <= y < SIDE
                assert np.hypot(x - thing.x - 0.5, y - thing.y - 0.5) <= thing.radius
                hidden += sample["occluded"]
                assert sample["occluded"] is (clip.seen(sample["id"], moment["frame"]) < 0.25)
                if not sample["occluded"] and mover.look.shape != "ring":
                    assert is_colour(frames[moment["frame"]][int(y), int(x)], mover.look.colour)
            seen = {index for index in objects if clip.seen(index, moment["frame"]) > 0.5}
            assert seen <= {sample["id"] for sample in moment["points"]}
    assert rates[1] == 3 * rates[2]
    assert hidden > 0


def test_masks_beside_the_tracks_are_those_of_the_film(whole_sets: Sets) -> None:
    folder = whole_sets["clips_track"]
    row = rows_of(folder)[0]
    clip, _ = tracks.track_clip(params_of("clips_track"), 0)
    masks = json.loads((folder / "masks" / f"{row['clip']}.json").read_text())
    assert set(row["mask_id"]) <= set(masks)
    for name, frames in masks.items():
        assert len(frames) == clip.frames
        for frame, mask in enumerate(frames):
            if frame % 4:
                assert mask is None
            elif mask is None:
                assert not clip.mask(int(name), frame).any()
            else:
                assert np.array_equal(rle.decode(mask), clip.mask(int(name), frame))


def test_held_out_tracks_have_a_point_and_a_mask_for_every_frame(whole_sets: Sets) -> None:
    for row in rows_of(whole_sets["clips_track_eval"]):
        assert [item["object_id"] for item in row["points"]] == row["mask_id"] == [item["object_id"] for item in row["masks"]]
        for points, masks in zip(row["points"], row["masks"], strict=True):
            assert len(points["points"]) == len(masks["masks"]) == row["n_frames"] == row["end_frame"] + 1
            for point, mask in zip(points["points"], masks["masks"], strict=True):
                assert not point or rle.decode(mask)[int(point[1]), int(point[0])]


def test_multiple_choice_about_films_is_true(whole_sets: Sets) -> None:
    categories = Counter()
    for number, row in enumerate(rows_of(whole_sets["clips_qa"])):
        clip, actor = videos.question_clip(params_of("clips_qa"), number // 3)
        categories[row["Category"]] += 1
        assert len(row["NegativeAnswers"]) == len(set(row["NegativeAnswers"])) == 3
        assert row["Answer"] not in row["NegativeAnswers"]
        start, end = ((thing.x, thing.y) for thing in (clip.things(0)[clip.movers.index(actor)],
                                                       clip.things(clip.frames - 1)[clip.movers.index(actor)]))  # fmt: skip
        if row["Category"] == "Direction":
            dx, dy = end[0] - start[0], end[1] - start[1]
            assert row["Answer"] == ("to the right" if dx > 0 else "to the left" if dx < 0 else "down" if dy > 0 else "up")
        elif row["Category"] == "Counting":
            assert row["Answer"] == str(len(clip.movers))
        elif row["Category"] == "Entering":
            assert row["Answer"] == actor.look.words
            assert clip.seen(clip.movers.index(actor), 0) == 0
        elif row["Category"] == "Side":
            side = "left" if start[0] < 0 else "right" if start[0] >= SIDE else "top" if start[1] < 0 else "bottom"
            assert row["Answer"] == side
        else:
            assert row["Answer"] in (actor.look.colour, actor.look.shape)
    assert categories["Counting"] == SMALL // 3


def test_the_word_at_an_event_is_said_then(whole_sets: Sets) -> None:
    for number, row in enumerate(rows_of(whole_sets["clips_subtitle_qa"])):
        clip, actor, subtitle, words, _ = videos.subtitle_clip(params_of("clips_subtitle_qa"), number // 2)
        assert row["subtitle"] == subtitle
        assert all(0 <= line["start"] < line["end"] <= clip.seconds for line in subtitle)
        assert row["Answer"] not in row["NegativeAnswers"]
        if row["AlignmentType"] == "subtitle":
            assert row["Answer"] == (words[-1] if "last" in row["Question"] else words[0])
        else:
            at = next(frame for frame in range(clip.frames) if clip.seen(clip.movers.index(actor), frame) >= 0.5) / 8
            spoken = [line["text"] for line in subtitle if line["start"] - 0.1 <= at < line["end"] + 0.1]
            assert spoken == [f"The word is {row['Answer']}."]


def test_film_captions_tell_every_thing(whole_sets: Sets) -> None:
    for number, row in enumerate(rows_of(whole_sets["clips_cap"])):
        clip = videos.caption_clip(params_of("clips_cap"), number)
        assert (row["video_start"], row["video_end"]) == (0.0, clip.seconds)
        for mover in clip.movers:
            assert mover.look.words in row["video_caption"].lower()
            assert f"{mover.look.size} {mover.look.words}" in row["merged_caption"]
        assert row["video_frame_merged_caption"].startswith(row["merged_caption"])
        assert 3 <= row["annotation_score"] <= 5
