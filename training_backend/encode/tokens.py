"""Text ↔ token ids: byte-level BPE, the chat markers, the extra rows for images, frames, points and times.

Belongs here: the tokenizer's files, encoding that never lets text become a special token, training a tokenizer. Does not belong
here: chat layout and questions (`prompts.py`), what an answer says (`data/points.py`).

A tokenizer folder holds `tokenizer.json` (the `tokenizers` library's own format) and `specials.json`. Ids below `vocab_size` are
the base table's, published tokenizers leave some of them unused; the extra tokens come after it, in the order of EXTRA_TOKENS.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

import msgspec
from tokenizers import AddedToken, Regex, decoders, models, pre_tokenizers, trainers
from tokenizers import Tokenizer as _Library

from training_backend.api import RunSpec
from training_backend.config import TokenizerConfig
from training_backend.data.example import Example
from training_backend.data.manifest import replace_file
from training_backend.data.points import Special
from training_backend.data.store import RowStore
from training_backend.encode.draws import Draws
from training_backend.encode.prompts import Wording, speak

TOKENIZER_FILE = "tokenizer.json"
SPECIALS_FILE = "specials.json"
CODE_VERSION = "1"
TEXT_ROWS = 4000
"""Rows of each set that a tokenizer is trained on; row numbers are ranks of hashes, so the first ones are a fair sample."""
BASE_TOKENS = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
EXTRA_TOKENS = (
    "<im_start>",
    "<im_end>",
    "<im_patch>",
    "<im_col>",
    "<low_res_im_start>",
    "<|image|>",
    "<im_low>",
    "<frame_start>",
    "<frame_end>",
    "<|video|>",
    "<|points|>",
    "<|token_index|>",
    "<|vit_index|>",
    "<|vit_loc|>",
    # Of the `report` recipe alone; the release writes points and times as plain text.
    "<point",
    "<timestamp>",
)
"""Extra token k has id vocab_size + k. The first fourteen stand in the released order (allenai/molmo2, olmo/tokenizer.py)."""
_SPELLED = re.compile("|".join(re.escape(name) for name in (*BASE_TOKENS, *EXTRA_TOKENS)))
_NUMBERS = {"digits": r"\p{N}", "whole": r"\p{N}+(?:\.\p{N}+)?|[^\s\p{L}\p{N}]+ (?=\p{N})"}
_WORDS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|NUMBERS| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
"""Where BPE may not merge: the expression of Qwen's tokenizers, in which every digit stands alone, or numbers are whole. A space
never belongs to a number: the second above a frame and the second in an answer must be one token."""


class TokenizerError(ValueError):
    """A tokenizer that cannot be read or made; the message names the file and the way out."""


class Specials(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`specials.json`: rows of the base table and the markers by name."""

    vocab_size: int
    bos: str
    eos: str
    pad: str


class Tokenizer:
    """An opened tokenizer folder. Safe to share between threads."""

    def __init__(self, folder: Path, extra_tokens: int = 128) -> None:
        path = Path(folder) / TOKENIZER_FILE
        try:
            body = json.loads(path.read_text())
            specials = msgspec.json.decode((path.parent / SPECIALS_FILE).read_bytes(), type=Specials)
        except FileNotFoundError as error:
            raise TokenizerError(f"{error.filename} is missing: materialise the tokenizer again.") from None
        except (json.JSONDecodeError, UnicodeDecodeError, msgspec.MsgspecError) as error:
            raise TokenizerError(f"{path.parent} cannot be read ({error}): materialise the tokenizer again.") from None
        check_tokenizer(path, body)
        if extra_tokens < len(EXTRA_TOKENS):
            raise TokenizerError(f"a model needs at least {len(EXTRA_TOKENS)} extra tokens, not {extra_tokens}")
        added = {token["content"]: token["id"] for token in body["added_tokens"]}
        known = {**body["model"]["vocab"], **added}
        self.vocab_size = specials.vocab_size
        if max(known.values()) >= self.vocab_size:
            raise TokenizerError(f"{path} has token {max(known.values())}; its table has only {self.vocab_size} rows.")
        missing = {*BASE_TOKENS[1:], specials.bos, specials.eos, specials.pad} - known.keys()
        if missing:
            raise TokenizerError(f"{path} lacks the chat markers {sorted(missing)}; choose a tokenizer that has them.")
        # Without its added tokens the library cannot find any in a text, whatever the text spells.
        self._plain = _library(path, body | {"added_tokens": [], "post_processor": None})
        self._reading = _library(path, body)
        self.special: dict[str, int] = {name: known[name] for name in dict.fromkeys((*BASE_TOKENS, *added)) if name in known}
        self.special |= {name: self.vocab_size + number for number, name in enumerate(EXTRA_TOKENS)}
        self.bos, self.eos, self.pad = (known[name] for name in (specials.bos, specials.eos, specials.pad))
        self.table_size = self.vocab_size + extra_tokens
        self._silent = {known[name] for name in (*BASE_TOKENS, specials.bos, specials.eos, specials.pad) if name in known}
        self._extra = {self.vocab_size + number: name for number, name in enumerate(EXTRA_TOKENS)}
        self._names = {number: name for name, number in self.special.items()}
        self._ids = lru_cache(maxsize=1 << 14)(self._encode)
        ids = set(self.special.values())
        for name in self.special:
            if ids.intersection(self._encode(name)):
                raise TokenizerError(f"{path} reads the text {name!r} as a special token; it cannot be used on text from outside.")

    def _encode(self, text: str) -> tuple[int, ...]:
        return tuple(self._plain.encode(text, add_special_tokens=False).ids)

    def encode(self, text: str) -> list[int]:
        """Ids of plain text; never a special token, even where the text spells one."""
        return list(self._ids(text))

    def encode_pieces(self, pieces: Sequence[str]) -> list[int]:
        """Ids of formatted text: a `Special` piece becomes its token, everything else is plain text."""
        out: list[int] = []
        for piece in pieces:
            if isinstance(piece, Special):
                out.append(self.special[piece])
            else:
                out += self._ids(piece)
        return out

    def decode(self, ids: Iterable[int]) -> str:
        """Text of ids. Extra tokens are spelled out (a point begins with one); beginning, end, padding and chat markers are left
        out; rows that stand for nothing show as `<|unused_ID|>`."""
        out: list[str] = []
        run: list[int] = []
        for number in (*map(int, ids), -1):
            plain = 0 <= number < self.vocab_size
            if plain and number not in self._silent:
                run.append(number)
                continue
            if run and not plain:
                out.append(self._text(run))
                run = []
            if number >= self.vocab_size:
                out.append(self._extra.get(number, f"<|unused_{number}|>"))
        return "".join(out)

    def spell(self, number: int) -> tuple[str, bool]:
        """One id for people: its text, and whether it is a special token."""
        name = self._names.get(number)
        return (name, True) if name is not None else (self.decode([number]), False)

    def _text(self, ids: list[int]) -> str:
        size = self._reading.get_vocab_size()
        if max(ids) < size:
            return str(self._reading.decode(ids, skip_special_tokens=False))
        # Rows that a published tokenizer leaves unused; a model in training may still say them.
        return "".join(self._reading.decode([n], skip_special_tokens=False) if n < size else f"<|unused_{n}|>" for n in ids)


def check_tokenizer(path: Path, body: Any) -> None:
    """Refuse what is no `tokenizer.json` with a table of whole numbers. Raises TokenizerError naming file and key."""
    table = body if isinstance(body, dict) else {}
    added, model = table.get("added_tokens"), table.get("model")
    if not isinstance(added, list):
        raise TokenizerError(f"{path}: added_tokens is {_kind(added)}, not a list: no tokenizer of the `tokenizers` library.")
    if not isinstance(model, dict):
        raise TokenizerError(f"{path}: model is {_kind(model)}, not a table: no tokenizer of the `tokenizers` library.")
    for place, token in enumerate(added):
        if not (isinstance(token, dict) and isinstance(token.get("content"), str) and _is_id(token.get("id"))):
            raise TokenizerError(f"{path}: added_tokens[{place}] has no text and whole number.")
    vocab = model.get("vocab")
    if not isinstance(vocab, dict) or not vocab or not all(map(_is_id, vocab.values())):
        raise TokenizerError(f"{path}: model.vocab is no table from texts to whole numbers; BPE has one.")


def _is_id(value: object) -> bool:
    return type(value) is int and 0 <= value < 1 << 31


def _kind(value: object) -> str:
    return "missing" if value is None else f"a {type(value).__name__}"


def _library(path: Path, body: dict[str, Any]) -> _Library:
    try:
        return _Library.from_str(json.dumps(body))
    except Exception as error:  # the library has no type of its own for it
        raise TokenizerError(f"{path}: cannot be read by the `tokenizers` library: {error}") from None


def train_tokenizer(
    texts: Iterable[str], vocab_size: int, out_folder: Path, numbers: Literal["digits", "whole"] = "digits"
) -> None:
    """Train a byte-level BPE on `texts` and write its folder. Equal texts, in any order, give equal bytes.

    `numbers` as in TokenizerConfig.

    No special token's spelling is learned as a word, however often texts hold it: a word and a special token of one spelling are
    told apart here, but not in the `tokenizers` library, which a published folder is read with. Where the texts offer fewer merges
    than `vocab_size` allows, the last rows stay unused.
    """
    if vocab_size < 256 + len(BASE_TOKENS):
        raise TokenizerError(f"vocab_size is {vocab_size}; bytes and markers alone need {256 + len(BASE_TOKENS)}")
    library = _Library(models.BPE())
    words = Regex(_WORDS.replace("NUMBERS", _NUMBERS[numbers]))
    library.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Split(words, "isolated"), pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)]
    )
    library.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=[AddedToken(name, special=True, normalized=False) for name in BASE_TOKENS],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    library.train_from_iterator((part for text in texts for part in _SPELLED.split(text) if part), trainer)
    specials = Specials(vocab_size=vocab_size, bos="<|endoftext|>", eos="<|im_end|>", pad="<|endoftext|>")
    body = json.dumps(json.loads(library.to_str()), ensure_ascii=False, indent=1, sort_keys=True)
    replace_file(out_folder / TOKENIZER_FILE, body.encode() + b"\n")
    _write_specials(out_folder, specials)


def install_tokenizer(published: Path, vocab_size: int, out_folder: Path) -> None:
    """Write the folder of a published `tokenizer.json` whose base table has `vocab_size` rows.

    Qwen's tokenizers have no token for the beginning, so the end token stands there too, as in the release.
    """
    try:
        body = json.loads(published.read_text())
    except (OSError, ValueError) as error:
        raise TokenizerError(f"{published} cannot be read as a tokenizer: {error}") from None
    check_tokenizer(published, body)
    added = {token["content"] for token in body["added_tokens"]}
    pad = "<|endoftext|>" if "<|endoftext|>" in added else "<|im_end|>"
    replace_file(out_folder / TOKENIZER_FILE, published.read_bytes())
    _write_specials(out_folder, Specials(vocab_size=vocab_size, bos="<|im_end|>", eos="<|im_end|>", pad=pad))
    Tokenizer(out_folder)


def _write_specials(folder: Path, specials: Specials) -> None:
    replace_file(folder / SPECIALS_FILE, msgspec.json.format(msgspec.json.encode(specials, order="sorted"), indent=1) + b"\n")


def build_tokenizer(spec: RunSpec, out: Path, log: Callable[[str], None]) -> dict[str, Any]:
    """The run kind `tokenizer`: train on the rows of inputs `validated/<name>`, or fetch a published one, into `out`.

    `identity["config"]` is a TokenizerConfig. At most TEXT_ROWS rows of each set are read.
    Returns {"counts", "facts"}.
    """
    config = msgspec.convert(spec.identity["config"], TokenizerConfig)
    if config.kind == "pretrained":
        install_tokenizer(_fetch(config, out), config.vocab_size, out)
        return {"counts": {"vocab_size": config.vocab_size}, "facts": {"repo": config.repo, "revision": config.revision}}
    folders = {name.removeprefix("validated/"): path for name, path in spec.inputs.items() if name.startswith("validated/")}
    if not folders:
        raise TokenizerError("a tokenizer is trained on validated sets, and the run names none: add inputs validated/<name>.")
    stores = [RowStore(Path(folders[name])) for name in sorted(folders)]
    read = [min(TEXT_ROWS, len(store)) for store in stores]
    log(f"training a tokenizer of {config.vocab_size} tokens on {sum(read)} rows of {len(stores)} sets")
    train_tokenizer(
        (
            text
            for store, many in zip(stores, read, strict=True)
            for number in range(many)
            for text in row_texts(store.example(number), config.coordinate_digits)
        ),
        config.vocab_size,
        out,
        config.numbers,
    )
    made = Tokenizer(out)
    sample = [text for store in stores if len(store) for text in row_texts(store.example(0), config.coordinate_digits)]
    letters, ids = sum(map(len, sample)), sum(len(made.encode(text)) for text in sample)
    log(f"{letters / max(ids, 1):.2f} characters a token on the first rows")
    return {
        "counts": {"rows": sum(read), "vocab_size": config.vocab_size},
        "facts": {"characters_per_token": letters / max(ids, 1)},
    }


def row_texts(example: Example, digits: int = 3) -> Iterator[str]:
    """What a model reads and writes about a row: subtitles and every branch in words, questions from varying templates, points
    with `digits` decimals."""
    wording = Wording("report", "report", digits)
    for media in example.media:
        yield from (line.text for line in media.subtitles)
    for number in range(len(example.branches)):
        for turn in speak(example, number, wording, Draws(example.id, 0)):
            yield f"{turn.role}\n"
            yield "".join(turn.pieces)


def _fetch(config: TokenizerConfig, out: Path) -> Path:
    """`tokenizer.json` of a repository at a commit, beside `out`."""
    if not config.repo or not config.revision or not re.fullmatch(r"[0-9a-f]{40}", config.revision):
        raise TokenizerError(
            f"a pretrained tokenizer needs repo and revision, a full commit; not {config.repo!r}, {config.revision!r}"
        )
    from huggingface_hub import hf_hub_download

    return Path(hf_hub_download(config.repo, TOKENIZER_FILE, revision=config.revision, local_dir=out.parent / "published"))
