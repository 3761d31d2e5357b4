"""Pages of encoded examples: marks lie on what they mark, every learned token is coloured, nothing from the data becomes HTML."""

from __future__ import annotations

import base64
import io
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from tests.support.examples import (
    EVERY_RULE,
    Pixels,
    asked,
    branch,
    many,
    mixture_of,
    picture,
    recipe,
    row,
    store_at,
    tokenizer_at,
    tracking,
)
from training_backend.api import Kind, RunSpec
from training_backend.config import EncodeConfig, PackConfig
from training_backend.data.example import Example, Media, Point, Points
from training_backend.data.fingerprint import plain
from training_backend.encode.draws import Draws
from training_backend.encode.preprocessor import Preprocessor
from training_backend.encode.tokens import Tokenizer
from training_backend.pack.sequences import build_sequences
from training_backend.preview.build import PAGE_FILE, _show, build_preview
from training_backend.preview.page import Group, write_page

PACK = PackConfig(max_tokens=600, max_visual=24, window=64)


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    home = tmp_path_factory.mktemp("home")
    tokenizer_at(home / "tokenizer")
    stores = {"a": store_at(home / "a", many(40)), "b": store_at(home / "b", many(20, seed=1))}
    mixture_of(stores).save(home / "mixture")
    (home / "sequences").mkdir()
    build_sequences(spec(home, "sequences", "plan"), home / "sequences", lambda line: None)
    return home


def spec(home: Path, subject: str, kind: Kind = "preview", **changes: object) -> RunSpec:
    identity = {"encode": recipe(), "loss": EVERY_RULE, "pack": PACK, "seed": 5}
    if kind == "preview":
        identity |= {"subject": subject, "name": "a", "count": 6, "start": 0}
    inputs = {"tokenizer": "tokenizer", "validated/a": "a", "validated/b": "b", "cache": "cache", "mixture": "mixture"}
    inputs |= {"sequences": "sequences"}
    return RunSpec(kind=kind, identity=plain(identity | changes), inputs={name: str(home / path) for name, path in inputs.items()})


def encoder(home: Path, encode: EncodeConfig | None = None, max_tokens: int = 2000) -> Preprocessor:
    return Preprocessor(encode or recipe(), EVERY_RULE, Tokenizer(home / "tokenizer"), max_tokens, 24)


def page(made: Preprocessor, examples: Sequence[Example], media: Any = None) -> str:
    shown = [_show("set", number, None, 0, example, made, media or Pixels()) for number, example in enumerate(examples)]
    return write_page("set", "some rows", [Group(shown)], made)


class Spots:
    """A dark picture with a bright square around (x, y)."""

    def __init__(self, x: float, y: float) -> None:
        self.x, self.y = x, y

    def image(self, media: Media) -> NDArray[np.uint8]:
        pixels = np.zeros((media.height, media.width, 3), dtype=np.uint8)
        top, left = round(self.y * media.height), round(self.x * media.width)
        pixels[max(0, top - 4) : top + 5, max(0, left - 4) : left + 5] = 255
        return pixels

    def frames(self, media: Media, times: Sequence[float], size: tuple[int, int] | None = None) -> NDArray[np.uint8]:
        raise AssertionError("no video here")


@pytest.mark.parametrize("overlap", [(0, 0), (1, 1), (2, 1)])
@pytest.mark.parametrize(("x", "y"), [(0.1, 0.9), (0.5, 0.5), (0.97, 0.04), (0.62, 0.31)])
def test_marks_lie_where_the_model_sees_the_object(home: Path, overlap: tuple[int, int], x: float, y: float) -> None:
    spot = Points(label="spot", points=(Point(x=x, y=y, id=7),))
    example = row("image_pointing", [picture("m0", 230, 130)], branch(("assistant", [spot]), style="pointing"))
    html = page(encoder(home, recipe(overlap=overlap, max_crops=8)), [example], Spots(x, y))
    crops = re.findall(r'<div class="crop"[^>]*><img src="data:image/png;base64,([^"]+)"[^>]*>(<svg.*?</svg>)?', html)
    assert len(crops) > 3
    marked = 0
    for data, overlay in crops:
        pixels = np.asarray(Image.open(io.BytesIO(base64.b64decode(data))))
        if not overlay:
            # Nothing bright without a mark, but for the last pixels of a spot whose middle lies in the next crop.
            assert (pixels[6:-6, 6:-6] < 128).all()
            continue
        left, top = map(float, re.findall(r'<circle cx="([0-9.]+)" cy="([0-9.]+)"', overlay)[0])
        assert pixels[min(int(top), 83), min(int(left), 83)].min() > 200
        assert ">7</text>" in overlay
        marked += 1
    assert marked >= 2


def test_tracks_are_drawn_on_the_frames_of_their_samples(home: Path) -> None:
    html = page(encoder(home), [tracking("t", 3.0, 2.0)])
    frames = re.findall(r"<figure>.*?</figure>", html)
    assert len(frames) == 7
    # The second object is hidden at its second sample; lines grow behind what moves.
    assert [frame.count("<text") for frame in frames] == [2, 1, 2, 2, 2, 2, 2]
    assert [frame.count("<polyline") for frame in frames] == [0, 1, 2, 2, 2, 2, 2]
    assert "fall between the shown frames" not in html


def test_every_learned_token_has_its_weight(home: Path) -> None:
    made = encoder(home)
    for example in many(24, seed=3):
        plan, encoded = made.plan(example, Draws(example.id, 0)), made.encode(example, 0, Pixels())
        html = page(made, [example])
        found = [float(weight) for weight in re.findall(r'title="id \d+, weight ([0-9.e-]+)"', html)]
        assert sorted(found) == pytest.approx(sorted(encoded.weights[encoded.weights > 0]), rel=1e-3)
        assert html.count("<article>") == len(plan.branches) == len(plan.order)
        assert html.count('class="t u"') + html.count('class="t s u"') == len(plan.branches) + 1  # and one in the legend
        for number in plan.order:
            assert f"<small>{example.branches[number].id}</small></h4>" in html


def test_words_of_the_data_never_become_html(home: Path) -> None:
    bad = '<script>alert(1)</script>"><img src=x onerror=y>'
    html = page(encoder(home), [row("text", [], asked(bad, bad, name=bad), name=bad)])
    assert "<script" not in html
    assert "<img" not in html
    assert html.count("&lt;img src=x onerror=y&gt;") == 2  # the row's id and its branch's


def test_what_teaches_nothing_says_why(home: Path) -> None:
    example = row("image_qa", [picture("gone")], asked("What?", "red"))
    html = page(encoder(home), [example], Pixels(broken=["gone"]))
    assert "Its media cannot be read, so it keeps its place and has no loss: missing: gone is not there" in html
    assert '<td class="n">0</td>' in html
    long = row("text", [], asked("What?", "red square " * 400))
    left_out = page(encoder(home, max_tokens=600), [long])
    assert "Left out, it takes a position and teaches nothing (no_branch_fits): its shortest branch has" in left_out
    refused = page(encoder(home, recipe(oversized="refuse"), max_tokens=600), [long])
    assert "The recipe refuses this row: row: its shortest branch has" in refused


@pytest.mark.parametrize("subject", ["dataset", "mixture", "sequences"])
def test_the_run_writes_equal_pages_of_what_training_reads(home: Path, tmp_path: Path, subject: str) -> None:
    pages = []
    for folder in (tmp_path / "1", tmp_path / "2"):
        folder.mkdir()
        result = build_preview(spec(home, subject), folder, lambda line: None)
        pages.append((folder / PAGE_FILE).read_bytes())
    assert pages[0] == pages[1]
    html = pages[0].decode()
    assert not re.search(r'(src|href)="(?!data:)', html)
    assert result["counts"]["examples"] == html.count("<section")
    assert result["counts"]["media_failures"] == html.count("cannot be read")
    if subject == "sequences":
        assert re.findall(r"<h2>Pack (\d+)", html) == [str(number) for number in range(6)]
        shares = [float(share) for share in re.findall(r"tokens, ([0-9.]+)%", html)]
        assert len(shares) == 6
        assert max(shares) <= 100
    else:
        assert result["counts"]["examples"] == 6
    later = tmp_path / "3"
    later.mkdir()
    build_preview(spec(home, subject, start=2), later, lambda line: None)
    assert (later / PAGE_FILE).read_bytes() != pages[0]


def test_there_is_nothing_behind_the_end(home: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="a has 40 rows; there is none from number 40 on"):
        build_preview(spec(home, "dataset", start=40), tmp_path, lambda line: None)
    with pytest.raises(ValueError, match="at least one example"):
        build_preview(spec(home, "dataset", count=0), tmp_path, lambda line: None)
