"""What is not built is refused in one sentence, before anything is computed; nothing asked for is passed over in silence."""

from __future__ import annotations

import pytest
import torch

from training_backend.api import Execution
from training_backend.parallel.strategies import check_execution, make_fabric


@pytest.mark.parametrize(
    ("fields", "sentence"),
    [
        ({"strategy": "fsdp2"}, "strategy 'fsdp2' is not built yet; available: ddp, single."),
        ({"strategy": "fsdp2", "processes": 8}, "strategy 'fsdp2' is not built yet; available: ddp, single."),
        ({"strategy": "deepspeed"}, "strategy 'deepspeed' is not built yet; available: ddp, single."),
        ({"processes": 2}, "strategy 'single' runs one process, not 2; set processes to 1, or strategy to ddp."),
        ({"strategy": "ddp", "processes": 0}, "processes is 0; it must be at least 1."),
        ({"activation_checkpointing": True}, "activation_checkpointing True is not built yet; available: False."),
        ({"compile": True}, "compile True is not built yet; available: False."),
        ({"wandb_project": "mine"}, "wandb_project 'mine' is not built yet; available: None."),
        ({"micro_batch": 0}, "micro_batch is 0; it must be at least 1."),
        ({"log_every": 0}, "log_every is 0; it must be at least 1."),
        ({"checkpoint_every": -1}, "checkpoint_every is -1; it must be at least 1."),
    ],
)
def test_refusals(fields: dict[str, object], sentence: str) -> None:
    with pytest.raises(ValueError) as caught:
        check_execution(Execution(**fields))  # type: ignore[arg-type]
    assert str(caught.value) == sentence
    with pytest.raises(ValueError):
        make_fabric(Execution(**fields), "fp32")  # type: ignore[arg-type]


def test_context_parallel_is_refused() -> None:
    check_execution(Execution(), 1)
    with pytest.raises(ValueError, match="context_parallel 8 is not built yet; set it to 1"):
        check_execution(Execution(), 8)


def test_the_single_strategy() -> None:
    fabric = make_fabric(Execution(device="cpu", attention="reference"), "fp32")
    assert (fabric.device.type, fabric.world_size) == ("cpu", 1)
    assert make_fabric(Execution(device="auto"), "bf16").device.type == ("cuda" if torch.cuda.is_available() else "cpu")


def test_ranks_are_started_by_torchrun(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fabric alone would run this process's own command a second time, whatever it is."""
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    with pytest.raises(ValueError, match="strategy 'ddp' with 2 processes is started by torchrun"):
        make_fabric(Execution(device="cpu", strategy="ddp", processes=2), "fp32")


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a GPU")
def test_a_device_that_is_not_there() -> None:
    with pytest.raises(ValueError, match="device 'cuda' is asked for and this machine has none"):
        make_fabric(Execution(device="cuda"), "bf16")
