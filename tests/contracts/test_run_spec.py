"""Golden identity of a run."""

from __future__ import annotations

import msgspec
import pytest

from training_backend.api import Execution, RunSpec, decode_spec, encode_spec

SPEC = RunSpec(
    kind="train",
    identity={"stage": "sft", "steps": 200, "lr": 1e-3, "sequences": "abc", "mixture": "def"},
    inputs={"sequences": "/home/a"},
    execution=Execution(processes=2),
)


def test_golden_identity() -> None:
    assert SPEC.fingerprint == "5d15442c0c9c1de74644ae44188662a599e171ef938b2310e038ca628f5d331b"
    assert SPEC.run_name == "train-5d15442c0c9c"


def test_where_and_how_is_not_what() -> None:
    other = msgspec.structs.replace(SPEC, execution=Execution(processes=8, micro_batch=4), inputs={"sequences": "/elsewhere"})
    assert other.fingerprint == SPEC.fingerprint
    assert msgspec.structs.replace(SPEC, kind="plan").fingerprint != SPEC.fingerprint
    assert msgspec.structs.replace(SPEC, identity={**SPEC.identity, "steps": 201}).fingerprint != SPEC.fingerprint


def test_round_trip_and_misspelling() -> None:
    assert decode_spec(encode_spec(SPEC)) == SPEC
    with pytest.raises(msgspec.ValidationError, match="procesess"):
        decode_spec(encode_spec(SPEC).replace(b"processes", b"procesess"))
