"""Sets about one still picture: captions, points, counts, open questions, and their held-out twins.

Belongs here: rows in the layouts of PixMo. Does not belong here: drawing (`scenes.py`), sentences of captions (`describe.py`).
Each builder returns its rows in order and writes the pictures that they name; `*_scene` gives the truth of one picture again.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from functools import partial

from molmo2_assets.sources.generated import faults
from molmo2_assets.sources.generated.content import MediaFolder, Params, Row
from molmo2_assets.sources.generated.describe import place, scene_caption, scene_transcripts
from molmo2_assets.sources.generated.scenes import Drawing, Scene, Thing, anchor, distinct_looks, draw_looks, draw_pair, scene_with
from molmo2_assets.sources.generated.seeds import balanced
from molmo2_assets.sources.generated.shapes import COLOURS, SHAPES, Label, Look, article

GROUPS = ((1,), (1, 1), (1,), (2,), (1,), (1, 2), (1,), (3,), (1,), (2, 1))
"""Sizes of the groups of a pointing picture. Half of the pictures hold one thing: where seeing begins."""
COUNTS = (1, 2, 3, 4, 5)
QUESTIONS_PER_IMAGE = 3
QUESTION_KINDS = ("colour", "shape", "exists", "side", "larger", "number")
LOOKS_PER_IMAGE = 4

Place = tuple[float, float]


def points_on(scene: Scene, drawing: Drawing, label: Label) -> list[tuple[Place, int]]:
    """(point in pixels, index of the thing) of everything that a label means, from left to right."""
    found = []
    for index, thing in enumerate(scene.things):
        if label.matches(thing.look):
            point = anchor(drawing, index, thing)
            assert point is not None, "a scene shows enough of every thing"
            found.append((point, index))
    return sorted(found)


def percent(point: Place, side: int) -> dict[str, float]:
    """A point in hundredths of the picture, as PixMo-Points stores it."""
    return {"x": round(100 * point[0] / side, 3), "y": round(100 * point[1] / side, 3)}


# -- captions ---------------------------------------------------------------------------------------------------------------


def caption_scene(params: Params, image: int) -> Scene:
    """One to three things of any look; half of the pictures hold one thing, which is where seeing begins."""
    rng = params.rng("scene", image)
    count = balanced((1, 1, 2, 3), image, params.name, params.seed)
    return scene_with(rng, params.size, partial(draw_looks, rng, (count,), 0, [Label()]))[0]


def build_captions(params: Params, media: MediaFolder) -> list[Row]:
    """Rows like pixmo-cap: a dense caption and what two people said."""
    rows = []
    for image in range(params.n):
        scene = caption_scene(params, image)
        url, _ = media.add_image(media.name(image), scene.draw().pixels)
        transcripts = scene_transcripts(scene, params.rng("transcript", image))
        rows.append({"image_url": url, "caption": scene_caption(scene), "transcripts": transcripts})
    return rows


CAPTION_FAULTS = (*faults.image_faults("image_url"), faults.blank("caption"), faults.DUPLICATE)


# -- points -----------------------------------------------------------------------------------------------------------------


def points_scene(params: Params, image: int) -> tuple[Scene, list[Label]]:
    """One or two groups of things, and two labels."""
    rng = params.rng("scene", image)
    groups = balanced(GROUPS, image, params.name, params.seed)
    return scene_with(rng, params.size, partial(draw_pair, rng, groups, rng.randrange(2)))


def build_points(params: Params, media: MediaFolder) -> list[Row]:
    """Rows like pixmo-points, two labels a picture: points in percent from left to right."""
    rows: list[Row] = []
    for image in range((params.n + 1) // 2):
        scene, labels = points_scene(params, image)
        drawing = scene.draw()
        url, digest = media.add_image(media.name(image), drawing.pixels)
        for label in labels:
            points = [percent(point, scene.side) for point, _ in points_on(scene, drawing, label)]
            rows.append(
                {
                    "image_url": url,
                    "image_sha256": digest,
                    "points": points,
                    "count": len(points),
                    "label": label.plural,
                    "collection_method": "counting" if len(points) > 3 else "pointing",
                }
            )
    return rows[: params.n]


def build_points_eval(params: Params, media: MediaFolder) -> list[Row]:
    """Rows like pixmo-points-eval: the same with a mask [H, W] for each point."""
    rows: list[Row] = []
    for image in range((params.n + 1) // 2):
        scene, labels = points_scene(params, image)
        drawing = scene.draw()
        url, digest = media.add_image(media.name(image), drawing.pixels)
        for label in labels:
            found = points_on(scene, drawing, label)
            rows.append(
                {
                    "image_url": url,
                    "image_sha256": digest,
                    "label": label.plural,
                    "points": [percent(point, scene.side) for point, _ in found],
                    "masks": [drawing.mask(index).tolist() for _, index in found],
                }
            )
    return rows[: params.n]


POINTS_FAULTS = (
    *faults.image_faults("image_url"),
    faults.wrong_hash("image_sha256"),
    *faults.point_faults(),
    faults.count_off(),
    faults.blank("label"),
    faults.DUPLICATE,
)


# -- counts -----------------------------------------------------------------------------------------------------------------


def count_scene(params: Params, image: int) -> tuple[Scene, Label]:
    """A group of one to five things, and at most one other."""
    rng = params.rng("scene", image)
    count = balanced(COUNTS, image, params.name, params.seed)
    distractors = rng.randrange(2)
    scene, labels = scene_with(rng, params.size, partial(draw_looks, rng, (count,), distractors))
    return scene, labels[0]


def build_counts(params: Params, media: MediaFolder) -> list[Row]:
    """Rows like pixmo-count: one label a picture, points in pixels as a struct of lists; held-out splits come without points."""
    rows = []
    for image in range(params.n):
        scene, label = count_scene(params, image)
        drawing = scene.draw()
        url, digest = media.add_image(media.name(image), drawing.pixels)
        found = [point for point, _ in points_on(scene, drawing, label)]
        points = {"x": [x for x, _ in found], "y": [y for _, y in found]} if params.split == "train" else None
        rows.append({"image_url": url, "image_sha256": digest, "count": len(found), "points": points, "label": label.plural})
    return rows


COUNT_FAULTS = (
    *faults.image_faults("image_url"),
    faults.wrong_hash("image_sha256"),
    *faults.point_faults(),
    faults.count_off(),
    faults.blank("label"),
    faults.DUPLICATE,
)


# -- questions that follow from a caption -----------------------------------------------------------------------------------


def look_scene(params: Params, image: int) -> Scene:
    """One thing: what is asked of it has one answer, and only a look at the picture gives it."""
    return scene_with(params.rng("scene", image), params.size, partial(draw_looks, params.rng("look", image), (1,), 0))[0]


def look_questions(scene: Scene) -> list[tuple[str, str]]:
    """Colour, shape, size and place of the only thing."""
    thing = scene.things[0]
    return [
        ("What colour is the shape?", thing.look.colour),
        ("What shape is it?", thing.look.shape),
        ("Is it large or small?", thing.look.size),
        ("Where in the picture is it?", place(thing.x, thing.y, scene.side)),
    ]


def build_look_questions(params: Params, media: MediaFolder) -> list[Row]:
    """Rows like pixmo-cap-qa, four a picture of one thing: where a small model begins to see (docs/lab-notes.md).

    As published, the column `question` holds the turns so far between markers.
    """
    rows: list[Row] = []
    for image in range(-(-params.n // LOOKS_PER_IMAGE)):
        scene = look_scene(params, image)
        url, _ = media.add_image(media.name(image), scene.draw().pixels)
        for question, answer in look_questions(scene):
            messages = [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]
            turns = f"[USER] {question} [ASSISTANT]"
            rows.append({"image_url": url, "question": turns, "answer": answer, "messages": messages})
    return rows[: params.n]


LOOK_FAULTS = (*faults.image_faults("image_url"), faults.blank("answer"), faults.blank("question"), faults.DUPLICATE)


# -- open questions ---------------------------------------------------------------------------------------------------------


def question_scene(params: Params, image: int) -> Scene:
    """Two to four things of which no two share a colour or a shape."""
    rng = params.rng("scene", image)
    count = balanced((2, 3, 4), image, params.name, params.seed)
    return scene_with(rng, params.size, partial(distinct_looks, rng, count))[0]


def ask(kind: str, scene: Scene, rng: random.Random, yes: bool) -> tuple[str, str] | None:
    """A question and its answer; None where the scene does not allow this kind. `yes` steers the yes/no questions."""
    thing = rng.choice(scene.things)
    look = thing.look
    if kind == "colour":
        return f"What colour is the {look.shape}?", look.colour
    if kind == "shape":
        return f"What shape is the {look.colour} thing?", look.shape
    if kind == "exists":
        words = look.words if yes else absent_look(scene.things, rng).words
        return f"Is there {article(words)}?", "yes" if yes else "no"
    if kind == "number":
        return "How many shapes are there in the picture?", str(len(scene.things))
    if kind == "side":
        if abs(thing.x - scene.side / 2) < scene.side / 12:
            return None
        return f"Is the {look.words} on the left or on the right?", "left" if thing.x < scene.side / 2 else "right"
    small = [thing.look for thing in scene.things if thing.look.size == "small"]
    large = [thing.look for thing in scene.things if thing.look.size == "large"]
    if not small or not large:
        return None
    pair = [rng.choice(large), rng.choice(small)]
    names = [f"the {item.words}" for item in (pair if yes else pair[::-1])]
    return f"Which is larger, {names[0]} or {names[1]}?", pair[0].words


def absent_look(things: Sequence[Thing], rng: random.Random) -> Look:
    """A look that nothing has, though its colour or its shape may be there."""
    present = [thing.look for thing in things]
    while True:
        near = rng.choice(present)
        look = Look(rng.choice(tuple(COLOURS)), near.shape) if rng.random() < 0.5 else Look(near.colour, rng.choice(SHAPES))
        if all(look.words != other.words for other in present):
            return look


def build_questions(params: Params, media: MediaFolder) -> list[Row]:
    """Rows like pixmo-ask-model-anything, three of different kinds a picture."""
    rows: list[Row] = []
    for image in range(-(-params.n // QUESTIONS_PER_IMAGE)):
        scene = question_scene(params, image)
        url, digest = media.add_image(media.name(image), scene.draw().pixels)
        rng = params.rng("questions", image)
        asked: list[tuple[str, str]] = []
        kinds = [balanced(QUESTION_KINDS, QUESTIONS_PER_IMAGE * image + turn, params.name, params.seed) for turn in range(3)]
        for kind in [*kinds, "colour", "shape", "exists"]:
            pair = ask(kind, scene, rng, yes=rng.random() < 0.5)
            if pair is not None and pair[0] not in [question for question, _ in asked] and len(asked) < QUESTIONS_PER_IMAGE:
                asked.append(pair)
        for question, answer in asked:
            rows.append({"image_url": url, "image_sha256": digest, "question": question, "answer": answer})
    return rows[: params.n]


QUESTION_FAULTS = (
    *faults.image_faults("image_url"),
    faults.wrong_hash("image_sha256"),
    faults.blank("answer"),
    faults.blank("question"),
    faults.DUPLICATE,
)
