"""Sizes of the catalogue's models, counted without allocating one."""

from __future__ import annotations

import pytest

from molmo2_assets.profile.load import catalogue
from training_backend.model.molmo2 import parameter_counts

TABLE = {
    # preset: (vision, connector and extra embedding rows, decoder)
    "tiny": (359_136, 142_720, 1_017_216),
    "1b": (382_505_936, 45_208_064, 1_485_178_880),
    "7b": (382_505_936, 80_269_824, 7_299_141_632),
    "8b": (382_505_936, 88_461_824, 8_191_259_648),
    "release-4b": (382_505_936, 56_939_008, 4_022_468_096),
    "release-8b": (382_505_936, 88_461_824, 8_190_735_360),
    "release-o-7b": (382_505_936, 80_269_824, 7_298_011_136),
}
PUBLISHED = {
    # preset: parameters of the decoder that it starts from, as its publisher counts them
    "1b": ("OLMo-2-0425-1B", 1_484_916_736),
    "7b": ("OLMo-2-1124-7B", 7_298_617_344),
    "8b": ("Qwen3-8B", 8_190_735_360),
    "release-4b": ("Qwen3-4B-Instruct-2507", 4_022_468_096),
    "release-8b": ("Qwen3-8B", 8_190_735_360),
    "release-o-7b": ("Olmo-3-7B-Instruct", 7_298_011_136),
}


def test_the_table_is_whole() -> None:
    assert set(TABLE) == set(catalogue().models)


@pytest.mark.parametrize("name", list(TABLE))
def test_parameters_of_every_preset(name: str) -> None:
    counts = parameter_counts(catalogue().models[name])
    assert (counts["vision"], counts["connector"], counts["decoder"]) == TABLE[name]


@pytest.mark.parametrize("name", list(PUBLISHED))
def test_decoders_are_their_bases(name: str) -> None:
    """But for the head's rows of extra tokens, where a recipe predicts them."""
    decoder = catalogue().models[name].decoder
    rows = decoder.extra_tokens * decoder.width if decoder.predict_extra and not decoder.tied else 0
    assert TABLE[name][2] - rows == PUBLISHED[name][1]
