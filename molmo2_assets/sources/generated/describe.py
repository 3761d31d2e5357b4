"""Words for scenes and clips: where things are, what they do, captions.

Belongs here: sentences that follow from exact truth. Does not belong here: questions of a set (beside that set).
"""

from __future__ import annotations

import random
from collections.abc import Sequence

from molmo2_assets.sources.generated.clips import DIRECTIONS, Clip, Mover
from molmo2_assets.sources.generated.scenes import Scene, Thing, visible_share
from molmo2_assets.sources.generated.shapes import article, tile

NUMBERS: tuple[str, ...] = ("no", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
OPPOSITE: dict[str, str] = {"left": "right", "right": "left", "up": "bottom", "down": "top"}
"""The side that a thing moving in a direction comes from."""
EXIT: dict[str, str] = {"left": "left", "right": "right", "up": "top", "down": "bottom"}
assert set(OPPOSITE) == set(EXIT) == set(DIRECTIONS)


def place(x: float, y: float, side: int) -> str:
    """`at the top left`, `on the right`, `in the middle`: thirds of the picture."""
    row, column = min(int(3 * y / side), 2), min(int(3 * x / side), 2)
    vertical, horizontal = ("top", "", "bottom")[row], ("left", "", "right")[column]
    if vertical:
        return f"at the {vertical} {horizontal}".rstrip()
    return f"on the {horizontal}" if horizontal else "in the middle"


def reading_order(things: Sequence[Thing], side: int) -> list[int]:
    """Indices in the order in which one tells them: by thirds from the top, then from the left."""
    return sorted(
        range(len(things)), key=lambda i: (min(3 * things[i].y // side, 2), things[i].x, things[i].y, things[i].look.words)
    )


def how_many(count: int, noun: str = "shape") -> str:
    """`one shape`, `three shapes`."""
    return f"{NUMBERS[count]} {noun}{'' if count == 1 else 's'}"


def scene_caption(scene: Scene) -> str:
    """A dense caption: number, background, then every thing with size, colour, shape, place and what covers it."""
    drawing = scene.draw()
    sentences = [f"The picture shows {how_many(len(scene.things))} on a {scene.background} background."]
    for index in reading_order(scene.things, scene.side):
        thing = scene.things[index]
        sentence = f"{article(f'{thing.look.size} {thing.look.words}').capitalize()} is {place(thing.x, thing.y, scene.side)}"
        if visible_share(drawing, index, thing) < 0.97:
            front = [other for other in scene.things[index + 1 :] if _overlap(thing, other)]
            if front:
                sentence += f", partly behind the {front[0].look.words}"
        sentences.append(sentence + ".")
    return " ".join(sentences)


def _overlap(one: Thing, other: Thing) -> bool:
    """Whether two masks share a pixel."""
    seen, covers = tile(one.look.shape, one.radius)[1], tile(other.look.shape, other.radius)[1]
    dx, dy = other.x - other.radius - (one.x - one.radius), other.y - other.radius - (one.y - one.radius)
    height, width = seen.shape
    rows = slice(max(dy, 0), min(dy + len(covers), height))
    columns = slice(max(dx, 0), min(dx + len(covers), width))
    if rows.start >= rows.stop or columns.start >= columns.stop:
        return False
    under = seen[rows, columns]
    above = covers[rows.start - dy : rows.stop - dy, columns.start - dx : columns.stop - dx]
    return bool((under & above).any())


def scene_transcripts(scene: Scene, rng: random.Random) -> list[str]:
    """What two people might say while they look at a scene."""
    told = [
        f"{article(thing.look.words)} {place(thing.x, thing.y, scene.side)}"
        for thing in (scene.things[index] for index in reading_order(scene.things, scene.side))
    ]
    listed = told[0] if len(told) == 1 else ", ".join(told[:-1]) + " and " + told[-1]
    opening = rng.choice(("okay so I see", "here we have", "this picture has"))
    closing = rng.choice(("and behind it all the background is", "and the background is"))
    return [
        f"{opening} {listed}, {closing} {scene.background}",
        f"there are {how_many(len(told))} here, {listed}" if len(told) > 1 else f"there is just {listed}",
    ]


def motion(mover: Mover, clip: Clip) -> str:
    """What one thing does, as the end of a sentence that begins with its name."""
    path = mover.path
    if path.kind == "slide":
        return f"moves {_towards(path.direction)}"
    if path.kind == "bounce":
        return "drifts through the picture"
    if path.kind == "enter":
        return f"comes in from the {OPPOSITE[path.direction]} after about {_seconds(path.start)}"
    if path.kind == "leave":
        return f"leaves through the {EXIT[path.direction]} after about {_seconds(path.start)}"
    x, y = path.at(0.0, 0, clip.side)
    return f"stands still {place(x, y, clip.side)}"


def _seconds(time: float) -> str:
    """`2.5 seconds`, to the next half."""
    rounded = round(time * 2) / 2
    return f"{rounded:g} second{'' if rounded == 1 else 's'}"


def _towards(direction: str) -> str:
    return direction if direction in ("up", "down") else f"to the {direction}"


def clip_order(clip: Clip) -> list[int]:
    """Indices of the movers in the order in which they are told: by when they act, then by name."""
    return sorted(
        range(len(clip.movers)), key=lambda i: (clip.movers[i].path.start, clip.movers[i].look.words, clip.movers[i].path.x)
    )


def clip_short_caption(clip: Clip) -> str:
    """One sentence."""
    told = [f"{article(clip.movers[i].look.words)} {motion(clip.movers[i], clip)}" for i in clip_order(clip)]
    listed = told[0] if len(told) == 1 else ", ".join(told[:-1]) + " and " + told[-1]
    return listed[0].upper() + listed[1:] + "."


def clip_caption(clip: Clip) -> str:
    """Length, number and background, then a sentence for each thing."""
    sentences = [
        f"The video is {clip.seconds:g} seconds long and shows {how_many(len(clip.movers))} on a {clip.background} background."
    ]
    for index in clip_order(clip):
        look = clip.movers[index].look
        sentences.append(f"{article(f'{look.size} {look.words}').capitalize()} {motion(clip.movers[index], clip)}.")
    return " ".join(sentences)


def frame_caption(clip: Clip, frame: int) -> str:
    """What is seen well in one frame."""
    things = clip.things(frame)
    seen = [index for index in range(len(things)) if clip.seen(index, frame) >= 0.5]
    told = [
        f"{article(things[index].look.words)} {place(things[index].x, things[index].y, clip.side)}"
        for index in sorted(seen, key=lambda i: (things[i].y, things[i].x))
    ]
    if not told:
        return f"Only the {clip.background} background is seen."
    listed = told[0] if len(told) == 1 else ", ".join(told[:-1]) + " and " + told[-1]
    return listed[0].upper() + listed[1:] + "."
