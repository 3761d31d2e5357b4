"""What a person looks at on asset pages: tables, and pictures drawn small enough to be embedded.

Belongs here: turning counts into tables and examples into drawings. PIL and matplotlib are imported inside; nothing here decides
anything.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import dagster as dg

if TYPE_CHECKING:
    from PIL.Image import Image as Picture
    from PIL.ImageFont import FreeTypeFont

    from molmo2_assets.ingest.shape import Shape
    from training_backend.data.example import Example

SAMPLES_PICTURE = "samples.jpg"
LENGTHS_PICTURE = "lengths.png"
_TILE = 168
_COLOURS = ((230, 25, 75), (60, 180, 75), (0, 100, 230), (245, 130, 48), (145, 30, 180), (0, 160, 160))
_FRAMES = 4


def table(rows: Sequence[Mapping[str, Any]], columns: Sequence[str]) -> dg.TableMetadataValue:
    """A table with these columns; numbers rounded for the eye, missing values as a dash."""

    def cell(value: Any) -> str | int | float | bool:
        if value is None:
            return "–"
        if isinstance(value, float):
            return round(value, 4)
        return value if isinstance(value, str | int | bool) else json.dumps(value)

    records = [dg.TableRecord({name: cell(row.get(name)) for name in columns}) for row in rows]
    types = {name: _type([record.data[name] for record in records]) for name in columns}
    schema = dg.TableSchema(columns=[dg.TableColumn(name, types[name]) for name in columns])
    return dg.MetadataValue.table(records, schema)


def _type(values: Sequence[Any]) -> str:
    if values and all(isinstance(value, bool) for value in values):
        return "bool"
    if values and all(isinstance(value, int) for value in values):
        return "int"
    return "float" if values and all(isinstance(value, int | float) for value in values) else "string"


def count_table(name: str, counts: Mapping[str, Any]) -> dg.TableMetadataValue:
    """Two columns: what, and how much; largest first where all are numbers."""
    items = list(counts.items())
    return table([{name: key, "value": value} for key, value in items], (name, "value"))


def row_table(counts: Mapping[str, Any]) -> dg.TableMetadataValue:
    """Rows in, rows kept, and rows set aside by reason with what the reason means."""
    from molmo2_assets.ingest.reasons import REASONS

    rows = [
        {"rows": "read", "number": counts["rows_in"], "meaning": "rows of the published files"},
        {"rows": "ok", "number": counts["rows_ok"], "meaning": "rows that became part of an example"},
    ]
    rows += [
        {"rows": reason, "number": number, "meaning": REASONS[reason]} for reason, number in counts.get("quarantined", {}).items()
    ]
    return table(rows, ("rows", "number", "meaning"))


def quantile_table(quantiles: Mapping[str, Mapping[str, float]]) -> dg.TableMetadataValue:
    """Quantiles of several quantities, a row each."""
    rows = [{"per example": name, **values} for name, values in quantiles.items()]
    names = sorted({name for values in quantiles.values() for name in values}, key=lambda name: int(name.lstrip("p")))
    return table(rows, ("per example", *names))


def spoken_samples(folder: Path) -> dg.MarkdownMetadataValue:
    """The first samples of a set without media, as what is said."""
    from molmo2_assets.ingest.validate import SAMPLES_FILE
    from training_backend.data.store import RowStore

    store = RowStore(folder)
    rows = [store.find(identifier) for identifier in json.loads((folder / SAMPLES_FILE).read_text())]
    lines = [_lines(store.example(row)) for row in rows if row is not None][:4]
    # Indented code: what rows say is shown as it stands, never as markup of the page.
    return dg.MetadataValue.md("\n\n".join("\n".join(f"    {line}" for line in found) for found in lines))


def embed(path: Path) -> dg.MarkdownMetadataValue:
    """A picture inside the page; a sentence where there is none."""
    if not path.is_file():
        return dg.MetadataValue.md("nothing to draw")
    data = base64.b64encode(path.read_bytes()).decode()
    kind = "jpeg" if path.suffix == ".jpg" else "png"
    return dg.MetadataValue.md(f"![{path.stem}](data:image/{kind};base64,{data})")


def page_of(name: str, path: Path | None = None) -> dict[str, dg.MetadataValue]:
    """The page of encoded examples, where one lies beside the asset, and the command that makes one of any part. A browser follows
    no link from this page to a file, so the path is given to be copied."""
    page: dict[str, dg.MetadataValue] = {"preview": dg.MetadataValue.md(f"`molmo2 preview {name} --open`")}
    if path is not None and path.is_file():
        page["preview_page"] = dg.MetadataValue.path(str(path))
    return page


def draw_bars(bars: Sequence[tuple[str, float, float | None]], path: Path, title: str) -> None:
    """Horizontal bars of (name, share, share before or None), largest on top, as a PNG."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    ordered = sorted(bars, key=lambda bar: bar[1])[-40:]
    figure = Figure(figsize=(6.4, 0.9 + 0.26 * len(ordered)), dpi=80, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    axes.barh([name for name, _, _ in ordered], [100 * share for _, share, _ in ordered], color="#4477aa")
    for place, (_, share, before) in enumerate(ordered):
        note = f"{100 * share:.1f} %" + (f" (was {100 * before:.1f})" if before is not None and abs(before - share) > 5e-4 else "")
        axes.annotate(note, (100 * share, place), textcoords="offset points", xytext=(3, -3), fontsize=7)
    axes.set(title=title, xlabel="%")
    axes.margins(x=0.18)
    figure.savefig(path, metadata={"Software": None})


def draw_lengths(shape: Shape, path: Path) -> None:
    """A histogram of each quantity of a set, side by side, as a PNG; nothing where there is none."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    if not shape.lengths:
        return
    figure = Figure(figsize=(2.6 * len(shape.lengths), 1.9), dpi=80, layout="constrained")
    FigureCanvasAgg(figure)
    panels = figure.subplots(1, len(shape.lengths), squeeze=False)[0]
    for axes, (name, counts) in zip(panels, shape.lengths.items(), strict=True):
        filled = [place for place, count in enumerate(counts) if count]
        first, last = min(filled), max(filled)
        axes.bar(range(first, last + 1), counts[first : last + 1], width=0.95, color="#4477aa")
        axes.set_xticks([place - 0.5 for place in range(first, last + 2)])
        edges = [*shape.edges, ""]
        axes.set_xticklabels([str(edges[place]) for place in range(first, last + 2)], fontsize=6, rotation=45)
        axes.tick_params(axis="y", labelsize=6)
        axes.set_title(f"{name} an example", fontsize=8)
    figure.savefig(path, metadata={"Software": None})


def draw_samples(folder: Path, cache: Path, path: Path) -> None:
    """A sheet of a validated set's first samples, their points, tracks and words drawn; nothing where it has no media."""
    from molmo2_assets.ingest.validate import SAMPLES_FILE
    from training_backend.data.store import RowStore

    store = RowStore(folder)
    rows = [store.find(identifier) for identifier in json.loads((folder / SAMPLES_FILE).read_text())]
    strips = []
    for row in [row for row in rows if row is not None][:4]:
        example = store.example(row)
        if example.media:
            strips.append(_strip(example, cache))
    if strips:
        from PIL import Image

        sheet = Image.new("RGB", (max(s.width for s in strips), sum(s.height for s in strips)), (255, 255, 255))
        top = 0
        for strip in strips:
            sheet.paste(strip, (0, top))
            top += strip.height
        sheet.save(path, quality=88, subsampling=0)  # full colour: marks are a few pixels wide


def _strip(example: Example, cache: Path) -> Picture:
    """One example as a row of pictures or frames with what is said about them underneath."""
    from PIL import Image, ImageDraw

    tiles = _tiles(example, cache)
    lines = _lines(example)
    high = max(tile.height for tile in tiles)
    strip = Image.new("RGB", ((_TILE + 4) * max(len(tiles), 4), high + 13 * len(lines) + 10), (255, 255, 255))
    for place, tile in enumerate(tiles):
        strip.paste(tile, (place * (_TILE + 4), 0))
    pen = ImageDraw.Draw(strip)
    for place, line in enumerate(lines):
        pen.text((2, high + 2 + 13 * place), line, fill=(20, 20, 20), font=_font())
    return strip


@lru_cache(maxsize=1)
def _font() -> FreeTypeFont:
    """A font that has arrows, dots and accents; the built-in one of PIL has not."""
    import matplotlib
    from PIL import ImageFont

    return ImageFont.truetype(str(Path(matplotlib.get_data_path()) / "fonts" / "ttf" / "DejaVuSans.ttf"), 10)


def _fit(picture: Picture) -> Picture:
    """As large as a tile, in its own proportions."""
    scale = _TILE / max(picture.size)
    return picture.resize((max(1, round(picture.width * scale)), max(1, round(picture.height * scale))))


def _tiles(example: Example, cache: Path) -> list[Picture]:
    from PIL import Image

    from training_backend.data.media import MediaCache, read_image
    from training_backend.data.video import VideoReader

    bytes_of = MediaCache(cache)
    tiles = []
    if example.media[0].kind == "image":
        for number, media in enumerate(example.media[:_FRAMES]):
            picture = _fit(Image.fromarray(read_image(bytes_of.path(media.sha256))))
            tiles.append(_mark(picture, _marks(example, image=number)))
        return tiles
    media = example.media[0]
    seconds = media.seconds or 0.0
    start = media.clip[0] if media.clip else 0.0
    times = sorted({mark[0] for mark in _marks(example)}) or [seconds * share / _FRAMES for share in range(_FRAMES)]
    shown = [times[place * len(times) // _FRAMES] for place in range(_FRAMES)] if len(times) > _FRAMES else times
    frames, _ = VideoReader(bytes_of.path(media.sha256)).frames_at([time + start for time in shown])
    for time, frame in zip(shown, frames, strict=True):
        tile = _mark(_fit(Image.fromarray(frame)), [mark for mark in _marks(example) if mark[0] == time])
        tiles.append(_caption(tile, f"{time:.1f} s"))
    return tiles


def _caption(tile: Picture, text: str) -> Picture:
    from PIL import ImageDraw

    pen = ImageDraw.Draw(tile)
    pen.rectangle((0, 0, 34, 12), fill=(255, 255, 255))
    pen.text((2, 0), text, fill=(0, 0, 0), font=_font())
    return tile


def _marks(example: Example, image: int | None = None) -> list[tuple[float, float, float, int]]:
    """(time, x, y, colour) of everything in the branch that is drawn."""
    from training_backend.data.example import Points, TimedPoints, Tracks

    number = _drawn(example)
    for branch in example.branches[number : number + 1] if number is not None else ():
        for part in (part for turn in branch.turns for part in turn.parts):
            if isinstance(part, Points):
                return [(0.0, point.x, point.y, point.id) for point in part.points if point.image == (image or 0)]
            if isinstance(part, TimedPoints):
                return [(point.t, point.x, point.y, point.id) for point in part.points]
            if isinstance(part, Tracks):
                return [(s.t, s.x, s.y, track.id) for track in part.tracks for s in track.samples if not s.occluded]
    return []


def _drawn(example: Example) -> int | None:
    """The branch whose points or tracks are drawn: the first that has any."""
    from training_backend.data.example import Points, TimedPoints, Tracks

    for number, branch in enumerate(example.branches):
        if any(isinstance(part, Points | TimedPoints | Tracks) for turn in branch.turns for part in turn.parts):
            return number
    return None


def _mark(tile: Picture, marks: Sequence[tuple[float, float, float, int]]) -> Picture:
    from PIL import ImageDraw

    pen = ImageDraw.Draw(tile)
    for _, x, y, number in marks:
        left, top = x * tile.width, y * tile.height
        colour = _COLOURS[number % len(_COLOURS)]
        pen.ellipse((left - 5, top - 5, left + 5, top + 5), fill=colour, outline=(255, 255, 255), width=2)
        pen.text((left + 6, top - 6), str(number), fill=(0, 0, 0), font=_font())
    return tile


def _lines(example: Example) -> list[str]:
    """The first branches in words."""
    from training_backend.data.example import Choices, Count, Points, Text, TimedPoints, Tracks

    def words(part: Any) -> str:
        if isinstance(part, Text):
            return part.text
        if isinstance(part, Choices):
            return f"{part.options[part.answer]} (of {len(part.options)})"
        if isinstance(part, Count):
            return f"{part.count} × {part.label}"
        if isinstance(part, Points | TimedPoints):
            return f"{len(part.points)} points at {part.label}"
        assert isinstance(part, Tracks)
        return f"{len(part.tracks)} tracks of {part.query} at {part.fps:g} fps"

    lines = [example.id]
    drawn = _drawn(example)
    for number, branch in enumerate(example.branches[: max(3, (drawn or 0) + 1)]):
        said = " → ".join(" ".join(words(part) for part in turn.parts) for turn in branch.turns)
        text = f"{'●' if number == drawn else ' '} {branch.style}: {said}".replace("\n", " ")
        lines.append(text if len(text) <= 120 else text[:119] + "…")
    return lines
