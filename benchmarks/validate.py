"""Validate: rows of pointing from raw file to index, beside pydantic over the same lines.

Ours, end to end: parse, media table, contract, unique ids, canonical rows in one file, hashes, index. `pydantic`: a BaseModel with
the same constraints, `validate_json` of every line and nothing else; `typed dict`: the fastest shape that pydantic offers. All on
two processes, in turn, round by round; `ratio` is the median of pydantic's seconds ÷ ours. `adapter`: rows of a published layout
(PixMo-Points) made canonical and validated, by one process. On a busy machine compare `cpu_ratio`, pydantic's CPU seconds ÷ ours.
`peak_mb` is the largest resident size of any process of ours; `pandera share` is the contract's part of the seconds of a clean
batch.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import multiprocessing
import os
import random
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

from benchmarks.report import Report

PROCESSES = 2
ROWS_A_PICTURE = 10
"""One after another, as published sets have them."""
_WORDS = ("boat", "red car", "door handle", "person in the back", "tree", "window of the house")


def options(parser: argparse.ArgumentParser) -> None:
    """How many rows."""
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--rounds", type=int, default=3, help="how often every way is gone, in turn; medians are shown")
    parser.add_argument("--adapter-rows", type=int, default=100_000)


def run(arguments: argparse.Namespace) -> Report:
    """One row a way: the median of its rounds."""
    rows = arguments.rows
    rounds: list[dict[str, dict[str, Any]]] = []
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        lines = write_canonical(root / "canonical", rows)
        written = write_published(root / "published", arguments.adapter_rows)
        os.sync()  # what was just written is not ours to wait for
        for _ in range(arguments.rounds):
            found = {"ours": _ours(root / "canonical", "molmo2_examples")}
            found |= {name: _peer(lines, function) for name, function in (("pydantic", _base_model), ("typed dict", _typed_dict))}
            rounds.append(found)
        adapter = _ours(root / "published", "pixmo_points")
        size = lines.stat().st_size / rows
    if adapter["rows_ok"] != written:
        raise SystemExit(f"clean rows were set aside: {adapter}")
    for found in rounds:
        for name, way in found.items():
            if way["rows_ok"] != rows:
                raise SystemExit(f"{name} took {way['rows_ok']} of {rows} clean rows")

    def median(name: str, what: str) -> float:
        return statistics.median(found[name][what] for found in rounds)

    def times_ours(name: str, what: str) -> list[float]:
        return [found[name][what] / found["ours"][what] for found in rounds]

    measured = [
        ("ours, end to end", rows, median("ours", "seconds"), median("ours", "cpu")),
        *((f"{n}, validate_json alone", rows, median(n, "seconds"), median(n, "cpu")) for n in ("pydantic", "typed dict")),
        ("published layout to canonical, one process", written, adapter["seconds"], adapter["cpu"]),
    ]
    table = [
        {"what": what, "rows": count, "seconds": seconds, "rows per s": count / seconds, "CPU us per row": 1e6 * cpu / count}
        for what, count, seconds, cpu in measured
    ]
    facts = {
        "rows_per_s": round(rows / median("ours", "seconds")),
        "pydantic_rows_per_s": round(rows / median("pydantic", "seconds")),
        "ratios": [round(ratio, 3) for ratio in times_ours("pydantic", "seconds")],
        "typed_dict_ratio": round(statistics.median(times_ours("typed dict", "seconds")), 3),
        "adapter_rows_per_s": round(written / adapter["seconds"]),
        "peak_mb": round(max(adapter["peak_mb"], *(found["ours"]["peak_mb"] for found in rounds)), 1),
        "pandera share": round(_pandera_share(), 4),
        "processes": PROCESSES,
        "cpu_ratio": round(statistics.median(times_ours("pydantic", "cpu")), 3),
        "bytes per row": round(size, 1),
    }
    return Report("validate", table, facts, round(statistics.median(times_ours("pydantic", "seconds")), 3))


def write_canonical(folder: Path, rows: int) -> Path:
    """Rows of this project's own schema, no two with the same words, and the table of their pictures; returns the file of rows."""
    from molmo2_assets.ingest.media_table import MediaRecord, write_media
    from training_backend.data.example import SCHEMA, Branch, Example, Media, Point, Points, Source, Turn, encode_row

    (folder / "raw").mkdir(parents=True)
    (folder / "media").mkdir()
    records = [_picture(number) for number in range(-(-rows // ROWS_A_PICTURE))]
    write_media(folder / "media", [MediaRecord(kind="image", state="ok", **record) for record in records])
    draw = random.Random(1)
    path = folder / "raw" / "rows.jsonl"
    with path.open("wb") as stream:
        for number in range(rows):
            label = f"{_WORDS[number % len(_WORDS)]} {number}"
            points = tuple(
                Point(x=round(draw.random(), 5), y=round(draw.random(), 5), id=place) for place in range(draw.randint(0, 3))
            )
            turn = Turn(role="assistant", parts=(Points(label=label, points=points),))
            example = Example(
                id=f"set/{number:08d}", schema=SCHEMA, task="image_pointing", source=Source(file="data.jsonl", row=number),
                media=(Media(id="m0", kind="image", **records[number // ROWS_A_PICTURE]),),
                branches=(Branch(id=f"{label}/point", style="pointing", turns=(turn,)),),
            )  # fmt: skip
            stream.write(encode_row(example) + b"\n")
    return path


def write_published(folder: Path, rows: int) -> int:
    """Rows as PixMo-Points publishes them, no two about the same thing of a picture; returns how many."""
    from molmo2_assets.ingest.media_table import MediaRecord, write_media

    (folder / "raw").mkdir(parents=True)
    (folder / "media").mkdir()
    pictures = max(1, rows // 4)
    records = [_picture(number) for number in range(pictures)]
    write_media(folder / "media", [MediaRecord(kind="image", state="ok", **record) for record in records])
    draw = random.Random(2)
    with (folder / "raw" / "rows.jsonl").open("w") as stream:
        for number in range(rows):
            points = [{"x": round(100 * draw.random(), 1), "y": round(100 * draw.random(), 1)} for _ in range(draw.randint(0, 4))]
            record = records[number % pictures]
            row = {
                "image_url": record["uri"], "image_sha256": record["sha256"], "points": points, "count": len(points),
                "label": f"{_WORDS[number // pictures % len(_WORDS)]} {number // pictures}", "collection_method": "pointing",
            }  # fmt: skip
            stream.write(json.dumps(row) + "\n")
    return rows


def _picture(number: int) -> dict[str, Any]:
    digest = hashlib.sha256(str(number).encode()).hexdigest()
    return {"uri": f"images/{number:06d}.jpg", "sha256": digest, "width": 640, "height": 480}


_VALIDATE = """
import json, resource, shutil, sys, time
from pathlib import Path
if __name__ == "__main__":
    from molmo2_assets.ingest import canonical
    from molmo2_assets.ingest.validate import validate
    from molmo2_assets.profile import DatasetSpec, SourceSpec
    root, adapter, canonical.PROCESSES = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])
    spec = DatasetSpec(name="set", title="", source=SourceSpec(kind="manual", path="set"), task="image_pointing", group="",
                       adapter=adapter, style="pointing")
    shutil.rmtree(root / "validated", ignore_errors=True)
    (root / "validated").mkdir()
    before, started = time.process_time(), time.perf_counter()
    report = validate(spec, root / "raw", root / "media", root / "validated", lambda line: None)
    seconds = time.perf_counter() - started
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    cpu = sum(who.ru_utime + who.ru_stime for who in used) - before
    # Not ru_maxrss of this process: it begins with the size of whoever started it.
    own = next(int(line.split()[1]) for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
    peak = max(own, used[1].ru_maxrss) / 1024
    print(json.dumps({"seconds": seconds, "cpu": cpu, "rows_ok": report.rows_ok, "peak_mb": peak}))
"""


def _ours(root: Path, adapter: str) -> dict[str, Any]:
    """In an interpreter of its own, whose peak is then its own; its start is not counted, its processes' start is."""
    script = root / "run.py"
    script.write_text(_VALIDATE)
    done = subprocess.run(
        [sys.executable, str(script), str(root), adapter, str(PROCESSES)], capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise SystemExit(done.stderr)
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def _peer(path: Path, function: Callable[[tuple[Path, int, int]], int]) -> dict[str, Any]:
    """A peer on the same number of processes, over the same ranges."""
    from molmo2_assets.ingest.canonical import ranges

    parts = [(part.path, part.start, part.stop) for part in ranges(path, "rows.jsonl")]
    before, started = _cpu(), time.perf_counter()
    if len(parts) < 2:
        count = sum(map(function, parts))
    else:
        with ProcessPoolExecutor(PROCESSES, multiprocessing.get_context("spawn")) as pool:
            count = sum(pool.map(function, parts))
    return {"seconds": time.perf_counter() - started, "cpu": _cpu() - before, "rows_ok": count}


def _cpu() -> float:
    """Seconds of processors that this process and its ended children have used."""
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(who.ru_utime + who.ru_stime for who in used)


def _lines(part: tuple[Path, int, int]) -> Iterator[bytes]:
    path, start, stop = part
    with path.open("rb") as stream:
        stream.seek(start)
        while start < stop:
            line = stream.readline()
            start += len(line)
            yield line


def _base_model(part: tuple[Path, int, int]) -> int:
    from benchmarks.pydantic_rows import Row

    count = 0
    for line in _lines(part):
        Row.model_validate_json(line)
        count += 1
    return count


def _typed_dict(part: tuple[Path, int, int]) -> int:
    from benchmarks.pydantic_rows import TYPED_ROW

    count = 0
    for line in _lines(part):
        TYPED_ROW.validate_json(line)
        count += 1
    return count


def _pandera_share() -> float:
    """Seconds of the contract ÷ seconds of reading and judging a range, best of three, over one clean batch."""
    from molmo2_assets.ingest import canonical, contracts
    from molmo2_assets.ingest.adapters import Context

    spent = 0.0
    judge = contracts.verdicts

    def timed(*arguments: Any) -> Any:
        nonlocal spent
        started = time.perf_counter()
        try:
            return judge(*arguments)
        finally:
            spent += time.perf_counter() - started

    best = 1.0
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        path = write_canonical(root, contracts.BATCH)
        task = canonical.Task("set", Context("pointing", "image_pointing", {}), "pointing", root / "media", root)
        (part,) = canonical.ranges(path, "rows.jsonl", 1 << 30)
        canonical.verdicts = timed
        try:
            for _ in range(3):
                spent, started = 0.0, time.perf_counter()
                canonical.read_parts(task, [part], lambda done: None)
                best = min(best, spent / (time.perf_counter() - started))
        finally:
            canonical.verdicts = judge
    return best
