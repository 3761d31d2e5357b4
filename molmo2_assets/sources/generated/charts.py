"""Charts and short documents with their questions: everything that can be read in them is known.

Belongs here: drawing bar charts, line charts, notes and receipts; rows in the layout of ChartQA (pictures inside the table).
Does not belong here: scenes.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from molmo2_assets.sources.generated import faults
from molmo2_assets.sources.generated.content import MediaFolder, Params, Row
from molmo2_assets.sources.generated.seeds import balanced
from molmo2_assets.sources.generated.shapes import COLOURS

if TYPE_CHECKING:
    from PIL import Image, ImageDraw

KINDS = ("bars", "line", "note", "bars", "line", "receipt")
QUESTIONS_PER_CHART = 3
CATEGORIES: dict[str, tuple[str, ...]] = {
    "Day": ("Mon", "Tue", "Wed", "Thu", "Fri"),
    "Fruit": ("fig", "pear", "kiwi", "plum", "lime"),
    "Town": ("Ulm", "Bonn", "Rome", "Oslo", "Nice"),
    "Team": ("A", "B", "C", "D", "E"),
}
TITLES = ("Sales", "Visits", "Rain", "Goals", "Points", "Books")
NAMES = ("Ada", "Ben", "Eva", "Ida", "Leo", "Max", "Mia", "Tom")
ITEMS = ("tea", "bread", "milk", "rice", "soap", "pen", "cake", "salt")
PLACES = ("park", "school", "station", "harbour", "market", "library")


@dataclass(frozen=True)
class Chart:
    """What a picture says: kind, title, and (name, whole number) pairs; notes carry words under names instead."""

    kind: str
    title: str
    values: tuple[tuple[str, int], ...]
    words: tuple[tuple[str, str], ...] = ()
    colour: str = "blue"


def make_chart(params: Params, number: int) -> Chart:
    """Chart number `number` of a set."""
    rng = params.rng("chart", number)
    kind = balanced(KINDS, number, params.name, params.seed)
    colour = rng.choice(tuple(COLOURS))
    if kind == "note":
        sender, reader = rng.sample(NAMES, 2)
        words = (("To", reader), ("From", sender), ("Place", rng.choice(PLACES)), ("Time", f"{rng.randint(1, 12)} o'clock"))
        return Chart(kind, "Note", (), words, colour)
    if kind == "receipt":
        items = rng.sample(ITEMS, rng.randint(2, 4))
        return Chart(kind, "Receipt", tuple((item, rng.randint(1, 9)) for item in items), (), colour)
    names = rng.sample(rng.choice(tuple(CATEGORIES.values())), rng.randint(3, 5))
    heights = rng.sample(range(1, 10), len(names))  # no two equal: the highest and the lowest are single
    return Chart(kind, rng.choice(TITLES), tuple(zip(names, heights, strict=True)), (), colour)


def draw_chart(chart: Chart, width: int) -> Image.Image:
    """The picture, width × 3/4 width."""
    from PIL import Image, ImageDraw

    height = width * 3 // 4
    picture = Image.new("RGB", (width, height), (255, 255, 255))
    pen = ImageDraw.Draw(picture)
    unit = width / 168
    _write(pen, (width / 2, 9 * unit), chart.title, 12 * unit, centred=True)
    if chart.kind in ("note", "receipt"):
        lines = [f"{name}: {word}" for name, word in chart.words] or [f"{name}  {value}" for name, value in chart.values]
        if chart.kind == "receipt":
            lines.append(f"total  {sum(value for _, value in chart.values)}")
        for number, line in enumerate(lines):
            _write(pen, (24 * unit, (28 + 18 * number) * unit), line, 12 * unit)
        return picture
    floor, ceiling = height - 18 * unit, 30 * unit
    step = (width - 20 * unit) / len(chart.values)
    tops = []
    for number, (name, value) in enumerate(chart.values):
        middle = 10 * unit + step * (number + 0.5)
        top = floor - (floor - ceiling) * value / 9
        tops.append((middle, top))
        _write(pen, (middle, floor + 9 * unit), name, 11 * unit, centred=True)
        if chart.kind == "bars":
            pen.rectangle((middle - step * 0.3, top, middle + step * 0.3, floor), fill=COLOURS[chart.colour])
        _write(pen, (middle, top - 7 * unit), str(value), 11 * unit, centred=True)
    if chart.kind == "line":
        pen.line(tops, fill=COLOURS[chart.colour], width=max(1, round(2 * unit)))
        for x, y in tops:
            pen.ellipse((x - 2 * unit, y - 2 * unit, x + 2 * unit, y + 2 * unit), fill=COLOURS[chart.colour])
    pen.line(((8 * unit, floor), (width - 8 * unit, floor)), fill=(60, 60, 60), width=1)
    return picture


def _write(pen: ImageDraw.ImageDraw, place: tuple[float, float], text: str, size: float, *, centred: bool = False) -> None:
    from PIL import ImageFont

    pen.text(place, text, fill=(20, 20, 20), font=ImageFont.load_default(size), anchor="mm" if centred else "lm")


def questions(chart: Chart, rng: random.Random) -> list[tuple[str, str]]:
    """Every kind of question that a chart answers, with its answer."""
    if chart.kind == "note":
        fields = dict(chart.words)
        return [
            ("Who wrote the note?", fields["From"]),
            ("Who is the note for?", fields["To"]),
            ("Where do they meet?", fields["Place"]),
            ("At what time do they meet?", fields["Time"]),
        ]
    name, value = rng.choice(chart.values)
    if chart.kind == "receipt":
        return [
            (f"What is the price of {name}?", str(value)),
            ("What is the total?", str(sum(price for _, price in chart.values))),
            ("How many items are on the receipt?", str(len(chart.values))),
        ]
    ordered = sorted(chart.values, key=lambda pair: pair[1])
    asked = [
        (f"What is the value of {name}?", str(value)),
        ("What is the title of the chart?", chart.title),
        ("Which has the highest value?", ordered[-1][0]),
        ("Which has the lowest value?", ordered[0][0]),
        ("What is the highest value?", str(ordered[-1][1])),
    ]
    if chart.kind == "bars":
        asked.append(("What colour are the bars?", chart.colour))
    return asked


def build_charts(params: Params, media: MediaFolder) -> list[Row]:
    """Rows like ChartQA, three a chart: picture inside, query, list of labels, 0 human or 1 machine."""
    rows: list[Row] = []
    for number in range(-(-params.n // QUESTIONS_PER_CHART)):
        chart = make_chart(params, number)
        image = {"bytes": _png(draw_chart(chart, params.size)), "path": f"{media.name(number)}.png"}
        rng = params.rng("questions", number)
        asked = questions(chart, rng)
        for query, label in rng.sample(asked, QUESTIONS_PER_CHART):
            rows.append({"image": image, "query": query, "label": [label], "human_or_machine": number % 2})
    return rows[: params.n]


def _png(picture: Image.Image) -> bytes:
    import numpy as np

    from molmo2_assets.sources.generated.content import png

    return png(np.asarray(picture))


def _with_bytes(data: bytes | None) -> Any:
    return lambda row: {"bytes": data, "path": row["image"]["path"]}


CHART_FAULTS: Sequence[faults.FaultKind] = (
    faults.set_to("missing_media", "image", _with_bytes(None)),
    faults.set_to("html_for_image", "image", _with_bytes(faults.HTML)),
    faults.set_to("truncated_image", "image", lambda row: {**row["image"], "bytes": row["image"]["bytes"][:200]}),
    faults.set_to("no_answer", "label", lambda row: []),
    faults.set_to("empty_text", "label", lambda row: [""]),
    faults.blank("query"),
    faults.DUPLICATE,
)
