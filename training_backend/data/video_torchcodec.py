"""torchcodec: FFmpeg of the system, exact seeks, one thread. Optional (`pip install 'nanomolmo2[torchcodec]'`).

Belongs here: what torchcodec does. Does not belong here: the choice of frames (`video.py`).
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from training_backend.data.media import MediaFault
from training_backend.data.video import EPSILON, Frame


class TorchCodec:
    """The decoder. Made anew for every call: one that lives on through a fork shares its place in the file with its twin."""

    def __init__(self, path: Path) -> None:
        self.path = path
        _decoder_class()

    def decode(self, wanted: list[float]) -> Iterator[Frame]:
        """See `Decoder`. After an error the frames are asked for one by one, and what cannot be decoded is left out."""
        try:
            decoder = _decoder_class()(str(self.path), dimension_order="NHWC", num_ffmpeg_threads=1, seek_mode="exact")
        except (RuntimeError, ValueError) as error:
            raise MediaFault("decode", f"{self.path.name}: {_first_line(error)}") from None
        moments = [stamp + EPSILON / 2 for stamp in wanted]
        try:
            batch = decoder.get_frames_played_at(moments)
            self._check(wanted, batch.pts_seconds.tolist())
            frames = batch.data.numpy()
        except MediaFault:
            raise
        except (RuntimeError, IndexError, ValueError):
            frames = None
        if frames is not None:
            yield from zip(wanted, frames, strict=True)
            return
        for stamp, moment in zip(wanted, moments, strict=True):
            try:
                frame = decoder.get_frame_played_at(moment)
            except (RuntimeError, IndexError, ValueError):
                continue
            self._check([stamp], [frame.pts_seconds])
            yield stamp, frame.data.numpy()

    def _check(self, wanted: list[float], given: list[float]) -> None:
        """FFmpeg's jumps in transport streams land after the frame that was asked for, and nothing says so but the time stamp."""
        for stamp, other in zip(wanted, given, strict=True):
            if abs(stamp - other) > EPSILON:
                message = f"{self.path.name}: torchcodec gives the frame of {other:.3f} s for {stamp:.3f} s; read it with pyav"
                raise MediaFault("decode", message)


def _decoder_class() -> Any:
    try:
        from torchcodec.decoders import VideoDecoder
    except (ImportError, RuntimeError, OSError) as error:
        raise ValueError(
            f"The video back end 'torchcodec' cannot be loaded ({_first_line(error)}): install nanomolmo2[torchcodec] and FFmpeg's "
            "shared libraries, or use 'pyav', which every installation has."
        ) from None
    return VideoDecoder


def _first_line(error: BaseException) -> str:
    return str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
