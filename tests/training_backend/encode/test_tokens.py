"""Tokenizers: byte-exact round trips, special tokens that text cannot reach, training that repeats itself."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Literal

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support.examples import WORDS, many, store_at, tokenizer_at
from training_backend.api import RunSpec
from training_backend.data.fingerprint import file_sha256
from training_backend.data.points import Special
from training_backend.encode.tokens import (
    BASE_TOKENS,
    EXTRA_TOKENS,
    SPECIALS_FILE,
    TOKENIZER_FILE,
    Tokenizer,
    TokenizerError,
    build_tokenizer,
    install_tokenizer,
    train_tokenizer,
)


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Tokenizer:
    return tokenizer_at(tmp_path_factory.mktemp("tokenizer"))


@settings(max_examples=80, deadline=None)
@given(st.text(max_size=60))
def test_every_text_comes_back(tokenizer: Tokenizer, text: str) -> None:
    assert tokenizer.decode(tokenizer.encode(text)) == text


special_text = st.lists(
    st.sampled_from(["<|im_end|>", "<|im_start|>", "<|endoftext|>", "<im_patch>", "<point", " 0.5", "x", "\n"]), max_size=8
)


@settings(max_examples=80, deadline=None)
@given(special_text.map("".join))
def test_text_never_becomes_a_special_token(tokenizer: Tokenizer, text: str) -> None:
    ids = tokenizer.encode(text)
    assert not set(ids) & set(tokenizer.special.values())
    assert tokenizer.decode(ids) == text


def test_the_formatter_alone_speaks_special_tokens(tokenizer: Tokenizer) -> None:
    ids = tokenizer.encode_pieces(["<point 1", Special("<point"), " 0.5>"])
    assert ids.count(tokenizer.special["<point"]) == 1
    assert tokenizer.decode(ids) == "<point 1<point 0.5>"


def test_extra_tokens_follow_the_base_table(tokenizer: Tokenizer) -> None:
    assert tokenizer.vocab_size == 400
    assert [tokenizer.special[name] for name in EXTRA_TOKENS] == list(range(400, 400 + len(EXTRA_TOKENS)))
    assert EXTRA_TOKENS[:4] == ("<im_start>", "<im_end>", "<im_patch>", "<im_col>")
    assert tokenizer.special["<im_start>"] != tokenizer.special["<|im_start|>"] < 400
    assert len({tokenizer.bos, tokenizer.eos, tokenizer.special["<|im_start|>"]}) == 3


def test_digits_stand_alone(tokenizer: Tokenizer) -> None:
    digits = {tokenizer.encode(str(number))[0] for number in range(10)}
    assert [number in digits for number in tokenizer.encode("0.512")] == [True, False, True, True, True]


@pytest.mark.parametrize("numbers", ["digits", "whole"])
def test_numbers_are_digits_or_whole(tmp_path: Path, numbers: Literal["digits", "whole"]) -> None:
    """The second above a frame and the second in an answer are one and the same token; text comes back as it was."""
    texts = [f"{k / 10:.1f}, 0.{k}, 0.{9 - k}, {k}> at {k}.5: " for k in range(10)]
    train_tokenizer(texts * 20, 400, tmp_path, numbers)
    tokenizer = Tokenizer(tmp_path)
    above, answer = tokenizer.encode("0.4"), tokenizer.encode(" 0.4, 0.7, 1>")
    pieces = [tokenizer.decode([number]) for number in answer]
    if numbers == "whole":
        assert pieces == [" ", "0.4", ", ", "0.7", ", ", "1", ">"]
        assert above == answer[1:2]
    else:
        assert pieces == [" ", "0", ".", "4", ",", " ", "0", ".", "7", ",", " ", "1", ">"]
        assert above == answer[1:4]
    for text in (" 0.4, 0.7, 1>", "1,234.5 x 3. Then -2 (7) 0.4.5", "²½ ٣.٤, ٥"):
        assert tokenizer.decode(tokenizer.encode(text)) == text


def test_ids_that_stand_for_nothing_are_shown(tokenizer: Tokenizer) -> None:
    """A model in training says anything; decoding must not lose or break on it."""
    word = tokenizer.encode("red")
    assert tokenizer.decode([*word, 399, 400 + 100, tokenizer.eos]) in (
        "red<|unused_399|><|unused_500|>",
        "red" + tokenizer.decode([399]) + "<|unused_500|>",
    )
    assert tokenizer.decode([]) == ""


def test_no_special_token_s_spelling_is_learned_as_a_word(tmp_path: Path) -> None:
    """The library would give the two one number, and no folder for transformers could be written."""
    names = (*BASE_TOKENS, *EXTRA_TOKENS)
    train_tokenizer([f"{name} 0.5, {name}er {name}" for name in names] * 20, 1200, tmp_path)
    table = json.loads((tmp_path / TOKENIZER_FILE).read_text())["model"]["vocab"]
    assert [name for name in EXTRA_TOKENS if name in table] == []
    assert "er" in table  # it did learn
    tokenizer = Tokenizer(tmp_path)
    assert tokenizer.decode(tokenizer.encode("<point 0.5")) == "<point 0.5"
    assert tokenizer.special["<point"] not in tokenizer.encode("<point 0.5")


def test_training_repeats_itself_in_any_order(tmp_path: Path) -> None:
    texts = list(WORDS * 3)
    train_tokenizer(texts, 380, tmp_path / "a")
    random.Random(1).shuffle(texts)
    train_tokenizer(iter(texts), 380, tmp_path / "b")
    assert file_sha256(tmp_path / "a" / TOKENIZER_FILE) == file_sha256(tmp_path / "b" / TOKENIZER_FILE)


def test_too_few_texts_leave_rows_unused(tmp_path: Path) -> None:
    train_tokenizer(["a"], 5000, tmp_path)
    assert Tokenizer(tmp_path).vocab_size == 5000


def test_small_vocabulary_is_refused(tmp_path: Path) -> None:
    with pytest.raises(TokenizerError, match="259"):
        train_tokenizer(["a"], 100, tmp_path)


def test_missing_and_torn_folders_name_the_file(tmp_path: Path) -> None:
    with pytest.raises(TokenizerError, match=r"tokenizer\.json is missing"):
        Tokenizer(tmp_path)
    train_tokenizer(WORDS, 300, tmp_path)
    (tmp_path / TOKENIZER_FILE).write_bytes((tmp_path / TOKENIZER_FILE).read_bytes()[:100])
    with pytest.raises(TokenizerError, match="materialise"):
        Tokenizer(tmp_path)


def test_published_tokenizers_keep_their_bytes_and_rows(tmp_path: Path, tokenizer: Tokenizer) -> None:
    """A published file: markers beyond the BPE vocabulary, a base table with unused rows."""
    train_tokenizer(WORDS, 300, tmp_path / "trained")
    body = json.loads((tmp_path / "trained" / TOKENIZER_FILE).read_text())
    published = tmp_path / "published.json"
    published.write_text(json.dumps(body))
    install_tokenizer(published, 320, tmp_path / "installed")
    opened = Tokenizer(tmp_path / "installed")
    assert (tmp_path / "installed" / TOKENIZER_FILE).read_bytes() == published.read_bytes()
    assert (opened.vocab_size, opened.special["<im_start>"]) == (320, 320)
    assert opened.bos == opened.eos
    assert opened.decode(opened.encode("The red <|im_end|>")) == "The red <|im_end|>"
    with pytest.raises(TokenizerError, match="only 100 rows"):
        install_tokenizer(published, 100, tmp_path / "small")


def test_a_tokenizer_without_the_chat_markers_is_refused(tmp_path: Path) -> None:
    train_tokenizer(WORDS, 300, tmp_path / "trained")
    body = json.loads((tmp_path / "trained" / TOKENIZER_FILE).read_text())
    body["added_tokens"] = [token for token in body["added_tokens"] if token["content"] != "<|im_end|>"]
    del body["model"]["vocab"]["<|im_end|>"]
    published = tmp_path / "published.json"
    published.write_text(json.dumps(body))
    with pytest.raises(TokenizerError, match=r"lacks the chat markers \['<\|im_end\|>'\]; choose a tokenizer that has them"):
        install_tokenizer(published, 320, tmp_path / "installed")


def test_a_tokenizer_whose_text_reaches_specials_is_refused(tmp_path: Path) -> None:
    """`ignore_merges` looks whole words up in the vocabulary: a marker that is in there would be found in text."""
    train_tokenizer(WORDS, 300, tmp_path)
    body = json.loads((tmp_path / TOKENIZER_FILE).read_text())
    body["pre_tokenizer"] = None
    body["model"]["ignore_merges"] = True
    (tmp_path / TOKENIZER_FILE).write_text(json.dumps(body))
    with pytest.raises(TokenizerError, match="as a special token"):
        Tokenizer(tmp_path)


def test_the_run_kind_reads_validated_sets(tmp_path: Path) -> None:
    store_at(tmp_path / "rows", many(30))
    identity = {"config": {"kind": "train", "vocab_size": 420}, "datasets": {"demo": "v"}}
    spec = RunSpec(kind="tokenizer", identity=identity, inputs={"validated/demo": str(tmp_path / "rows")})
    said: list[str] = []
    found = build_tokenizer(spec, tmp_path / "out", said.append)
    assert found["counts"] == {"rows": 30, "vocab_size": 420}
    assert found["facts"]["characters_per_token"] > 1.2
    assert len(Tokenizer(tmp_path / "out").encode("A large red square is at the top left.")) < 25
    assert said
    build_tokenizer(spec, tmp_path / "again", said.append)
    settings = {"config": {"kind": "train", "vocab_size": 420, "numbers": "whole", "coordinate_digits": 1}}
    build_tokenizer(RunSpec(kind="tokenizer", identity=settings, inputs=spec.inputs), tmp_path / "whole", said.append)
    assert len(Tokenizer(tmp_path / "whole").encode("0.5")) == 1 < len(Tokenizer(tmp_path / "out").encode("0.5"))
    for name in (TOKENIZER_FILE, SPECIALS_FILE):
        assert file_sha256(tmp_path / "out" / name) == file_sha256(tmp_path / "again" / name)


def test_a_pretrained_tokenizer_is_pinned(tmp_path: Path) -> None:
    config = {"kind": "pretrained", "vocab_size": 1000, "repo": "a/b", "revision": "main"}
    spec = RunSpec(kind="tokenizer", identity={"config": msgspec.to_builtins(config)})
    with pytest.raises(TokenizerError, match="full commit"):
        build_tokenizer(spec, tmp_path, print)
