"""Columns of the published sets, as their Parquet files have them.

Belongs here: one Arrow schema per layout. Does not belong here: the rows. The layouts are those of the dataset cards and of the
released loaders (allenai/molmo2, commit f3cb108, folder olmo/data). Two forms of "a list of points" are published: a list of
structs, and the struct of lists that older versions of `datasets` made of a sequence of dicts; each set keeps its own.

Inner fields of `clip_captions` and `frame_captions` are not documented anywhere; the ones here are ours.
"""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pyarrow as pa


@cache
def schemas() -> dict[str, pa.Schema]:
    """Layout name (the published repository) → schema."""
    import pyarrow as pa

    text, real, whole, flag = pa.string(), pa.float64(), pa.int64(), pa.bool_()
    texts = pa.list_(text)
    point = pa.struct([("x", real), ("y", real)])
    point32 = pa.struct([("x", pa.float32()), ("y", pa.float32())])
    image = pa.struct([("bytes", pa.binary()), ("path", text)])
    rle = pa.struct([("size", pa.list_(whole)), ("counts", pa.list_(whole))])
    tracked = pa.struct([("id", whole), ("point", pa.list_(real)), ("occluded", flag)])
    moment = pa.struct([("frame", whole), ("time", real), ("points", pa.list_(tracked))])
    return {
        "pixmo-cap": pa.schema([("image_url", text), ("caption", text), ("transcripts", texts)]),
        "pixmo-points": pa.schema(
            [
                ("image_url", text),
                ("image_sha256", text),
                ("points", pa.list_(point)),
                ("count", whole),
                ("label", text),
                ("collection_method", text),
            ]
        ),
        "pixmo-points-eval": pa.schema(
            [
                ("image_url", text),
                ("image_sha256", text),
                ("label", text),
                ("points", pa.list_(point)),
                ("masks", pa.list_(pa.list_(pa.list_(flag)))),
            ]
        ),
        "pixmo-count": pa.schema(
            [
                ("image_url", text),
                ("image_sha256", text),
                ("count", pa.int32()),
                ("points", pa.struct([("x", pa.list_(pa.float32())), ("y", pa.list_(pa.float32()))])),
                ("label", text),
            ]
        ),
        "pixmo-ask-model-anything": pa.schema([("image_url", text), ("image_sha256", text), ("question", text), ("answer", text)]),
        "pixmo-cap-qa": pa.schema(
            [
                ("image_url", text),
                ("question", text),
                ("answer", text),
                ("messages", pa.list_(pa.struct([("content", text), ("role", text)]))),
            ]
        ),
        "ChartQA": pa.schema([("image", image), ("query", text), ("label", texts), ("human_or_machine", whole)]),
        "Molmo2-MultiImageQA": pa.schema(
            [("image_urls", texts), ("qa_pairs", pa.struct([("question", texts), ("answer", texts)]))]
        ),
        "Molmo2-MultiImagePoint": pa.schema(
            [
                ("image_urls", texts),
                ("image_sha256s", texts),
                ("points", pa.list_(pa.list_(point32))),
                ("counts", pa.list_(whole)),
                ("labels", texts),
                ("collection_method", texts),
            ]
        ),
        "Molmo2-Cap": pa.schema(
            [
                ("video_id", text),
                ("video_start", real),
                ("video_end", real),
                ("video_caption", text),
                ("merged_caption", text),
                ("video_frame_merged_caption", text),
                ("video_transcript", text),
                ("clip_captions", pa.list_(pa.struct([("start", real), ("end", real), ("caption", text)]))),
                ("frame_captions", pa.list_(pa.struct([("time", real), ("caption", text)]))),
                ("annotation_score", whole),
            ]
        ),
        "Molmo2-VideoCapQA": pa.schema(
            [("video_id", text), ("Question", text), ("Answer", text), ("NegativeAnswers", texts), ("Category", text)]
        ),
        "Molmo2-VideoSubtitleQA": pa.schema(
            [
                ("video_id", text),
                ("Question", text),
                ("Answer", text),
                ("NegativeAnswers", texts),
                ("Category", text),
                ("AlignmentType", text),
                ("subtitle", pa.list_(pa.struct([("start", real), ("end", real), ("text", text)]))),
            ]
        ),
        "Molmo2-VideoPoint": pa.schema(
            [
                ("video_id", text),
                ("video_source", text),
                ("video_duration", real),
                ("label", text),
                ("question", text),
                ("category", text),
                ("count", whole),
                ("points", pa.list_(pa.list_(point))),
                ("raw_timestamps", pa.list_(real)),
                ("raw_frames", pa.list_(whole)),
                ("two_fps_timestamps", pa.list_(real)),
                ("clip_start", real),
                ("clip_end", real),
                ("annotator_unsure", flag),
            ]
        ),
        "Molmo2-VideoPointEval": pa.schema(
            [
                ("video_id", text),
                ("video_source", text),
                ("video_duration", real),
                ("label", text),
                ("count", whole),
                ("points", pa.list_(point)),
                ("masks", pa.list_(pa.list_(pa.struct([("frame_id", whole), ("rle", rle)])))),
                ("two_fps_timestamps", pa.list_(real)),
                ("width", whole),
                ("height", whole),
            ]
        ),
        "molmo2-track-instruction": pa.schema(
            [
                ("id", text),
                ("video", text),
                ("clip", text),
                ("video_dataset", text),
                ("expression", text),
                ("fps", whole),
                ("sampling_fps", whole),
                ("width", whole),
                ("height", whole),
                ("mask_id", texts),
                ("start_frame", whole),
                ("end_frame", whole),
                ("frame_trajectories", pa.list_(moment)),
            ]
        ),
        "Molmo2-VideoTrackEval": pa.schema(
            [
                ("id", text),
                ("video", text),
                ("clip", text),
                ("video_dataset", text),
                ("video_source", text),
                ("exp", text),
                ("obj_id", pa.list_(whole)),
                ("mask_id", texts),
                ("points", pa.list_(pa.struct([("object_id", text), ("points", pa.list_(pa.list_(real)))]))),
                ("masks", pa.list_(pa.struct([("object_id", text), ("masks", pa.list_(rle))]))),
                ("start_frame", whole),
                ("end_frame", whole),
                ("w", whole),
                ("h", whole),
                ("n_frames", whole),
                ("fps", whole),
            ]
        ),
        "molmo2-tulu4-classified": pa.schema(
            [
                ("id", text),
                ("source", text),
                ("messages", pa.list_(pa.struct([("content", text), ("role", text)]))),
                ("category", text),
                ("first_message_qwen3_tokens", whole),
                ("empty_messages", flag),
                ("has_special_token", flag),
            ]
        ),
    }
