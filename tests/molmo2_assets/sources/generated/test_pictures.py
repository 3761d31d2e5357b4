"""Truth of the generated sets of pictures, checked against their scenes and against the pixels of the files."""

from __future__ import annotations

import re
from collections import Counter
from hashlib import sha256
from io import BytesIO

import numpy as np
import pytest
from PIL import Image

from molmo2_assets.sources.generated import charts, images, resolve, several
from molmo2_assets.sources.generated.shapes import COLOURS
from tests.support.published_sets import SIDE, SMALL, Sets, is_colour, params_of, picture, rows_of


@pytest.mark.parametrize("name", ["shapes_points", "shapes_points_eval"])
def test_points_are_on_the_things_that_the_label_means(whole_sets: Sets, name: str) -> None:
    for number, row in enumerate(rows_of(whole_sets[name])):
        scene, labels = images.points_scene(params_of(name), number // 2)
        label, drawing = labels[number % 2], scene.draw()
        shown = picture(whole_sets[name], row["image_url"])
        assert row["label"] == label.plural
        assert np.array_equal(shown, drawing.pixels)
        assert (
            row["image_sha256"]
            == sha256((whole_sets[name] / "media" / row["image_url"].rsplit("/", 1)[1]).read_bytes()).hexdigest()
        )
        hit = []
        for point in row["points"]:
            x, y = point["x"] * SIDE / 100, point["y"] * SIDE / 100
            owner = int(drawing.owner[int(y), int(x)])
            look = scene.things[owner].look
            assert label.matches(look)
            assert drawing.owner[round(y), round(x)] == owner
            assert look.shape == "ring" or is_colour(shown[int(y), int(x)], look.colour, 3)
            hit.append(owner)
        assert len(set(hit)) == len(hit) == scene.count(label)
        assert [point["x"] for point in row["points"]] == sorted(point["x"] for point in row["points"])


def test_held_out_masks_are_those_of_their_points(whole_sets: Sets) -> None:
    for row in rows_of(whole_sets["shapes_points_eval"]):
        masks = np.array(row["masks"])
        assert masks.shape == (len(row["points"]), SIDE, SIDE)
        for number, point in enumerate(row["points"]):
            inside = masks[:, int(point["y"] * SIDE / 100), int(point["x"] * SIDE / 100)]
            assert inside.nonzero()[0].tolist() == [number]


def test_counts_are_balanced_and_equal_what_is_drawn(whole_sets: Sets) -> None:
    rows = rows_of(whole_sets["shapes_count"])
    for number, row in enumerate(rows):
        scene, label = images.count_scene(params_of("shapes_count"), number)
        assert row["label"] == label.plural
        assert row["count"] == scene.count(label) == len(row["points"]["x"]) == len(row["points"]["y"])
        for x, y in zip(row["points"]["x"], row["points"]["y"], strict=True):
            assert label.matches(scene.things[int(scene.draw().owner[int(y), int(x)])].look)
    assert max(Counter(row["count"] for row in rows).values()) - SMALL // 5 <= 1
    assert all(row["points"] is None for row in rows_of(whole_sets["shapes_count_eval"]))


def test_answers_about_pictures_are_true(whole_sets: Sets) -> None:
    seen = Counter()
    for number, row in enumerate(rows_of(whole_sets["shapes_qa"])):
        things = images.question_scene(params_of("shapes_qa"), number // 3).things
        question, answer = row["question"], row["answer"]
        by_words = {thing.look.words: thing for thing in things}
        kind = question.split()[0] + question.split()[1]
        seen[kind] += 1
        if kind == "Whatcolour":
            assert [t.look.colour for t in things if t.look.shape == question[:-1].split()[-1]] == [answer]
        elif kind == "Whatshape":
            assert [t.look.shape for t in things if t.look.colour == question.split()[4]] == [answer]
        elif kind == "Howmany":
            assert answer == str(len(things))
        elif kind == "Isthere":
            words = re.sub("^Is there an? ", "", question)[:-1]
            assert answer == ("yes" if words in by_words else "no")
        elif kind == "Isthe":
            thing = by_words[" ".join(question.split()[2:4])]
            assert answer == ("left" if thing.x < SIDE / 2 else "right")
        else:
            pair = [by_words[words.removeprefix("the ")] for words in question.split(", ")[1][:-1].split(" or ")]
            assert answer == max(pair, key=lambda thing: thing.radius).look.words
    assert len(seen) == 6


def test_questions_about_one_thing_have_one_answer(whole_sets: Sets) -> None:
    asked: dict[str, set[str]] = {}
    for number, row in enumerate(rows_of(whole_sets["shapes_cap_qa"])):
        scene = images.look_scene(params_of("shapes_cap_qa"), number // images.LOOKS_PER_IMAGE)
        (thing,) = scene.things
        row_word, column_word = ("top", "", "bottom")[3 * thing.y // SIDE], ("left", "", "right")[3 * thing.x // SIDE]
        place = " ".join(row["answer"].split()[2:] or ["middle"])
        truth = {
            "colour": thing.look.colour,
            "shape": thing.look.shape,
            "large": thing.look.size,
            "picture": f"{row_word} {column_word}".strip() or "middle",
        }
        (kind,) = [word for word in ("colour", "large", "picture", "shape") if word in row["question"]][:1]
        assert truth[kind] == (place if kind == "picture" else row["answer"])
        assert row["messages"] == [
            {"role": "user", "content": row["question"].removeprefix("[USER] ").removesuffix(" [ASSISTANT]")},
            {"role": "assistant", "content": row["answer"]},
        ]
        asked.setdefault(kind, set()).add(row["answer"])
    assert asked.keys() == {"colour", "shape", "large", "picture"}
    assert all(len(answers) > 1 for answers in asked.values())


def test_captions_name_everything_once(whole_sets: Sets) -> None:
    for number, row in enumerate(rows_of(whole_sets["shapes_cap"])):
        scene = images.caption_scene(params_of("shapes_cap"), number)
        sentences = row["caption"].split(". ")
        assert len(sentences) == 1 + len(scene.things)
        assert f"on a {scene.background} background" in sentences[0]
        told = Counter(" ".join(sentence.split()[1:4]) for sentence in sentences[1:])
        assert told == Counter(f"{thing.look.size} {thing.look.words}" for thing in scene.things)
        assert len(row["transcripts"]) == 2
        assert all(thing.look.words in text for thing in scene.things for text in row["transcripts"])


def test_points_in_several_pictures(whole_sets: Sets) -> None:
    for number, row in enumerate(rows_of(whole_sets["shapes_multi_points"])):
        scenes, label = several.points_scenes(params_of("shapes_multi_points"), number)
        assert row["labels"] == [label.plural] * len(scenes)
        assert row["counts"] == [scene.count(label) for scene in scenes] == [len(points) for points in row["points"]]
        assert row["image_sha256s"] == [sha256(url.encode()).hexdigest() for url in row["image_urls"]]
        for scene, points in zip(scenes, row["points"], strict=True):
            owners = [int(scene.draw().owner[int(p["y"] * SIDE / 100), int(p["x"] * SIDE / 100)]) for p in points]
            assert all(label.matches(scene.things[owner].look) for owner in owners)


def test_answers_about_several_pictures_are_true(whole_sets: Sets) -> None:
    for number, row in enumerate(rows_of(whole_sets["shapes_multi_qa"])):
        scenes = several.question_scenes(params_of("shapes_multi_qa"), number)
        names = [[thing.look.words for thing in scene.things] for scene in scenes]
        assert len(row["image_urls"]) == len(scenes)
        for question, answer in zip(row["qa_pairs"]["question"], row["qa_pairs"]["answer"], strict=True):
            if question.startswith("Which picture has the most"):
                expected = f"picture {max(range(len(names)), key=lambda i: len(names[i])) + 1}"
            elif question.startswith("How many"):
                expected = str(len(names[int(question[:-1].split()[-1]) - 1]))
            elif question.startswith("Which picture has"):
                words = re.sub("^Which picture has an? ", "", question)[:-1]
                expected = f"picture {[words in own for own in names].index(True) + 1}"
            else:
                words = re.sub("^Is there an? ", "", question).removesuffix(" in any of the pictures?")
                expected = "yes" if any(words in own for own in names) else "no"
            assert answer == expected


def test_charts_show_what_their_answers_say(whole_sets: Sets) -> None:
    for number, row in enumerate(rows_of(whole_sets["charts_qa"])):
        chart = charts.make_chart(resolve("charts_qa", {"n": SMALL}), number // 3)
        shown = Image.open(BytesIO(row["image"]["bytes"]))
        assert shown.size == (168, 126)
        assert np.array_equal(np.asarray(shown), np.asarray(charts.draw_chart(chart, 168)))
        values, words = dict(chart.values), dict(chart.words)
        answer = row["label"][0]
        assert row["label"] == [answer]
        expected = {
            "What is the title of the chart?": chart.title,
            "Which has the highest value?": max(values, key=values.get, default=None),  # type: ignore[arg-type]
            "Which has the lowest value?": min(values, key=values.get, default=None),  # type: ignore[arg-type]
            "What is the highest value?": str(max(values.values(), default=0)),
            "What colour are the bars?": chart.colour,
            "What is the total?": str(sum(values.values())),
            "How many items are on the receipt?": str(len(values)),
            "Who wrote the note?": words.get("From"),
            "Who is the note for?": words.get("To"),
            "Where do they meet?": words.get("Place"),
            "At what time do they meet?": words.get("Time"),
        }
        asked = row["query"]
        assert answer == (expected[asked] if asked in expected else str(values[asked[:-1].split()[-1]]))


def test_bars_are_as_high_as_their_values(whole_sets: Sets) -> None:
    chart = charts.Chart("bars", "Test", (("a", 9), ("b", 3)), (), "red")
    pixels = np.asarray(charts.draw_chart(chart, 168)).astype(int)
    red = np.abs(pixels - COLOURS["red"]).max(axis=2) == 0
    heights = [int(red[:, column].sum()) for column in (47, 121)]
    assert heights[0] / heights[1] == pytest.approx(3, rel=0.06)
