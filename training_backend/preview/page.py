"""The page of a preview: one HTML file that needs nothing beside it, no script, no network.

Belongs here: how encoded examples are laid out for people. Does not belong here: choosing and encoding them (`build.py`), pictures
(`crops.py`). Equal examples give equal bytes.
"""

from __future__ import annotations

import html
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from training_backend.data.example import Example
from training_backend.encode.preprocessor import Plan, Preprocessor
from training_backend.pack.batch import PREFIX, Encoded
from training_backend.preview.crops import COLOURS, draw_media, marks_of

RUN = 2
"""This many equal special tokens in a row, or more, are written once with their number."""


@dataclass(frozen=True, slots=True)
class Shown:
    """One example as training sees it.

    `encoded` is None where nothing of it fits; `fault` says what was wrong with its media, and its pictures are black then;
    `refused` why the recipe refuses it."""

    dataset: str
    row: int
    position: int | None
    variant: int
    example: Example
    plan: Plan | None
    encoded: Encoded | None
    fault: str = ""
    refused: str = ""

    @property
    def mass(self) -> float:
        """Loss weight of all its predictions; none without its media."""
        return 0.0 if self.plan is None or self.fault else self.plan.loss_mass


@dataclass(slots=True)
class Group:
    """Examples under one heading: a pack, or all of them. `number` is a global pack number."""

    shown: list[Shown] = field(default_factory=list)
    number: int | None = None


def write_page(title: str, subtitle: str, groups: Sequence[Group], preprocessor: Preprocessor) -> str:
    """The whole file."""
    every = [item for group in groups for item in group.shown]
    heaviest = max((float(item.encoded.weights.max()) for item in every if item.encoded is not None), default=0.0)
    body = "".join(_group(group, preprocessor, heaviest) for group in groups)
    return (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{_text(title)}: preview</title>'
        f'<meta name="viewport" content="width=device-width"><style>{_STYLE}</style></head><body>'
        f'<input type="checkbox" id="marks" checked><header><h1>{_text(title)}</h1><p>{_text(subtitle)}</p>'
        f"{_settings(preprocessor)}{_legend(heaviest)}</header>{_masses(every)}{body}</body></html>\n"
    )


def _text(value: object) -> str:
    return html.escape(str(value))


def _chips(pairs: Iterable[tuple[str, object]]) -> str:
    return '<ul class="chips">' + "".join(f"<li>{_text(name)} <b>{_text(value)}</b></li>" for name, value in pairs) + "</ul>"


def _settings(preprocessor: Preprocessor) -> str:
    config = preprocessor.config
    return _chips(
        [
            ("tokens", f"{preprocessor.max_tokens:,}"),
            ("crops or frames", f"{preprocessor.max_visual:,}"),
            ("points", config.point_syntax),
            ("times", config.time),
            ("prompts", config.prompt_style),
            ("crop", f"{config.image_size} px, at most {config.max_crops} an image"),
            ("video", f"at most {config.max_frames} frames at {config.frame_rate:g} a second"),
            ("pooling", f"{config.image_window}×{config.image_window}, video {config.video_window}×{config.video_window}"),
        ]
    )


def _legend(heaviest: float) -> str:
    steps = [share * heaviest for share in (0.0, 0.1, 0.3, 1.0)] if heaviest else [0.0]
    samples = "".join(f'<span class="t"{_colour(weight, heaviest)}>{weight:.3g}</span>' for weight in steps)
    return (
        f'<p class="legend">Loss weight of predicting a token: {samples} · <span class="t s">special</span> · '
        f'<span class="t u">only predicted</span> · <label for="marks" class="toggle">points and tracks</label></p>'
    )


def _masses(every: Sequence[Shown]) -> str:
    """Where the loss of these examples goes."""
    total = sum(item.mass for item in every)
    rows: defaultdict[tuple[str, str], list[float]] = defaultdict(list)
    for item in every:
        rows[item.dataset, item.example.task].append(item.mass)
    cells = "".join(
        f'<tr><td>{_text(dataset)}</td><td>{_text(task)}</td><td class="n">{len(masses)}</td><td class="n">{sum(masses):.4g}</td>'
        f'<td class="n">{sum(masses) / total if total else 0:.1%}</td>'
        f'<td><i class="bar" style="width:{160 * sum(masses) / total if total else 0:.1f}px"></i></td></tr>'
        for (dataset, task), masses in sorted(rows.items(), key=lambda item: -sum(item[1]))
    )
    head = "<tr><th>dataset</th><th>task</th><th>examples</th><th>loss mass</th><th>share</th><th></th></tr>"
    return f"<table>{head}{cells}</table>"


def _group(group: Group, preprocessor: Preprocessor, heaviest: float) -> str:
    heading = ""
    if group.number is not None:
        bars = "".join(
            _fill(name, [of(item) for item in group.shown], budget)
            for name, budget, of in (
                ("tokens", preprocessor.max_tokens, lambda item: item.plan.tokens if item.plan else 0),
                ("crops", preprocessor.max_visual, lambda item: item.plan.visual if item.plan else 0),
            )
        )
        heading = f"<h2>Pack {group.number}: {len(group.shown)} examples</h2>{bars}"
    return heading + "".join(_example(place, item, preprocessor, heaviest) for place, item in enumerate(group.shown))


def _fill(name: str, sizes: Sequence[int], budget: int) -> str:
    """A stacked bar: what each example takes of a budget."""
    parts = "".join(
        f'<i style="width:{100 * size / budget:.3f}%;background:{COLOURS[place % len(COLOURS)]}" title="{size:,}"></i>'
        for place, size in enumerate(sizes)
    )
    words = f"{sum(sizes):,} of {budget:,} {name}, {sum(sizes) / budget:.1%}"
    return f'<div class="fill"><div>{parts}</div><span>{words}</span></div>'


def _example(place: int, item: Shown, preprocessor: Preprocessor, heaviest: float) -> str:
    example, plan = item.example, item.plan
    facts: list[tuple[str, object]] = [("task", example.task), ("row", item.row)]
    if item.position is not None:
        facts.append(("position", f"{item.position:,}"))
    facts.append(("variant", item.variant))
    if plan is not None:
        facts += [("tokens", f"{plan.tokens:,}"), ("crops", plan.visual), ("loss mass", f"{item.mass:.4g}")]
        counted = {
            "branches left out": plan.truncated_branches, "frames or crops left out": plan.dropped_frames,
            "pictures pooled coarser": plan.coarser_pictures, "samples not shown": plan.unshown_samples,
        }  # fmt: skip
        facts += [(name, number) for name, number in counted.items() if number]
    colour = COLOURS[place % len(COLOURS)]
    head = f"<h3>{_dot(place)}{_text(item.dataset)} <small>{_text(example.id)}</small></h3>"
    return f'<section style="border-left-color:{colour}">{head}{_chips(facts)}{_inside(item, preprocessor, heaviest)}</section>'


def _inside(item: Shown, preprocessor: Preprocessor, heaviest: float) -> str:
    example, plan, encoded = item.example, item.plan, item.encoded
    if item.refused:
        return f'<p class="bad">The recipe refuses this row: {_text(item.refused)}</p>'
    assert plan is not None
    if encoded is None:
        return f'<p class="bad">Left out, it takes a position and teaches nothing ({plan.left_out}): {_text(plan.detail)}</p>'
    fault = ""
    if item.fault:
        fault = f'<p class="bad">Its media cannot be read, so it keeps its place and has no loss: {_text(item.fault)}</p>'
    marks = marks_of(example, plan.order)
    pictures = draw_media(example, plan, encoded.crops, marks, preprocessor.geometry) if plan.visual else ""
    prefix = _tokens(encoded.tokens[encoded.branch == PREFIX], None, preprocessor, heaviest)
    size = int((encoded.branch == PREFIX).sum())
    columns = "".join(_branch(number, item, encoded, plan, preprocessor, heaviest) for number in range(len(plan.branches)))
    return (
        f"{fault}{pictures}<details><summary>prefix, {size:,} tokens that every branch sees</summary>"
        f'<div class="tokens">{prefix}</div></details><div class="branches">{columns}</div>'
    )


def _dot(number: int) -> str:
    return f'<i class="dot" style="background:{COLOURS[number % len(COLOURS)]}"></i>'


def _branch(number: int, item: Shown, encoded: Encoded, plan: Plan, preprocessor: Preprocessor, heaviest: float) -> str:
    """A column: the tokens of a branch, each coloured by the weight of its own prediction, and the last prediction behind them."""
    mine = np.flatnonzero(encoded.branch == number)
    weights = encoded.weights[mine]
    branch = item.example.branches[plan.order[number]]
    learned = int(np.count_nonzero(weights))
    share = float(weights.sum()) / item.mass if item.mass else 0.0
    facts = f"{len(mine):,} tokens, {learned:,} learned at {float(weights.max()):.3g}, {share:.0%} of the example's loss"
    first = f"positions {int(encoded.position[mine[0]]):,}–{int(encoded.position[mine[-1]]):,}"
    dot = _dot(number) if marks_of(item.example, [plan.order[number]]) else ""
    tokens = np.append(encoded.tokens[mine], encoded.targets[mine[-1]])
    own = np.concatenate([[0.0], weights])
    return (
        f'<article><h4>{dot}{_text(branch.style)} <small>{_text(branch.id)}</small></h4><p class="note">{facts}; {first}</p>'
        f'<div class="tokens">{_tokens(tokens, own, preprocessor, heaviest)}</div></article>'
    )


def _tokens(tokens: Any, weights: Any, preprocessor: Preprocessor, heaviest: float) -> str:
    """Spans; with `weights` the last token is one that is only predicted."""
    out, place = [], 0
    last = len(tokens) - 1 if weights is not None else -1
    while place < len(tokens):
        number = int(tokens[place])
        said, special = preprocessor.tokenizer.spell(number)
        end = place + 1
        while special and end < len(tokens) and tokens[end] == number and end != last:
            end += 1
        weight = 0.0 if weights is None else float(weights[place])
        again = end - place
        if again < RUN:
            end, again = place + 1, 1
        kind = "t" + (" s" if special else "") + (" u" if place == last else "")
        tip = f"id {number}" + (f", weight {weight:.4g}" if weight else "")
        times = f"<sub>×{again}</sub>" if again > 1 else ""
        words = _text(said).replace("\n", "⏎\n")
        out.append(f'<span class="{kind}"{_colour(weight, heaviest)} title="{tip}">{words}{times}</span>')
        place = end
    return "".join(out)


def _colour(weight: float, heaviest: float) -> str:
    """By the square root, so that the small weights of some recipes are seen beside their large ones."""
    return f' style="background:rgba(255,140,0,{0.12 + 0.75 * (weight / heaviest) ** 0.5:.2f})"' if weight else ""


_STYLE = """
:root{color-scheme:light;font:14px/1.45 system-ui,sans-serif;color:#222}
body{margin:0 auto;padding:0 24px 60px;max-width:1500px;background:#fafafa}
header{position:sticky;top:0;z-index:2;background:#fafafa;padding:10px 0;border-bottom:1px solid #ddd}
h1{font-size:20px;margin:0;display:inline-block;margin-right:12px}header>p{margin:0;display:inline;color:#555}
h2{font-size:17px;margin:36px 0 6px}h3{font-size:15px;margin:0}h4{font-size:13px;margin:0}
small{font-weight:400;color:#777;overflow-wrap:anywhere}
.chips{list-style:none;display:flex;flex-wrap:wrap;gap:4px 6px;padding:0;margin:6px 0}
.chips li{background:#ececec;border-radius:9px;padding:0 8px;font-size:12px;color:#555}.chips b{color:#222;font-weight:600}
.legend .t{padding:1px 7px;margin:0 1px}.legend{font-size:12px;margin:4px 0 0!important;display:block!important}
section{background:#fff;border:1px solid #ddd;border-left-width:4px;border-radius:6px;padding:10px 14px;margin:10px 0}
.dot{display:inline-block;width:10px;height:10px;border-radius:5px;margin-right:7px}
.strip{display:flex;flex-wrap:wrap;gap:10px;margin:8px 0;align-items:flex-start}
figure{margin:0}figcaption{font-size:11px;color:#666}
.crop{position:relative;background:#000}.crop img{display:block;image-rendering:pixelated}
.crop svg{position:absolute;inset:0;width:100%;height:100%}
.crop text{font-family:system-ui,sans-serif;font-weight:700;paint-order:stroke;stroke:#fff;stroke-width:.25em}
.tiles{display:grid;gap:3px}
.branches{display:flex;gap:12px;overflow-x:auto;align-items:stretch;padding-bottom:4px}
article{flex:1 1 0;min-width:300px;max-width:760px;border-top:2px solid #eee;padding-top:6px}
.tokens{font:13px/1.75 ui-monospace,monospace;white-space:pre-wrap;overflow-wrap:anywhere}
.t{border-radius:3px;box-shadow:inset 0 -1px 0 #0002,inset -1px 0 0 #0001}
.s{color:#3551a8;font-weight:600}.u{outline:1px dashed #999;outline-offset:-1px}
.note{font-size:12px;color:#666;margin:2px 0 6px}.bad{background:#fde8e8;color:#8a1c1c;padding:6px 10px;border-radius:4px}
details{margin:4px 0 8px}summary{font-size:12px;color:#555;cursor:pointer}
table{border-collapse:collapse;font-size:12px;margin:12px 0}td,th{text-align:left;padding:1px 14px 1px 0}.n{text-align:right}
.bar{display:block;height:9px;background:#ff8c00;border-radius:2px}
.fill{display:flex;align-items:center;gap:10px;font-size:12px;margin:3px 0}
.fill div{display:flex;width:520px;height:12px;background:#e4e4e4}.fill i{height:100%;box-shadow:inset -1px 0 0 #fff}
#marks{position:absolute;opacity:0}.toggle{cursor:pointer;border:1px solid #bbb;border-radius:9px;padding:1px 9px}
#marks:checked~header .toggle{background:#dce9dc}#marks:focus-visible~header .toggle{outline:2px solid #4363d8}
#marks:not(:checked)~section svg{display:none}
"""
