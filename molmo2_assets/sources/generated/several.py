"""Sets about several pictures at once: questions that compare them, and points of one label in all of them.

Belongs here: rows in the layouts of Molmo2-MultiImageQA and Molmo2-MultiImagePoint. Does not belong here: drawing (`scenes.py`).
"""

from __future__ import annotations

import hashlib
import random
from functools import partial

from molmo2_assets.sources.generated import faults
from molmo2_assets.sources.generated.content import MediaFolder, Params, Row
from molmo2_assets.sources.generated.images import absent_look, percent, points_on
from molmo2_assets.sources.generated.scenes import Scene, distinct_looks, draw_label, draw_looks, scene_with
from molmo2_assets.sources.generated.seeds import balanced
from molmo2_assets.sources.generated.shapes import Label, article

QUESTION_KINDS = ("more", "where", "number", "all")


def question_scenes(params: Params, row: int) -> list[Scene]:
    """Two or three pictures of one to four different things each, not all equally full."""
    rng = params.rng("scenes", row)
    pictures = balanced((2, 2, 3), row, params.name, params.seed)
    counts = [rng.randint(1, 4) for _ in range(pictures)]
    while counts.count(max(counts)) > 1:
        counts = [rng.randint(1, 4) for _ in range(pictures)]
    return [scene_with(rng, params.size, partial(distinct_looks, rng, count))[0] for count in counts]


def ask(kind: str, scenes: list[Scene], rng: random.Random, yes: bool) -> tuple[str, str] | None:
    """A question about pictures 1, 2, … and its answer; None where they do not allow this kind."""
    counts = [len(scene.things) for scene in scenes]
    if kind == "more":
        return "Which picture has the most shapes?", f"picture {counts.index(max(counts)) + 1}"
    if kind == "number":
        picture = rng.randrange(len(scenes))
        return f"How many shapes are there in picture {picture + 1}?", str(counts[picture])
    things = [thing for scene in scenes for thing in scene.things]
    names = [[thing.look.words for thing in scene.things] for scene in scenes]
    if kind == "where":
        alone = [words for words in sorted({thing.look.words for thing in things}) if sum(words in own for own in names) == 1]
        if not alone:
            return None
        words = rng.choice(alone)
        return f"Which picture has {article(words)}?", f"picture {[words in own for own in names].index(True) + 1}"
    words = rng.choice(things).look.words if yes else absent_look(things, rng).words
    return f"Is there {article(words)} in any of the pictures?", "yes" if yes else "no"


def build_questions(params: Params, media: MediaFolder) -> list[Row]:
    """Rows like Molmo2-MultiImageQA: URLs, and questions and answers as a struct of lists."""
    rows = []
    for row in range(params.n):
        scenes = question_scenes(params, row)
        urls = [media.add_image(media.name(row, part), scene.draw().pixels)[0] for part, scene in enumerate(scenes)]
        rng = params.rng("questions", row)
        asked: list[tuple[str, str]] = []
        for turn in range(2):
            kind = balanced(QUESTION_KINDS, 2 * row + turn, params.name, params.seed)
            pair = ask(kind, scenes, rng, yes=rng.random() < 0.5) or ask("all", scenes, rng, yes=rng.random() < 0.5)
            if pair is not None and pair[0] not in [question for question, _ in asked]:
                asked.append(pair)
        qa_pairs = {"question": [question for question, _ in asked], "answer": [answer for _, answer in asked]}
        rows.append({"image_urls": urls, "qa_pairs": qa_pairs})
    return rows


QUESTION_FAULTS = (
    *faults.image_faults("image_urls"),
    faults.set_to("no_media", "image_urls", lambda row: []),
    faults.set_to("empty_text", "qa_pairs", lambda row: {**row["qa_pairs"], "answer": ["" for _ in row["qa_pairs"]["answer"]]}),
    faults.set_to("length_mismatch", "qa_pairs", lambda row: {**row["qa_pairs"], "answer": row["qa_pairs"]["answer"][1:]}),
    faults.DUPLICATE,
)


def points_scenes(params: Params, row: int) -> tuple[list[Scene], Label]:
    """Two or three pictures, each with one to three things of one label and up to two others."""
    rng = params.rng("scenes", row)
    pictures = balanced((2, 2, 3), row, params.name, params.seed)
    label = draw_label(rng, rng.choice(("both", "both", "shape", "colour")))
    scenes = []
    for part in range(pictures):
        count = balanced((1, 2, 3), 3 * row + part, params.name, params.seed)
        distractors = rng.randrange(3)
        scenes.append(scene_with(rng, params.size, partial(draw_looks, rng, (count,), distractors, [label]))[0])
    return scenes, label


def build_points(params: Params, media: MediaFolder) -> list[Row]:
    """Rows like Molmo2-MultiImagePoint: everything a list by picture, points in percent.

    The hashes are those of the URLs, not of the pictures: so the card says.
    """
    rows = []
    for row in range(params.n):
        scenes, label = points_scenes(params, row)
        drawings = [scene.draw() for scene in scenes]
        urls = [media.add_image(media.name(row, part), drawing.pixels)[0] for part, drawing in enumerate(drawings)]
        points = [
            [percent(point, scene.side) for point, _ in points_on(scene, drawing, label)]
            for scene, drawing in zip(scenes, drawings, strict=True)
        ]
        rows.append(
            {
                "image_urls": urls,
                "image_sha256s": [hashlib.sha256(url.encode()).hexdigest() for url in urls],
                "points": points,
                "counts": [len(found) for found in points],
                "labels": [label.plural for _ in urls],
                "collection_method": ["pointing" for _ in urls],
            }
        )
    return rows


POINTS_FAULTS = (
    *faults.image_faults("image_urls"),
    *faults.point_faults(),
    faults.set_to("count_mismatch", "counts", lambda row: [row["counts"][0] + 2, *row["counts"][1:]]),
    faults.set_to("length_mismatch", "labels", lambda row: row["labels"][1:]),
    faults.set_to("empty_text", "labels", lambda row: ["" for _ in row["labels"]]),
    faults.DUPLICATE,
)
