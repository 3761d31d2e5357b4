"""Golden identities of rows."""

from __future__ import annotations

import msgspec
import pytest

from training_backend.data.example import (
    SCHEMA,
    Branch,
    Choices,
    Count,
    Example,
    Media,
    Point,
    Points,
    Source,
    Subtitle,
    Text,
    TimedPoint,
    TimedPoints,
    Track,
    Tracks,
    TrackSample,
    Turn,
    content_version,
    decode_row,
    encode_row,
    hash_row,
)


def _example(**changes: object) -> Example:
    media = Media(
        id="m0", kind="video", uri="media/a.mp4", sha256="ab" * 32, width=84, height=60, duration=4.0, fps=8.0, n_frames=32,
        clip=(0.5, 3.5), subtitles=(Subtitle(start=0.0, end=1.5, text="a red circle enters"),),
    )  # fmt: skip
    parts = (
        Points(label="circle", points=(Point(x=0.25, y=0.5, id=0),)),
        TimedPoints(label="circle", points=(TimedPoint(t=0.5, x=0.1, y=1.0, id=0),)),
        Tracks(query="circle", fps=2.0, tracks=(Track(id=0, samples=(TrackSample(t=0.0, x=0.1, y=0.2),)),)),
        Count(label="circle", count=1),
        Choices(options=("red", "blue"), answer=1),
        Text(text="naïve “quotes” \u2028 and 日本語"),
    )
    branch = Branch(
        id="b0",
        style="pointing",
        turns=(Turn(role="user", parts=(Text(text="Point to the circle."),)), Turn(role="assistant", parts=parts)),
    )
    example = Example(
        id="set/1",
        schema=SCHEMA,
        task="video_pointing",
        source=Source(file="train.parquet", row=7),
        media=(media,),
        branches=(branch,),
        meta={"b": 1, "a": [1.5, None]},
    )
    return msgspec.structs.replace(example, **changes)


def test_golden_row() -> None:
    hashes = hash_row(_example())
    assert hashes.id_hash.hex() == "9db49f810e1bc2e16b0131a26ac809d6"
    assert hashes.row_hash.hex() == "8a41d0af080278736eb4604cef25ba48"
    assert hashes.text.hex() == "c4515bfa7c70ca0e"
    assert hashes.grounding.hex() == "0caf1a9eade51630"
    assert hashes.media.hex() == "498016b7bb0acbcf"
    assert hashes.meta.hex() == "e7354ca8c29da2cc"


def test_golden_line_round_trips() -> None:
    line = encode_row(_example())
    assert line.startswith(b'{"id":"set/1","schema":"molmo2/1","task":"video_pointing","source":{"file":"train.parquet","row":7},')
    assert decode_row(line) == _example()
    assert encode_row(decode_row(line)) == line


def test_where_a_row_came_from_is_not_its_content() -> None:
    moved = _example(source=Source(file="other.parquet", row=0), meta={})
    renamed = _example(media=(msgspec.structs.replace(_example().media[0], uri="elsewhere/b.mp4"),))
    assert hash_row(moved).row_hash == hash_row(_example()).row_hash == hash_row(renamed).row_hash
    assert hash_row(moved).meta != hash_row(_example()).meta


@pytest.mark.parametrize(
    ("changes", "fields"),
    [
        ({"id": "set/2"}, {"id_hash", "row_hash"}),
        ({"task": "video_tracking"}, {"row_hash"}),
        ({"media": ()}, {"row_hash", "media"}),
        ({"branches": ()}, {"row_hash", "text", "grounding"}),
    ],
)
def test_each_side_of_a_row_moves_its_own_hash(changes: dict[str, object], fields: set[str]) -> None:
    before, after = hash_row(_example()), hash_row(_example(**changes))
    assert {name for name in before.__struct_fields__ if getattr(before, name) != getattr(after, name)} == fields


def test_content_version_is_order_free_and_counts_duplicates() -> None:
    a, b = hash_row(_example()).row_hash, hash_row(_example(id="set/2")).row_hash
    assert content_version([a, b]) == content_version([b, a]) == "2-09f0fe65ccb761ce650c137748cde998"
    assert content_version([a, a]) != content_version([]) == "0-" + "0" * 32


def test_a_misspelt_field_is_refused() -> None:
    with pytest.raises(msgspec.ValidationError, match="unknown field `branhces`"):
        decode_row(b'{"id":"a","branhces":[]}')
