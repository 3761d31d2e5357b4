"""Layouts about one picture or several: PixMo, ChartQA, the multi-image sets of Molmo2.

Units: PixMo-Points and Molmo2-MultiImagePoint publish percent, PixMo-Count pixels (molmo2.md §2).
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any

from molmo2_assets.ingest.adapters.base import (
    Adapter,
    Context,
    Piece,
    Reference,
    ask,
    counted,
    fraction,
    image_points,
    maybe_digest,
    maybe_list,
    need,
    paired,
    word_list,
    words,
    xy_list,
)
from molmo2_assets.ingest.reasons import RowFault
from molmo2_assets.ingest.rows import RawRow
from training_backend.data.example import Branch, Count, Media, Points

PERCENT = (100.0, 100.0)


def _url(row: RawRow, context: Context) -> list[Reference]:
    digest = maybe_digest(row.data.get("image_sha256"), "image_sha256") if context.params.get("check_sha256", True) else None
    return [Reference(words(row.data, "image_url"), "image", digest)]


def _urls(row: RawRow, context: Context) -> list[Reference]:
    urls = word_list(row.data, "image_urls")
    if not urls:
        raise RowFault("no_media", "image_urls", "an empty list")
    # Molmo2-MultiImagePoint's `image_sha256s` are hashes of the URLs, as its card says: nothing to check pictures with.
    return [Reference(url, "image") for url in urls]


def _cap(row: RawRow, media: Sequence[Media], context: Context) -> Piece:
    branches = [ask("caption", context.style, None, words(row.data, "caption"))]
    for number, transcript in enumerate(maybe_list(row.data, "transcripts")):
        if not isinstance(transcript, str | None):
            raise RowFault("wrong_type", "transcripts", type(transcript).__name__)
        if transcript and transcript.strip():  # sound that was no speech gives an empty transcript
            branches.append(ask(f"transcript-{number}", "transcript", None, transcript.strip()))
    return Piece(media[0].uri, tuple(media), tuple(branches))


def _points(row: RawRow, media: Sequence[Media], context: Context) -> Piece:
    label = words(row.data, "label")
    points = image_points(label, xy_list(row.data.get("points"), "points"), PERCENT)
    parts = counted(points, need(row.data, "count", int))
    mode = "point_count" if row.data.get("collection_method") == "counting" else context.style
    branches = [ask(f"{label}/point", "pointing", None, points)] if mode != "point_count" else []
    branches.append(ask(f"{label}/count", "point_count", None, *parts))
    return Piece(media[0].uri, tuple(media), tuple(branches))


def _points_eval(row: RawRow, media: Sequence[Media], context: Context) -> Piece:
    label = words(row.data, "label")
    pairs = xy_list(row.data.get("points"), "points")
    masks = need(row.data, "masks", list)
    paired("masks", pairs, masks)
    points = image_points(label, pairs, PERCENT)
    # Numbered as the points are: by rounded coordinates.
    order = sorted(range(len(pairs)), key=lambda place: (fraction(pairs[place][0], 100.0), fraction(pairs[place][1], 100.0)))
    kept = {str(number): {"0": _dense(masks[place], media[0])} for number, place in enumerate(order)}
    # One label an example: the masks of a row are its objects', numbered as its points are.
    return Piece(f"{media[0].uri}#{label}", tuple(media), (ask(label, context.style, None, points),), {"masks": kept})


def _dense(mask: Any, media: Media) -> dict[str, Any]:
    """Runs of a mask published as rows of booleans. Raises RowFault."""
    import numpy as np

    from molmo2_assets.ingest.rle import encode_rle

    try:
        pixels = np.asarray(mask, dtype=bool)
    except (ValueError, TypeError):
        raise RowFault("length_mismatch", "masks", "rows of a mask differ in length") from None
    if pixels.shape != (media.height, media.width):
        raise RowFault("size_mismatch", "masks", f"a mask of {pixels.shape}, the file shows {media.height}×{media.width}")
    return encode_rle(pixels)


def _count(row: RawRow, media: Sequence[Media], context: Context) -> Piece:
    label = words(row.data, "label")
    count = need(row.data, "count", int)
    picture = media[0]
    published = row.data.get("points")
    if published is None:
        branches = [ask(f"{label}/count", "count", None, Count(label=label, count=count))]
    else:
        scale = (float(picture.width), float(picture.height))
        points = image_points(label, xy_list(published, "points"), scale)
        parts = counted(points, count)
        branches = [ask(f"{label}/count", "count", None, parts[1]), ask(f"{label}/point_count", "point_count", None, *parts)]
    return Piece(picture.uri, tuple(media), tuple(branches))


def _question(row: RawRow, media: Sequence[Media], context: Context) -> Piece:
    question = words(row.data, "question")
    return Piece(media[0].uri, tuple(media), (ask(question, context.style, question, words(row.data, "answer")),))


def _embedded(row: RawRow, context: Context) -> list[Reference]:
    image = need(row.data, "image", dict)
    data = image.get("bytes")
    if not isinstance(data, bytes | None):
        raise RowFault("wrong_type", "image.bytes", type(data).__name__)
    # Named by content: rows that claim the same path may hold different bytes, and only the broken ones are to be set aside.
    name = hashlib.sha256(data).hexdigest()[:16] if data else "no-bytes"
    return [Reference(f"embedded:{image.get('path') or row.file}#{name}", "image", data=data)]


def _chart(row: RawRow, media: Sequence[Media], context: Context) -> Piece:
    answers = word_list(row.data, "label")
    if not answers:
        raise RowFault("empty_text", "label", "no answer")
    question = words(row.data, "query")
    # Trained on the most common answer, scored against all of them.
    answer = max(answers, key=answers.count)
    branch = ask(question, context.style, question, answer)
    return Piece(media[0].uri, tuple(media), (branch,), {"answers": {branch.id: answers}})


def _multi_question(row: RawRow, media: Sequence[Media], context: Context) -> Piece:
    pairs = need(row.data, "qa_pairs", (dict, list))
    if isinstance(pairs, dict):
        questions, answers = word_list(pairs, "question"), word_list(pairs, "answer")
        paired("qa_pairs", questions, answers)
    else:
        questions, answers = [words(pair, "question") for pair in pairs], [words(pair, "answer") for pair in pairs]
    branches = [ask(question, context.style, question, answer) for question, answer in zip(questions, answers, strict=True)]
    if not branches:
        raise RowFault("missing_field", "qa_pairs", "no questions")
    return Piece(" ".join(item.uri for item in media), tuple(media), tuple(branches))


def _multi_points(row: RawRow, media: Sequence[Media], context: Context) -> Piece:
    points, counts, names = need(row.data, "points", list), need(row.data, "counts", list), word_list(row.data, "labels")
    paired("labels", media, points, counts, names)
    if len(set(names)) > 1:
        raise RowFault("id_conflict", "labels", f"one row names {sorted(set(names))}")
    found: list[Any] = []
    for image, (pairs, count) in enumerate(zip(points, counts, strict=True)):
        here = image_points(names[0], xy_list(pairs, "points"), PERCENT, image, len(found))
        counted(here, need({"counts": count}, "counts", int))
        found += here.points
    branch: Branch = ask(names[0], context.style, None, Points(label=names[0], points=tuple(found)))
    return Piece(" ".join(item.uri for item in media), tuple(media), (branch,))


def _captioned_media(row: RawRow, context: Context) -> list[Reference]:
    return [Reference(words(row.data, "image"), "image")]


def _captioned(row: RawRow, media: Sequence[Media], context: Context) -> Piece:
    return Piece(media[0].uri, tuple(media), (ask("caption", context.style, None, words(row.data, "caption")),))


ADAPTERS = (
    Adapter("pixmo_cap", ("image_url", "caption", "transcripts"), _url, _cap),
    Adapter("pixmo_points", ("image_url", "image_sha256", "points", "count", "label", "collection_method"), _url, _points),
    Adapter("pixmo_points_eval", ("image_url", "label", "points", "masks"), _url, _points_eval, code_version=2),
    Adapter("pixmo_count", ("image_url", "image_sha256", "count", "points", "label"), _url, _count),
    Adapter("pixmo_ask_model_anything", ("image_url", "image_sha256", "question", "answer"), _url, _question),
    Adapter("pixmo_cap_qa", ("image_url", "question", "answer", "messages"), _url, _question),
    Adapter("chart_qa", ("image", "query", "label", "human_or_machine"), _embedded, _chart),
    Adapter("molmo2_multi_image_qa", ("image_urls", "qa_pairs"), _urls, _multi_question),
    Adapter("molmo2_multi_image_point", ("image_urls", "points", "counts", "labels"), _urls, _multi_points),
    Adapter("captioned_images", ("image", "caption"), _captioned_media, _captioned),
)
