"""Words of questions that the data does not bring: templates by kind of answer.

Belongs here: the words. Does not belong here: which template is chosen, options of multiple choice (`prompts.py`).

The first template of a kind is the one of prompt style `plain` and of evaluation. `{label}`, `{fps}`, `{points}` and `{medium}`
are filled in.
"""

from __future__ import annotations

TEMPLATES: dict[str, tuple[str, ...]] = {
    "point": (
        "Point to {label}.",
        "Locate {label}.",
        "Mark every place where you see {label}.",
        "Find {label} and point to it.",
        "Show me {label} with points.",
    ),
    "point_count": (
        "Point to {label} and count.",
        "Count {label} by pointing.",
        "How many {label} are there? Point to each.",
        "Mark {label}, then give the total.",
    ),
    "count": (
        "How many {label} are there?",
        "Count {label}.",
        "What is the number of {label}?",
        "Give the total of {label}.",
    ),
    "video_point": (
        "Point to {label} in the video.",
        "When and where do you see {label}?",
        "Mark {label} at a moment when it is seen.",
        "Find {label} in the video and point to it.",
    ),
    "video_point_count": (
        "Point to {label} in the video and count.",
        "Count {label} in the video by pointing.",
        "How many {label} does the video show? Point to each.",
    ),
    "track": (
        "Track {label} at {fps} FPS.",
        "Follow {label} through the video at {fps} FPS.",
        "Locate {label} over time, at {fps} frames per second.",
        "Give the position of {label} at {fps} FPS.",
    ),
    "ground": (
        "Point to the first and last appearance of {label}.",
        "Locate {label} when first and when last seen.",
        "Mark the first and the last sight of {label} in the video.",
    ),
    "single_point": (
        "Track {points} at {fps} FPS.",
        "Follow the object at {points} at {fps} FPS.",
        "Starting from {points}, where does it go? Answer at {fps} FPS.",
    ),
    "caption": (
        "Describe the {medium}.",
        "Describe this {medium} in detail.",
        "What does the {medium} show?",
        "Write a detailed caption of the {medium}.",
    ),
    "short_caption": (
        "Describe the {medium} briefly.",
        "Give a short caption of the {medium}.",
        "What is the {medium} about, in a sentence?",
    ),
    "transcript": (
        "Tell me about the {medium} as if speaking.",
        "Say aloud what the {medium} shows.",
        "Talk about the {medium}.",
    ),
}

CONVERSATIONAL = frozenset(
    {
        "pointing",
        "point_count",
        "cosyn_point",
        "user_qa",
        "correction_qa",
        "long_caption",
        "short_caption",
        "transcript",
        "text_sft",
        "video_short_caption",
        "video_merged_caption",
        "video_long_caption",
        "video_transcript",
        "video_point",
        "video_point_count",
        "video_count",
        "video_count_point",
        "video_point_track_per_frame",
        "video_point_ground_start_end",
        "video_single_point_track_per_frame",
        "multi_image_pointing",
        "multi_image_counting",
        "multi_image_point_then_count",
        "multi_image_count_then_point",
    }
)
"""Styles that carry no tag in prompt style `release`; all others, multiple choice apart, are asked as "style: question"
(allenai/molmo2, olmo/preprocessing/data_formatter.py)."""

CHOOSE = "Only return the correct answer option."
"""The released instruction of canonical multiple choice: "question, instruction, options A. B. C."."""
