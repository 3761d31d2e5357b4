"""The run kind `predict`: a checkpoint answers every question of an evaluation set.

Belongs here: reading the run's inputs, asking in batches, writing predictions, progress. Does not belong here: how a question is
laid out (`encode/`), how tokens are chosen (`model/generate.py`), judging answers (`molmo2_assets.evaluation`).

One question a branch, in row order. A question that cannot be asked (broken media, longer than the budget) is written down with its
reason, counted, and does not end the run; only if none could be asked is that an error. Batches share padding and a seed, so their
size is part of the identity.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import torch

from training_backend.api import RunSpec
from training_backend.config import Config, EncodeConfig, GenerateConfig, LossConfig
from training_backend.data.example import Example
from training_backend.data.media import MediaCache, MediaFault
from training_backend.data.predictions import Prediction, PredictionHeader, write_predictions
from training_backend.data.store import RowStore
from training_backend.encode.preprocessor import MediaSource, OversizedError, Preprocessor
from training_backend.encode.tokens import Tokenizer
from training_backend.model.generate import StopTexts, generate
from training_backend.model.molmo2 import Molmo2
from training_backend.model.weights import CONFIG_FILE, load_model
from training_backend.pack.batch import Encoded
from training_backend.pack.collate import collate
from training_backend.pack.media_source import CachedMedia

LOG_SECONDS = 30.0
SORTED_BATCHES = 8
"""Batches that are read ahead and sorted by length together, so that a long question does not make a whole batch long."""


class PredictIdentity(Config, frozen=True, kw_only=True):
    """`identity` of a predict run. `dataset`, `checkpoint`, `tokenizer` are data versions; the first `limit` rows are asked."""

    benchmark: str
    dataset: str
    checkpoint: str
    tokenizer: str
    encode: EncodeConfig
    generate: GenerateConfig
    max_tokens: int
    max_visual: int
    limit: int | None = None


def run_predict(spec: RunSpec, out: Path, log: Callable[[str], None]) -> dict[str, Any]:
    """Answer the questions of `spec` and write `predictions.jsonl` and `predictions.json` into `out`.

    Reads inputs `checkpoint`, `tokenizer`, `validated` and `cache`. Returns {"counts": rows, questions, failures; "facts": failures
    by reason, mean length of answers, answers cut off}. Raises ValueError where not a single question could be asked.
    """
    identity = msgspec.convert(spec.identity, PredictIdentity)
    torch.set_num_threads(spec.execution.threads)
    store = RowStore(Path(spec.inputs["validated"]))
    if store.version != identity.dataset:
        raise ValueError(
            f"{store.folder} is version {store.version}, the run was specified for {identity.dataset}; start it again."
        )
    model, tokenizer = _opened(spec, identity.encode)
    preprocessor = Preprocessor(identity.encode, LossConfig(rules={}), tokenizer, identity.max_tokens, identity.max_visual)
    asker = _Asker(model, tokenizer, preprocessor, identity.generate, CachedMedia(MediaCache(Path(spec.inputs["cache"]))))
    rows = len(store) if identity.limit is None else min(identity.limit, len(store))
    predictions = _ask_all(asker, store, rows, identity, log)
    reasons = Counter(item.failure.split(":")[0] for item in predictions if item.failure is not None)
    failures = sum(reasons.values())
    if predictions and failures == len(predictions):
        first = next(item for item in predictions if item.failure is not None)
        raise ValueError(f"none of {failures} questions could be asked; the first, {first.id}: {first.failure}")
    header = PredictionHeader(
        rows=rows,
        questions=len(predictions),
        failures=failures,
        point_syntax=identity.encode.point_syntax,
        dataset=store.version,
    )
    out.mkdir(parents=True, exist_ok=True)
    write_predictions(out, header, predictions)
    counts = {"rows": rows, "questions": len(predictions), "failures": failures}
    return {"counts": counts, "facts": {"failures": dict(sorted(reasons.items())), **asker.facts()}}


def _opened(spec: RunSpec, encode: EncodeConfig) -> tuple[Molmo2, Tokenizer]:
    """Weights and tokenizer of a run. Raises ValueError where they and the recipe do not belong together, naming file and key."""
    model = load_model(Path(spec.inputs["checkpoint"])).eval().to(_device(spec))
    config, path = model.config, Path(spec.inputs["checkpoint"]) / CONFIG_FILE
    for field in ("image_size", "patch_size"):
        has, shown = getattr(config.vision, field), getattr(encode, field)
        if has != shown:
            raise ValueError(f"{path}: vision.{field} is {has}, the recipe's encode.{field} is {shown}.")
    tokenizer = Tokenizer(Path(spec.inputs["tokenizer"]), config.decoder.extra_tokens)
    if tokenizer.vocab_size != config.decoder.vocab_size:
        raise ValueError(
            f"{spec.inputs['tokenizer']}: another vocabulary: {tokenizer.vocab_size} rows, {path} says decoder.vocab_size "
            f"{config.decoder.vocab_size}."
        )
    return model, tokenizer


def _device(spec: RunSpec) -> str:
    wanted = spec.execution.device
    if wanted == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    return wanted


def _ask_all(asker: _Asker, store: RowStore, rows: int, identity: PredictIdentity, log: Callable[[str], None]) -> list[Prediction]:
    """Every branch of the first `rows` rows, in row order."""
    total = sum(len(store.example(row).branches) for row in range(rows))
    started = last = time.monotonic()

    def tick() -> None:
        nonlocal last
        now = time.monotonic()
        if now - last >= LOG_SECONDS:
            last = now
            rate = asker.asked / (now - started)
            log(f"{identity.benchmark}: {asker.asked}/{total} questions, {rate:.1f} a second, {asker.failed} could not be asked")

    out: list[Prediction] = []
    for chunk in _chunks(store, rows, SORTED_BATCHES * identity.generate.batch_size):
        out += asker.ask(chunk, tick)
    seconds = time.monotonic() - started
    log(f"{identity.benchmark}: {asker.asked}/{total} questions in {seconds:.0f} s, {asker.failed} could not be asked")
    return out


def _chunks(store: RowStore, rows: int, size: int) -> Iterator[list[tuple[Example, int]]]:
    """(example, branch number) in row order, `size` at a time."""
    chunk: list[tuple[Example, int]] = []
    for row in range(rows):
        example = store.example(row)
        for branch in range(len(example.branches)):
            chunk.append((example, branch))
            if len(chunk) == size:
                yield chunk
                chunk = []
    if chunk:
        yield chunk


class _Asker:
    """A model with what it needs to be asked; counts what it says."""

    def __init__(
        self, model: Molmo2, tokenizer: Tokenizer, preprocessor: Preprocessor, config: GenerateConfig, media: MediaSource
    ) -> None:
        self.model, self.tokenizer, self.preprocessor, self.config, self.media = model, tokenizer, preprocessor, config, media
        self.patches = model.config.vision.patches_per_side**2
        self.stop = StopTexts(config.stop, tokenizer.decode)
        self.answer_tokens: list[int] = []
        self.cut_off = 0
        self.asked = self.failed = 0

    def ask(self, questions: list[tuple[Example, int]], tick: Callable[[], None]) -> list[Prediction]:
        """Answers in the order of the questions; prompts of like length are asked together. `tick` is called often."""
        prompts: dict[int, Encoded] = {}
        failures: dict[int, str] = {}
        for number, (example, branch) in enumerate(questions):
            try:
                prompts[number] = self.preprocessor.prompt(example, branch, self.media)
            except MediaFault as fault:
                failures[number] = f"{fault.reason}: {fault}"
            except OversizedError as error:
                failures[number] = f"oversized: {error}"
            tick()
        self.failed += len(failures)
        self.asked += len(failures)
        order = sorted(prompts, key=lambda number: (len(prompts[number].tokens), number))
        answers: dict[int, str] = {}
        for start in range(0, len(order), self.config.batch_size):
            numbers = order[start : start + self.config.batch_size]
            said = self._generate([prompts[number] for number in numbers])
            answers |= dict(zip(numbers, said, strict=True))
            self.asked += len(numbers)
            tick()
        return [
            Prediction(
                id=example.id,
                branch=example.branches[branch].id,
                prompt=self.preprocessor.question(example, branch),
                answer=answers.get(number, ""),
                failure=failures.get(number),
            )
            for number, (example, branch) in enumerate(questions)
        ]

    def _generate(self, prompts: list[Encoded]) -> list[str]:
        batch = collate([[prompt] for prompt in prompts], max(len(prompt.tokens) for prompt in prompts), self.patches)
        answers = generate(self.model, batch, prompts, self.config, [self.tokenizer.eos], self.stop)
        self.answer_tokens += [len(answer) for answer in answers]
        self.cut_off += sum(len(answer) >= self.config.max_new_tokens and not self.stop.ended(answer) for answer in answers)
        return [self.stop.cut(self.tokenizer.decode(answer)).strip() for answer in answers]

    def facts(self) -> dict[str, Any]:
        """Mean length of answers, and how many were cut off by the limit of new tokens."""
        mean = sum(self.answer_tokens) / len(self.answer_tokens) if self.answer_tokens else 0.0
        return {"answer_tokens_mean": mean, "answers_cut_off": self.cut_off}
