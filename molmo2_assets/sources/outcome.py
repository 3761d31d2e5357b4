"""What fetching a source gives, and the two ways it can fail.

Belongs here: the result, the errors and the words of help that every kind of source shares. Does not belong here: any way to get
bytes.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from molmo2_assets.profile import DatasetSpec


@dataclass(frozen=True)
class FetchResult:
    """`revision` names the version that was fetched: a Hub commit, or a hash for sources that have no version of their own.

    `facts` are plain values for the manifest (file counts, bytes, licence, checksums); never a path of this machine, never a token.
    """

    revision: str
    facts: dict[str, Any] = field(default_factory=dict)


class SourceError(ValueError):
    """A source cannot be fetched as it is described; the message says what is wrong and the way out."""


class SourceUnavailable(SourceError):
    """A source that a person must unlock or put in place first: gated, manual, offline.

    `reason` is one sentence, `instructions` what to do about it; the asset is then published with state `unavailable`. `passing`
    trouble (a busy or unreachable server) is worth another try before that.
    """

    def __init__(self, reason: str, instructions: str = "", *, passing: bool = False) -> None:
        super().__init__(f"{reason} {instructions}".strip())
        self.reason = reason
        self.instructions = instructions
        self.passing = passing


def how_to_get(spec: DatasetSpec) -> str:
    """What a person should do to get a set: the entry's own words, else its page."""
    if spec.source.instructions:
        return spec.source.instructions
    return f"See {spec.url} for how to get the data." if spec.url else "Its catalogue entry should say how to get the data."
