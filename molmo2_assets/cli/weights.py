"""Commands that are runs of the backend: import, export, ask, preview.

Belongs here: arguments into run specs, following the run, what is printed. Does not belong here: anything that computes; that is a
run of the backend in a process of its own, as in the graph.
"""

from __future__ import annotations

import os
import re
import shutil
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from molmo2_assets.cli.show import UserError, known, load, print_json

if TYPE_CHECKING:
    from molmo2_assets.home import Home
    from molmo2_assets.lineage.checkpoints import Checkpoint
    from molmo2_assets.profile import Profile
    from training_backend.api import Execution, RunSpec
    from training_backend.data.example import Example, Media


def import_weights(options: Any) -> None:
    """A Hugging Face Molmo2, in a folder or on the Hub at a commit, as a checkpoint of ours."""
    from molmo2_assets.profile import catalogue
    from training_backend.api import RunSpec
    from training_backend.data.fingerprint import plain
    from training_backend.data.published import published_version

    profile, home = load(options)
    models = catalogue().models
    preset = models[known(options.preset, models, "preset")] if options.preset else None
    out = _free(options.out)
    folder = _source(home, options.folder)
    identity = {
        "source": "molmo2", "sources": {"folder": published_version(folder)}, "model": plain(preset),
        "precision": options.precision,
    }  # fmt: skip
    made = _run(home, RunSpec(kind="import", identity=identity, inputs={"folder": str(folder)}, execution=_how(profile, "import")))
    _put(made, out, manifest=True)
    _say(options, out)


def _source(home: Home, name: str) -> Path:
    """A folder as it is, or `owner/name@commit` downloaded."""
    from molmo2_assets.sources.weights import fetch_weights

    repo, _, revision = name.partition("@")
    if Path(name).exists() or not re.fullmatch(r"\w[\w.-]*/[\w.-]+", repo):
        return Path(name).resolve()
    if not revision:
        raise UserError(f"{name} is no folder here; a model on the Hub is named with its commit: {repo}@COMMIT")
    return fetch_weights(repo, revision, home.cache, lambda line: print(line, file=sys.stderr, flush=True), None)


def export_weights(options: Any) -> None:
    """A checkpoint as a folder that transformers opens."""
    from molmo2_assets.lineage.checkpoints import find_checkpoint
    from training_backend.api import RunSpec
    from training_backend.data.fingerprint import plain

    profile, home = load(options)
    found, out = find_checkpoint(home, options.checkpoint), _free(options.out)
    identity = {
        "checkpoint": found.version, "tokenizer": found.tokenizer_version, "recipe": plain(found.recipe),
        "card": {"title": found.title, "materials": plain(found.materials)}, "precision": options.precision,
    }  # fmt: skip
    spec = RunSpec(kind="export", identity=identity, inputs=_inputs(found), execution=_how(profile, "export"))
    _put(_run(home, spec), out, manifest=False)
    _say(options, out)


def preview(options: Any) -> None:
    """A static page of encoded examples."""
    from molmo2_assets.lineage.preview import PAGE_FILE, preview_spec

    profile, home = load(options)
    if options.count is not None and options.count < 1:
        raise UserError(f"--count {options.count}: a page shows at least one")
    if options.start < 0:
        raise UserError(f"--start {options.start}: numbers begin at 0")
    out = Path(options.out).resolve() if options.out else None
    if out is not None and (out.is_dir() or not out.parent.is_dir()):
        raise UserError(f"--out {options.out} must name a file in a folder that exists")
    page = _run(home, preview_spec(profile, home, options.name, options.stage, options.count, options.start)) / PAGE_FILE
    if out is not None:
        shutil.copyfile(page, out)
        page = out
    if options.json:
        print_json({"page": str(page)})
    else:
        print(page)
    if options.open:
        import webbrowser

        webbrowser.open(page.as_uri())


def ask(options: Any) -> None:
    """One question about pictures or a film; the answer is printed, and drawn where it points."""
    from molmo2_assets.cli.drawing import LONGEST, draw_images, draw_video
    from molmo2_assets.lineage.checkpoints import find_checkpoint
    from training_backend.data.points import Kind, parse
    from training_backend.data.predictions import read_predictions

    profile, home = load(options)
    found = find_checkpoint(home, options.checkpoint)
    images, videos = [Path(path) for path in options.image], [Path(path) for path in options.video]
    question = _question(options.question, len(images), len(videos))
    if options.tokens < 1:
        raise UserError(f"--tokens {options.tokens}: an answer has at least one")
    folder = Path(options.out)
    if not folder.is_dir():
        raise UserError(f"{folder} is not a folder; --out names the one that pictures of the answer go to")
    with tempfile.TemporaryDirectory() as rows:
        example = _example(home, question, images, videos)
        spec = _asking(found, example, Path(rows), home, options.tokens, _how(profile, "predict"))
        (answer,) = read_predictions(_run(home, spec))[1]
    kind: Kind = "video" if videos else "multi_image" if len(images) > 1 else "image"
    points = parse(answer.answer, found.recipe.encode.point_syntax, kind=kind)
    drawn = draw_video(videos[0], points, folder) if videos else draw_images(images, points, folder)
    if videos and drawn and (seconds := example.media[0].duration or 0.0) > LONGEST:
        print(f"only the first {LONGEST:g} of the film's {seconds:.1f} seconds are drawn", file=sys.stderr)
    if options.json:
        print_json({"question": answer.prompt, "answer": answer.answer, "points": [_row(point) for point in points],
                    "drawn": [str(path) for path in drawn]})  # fmt: skip
        return
    print(answer.answer)
    for path in drawn:
        print(f"drawn: {path}")


def _say(options: Any, out: Path) -> None:
    if options.json:
        print_json({"folder": str(out)})
    else:
        print(out)


def _row(point: Any) -> dict[str, Any]:
    return {name: getattr(point, name) for name in ("id", "x", "y", "image", "t")}


def _question(text: str, images: int, videos: int) -> str:
    """The words without placeholders, which stand first if anywhere. Raises UserError where their number is another one."""
    if (images and videos) or videos > 1:
        raise UserError("a question is about images, or about one video")
    rest = text.lstrip()
    for mark, count, what in (("<|image|>", images, "image"), ("<|video|>", videos, "video")):
        said = text.count(mark)
        if said and said != count:
            raise UserError(f"the question holds {said} {mark}, and --{what} names {count}: write as many, or none")
        while rest.startswith(mark):
            rest = rest.removeprefix(mark).lstrip()
        if mark in rest:
            raise UserError(f"{mark} stands in the middle of the question; pictures come before the words")
    if not rest:
        raise UserError("the question is empty")
    return rest


def _example(home: Home, question: str, images: list[Path], videos: list[Path]) -> Example:
    from training_backend.data.example import SCHEMA, Branch, Example, Source, Text, Turn

    media = tuple(_media(home, number, path, bool(videos)) for number, path in enumerate([*images, *videos]))
    turns = (Turn(role="user", parts=(Text(text=question),)), Turn(role="assistant", parts=(Text(text=""),)))
    task: Any = "video_qa" if videos else "multi_image_qa" if len(images) > 1 else "image_qa" if images else "text"
    return Example(
        id="question", schema=SCHEMA, task=task, source=Source(file="command line", row=0), media=media,
        branches=(Branch(id="0", style="user_qa", turns=turns),),
    )  # fmt: skip


def _media(home: Home, number: int, path: Path, video: bool) -> Media:
    from training_backend.data.example import Media
    from training_backend.data.media import MediaCache, MediaFault, probe

    if not path.is_file():
        raise UserError(f"{path} is not a file")
    try:
        facts = probe(path, kind="video" if video else "image")
    except MediaFault as fault:
        raise UserError(f"{path} cannot be read as {'a video' if video else 'an image'}: {fault}") from None
    # Copied, not linked: the file is its owner's, who may write into it.
    sha256 = MediaCache(home.cache).add_bytes(path.read_bytes())
    return Media(
        id=str(number), kind="video" if video else "image", uri=path.name, sha256=sha256, width=facts.width, height=facts.height,
        duration=facts.duration, fps=facts.fps, n_frames=facts.n_frames,
    )  # fmt: skip


def _asking(found: Checkpoint, example: Example, rows: Path, home: Home, tokens: int, execution: Execution) -> RunSpec:
    """A predict run over a set of one row."""
    import msgspec

    from training_backend.api import RunSpec
    from training_backend.config import GenerateConfig
    from training_backend.data.fingerprint import plain
    from training_backend.data.store import RowStore, RowWriter

    with RowWriter(rows) as writer:
        writer.add(example)
    encode = found.recipe.encode
    encode = msgspec.structs.replace(encode, max_images=max(encode.max_images, len(example.media)))
    generate = GenerateConfig(max_new_tokens=tokens, batch_size=1)
    identity = {
        "benchmark": "ask", "dataset": RowStore(rows).version, "checkpoint": found.version,
        "tokenizer": found.tokenizer_version or found.version, "encode": plain(encode), "max_tokens": found.recipe.max_tokens,
        "max_visual": found.recipe.max_visual, "generate": plain(generate), "limit": None,
    }  # fmt: skip
    inputs = {**_inputs(found), "tokenizer": str(found.tokenizer), "validated": str(rows), "cache": str(home.cache)}
    return RunSpec(kind="predict", identity=identity, inputs=inputs, execution=execution)


def _inputs(found: Checkpoint) -> dict[str, str]:
    return {"checkpoint": str(found.folder), "tokenizer": str(found.tokenizer)}


def _how(profile: Profile, kind: str) -> Execution:
    from training_backend.api import Execution

    return profile.execution.get(kind, Execution())


def _run(home: Home, spec: RunSpec) -> Path:
    """The output of a run, followed to its end; a failure is its one sentence. Ctrl-C stops it."""
    from training_backend.registry import find_launcher

    launcher, started = find_launcher(spec.execution.launcher), time.time()
    handle = launcher.submit(spec, home.runs / spec.run_name)
    try:
        for event in launcher.follow(handle):
            if event.time < started:
                continue  # of an earlier attempt
            if event.name == "log":
                print(event.data["message"], file=sys.stderr, flush=True)
            elif event.name == "failed":
                # The name of the exception is for the log; a sentence about a full disk comes without one.
                raise UserError(re.sub(r"^\w+: ", "", str(event.data["message"])))
    except KeyboardInterrupt:
        launcher.stop(handle, spec.execution.grace_seconds)
        raise
    return Path(launcher.result(handle).output)


def _free(name: str) -> Path:
    out = Path(name).resolve()
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise UserError(f"{out} is there already and not an empty folder; name another one with --out")
    return out


def _put(made: Path, out: Path, *, manifest: bool) -> None:
    """A run's output where the person wants it: weights linked where the disk allows, the rest copied, as people edit it."""
    for path in sorted(made.rglob("*")):
        if not path.is_file() or (path.name == "manifest.json" and not manifest):
            continue
        to = out / path.relative_to(made)
        to.parent.mkdir(parents=True, exist_ok=True)
        try:
            if path.suffix != ".safetensors":
                raise OSError
            os.link(path, to)
        except OSError:
            shutil.copyfile(path, to)
