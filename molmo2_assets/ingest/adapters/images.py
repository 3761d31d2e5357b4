"""Layouts about one picture or several with rules of their own: PixMo, ChartQA, CoSyn-point, the multi-image sets of Molmo2.

Units, where an entry does not say otherwise: PixMo-Points, CoSyn-point and Molmo2-MultiImagePoint publish percent, PixMo-Count
pixels (allenai/molmo2, olmo/data/pixmo_datasets.py; the card of PixMo-Points says pixels and is wrong).
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from molmo2_assets.ingest.adapters.base import (
    Adapter,
    Context,
    Parameters,
    Piece,
    Reference,
    Unit,
    ask,
    counted,
    fraction,
    image_points,
    maybe_digest,
    maybe_list,
    need,
    paired,
    scale_of,
    word_list,
    words,
    xy_list,
)
from molmo2_assets.ingest.adapters.named import embedded
from molmo2_assets.ingest.reasons import RowFault
from molmo2_assets.ingest.rows import RawRow
from training_backend.data.example import Branch, Count, Media, Points, Text, Turn

PERCENT = (100.0, 100.0)
_TURN = re.compile(r"(\[USER\]|\[ASSISTANT\])")


class PictureParams(Parameters, frozen=True, kw_only=True):
    """`check_sha256`: whether pictures must have the published hash. `unit` of coordinates. `spoken`: how many transcripts become
    branches beside a caption (none: all)."""

    check_sha256: bool = True
    unit: Unit = "percent"
    spoken: int | None = None


class CountParams(PictureParams, frozen=True, kw_only=True):
    """The same, for sets that publish pixels."""

    unit: Unit = "pixel"


class SeveralParams(Parameters, frozen=True, kw_only=True):
    """`images`: the column with addresses or paths of the pictures. `unit` of coordinates."""

    images: str = "image_urls"
    unit: Unit = "percent"

    def needed(self) -> tuple[str, ...]:
        return (self.images,)


def _url(row: RawRow, context: Context) -> list[Reference]:
    checked = context.of(PictureParams).check_sha256
    digest = maybe_digest(row.data.get("image_sha256"), "image_sha256") if checked else None
    return [Reference(words(row.data, "image_url"), "image", digest)]


def _urls(row: RawRow, context: Context) -> list[Reference]:
    name = context.of(SeveralParams).images
    urls = word_list(row.data, name)
    if not urls:
        raise RowFault("no_media", name, "an empty list")
    # Molmo2-MultiImagePoint's `image_sha256s` are hashes of the URLs, as its card says: nothing to check pictures with.
    return [Reference(url, "image") for url in urls]


def _cap(row: RawRow, media: Sequence[Media], context: Context) -> Piece:
    branches = [ask("caption", context.style, None, words(row.data, "caption"))]
    for number, transcript in enumerate(maybe_list(row.data, "transcripts")[: context.of(PictureParams).spoken]):
        if not isinstance(transcript, str | None):
            raise RowFault("wrong_type", "transcripts", type(transcript).__name__)
        if transcript and transcript.strip():  # sound that was no speech gives an empty transcript
            branches.append(ask(f"transcript-{number}", "transcript", None, transcript.strip()))
    return Piece(media[0].uri, tuple(media), tuple(branches))


def _points(row: RawRow, media: Sequence[Media], context: Context) -> Piece:
    label = words(row.data, "label")
    points = image_points(label, xy_list(row.data.get("points"), "points"), scale_of(context.of(PictureParams).unit, media[0]))
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
        scale = scale_of(context.of(CountParams).unit, picture)
        points = image_points(label, xy_list(published, "points"), scale)
        parts = counted(points, count)
        branches = [ask(f"{label}/count", "count", None, parts[1]), ask(f"{label}/point_count", "point_count", None, *parts)]
    return Piece(picture.uri, tuple(media), tuple(branches))


def _question(row: RawRow, media: Sequence[Media], context: Context) -> Piece:
    question = words(row.data, "question")
    return Piece(media[0].uri, tuple(media), (ask(question, context.style, question, words(row.data, "answer")),))


def _embedded(row: RawRow, context: Context) -> list[Reference]:
    return [embedded(row, "image", need(row.data, "image", dict))]


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
        scale = scale_of(context.of(SeveralParams).unit, media[image])
        here = image_points(names[0], xy_list(pairs, "points"), scale, image, len(found))
        counted(here, need({"counts": count}, "counts", int))
        found += here.points
    branch: Branch = ask(names[0], context.style, None, Points(label=names[0], points=tuple(found)))
    return Piece(" ".join(item.uri for item in media), tuple(media), (branch,))


def _captioned_media(row: RawRow, context: Context) -> list[Reference]:
    return [Reference(words(row.data, "image"), "image")]


def _captioned(row: RawRow, media: Sequence[Media], context: Context) -> Piece:
    return Piece(media[0].uri, tuple(media), (ask("caption", context.style, None, words(row.data, "caption")),))


def _pointed_questions(row: RawRow, media: Sequence[Media], context: Context) -> Piece:
    """CoSyn-point: questions, their points and what these are called, as parallel lists."""
    questions, names = word_list(row.data, "questions"), word_list(row.data, "names")
    answers = need(row.data, "answer_points", list)
    paired("questions", questions, names, answers)
    if not questions:
        raise RowFault("missing_field", "questions", "no questions")
    scale = scale_of(context.of(PictureParams).unit, media[0])
    branches = [
        ask(question, context.style, question, image_points(name, xy_list(points, "answer_points"), scale))
        for question, name, points in zip(questions, names, answers, strict=True)
    ]
    return Piece(media[0].uri, tuple(media), tuple(branches))


def _dialogue(row: RawRow, media: Sequence[Media], context: Context) -> Piece:
    """PixMo-CapQA: a question, or the turns so far in one text between [USER] and [ASSISTANT], and the last answer beside it."""
    written = words(row.data, "question")
    if _TURN.search(written) is None:
        return _question(row, media, context)
    before, *said = _TURN.split(written)
    if before.strip() or len(said) < 2:
        raise RowFault("roles", "question", "it does not begin with [USER]")
    spoken = [
        (role, words({"question": text}, "question")) for role, text in zip(said[::2], said[1::2], strict=True) if text.strip()
    ]
    turns = [Turn(role="user" if role == "[USER]" else "assistant", parts=(Text(text=text),)) for role, text in spoken]
    turns.append(Turn(role="assistant", parts=(Text(text=words(row.data, "answer")),)))
    return Piece(media[0].uri, tuple(media), (Branch(id=written, style=context.style, turns=tuple(turns)),))


ADAPTERS = (
    Adapter("pixmo_cap", ("image_url", "caption", "transcripts"), _url, _cap, optional=("transcripts",), parameters=PictureParams),
    Adapter(
        "pixmo_points", ("image_url", "image_sha256", "points", "count", "label", "collection_method"), _url, _points,
        optional=("image_sha256", "collection_method"), parameters=PictureParams,
    ),
    Adapter(
        "pixmo_points_eval", ("image_url", "label", "points", "masks"), _url, _points_eval, code_version=2,
        parameters=PictureParams,
    ),
    Adapter(
        "pixmo_count", ("image_url", "image_sha256", "count", "points", "label"), _url, _count,
        optional=("image_sha256", "points"), parameters=CountParams,
    ),
    Adapter(
        "pixmo_ask_model_anything", ("image_url", "image_sha256", "question", "answer"), _url, _question,
        optional=("image_sha256",), parameters=PictureParams,
    ),
    Adapter("pixmo_cap_qa", ("image_url", "question", "answer"), _url, _dialogue, parameters=PictureParams),
    Adapter(
        "cosyn_point", ("image", "questions", "answer_points", "names"), _embedded, _pointed_questions, parameters=PictureParams,
    ),
    Adapter("chart_qa", ("image", "query", "label", "human_or_machine"), _embedded, _chart, optional=("human_or_machine",)),
    Adapter("molmo2_multi_image_qa", ("qa_pairs",), _urls, _multi_question, parameters=SeveralParams),
    Adapter("molmo2_multi_image_point", ("points", "counts", "labels"), _urls, _multi_points, parameters=SeveralParams),
    Adapter("captioned_images", ("image", "caption"), _captioned_media, _captioned),
)  # fmt: skip
