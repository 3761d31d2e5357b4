"""Example → arrays: the one place that knows what an example costs and what is left out when it costs too much.

Belongs here: fitting an example into two budgets (tokens; crops and frames), `lengths` and `encode` over one and the same plan.
Does not belong here: words, tiling, sampling, the visual prefix, tree arrays (the other modules of this folder), decoding
(`pack/media_source.py`).

What gives way when an example is too large: branches may fill half of the token budget (or as much as the smallest of them
needs), the pictures get the rest. Pictures shrink to fewer frames or fewer crops, or (policy `coarser_pooling`) first to fewer
visual tokens each; branches that then find no room are left out whole, in the row's drawn order. All of it is counted. A row of
which no answer fits is *left out*: it takes one position, teaches nothing, and is reported.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from training_backend.config import EncodeConfig, LossConfig, LossRule
from training_backend.data.example import TASKS, Example, Media, Tracks
from training_backend.data.media import MediaFault
from training_backend.encode import images, video
from training_backend.encode.draws import Draws, variant_of
from training_backend.encode.prefix import Prefix, Prefixes, Tiling
from training_backend.encode.prompts import Spoken, Wording, speak
from training_backend.encode.tokens import Tokenizer
from training_backend.encode.tree import BranchTokens, assemble, branch_tokens, branch_weight
from training_backend.pack.batch import Encoded

CODE_VERSION = "2"
"""Raised by hand when the arrays of an unchanged example change. 2: a picture with a side below the margins gets one crop."""
_TASK_NUMBER = {name: number for number, name in enumerate(TASKS)}
LeftOut = Literal["too_many_images", "mixed_media", "pictures_too_large", "no_branch_fits"]
_TIME_TOKENS = 16
"""More tokens than the words of a time ever take."""
COARSEST = 3
"""A pooling window grows to this multiple of the recipe's side at most: a ninth of the visual tokens."""


class MediaSource(Protocol):
    """Pixels of media. Raises MediaFault where they cannot be had."""

    def image(self, media: Media) -> NDArray[np.uint8]:
        """[H, W, 3] as displayed."""
        ...

    def frames(self, media: Media, times: Sequence[float], size: tuple[int, int] | None = None) -> NDArray[np.uint8]:
        """[N, H, W, 3] at seconds from the clip's start; of this height and width, where the source resizes them itself."""
        ...


class OversizedError(ValueError):
    """An example that does not fit its budgets where the recipe refuses such examples, or a question that does not fit at all."""


@dataclass(slots=True)
class Plan:
    """What an example becomes, decided without its pixels."""

    prefix: Prefix
    branches: list[BranchTokens] = field(default_factory=list)
    order: list[int] = field(default_factory=list)  # which branch of the row each of `branches` is
    weights: list[float] = field(default_factory=list)
    tilings: tuple[Tiling, ...] = ()
    times: tuple[float, ...] = ()
    truncated_branches: int = 0
    dropped_frames: int = 0
    coarser_pictures: int = 0
    unshown_samples: int = 0
    left_out: LeftOut | None = None
    detail: str = ""

    @property
    def tokens(self) -> int:
        return len(self.prefix.ids) + sum(map(len, self.branches))

    @property
    def visual(self) -> int:
        """Crops and frames."""
        return self.prefix.crops

    @property
    def loss_mass(self) -> float:
        """Sum of the loss weights of all predictions."""
        pairs = zip(self.weights, self.branches, strict=True)
        return float(sum(weight * (np.count_nonzero(item.learned) + 1) for weight, item in pairs))


class Preprocessor:
    """A recipe's encoder. Pure: every result is a function of its arguments. Safe to share between threads."""

    def __init__(self, config: EncodeConfig, loss: LossConfig, tokenizer: Tokenizer, max_tokens: int, max_visual: int) -> None:
        self.config, self.loss, self.tokenizer = config, loss, tokenizer
        self.max_tokens, self.max_visual = max_tokens, max_visual
        self.geometry = images.Geometry.of(config)
        self.wording = Wording(config.prompt_style, config.point_syntax, config.coordinate_digits)
        self.prefixes = Prefixes(config, self.geometry, tokenizer)
        self._image_windows, self._video_windows = self._windows(config.image_window), self._windows(config.video_window)
        self._largest_frame = len(video.frame_layout(self._video_windows[-1], self.geometry).names) + _TIME_TOKENS

    # -- what callers use ----------------------------------------------------------------------------------------------------

    def lengths(self, example: Example, key: int) -> tuple[int, int]:
        """(tokens, crops and frames) that `encode` will give. Raises OversizedError where the recipe refuses."""
        plan = self.plan(example, Draws(example.id, variant_of(key)))
        return plan.tokens, plan.visual

    def encode(self, example: Example, key: int, media: MediaSource | None) -> Encoded:
        """The example as a training sequence. Without `media` its pictures are black: geometry for an example that teaches nothing
        because its media failed."""
        plan = self.plan(example, Draws(example.id, variant_of(key)))
        encoded = self._arrays(example, plan, media)
        assert (len(encoded.tokens), len(encoded.crops)) == (plan.tokens, plan.visual), (
            f"{example.id}: planned and made sizes differ"
        )
        return encoded

    def prompt(self, example: Example, branch: int, media: MediaSource | None) -> Encoded:
        """One branch up to where its last answer begins, nothing learned: canonical words, options as stored.

        Raises OversizedError where the question alone fills the budget.
        """

        def text(last_time: float | None) -> list[BranchTokens]:
            return [branch_tokens(self._question(example, branch, last_time), self.tokenizer, asked=True)]

        plan = self._fit(example, text)
        if plan.left_out is None:
            size = len(text(self._last_time(example, plan))[0])
            if plan.tokens + size > self.max_tokens:
                plan.left_out, plan.detail = "no_branch_fits", f"the question alone has {size} tokens"
        if plan.left_out is not None:
            name = example.branches[branch].id
            raise OversizedError(f"{example.id}, branch {name}: {plan.detail}; {self._budgets}.")
        plan.branches, plan.weights = text(self._last_time(example, plan)), [0.0]
        return self._arrays(example, plan, media)

    def question(self, example: Example, branch: int) -> str:
        """Words of the question that `prompt` asks last."""
        turns = self._question(example, branch, None)
        return next(turn.text for turn in reversed(turns) if turn.role == "user")

    # -- planning ------------------------------------------------------------------------------------------------------------

    def plan(self, example: Example, draws: Draws) -> Plan:
        """Everything but the pixels, for one realisation of the row."""
        cached: dict[float | None, list[BranchTokens]] = {}

        def text(last_time: float | None) -> list[BranchTokens]:
            if last_time not in cached:
                cached[last_time] = [
                    branch_tokens(speak(example, number, self.wording, draws, last_time), self.tokenizer)
                    for number in range(len(example.branches))
                ]
            return cached[last_time]

        plan = self._fit(example, text)
        if plan.left_out is None:
            self._choose_branches(example, plan, text(self._last_time(example, plan)), draws)
            plan.unshown_samples = _samples_after(example, self._last_time(example, plan))
        if plan.left_out is not None:
            if self.config.oversized == "refuse":
                raise OversizedError(f"{example.id}: {plan.detail}; {self._budgets}, or let the recipe leave such rows out.")
            return Plan(self.prefixes.start, truncated_branches=len(example.branches), left_out=plan.left_out, detail=plan.detail)
        if self.config.oversized == "refuse" and (plan.truncated_branches or plan.dropped_frames):
            raise OversizedError(
                f"{example.id}: {plan.truncated_branches} branches, {plan.dropped_frames} frames or crops too many; "
                f"{self._budgets}, or let the recipe show less (oversized: fewer_frames)."
            )
        return plan

    @property
    def _budgets(self) -> str:
        return f"the budgets are {self.max_tokens} tokens and {self.max_visual} crops or frames: raise them"

    def _choose_branches(self, example: Example, plan: Plan, branches: list[BranchTokens], draws: Draws) -> None:
        rule = self._rule(example)
        room = self.max_tokens - len(plan.prefix.ids)
        used = draws.used
        order = draws.permutation(len(branches), "branches") if len(branches) > 1 else [0]
        kept: list[int] = []
        for number in order:
            if len(branches[number]) <= room:
                kept.append(number)
                room -= len(branches[number])
        plan.truncated_branches = len(branches) - len(kept)
        if not plan.truncated_branches:
            # The order alone changes no length.
            draws.used = used
        if not kept:
            plan.left_out, plan.detail = "no_branch_fits", f"its shortest branch has {min(map(len, branches))} tokens"
            return
        plan.branches, plan.order = [branches[number] for number in kept], kept
        plan.weights = [
            branch_weight(rule, example.branches[number].weight, branches[number].answer_tokens, len(kept)) for number in kept
        ]

    def _rule(self, example: Example) -> LossRule:
        try:
            return self.loss.rules[example.task]
        except KeyError:
            raise ValueError(
                f"{example.id}: the recipe has no loss rule for task {example.task}; add one under loss.rules."
            ) from None

    def _fit(self, example: Example, text: Callable[[float | None], list[BranchTokens]]) -> Plan:
        """The pictures as large as the budgets allow."""
        stills = [item for item in example.media if item.kind == "image"]
        if not example.media:
            return Plan(self.prefixes.start)
        shortest = min(map(len, text(None)))
        if shortest >= self.max_tokens and _track_rate(example) is None:
            return self._nothing("no_branch_fits", f"its shortest branch has {shortest} tokens")
        if len(stills) == len(example.media):
            if len(stills) > self.config.max_images:
                return self._nothing("too_many_images", f"it has {len(stills)} images, the recipe shows {self.config.max_images}")
            return self._fit_images(example, self._share(text(None)))
        if len(example.media) == 1:
            return self._fit_video(example, text)
        return self._nothing("mixed_media", "it has a video beside other media")

    def _nothing(self, reason: LeftOut, detail: str) -> Plan:
        return Plan(self.prefixes.start, left_out=reason, detail=detail)

    def _share(self, branches: list[BranchTokens]) -> int:
        """Tokens that pictures may take."""
        wanted = sum(map(len, branches))
        return self.max_tokens - min(wanted, max(self.max_tokens // 2, min(map(len, branches))))

    def _windows(self, declared: int) -> range:
        """Sides of pooling windows that the policy allows, the recipe's own first."""
        coarsest = COARSEST * declared if self.config.oversized == "coarser_pooling" else declared
        return range(declared, max(declared, min(coarsest, self.geometry.side)) + 1)

    def _fit_images(self, example: Example, share: int) -> Plan:
        """As many crops as the budgets allow, then as fine as they allow."""
        windows, least = self._image_windows, 0 if self.config.low_resolution else 1
        wanted = 0
        for most in range(self.config.max_crops, least - 1, -1):
            tilings = tuple(
                images.choose_tiling(item.height, item.width, most, self.geometry) if most else None for item in example.media
            )
            prefix = self.prefixes.still(tilings, windows[-1])
            wanted = wanted or prefix.crops
            if len(prefix.ids) <= share and prefix.crops <= self.max_visual:
                finest, coarser = _finest(windows, partial(self.prefixes.still, tilings), share)
                return Plan(
                    finest,
                    tilings=tilings,
                    dropped_frames=wanted - prefix.crops,
                    coarser_pictures=len(tilings) if coarser else 0,
                )
        return self._nothing("pictures_too_large", f"its pictures take {len(prefix.ids)} tokens, {prefix.crops} crops at least")

    def _fit_video(self, example: Example, text: Callable[[float | None], list[BranchTokens]]) -> Plan:
        """As many frames as the budgets allow, then as fine as they allow."""
        media, rate, windows = example.media[0], _track_rate(example), self._video_windows
        if media.seconds is None:
            raise ValueError(f"{example.id}: the video {media.id} has no duration; validate the set again.")
        wanted = len(self._times(media, self.config.max_frames, rate))
        count = min(self.config.max_frames, self.max_visual)
        while count >= 1:
            times = self._times(media, count, rate)
            pooled = partial(self.prefixes.moving, times, video.subtitle_text(media.subtitles, times))
            prefix = pooled(windows[-1])
            plan = Plan(prefix, times=times, dropped_frames=max(0, wanted - len(times)))
            share = self._share(text(self._last_time(example, plan)))
            excess = len(prefix.ids) - share
            if excess <= 0:
                plan.prefix, coarser = _finest(windows, pooled, share)
                plan.coarser_pictures = len(times) if coarser else 0
                return plan
            # A frame less frees at most its own tokens and its time's, so this passes over no number that fits.
            count = min(count, len(times)) - max(1, excess // self._largest_frame)
        return self._nothing("pictures_too_large", f"one frame of its video takes {len(prefix.ids)} tokens with its subtitles")

    def _times(self, media: Media, count: int, rate: float | None) -> tuple[float, ...]:
        assert media.seconds is not None
        if rate is not None:
            return video.tracking_times(media.seconds, count, self.config.frame_rate, rate)
        if self.config.sampler == "uniform_last_frame":
            return video.uniform_times(media.seconds, count, self.config.frame_rate)
        if not media.fps:
            raise ValueError(f"the video {media.id} has no frame rate, by which the sampler `transformers` counts; validate again.")
        return video.transformers_times(max(1, round(media.seconds * media.fps)), media.fps, count, self.config.frame_rate)

    def _last_time(self, example: Example, plan: Plan) -> float | None:
        """The second after which a tracking video is not shown; None where no answer could reach beyond it."""
        return plan.times[-1] + 1e-6 if plan.times and _track_rate(example) is not None else None

    # -- arrays --------------------------------------------------------------------------------------------------------------

    def _question(self, example: Example, branch: int, last_time: float | None) -> list[Spoken]:
        return speak(example, branch, self.wording, None, last_time)

    def _arrays(self, example: Example, plan: Plan, media: MediaSource | None) -> Encoded:
        tree = assemble(plan.prefix.ids, plan.branches, plan.weights, self.tokenizer.eos)
        image = np.full(len(tree.tokens), -1, dtype=np.int32)
        image[: len(plan.prefix.image)] = plan.prefix.image
        return Encoded(
            tokens=tree.tokens,
            targets=tree.targets,
            weights=tree.weights,
            position=tree.position,
            branch=tree.branch,
            image=image,
            crops=self._crops(example, plan, media),
            pool=plan.prefix.pool,
            slot=plan.prefix.slot,
            task=_TASK_NUMBER[example.task],
            truncated_branches=plan.truncated_branches,
            dropped_frames=plan.dropped_frames,
            coarser_pictures=plan.coarser_pictures,
        )

    def _crops(self, example: Example, plan: Plan, media: MediaSource | None) -> NDArray[np.uint8]:
        side = self.geometry.pixels
        if media is None or not plan.visual:
            return np.zeros((plan.visual, side, side, 3), dtype=np.uint8)
        if plan.times:
            frames = media.frames(example.media[0], plan.times, (side, side))
            assert len(frames) == len(plan.times), f"{example.id}: asked for {len(plan.times)} frames, got {len(frames)}"
            return images.resize(frames, side, side)
        made = []
        for item, tiling in zip(example.media, plan.tilings, strict=True):
            pixels = media.image(item)
            if pixels.shape != (item.height, item.width, 3):
                raise MediaFault(
                    "decode",
                    f"{example.id}: {item.id} is {pixels.shape[1]}×{pixels.shape[0]}, its row says {item.width}×{item.height}. "
                    "Materialise its media and validate the set again.",
                )
            made.append(images.crop_image(pixels, tiling, self.geometry))
        return made[0] if len(made) == 1 else np.concatenate(made)


def _finest(windows: Sequence[int], pooled: Callable[[int], Prefix], share: int) -> tuple[Prefix, bool]:
    """The prefix of the smallest window in which it takes at most `share` tokens, as it does in the last one; and whether that is
    larger than the first, the recipe's own."""
    for window in windows:
        prefix = pooled(window)
        if len(prefix.ids) <= share:
            return prefix, window > windows[0]
    raise AssertionError("the last window was tried before")


def _track_rate(example: Example) -> float | None:
    """Samples a second of the example's tracks; None without tracks."""
    parts = (part for branch in example.branches for turn in branch.turns for part in turn.parts)
    return max((part.fps for part in parts if isinstance(part, Tracks)), default=None)


def _samples_after(example: Example, last_time: float | None) -> int:
    """Samples of its tracks that nobody is asked about, because the shown part of the film ends before them."""
    if last_time is None:
        return 0
    parts = (part for branch in example.branches for turn in branch.turns for part in turn.parts)
    return sum(s.t > last_time for part in parts if isinstance(part, Tracks) for track in part.tracks for s in track.samples)
