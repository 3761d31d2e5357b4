"""The order of things in a step: one division, parts apart, refusals counted, nothing waited for between records."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
import torch
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode

from tests.support.models import small_config
from tests.support.runs import handle_of, patient
from tests.support.training import OPTIM, numbers, poisoned, stage, training_plan
from training_backend.api import Execution, RunSpec, Stopped
from training_backend.checkpoint.state import load_state
from training_backend.config import DropoutConfig, GuardConfig, PartOptim
from training_backend.data.example import TASKS
from training_backend.data.fingerprint import plain
from training_backend.data.manifest import Manifest, write_manifest
from training_backend.encode.draws import position_keys
from training_backend.launch.local import LocalLauncher
from training_backend.model.molmo2 import Molmo2, TensorBatch
from training_backend.model.weights import load_model
from training_backend.pack.batch import Batch
from training_backend.train.events import EventWriter
from training_backend.train.loop import RunDiverged, TrainPlan, dropout_seeds, read_plan, train


class Ran:
    """A run in this process: its result, events, weights."""

    def __init__(self, folder: Path, plan: TrainPlan, batches: Callable[[int], Iterator[Batch]] | None = None,
                 stop: Callable[[], bool] = lambda: False) -> None:  # fmt: skip
        self.folder, self.out = folder, folder / "out"
        self.out.mkdir(parents=True, exist_ok=True)
        with EventWriter(folder) as events:
            self.result = train(plan, folder, self.out, batches or numbers(plan), events, stop, lambda message: None)

    @property
    def weights(self) -> dict[str, torch.Tensor]:
        return load_model(self.out).state_dict()

    @property
    def records(self) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = json.loads((self.out / "training.json").read_text())["records"]
        return found

    def events(self, name: str) -> list[dict[str, Any]]:
        return events_of(self.folder, name)


def events_of(folder: Path, name: str) -> list[dict[str, Any]]:
    found, _ = LocalLauncher().events(handle_of(folder, patient("quick")), 0)
    return [event.data for event in found if event.name == name]


def equal(one: dict[str, torch.Tensor], two: dict[str, torch.Tensor]) -> list[str]:
    """Names of tensors that are bit for bit the same."""
    return [name for name, value in one.items() if torch.equal(value, two[name])]


def initial(plan: TrainPlan) -> Molmo2:
    model = Molmo2(plan.model)
    model.init_weights(plan.stage.seed)
    return model


# -- the loss --------------------------------------------------------------------------------------------------------------------


def test_the_loss_of_a_step_is_one_sum_over_one_sum(tmp_path: Path) -> None:
    plan = training_plan(steps=1)
    ran = Ran(tmp_path, plan)
    model, total, weight = initial(plan), 0.0, 0.0
    by_task = {task: [0.0, 0.0] for task in TASKS}
    stream = numbers(plan)(0)
    for _ in range(4):
        batch = TensorBatch.from_numpy(next(stream))
        with torch.no_grad():
            logits = model(batch).reshape(-1, plan.model.decoder.width)[batch.loss_index] @ model.head_weight.T
        losses = F.cross_entropy(logits.double(), batch.loss_target, reduction="none")
        for loss, share, task in zip(losses.tolist(), batch.loss_weight.tolist(), batch.loss_task.tolist(), strict=True):
            total += loss * share
            weight += share
            by_task[TASKS[task]][0] += loss * share
            by_task[TASKS[task]][1] += share
    (record,) = ran.records
    assert record["loss"] == pytest.approx(total / weight, rel=1e-5)
    wanted = {task: loss / share for task, (loss, share) in by_task.items() if share}
    assert record["tasks"] == pytest.approx(wanted, rel=1e-5)


@pytest.mark.parametrize("micro_batch", [2, 4])
def test_how_a_batch_is_cut_changes_nothing(tmp_path: Path, micro_batch: int) -> None:
    """Weights differ by 1e-6 of a step at most: nothing is averaged before the one division, whatever each cut's weights sum to."""
    whole = Ran(tmp_path / "one", training_plan(steps=3))
    plan = training_plan(Execution(device="cpu", log_every=1, micro_batch=micro_batch), steps=3)
    cut = Ran(tmp_path / "cut", plan)
    for mine, theirs in zip(cut.records, whole.records, strict=True):
        assert mine["loss"] == pytest.approx(theirs["loss"], rel=1e-5)
        assert mine["tasks"] == pytest.approx(theirs["tasks"], rel=1e-5)
    for one, two in zip(cut.events("step"), whole.events("step"), strict=True):
        assert one["norms"] == pytest.approx(two["norms"], rel=1e-4)
    for name, value in cut.weights.items():
        torch.testing.assert_close(value, whole.weights[name], rtol=1e-4, atol=2e-5)


def test_token_weights_of_tasks_weigh_gradients_and_not_the_curves(tmp_path: Path) -> None:
    """1.0, 1.5 and 2.0: a task of weight 2 counts twice in the loss of a step; its own curve is per token all the same."""

    def weighted(rule: tuple[float, ...]) -> Callable[[int, Batch], Batch]:
        shares = np.array([rule[task] if task < 3 else 1.0 for task in range(len(TASKS))], dtype=np.float32)
        return lambda _, batch: replace(batch, loss_weight=np.sign(batch.loss_weight) * shares[batch.loss_task])

    plan = training_plan(steps=1)
    ran = {rule: Ran(tmp_path / str(rule), plan, numbers(plan, weighted(rule))) for rule in ((1.0, 1.0, 1.0), (1.0, 1.5, 2.0))}
    flat, rule = (found.records[0] for found in ran.values())
    assert rule["tasks"] == pytest.approx(flat["tasks"], rel=1e-5)
    counts = np.zeros(3)
    stream = numbers(plan)(0)
    for _ in range(4):
        batch = next(stream)
        counts += np.bincount(batch.loss_task[batch.loss_weight > 0], minlength=3)[:3]
    losses = np.array([flat["tasks"][TASKS[task]] for task in range(3)])
    weights = np.array([1.0, 1.5, 2.0]) * counts
    assert rule["loss"] == pytest.approx(float((weights * losses).sum() / weights.sum()), rel=1e-5)
    assert flat["loss"] == pytest.approx(float((counts * losses).sum() / counts.sum()), rel=1e-5)
    assert len(equal(ran[1.0, 1.0, 1.0].weights, ran[1.0, 1.5, 2.0].weights)) == 0


# -- parts and rates -------------------------------------------------------------------------------------------------------------


def test_frozen_parts_stay_and_have_no_state(tmp_path: Path) -> None:
    optim = msgspec.structs.replace(OPTIM, vision=PartOptim(lr=1.0, warmup=0, frozen=True))
    plan = training_plan(Execution(device="cpu", log_every=1, checkpoint_every=2), steps=3, optim=optim)
    ran = Ran(tmp_path, plan)
    same = equal(ran.weights, initial(plan).state_dict())
    assert same == [name for name in ran.weights if name.startswith("vision.")]
    state, _ = load_state(tmp_path / "checkpoints", plan.fingerprint)
    assert state is not None
    assert {name.split(".")[0] for name in state.optimizer} == {"connector", "decoder"}
    step = ran.events("step")[0]
    assert set(step["rates"]) == {"connector", "decoder"}
    assert step["norms"]["vision"] == 0
    assert min(step["norms"]["connector"], step["norms"]["decoder"]) > 0


def test_rates_step_by_step(tmp_path: Path) -> None:
    rates = [event["rates"] for event in Ran(tmp_path, training_plan(steps=6)).events("step")]
    assert [rate["vision"] for rate in rates[:3]] == pytest.approx([1e-3 / 3, 2e-3 / 3, 1e-3])
    assert [rate["connector"] for rate in rates[:5]] == pytest.approx([3e-3 * n / 5 for n in range(1, 6)])
    cosine = [0.1 + 0.9 * 0.5 * (1 + math.cos(math.pi * n / 6)) for n in range(6)]
    assert [rate["decoder"] for rate in rates] == pytest.approx([2e-3 * share for share in cosine])


# -- the guard -------------------------------------------------------------------------------------------------------------------


def test_a_poisoned_step_is_skipped_counted_and_leaves_no_trace(tmp_path: Path) -> None:
    plan = training_plan(Execution(device="cpu", log_every=2), steps=4)
    ran = Ran(tmp_path, plan, numbers(plan, poisoned({5})))  # step 2, one of its four packs
    assert [event["step"] for event in ran.events("warning")] == [2]
    assert ran.events("warning")[0]["message"] == "the guard skipped 1 of the 2 steps up to step 2"
    assert [event["skipped"] for event in ran.events("step")] == [1, 1]
    assert ran.result["counts"]["skipped_steps"] == 1
    assert ran.result["counts"]["loss_finite"]
    assert all(math.isfinite(record["loss"]) for record in ran.records)
    assert all(bool(torch.isfinite(value).all()) for value in ran.weights.values())
    alone = Ran(tmp_path / "alone", training_plan(steps=1))
    assert ran.records[0]["loss"] == alone.records[0]["loss"]  # of the two steps only the first is in the record


def test_a_step_of_no_weight_is_refused_not_divided_by_zero(tmp_path: Path) -> None:
    plan = training_plan(steps=2)
    lost = numbers(plan, lambda first, batch: replace(batch, loss_weight=batch.loss_weight * 0) if first < 4 else batch)
    ran = Ran(tmp_path, plan, lost)
    assert ran.result["counts"]["skipped_steps"] == 1
    assert [record["step"] for record in ran.records] == [2]


def test_too_many_in_a_row_end_the_run_naming_steps_and_packs(tmp_path: Path) -> None:
    """Steps 3 to 7 are bad, the record is at step 10: the stretch is over by then, and is found all the same."""
    plan = training_plan(Execution(device="cpu", log_every=10), steps=12)
    with pytest.raises(RunDiverged, match=r"5 steps in a row, 3 to 7, had .* of 10 steps 5 were skipped\. .* packs 8 to 27\."):
        Ran(tmp_path, plan, numbers(plan, poisoned(set(range(8, 28)))))
    four = training_plan(Execution(device="cpu", log_every=10), steps=12, guard=GuardConfig(max_consecutive=6))
    assert Ran(tmp_path / "six", four, numbers(four, poisoned(set(range(8, 28))))).result["counts"]["skipped_steps"] == 5


def test_a_run_whose_every_step_is_refused_has_no_result(tmp_path: Path) -> None:
    plan = training_plan(steps=3)
    with pytest.raises(RunDiverged, match="the guard skipped all 3 steps"):
        Ran(tmp_path, plan, numbers(plan, poisoned(set(range(12)))))
    assert list((tmp_path / "out").iterdir()) == []


# -- stopping, dropout, waiting --------------------------------------------------------------------------------------------------


def test_a_stop_between_records_saves_what_the_next_record_needs(tmp_path: Path) -> None:
    drop = DropoutConfig(residual=0.1, response=0.2)
    plan = training_plan(Execution(device="cpu", log_every=4), steps=6, dropout=drop)
    bad = numbers(plan, poisoned({8}))  # step 3, inside the record that is under way
    whole = Ran(tmp_path / "whole", plan, bad)
    asked = iter([False, False, True])
    with pytest.raises(Stopped, match="stopped after step 3 of 6 as asked"):
        Ran(tmp_path / "cut", plan, bad, lambda: next(asked))
    ran = Ran(tmp_path / "cut", plan, bad)
    assert ran.events("resume") == [{"step": 3, "steps": 6}]
    assert ran.records == whole.records
    assert len(equal(ran.weights, whole.weights)) == len(whole.weights)
    assert ran.events("warning") == whole.events("warning")
    assert ran.result["counts"] == whole.result["counts"]


def test_a_stop_at_the_last_step_finishes(tmp_path: Path) -> None:
    asked = iter([False, True])
    assert Ran(tmp_path, training_plan(steps=2), stop=lambda: next(asked)).result["counts"]["steps"] == 2


def test_dropout_is_keyed_by_seed_and_pack(tmp_path: Path) -> None:
    keys = [key for seed in (1, 2) for key in dropout_seeds(seed, 0, 50)]
    assert dropout_seeds(1, 7, 2) == keys[7:9]
    assert len(set(keys)) == 100
    assert not set(keys[:50]) & set(position_keys(1, 0, 50).tolist())
    drop = DropoutConfig(residual=0.3)
    plan = training_plan(steps=2, dropout=drop)
    one, two = Ran(tmp_path / "1", plan), Ran(tmp_path / "2", plan)
    assert one.records == two.records
    assert len(equal(one.weights, two.weights)) == len(one.weights)
    assert one.records != Ran(tmp_path / "3", training_plan(steps=2)).records


def test_dropout_does_not_know_how_packs_are_put_into_micro_batches(tmp_path: Path) -> None:
    plans = [
        training_plan(Execution(device="cpu", log_every=1, micro_batch=size), steps=2, dropout=DropoutConfig(residual=0.3))
        for size in (1, 2, 4)
    ]
    first, *others = (Ran(tmp_path / str(number), plan) for number, plan in enumerate(plans))
    for other in others:
        for mine, theirs in zip(first.records, other.records, strict=True):
            assert mine["loss"] == pytest.approx(theirs["loss"], rel=1e-4)


def test_a_connector_that_drops_is_refused() -> None:
    model = plain(small_config())
    model["connector"]["dropout"] = 0.1
    spec = RunSpec(kind="train", identity={**plain(stage()), "model": model}, execution=Execution(device="cpu"))
    with pytest.raises(ValueError, match=r"connector.dropout is 0.1; no recipe drops there"):
        read_plan(spec)


class _Waits(TorchDispatchMode):
    """Operations that make the host wait for the device, or whose result has a shape that only the data knows."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = function.overloadpacket.__name__
        index = args[1] if name == "index" else ()
        masked = any(item is not None and item.dtype in (torch.bool, torch.uint8) for item in index)
        if masked or name in ("_local_scalar_dense", "nonzero", "masked_select", "is_nonzero", "equal", "unique"):
            self.found.append(name)
        return function(*args, **(kwargs or {}))


def test_nothing_waits_for_the_device_between_records(tmp_path: Path) -> None:
    plan = training_plan(Execution(device="cpu", log_every=4), steps=4, dropout=DropoutConfig(response=0.1))
    watch = _Waits()

    def batches(first: int) -> Iterator[Batch]:
        for number, batch in enumerate(numbers(plan)(first)):
            if number == 4:  # steps 2 and 3 are watched whole: no record is written in them
                watch.__enter__()
            if number == 12:
                watch.__exit__(None, None, None)
            yield batch

    Ran(tmp_path, plan, batches)
    assert watch.found == []
    with watch:
        torch.ones(3)[torch.tensor([True, False, True])]
        float(torch.ones(()))
    assert watch.found == ["index", "_local_scalar_dense"]  # it does look


# -- plans -----------------------------------------------------------------------------------------------------------------------


def spec(execution: Execution | None = None, inputs: dict[str, str] | None = None, **identity: Any) -> RunSpec:
    fields = {**plain(stage()), "model": plain(small_config()), "stage": "sft", **identity}
    return RunSpec(kind="train", identity=fields, inputs=inputs or {}, execution=execution or Execution())


def test_a_plan_is_typed(tmp_path: Path) -> None:
    plan = read_plan(spec())
    assert (plan.stage, plan.model, plan.name, plan.init) == (stage(), small_config(), "sft", None)
    manifest = Manifest(kind="c", key="k", recipe={}, recipe_fingerprint="0" * 64, data_version="abc", code_version="1")
    write_manifest(tmp_path, manifest)
    assert read_plan(spec(inputs={"init": str(tmp_path)}, init="abc")).init == tmp_path


@pytest.mark.parametrize(
    ("made", "sentence"),
    [
        (spec(Execution(micro_batch=3)), "global_batch 4 is not a multiple of 1 processes × micro-batch 3"),
        (spec(Execution(processes=2)), "runs one process, not 2"),
        (spec(steps=0), "steps is 0 and global_batch 4; both must be at least 1"),
        (spec(context_parallel=2), "context_parallel 2 is not built yet"),
        (spec(init="abc"), "starts from weights abc, its input `init` holds nothing"),
        (spec(steps="many"), r"Expected `int`, got `str` - at `\$.*steps"),
        (RunSpec(kind="train", identity=plain(stage())), "needs `model`"),
    ],
)
def test_a_plan_that_cannot_be_trained_is_refused(made: RunSpec, sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        read_plan(made)
