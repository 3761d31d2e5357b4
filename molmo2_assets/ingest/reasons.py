"""Why a row is set aside: a closed list, so that tables and replays mean the same thing everywhere.

Belongs here: the codes with a line of explanation each, and the exception that carries one. Bump `REASONS_VERSION` when a code
changes its meaning.
"""

from __future__ import annotations

REASONS_VERSION = 3
REASONS: dict[str, str] = {
    "not_json": "the line is not a JSON object",
    "not_csv": "the line is not a record of the table",
    "not_text": "bytes that are not UTF-8, or half a character",
    "line_too_long": "the line is longer than is read",
    "missing_field": "a field that the layout needs is absent or null",
    "wrong_type": "a field has another type than the layout says",
    "empty_text": "a question, answer, caption or label has no words",
    "text_too_long": "a text is longer than any real one",
    "control_character": "a text holds NUL or another control character",
    "roles": "turns do not alternate between user and assistant, or do not end with the assistant",
    "point_outside": "a point lies outside the frame",
    "not_finite": "a coordinate or time is not a number",
    "count_mismatch": "the count differs from the number of points",
    "length_mismatch": "lists that belong together differ in length",
    "time_outside": "a time lies before the clip or after its end",
    "time_order": "times do not increase",
    "clip_invalid": "the clip starts at or after its end, or leaves its video",
    "no_media": "the row names no picture or video",
    "no_options": "multiple choice without at least two options",
    "answer_ambiguous": "the right answer stands among the wrong ones, or options repeat",
    "answer_outside": "the index of the right answer is no option's",
    "object_twice": "an object appears twice in one frame",
    "never_seen": "a track has no visible sample",
    "rate_mismatch": "the sampling rate does not divide the frame rate",
    "size_mismatch": "the stated width and height are not those of the file",
    "unsure": "the annotator marked the row as unsure",
    "low_score": "the annotation's score is below what the recipe keeps",
    "not_selected": "the row belongs to another view of the set, or the recipe leaves such rows out",
    "duplicate": "an earlier row says the same about the same media",
    "id_conflict": "rows about the same media disagree about it",
    "media_missing": "a picture or video is not there",
    "media_truncated": "a file is cut off or empty",
    "media_not_an_image": "the bytes are no picture (an error page, say)",
    "media_not_a_video": "the bytes are no video",
    "media_too_large": "a picture or video exceeds the limits on pixels, frames, seconds or bytes",
    "media_zero_duration": "a video lasts no time",
    "media_checksum": "the bytes differ from the published sha256",
    "media_decode": "a file cannot be decoded",
    "media_escapes": "a path leaves its folder",
}
LEFT_OUT = frozenset({"not_selected", "low_score", "unsure"})
"""Reasons that say what a recipe does not want, not that anything is broken: such rows do not count towards a set's limit."""


class RowFault(ValueError):
    """One row is not usable: a code of REASONS, the field it is about, and what was seen."""

    def __init__(self, reason: str, field: str, detail: str = "") -> None:
        assert reason in REASONS, reason
        super().__init__(f"{reason} in {field or 'the row'}: {detail}")
        self.reason, self.field, self.detail = reason, field, detail
