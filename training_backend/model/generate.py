"""Generation: batches of unequal prompts, a key/value cache, greedy or sampled.

Belongs here: prefill and decode steps, where an answer ends. A prompt is an `Encoded` whose last position predicts the first answer
token; prompts of a batch are padded on the right and every row keeps its own write position, so no row sees another's padding.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from training_backend.attention.choose import prepare
from training_backend.config import GenerateConfig
from training_backend.model.molmo2 import Molmo2, TensorBatch, _keep, is_full_layer
from training_backend.pack.batch import Batch, Encoded


class StopTexts:
    """Texts that end an answer, whichever tokens they are made of; `decode` gives the text of ids."""

    def __init__(self, texts: Sequence[str], decode: Callable[[Sequence[int]], str]) -> None:
        self.texts, self.decode = texts, decode
        # A token says a byte or more, so the newest ones hold a text that has just become whole.
        self.reach = max((len(text.encode()) for text in texts), default=0)

    def ended(self, tokens: Sequence[int]) -> bool:
        """Whether the last of `tokens` completes one of the texts."""
        if not self.reach:
            return False
        tail = self.decode(tokens[-self.reach :])
        return any(text in tail for text in self.texts)

    def cut(self, answer: str) -> str:
        """An answer up to the first of the texts."""
        return answer[: min((answer.find(text) for text in self.texts if text in answer), default=len(answer))]


class _Cache:
    """Keys and values of every layer, [B, G, S_max, D], with each row's length; written in place."""

    def __init__(self, model: Molmo2, batch: int, length: int, device: torch.device, dtype: torch.dtype) -> None:
        config = model.config.decoder
        shape = (config.layers, batch, config.kv_heads, length, config.head_dim)
        self.key = torch.zeros(shape, device=device, dtype=dtype)
        self.value = torch.zeros(shape, device=device, dtype=dtype)


@torch.inference_mode()
def generate(
    model: Molmo2,
    batch: Batch,
    prompts: Sequence[Encoded],
    config: GenerateConfig,
    stop: Sequence[int],
    texts: StopTexts | None = None,
) -> list[list[int]]:
    """New tokens of each prompt, without the stop token.

    `batch` holds one prompt a row (`pack.loader.collate` of single-example packs, unpadded beyond the longest); `prompts` give
    lengths and branches. Every row ends at one of `stop`, with the token that completes one of `texts`, or after `max_new_tokens`.
    Raises ValueError where they do not match.
    """
    if len(prompts) != len(batch.tokens):
        raise ValueError(f"{len(prompts)} prompts and a batch of {len(batch.tokens)} rows; one row holds one prompt.")
    device = next(model.parameters()).device
    tensors = TensorBatch.from_numpy(batch, device)
    lengths = torch.tensor([len(prompt.tokens) for prompt in prompts], device=device)
    rows = len(prompts)
    width = tensors.tokens.shape[1]
    total = width + config.max_new_tokens
    x_BSD = model.embed(tensors.tokens, tensors.crops, tensors.pool, tensors.slot, tensors.slot_weight)
    cache = _Cache(model, rows, total, device, x_BSD.dtype)
    full = model.mask(tensors)
    window = model.config.decoder.sliding_window
    near = model.mask(tensors, window) if window else full
    heads = (model.config.decoder.heads, model.config.decoder.kv_heads, model.config.decoder.head_dim)
    whole = prepare(full, model.attention, x_BSD, heads)
    part = prepare(near, model.attention, x_BSD, heads) if window else whole

    def prefill(layer: int, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        cache.key[layer, :, :, :width] = key
        cache.value[layer, :, :, :width] = value
        return (whole if is_full_layer(model.config, layer) else part)(query, key, value)

    hidden = model.decoder(x_BSD, tensors.position, prefill, _keep)
    row_index = torch.arange(rows, device=device)
    last = lengths - 1
    state = hidden[row_index, last]
    position = tensors.position[row_index, last]
    # What later tokens of a row may see of its prompt: the prefix and the branch of the last position.
    visible = torch.zeros(rows, total, dtype=torch.bool, device=device)
    branch = tensors.branch[row_index, last]
    visible[:, :width] = ((tensors.branch == -1) | (tensors.branch == branch[:, None])) & (tensors.example >= 0)
    places = torch.zeros(rows, total, dtype=torch.int64, device=device)
    places[:, :width] = tensors.position
    stops = torch.tensor(sorted(set(stop)), device=device)
    finished = torch.zeros(rows, dtype=torch.bool, device=device)
    generator = torch.Generator(device=device).manual_seed(config.seed)
    answers: list[list[int]] = [[] for _ in prompts]
    for step in range(config.max_new_tokens):
        token = _choose(F.linear(state, model.head_weight).float(), config, generator)
        finished |= torch.isin(token, stops)
        for row, (value, ended) in enumerate(zip(token.tolist(), finished.tolist(), strict=True)):
            if not ended:
                answers[row].append(value)
                if texts is not None and texts.ended(answers[row]):
                    finished[row] = True
        if bool(finished.all()) or step + 1 == config.max_new_tokens:
            break
        write = lengths + step
        position = position + 1
        visible[row_index, write] = True
        places[row_index, write] = position.to(torch.int64)

        reach = slice(0, width + step + 1)  # no row has written further

        def decode(
            layer: int, query: Tensor, key: Tensor, value: Tensor, write: Tensor = write, at: Tensor = position,
            reach: slice = reach,
        ) -> Tensor:  # fmt: skip
            cache.key[layer, row_index, :, write] = key[:, :, 0]
            cache.value[layer, row_index, :, write] = value[:, :, 0]
            mask = visible[:, reach]
            if window is not None and not is_full_layer(model.config, layer):
                mask = mask & (at[:, None] - places[:, reach] < window)
            grouped = query.shape[1] != key.shape[1]
            return F.scaled_dot_product_attention(
                query, cache.key[layer, :, :, reach], cache.value[layer, :, :, reach], attn_mask=mask[:, None, None, :],
                enable_gqa=grouped,
            )  # fmt: skip

        embedded = model.decoder.embed(token[:, None])
        state = model.decoder(embedded, position[:, None], decode, _keep)[:, 0]
    return answers


def _choose(logits_BV: Tensor, config: GenerateConfig, generator: torch.Generator) -> Tensor:
    """Next token of each row: the most likely one, or a sample of the nucleus."""
    if config.temperature <= 0:
        return logits_BV.argmax(dim=-1)
    probability = (logits_BV / config.temperature).softmax(dim=-1)
    ordered, order = probability.sort(dim=-1, descending=True)
    ordered = ordered * (ordered.cumsum(dim=-1) - ordered < config.top_p)
    choice = torch.multinomial(ordered, 1, generator=generator)
    return order.gather(-1, choice)[:, 0]
