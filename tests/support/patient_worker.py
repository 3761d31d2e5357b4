"""`python -m tests.support.patient_worker`: the real worker, with computations that last as long and end as badly as a test says.

`identity["behaviour"]`: "quick"; "wait" until a file `go` lies in the run's folder; "deaf" to every request; "fail"; "fill" the
disk. `identity["die_at"]`: killed at that change of the disk after computing, for the first start only.
Kind `plan` is one process without state, kind `train` may be several ranks that stop when asked.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from typing import Any

from tests.support.faults import die_at_change
from training_backend import worker
from training_backend.api import Stopped
from training_backend.train import events


def compute(job: worker.Job) -> dict[str, Any]:
    """Do what the spec's behaviour says; every start leaves a line in `starts`."""
    rank, behaviour = os.environ.get("RANK", "0"), job.spec.identity["behaviour"]
    with (job.run_dir / "starts").open("a") as stream:
        stream.write(f"{rank}\n")
    job.events.emit("working", number=1)
    if behaviour == "deaf":
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    if behaviour == "fail" and rank == job.spec.identity.get("rank", "0"):
        raise ValueError("the cause of it all")
    if behaviour == "fill":
        (job.out / "big").write_bytes(b"x" * (1 << 22))
    while behaviour in ("wait", "deaf", "fail") and not (job.run_dir / "go").exists():
        if job.spec.kind == "train" and behaviour != "deaf" and job.stop():
            raise Stopped("saved")
        time.sleep(0.02)
    job.log("finished")
    if "die_at" in job.spec.identity and len((job.run_dir / "starts").read_text()) == 2:
        die_at_change(job.spec.identity["die_at"])
    (job.out / "answer.safetensors").write_bytes(b"forty-two")
    (job.out / "minutes.txt").write_text(str(time.time()))
    return {"counts": {"answer": 42}, "facts": {"mood": "patient"}}


events.HEARTBEAT_SECONDS = 0.3
worker.KINDS |= {"plan": compute, "train": compute}
if __name__ == "__main__":
    sys.exit(worker.main())
