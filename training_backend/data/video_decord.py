"""decord, in a child process that can be killed: it may hang holding the interpreter's lock, where no signal and no thread ends it.

Optional (`pip install 'nanomolmo2[decord]'`; the fork decord2 works too). Belongs here: the child and what is said
to it. Does not belong here: the choice of frames (`video.py`).

The parent writes a line of JSON {frames: [...]}; the child answers a line {shape} or {error}, then the pixels.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import subprocess
import sys
import time
import weakref
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from training_backend.data.media import MediaFault
from training_backend.data.video import Frame

SECONDS = 30.0
"""How long the child may be silent before it is killed: opening, and each batch."""
_BATCH = 32


class Decord:
    """The decoder: one child for each reader, started when it is first asked."""

    def __init__(self, path: Path, stamps: list[float]) -> None:
        if find_spec("decord") is None:
            raise ValueError(
                "The video back end 'decord' is not installed: install nanomolmo2[decord], or use 'pyav', which every "
                "installation has."
            )
        head = path.open("rb").read(189)
        if head[:1] == head[188:] == b"G":
            raise MediaFault("decode", f"{path.name} is a transport stream, which decord begins late; read it with pyav")
        self.path = path
        self._places = {stamp: place for place, stamp in enumerate(stamps)}
        self._child: subprocess.Popen[bytes] | None = None

    def decode(self, wanted: list[float]) -> Iterator[Frame]:
        """See `Decoder`. Raises MediaFault also where the child had to be killed."""
        for start in range(0, len(wanted), _BATCH):
            yield from self._ask(wanted[start : start + _BATCH])

    def _ask(self, part: list[float]) -> list[Frame]:
        child = self._running()
        assert child.stdin is not None
        try:
            child.stdin.write(json.dumps({"frames": [self._places[stamp] for stamp in part]}).encode() + b"\n")
            child.stdin.flush()
            answer = json.loads(self._read_line(child))
            if "error" in answer:
                raise MediaFault("decode", f"{self.path.name}: {answer['error']}")
            size = int(np.prod(answer["shape"]))
            pixels = np.frombuffer(self._read(child, size), np.uint8).reshape(answer["shape"])
        except (OSError, EOFError, ValueError) as error:
            self.close()
            if isinstance(error, MediaFault):
                raise
            raise MediaFault("decode", f"{self.path.name}: decord gave no answer ({error}) and was ended") from None
        return [(part[place], pixels[number]) for number, place in enumerate(answer["places"])]

    def _running(self) -> subprocess.Popen[bytes]:
        if self._child is None or self._child.poll() is not None:
            self._child = subprocess.Popen(
                [sys.executable, "-m", "training_backend.data.video_decord", os.fspath(self.path), str(os.getpid())],
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
                env={**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)},
            )  # fmt: skip
            weakref.finalize(self, _end, self._child)
        return self._child

    def _read_line(self, child: subprocess.Popen[bytes]) -> bytes:
        line = b""
        while not line.endswith(b"\n"):
            line += self._read(child, 1)
        return line

    def _read(self, child: subprocess.Popen[bytes], size: int) -> bytes:
        assert child.stdout is not None
        data = bytearray()
        until = time.monotonic() + SECONDS
        while len(data) < size:
            ready, _, _ = select.select([child.stdout], [], [], max(0.0, until - time.monotonic()))
            if not ready:
                raise EOFError(f"silent for {SECONDS:.0f} s")
            block = os.read(child.stdout.fileno(), min(size - len(data), 1 << 20))
            if not block:
                raise EOFError("it died")
            data += block
        return bytes(data)

    def close(self) -> None:
        """End the child, whatever it is doing."""
        if self._child is not None:
            _end(self._child)
            self._child = None


def _end(child: subprocess.Popen[bytes]) -> None:
    child.kill()
    child.wait()
    for pipe in (child.stdin, child.stdout):
        if pipe is not None:
            with contextlib.suppress(OSError):
                pipe.close()


# -- the child --------------------------------------------------------------------------------------------------------------


def serve(path: str, parent: int) -> None:
    """Answer requests until standard input ends."""
    import ctypes
    import signal

    ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG: a child that hangs must not outlive its parent
    if os.getppid() != parent:
        return
    out = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # the library prints
    from decord import VideoReader, cpu

    reader: Any = None
    position = 0
    for line in sys.stdin.buffer:
        places = json.loads(line)["frames"]
        try:
            if reader is None:
                reader = VideoReader(path, ctx=cpu(0), num_threads=1)
            given, pixels, position = _frames(reader, places, position)
        except Exception as error:
            out.write(json.dumps({"error": f"{type(error).__name__}: {str(error).strip()[-200:]}"}).encode() + b"\n")
        else:
            out.write(json.dumps({"shape": pixels.shape, "places": given}).encode() + b"\n" + pixels.tobytes())
        out.flush()


def _frames(reader: Any, places: list[int], position: int) -> tuple[list[int], Any, int]:
    """Which of the asked frames there are, their pixels, and where the reader stands then. Forward, one by one: a batch may never
    return near the end (dmlc/decord 373, 375), and a jump into an open group of HEVC pictures gives others than those asked for."""
    kept, shown = [], []
    if places[0] < position:
        reader.seek(0)
        position = 0
    for number, place in enumerate(places):
        if place >= len(reader):
            break
        for _ in range(place - position):
            reader.next()  # `skip_frames` jumps where it meets a key frame
        shown.append(reader.next().asnumpy())
        kept.append(number)
        position = place + 1
    return kept, np.stack(shown), position


if __name__ == "__main__":
    serve(sys.argv[1], int(sys.argv[2]))
