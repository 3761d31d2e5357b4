"""Peers that cannot live beside this project's pins: asked in a child of the interpreter of their own environment (`make peers`).

Belongs here: finding that interpreter, what is run in it, and what to say where it is missing. Does not belong here: measuring
ours. Every function of `_CHILD` reads one JSON object from standard input and prints one. mosaicml-streaming 0.13 wants numpy below
2.2 and transformers below 5; pins of all of them stand in `peers.txt`.
"""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).resolve().parents[1] / ".venv-peers"
VARIABLE = "MOLMO2_PEERS_PYTHON"
WHY_ABSENT = "their environment is missing: `make peers` makes it"


class PeersAbsent(Exception):
    """There is no environment with the peers; the message says how to make one."""


def ask(question: str, **values: Any) -> dict[str, Any]:
    """The answer of the peers' interpreter to a question: a name of `_CHILD`. Raises PeersAbsent."""
    python = Path(os.environ.get(VARIABLE) or FOLDER / "bin" / "python")
    if not python.is_file():
        raise PeersAbsent(WHY_ABSENT)
    clean = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    done = subprocess.run(
        [str(python), "-c", f"{_CHILD}\nimport json, sys\nprint(json.dumps({question}(**json.load(sys.stdin))))"],
        input=json.dumps(values), capture_output=True, text=True, check=False, env=clean | {"HF_HUB_OFFLINE": "1"},
    )  # fmt: skip
    if done.returncode:
        raise RuntimeError(f"the peers' interpreter {python} failed at {question}: {done.stderr.strip().splitlines()[-1:]}")
    answer: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return answer


_CHILD = '''
def trl_bfd(lengths, budget):
    """Packs that TRL makes of sequences of these lengths: each row's tokens are its own number."""
    import time
    import numpy as np
    import pyarrow as pa
    from datasets import Dataset
    from trl.data_utils import pack_dataset
    ids = pa.array([np.full(length, number, dtype=np.int32) for number, length in enumerate(lengths)])
    rows = Dataset(pa.table({"input_ids": ids}))
    started = time.process_time()
    packed = pack_dataset(rows, budget, "bfd", map_kwargs={"batch_size": len(lengths)})
    spent = time.process_time() - started
    packs = []
    for row in packed.with_format("numpy"):
        found = np.asarray(row["input_ids"])
        packs.append(np.unique(found).tolist())
    return {"packs": packs, "seconds": spent}


def streaming_order(weights, sizes, positions):
    """Seconds that mosaicml-streaming takes for the sample numbers of an epoch of these proportions, for resuming in its middle,
    and its counts by dataset."""
    import os, tempfile, time
    import numpy as np
    os.environ.update(WORLD_SIZE="1", RANK="0", LOCAL_WORLD_SIZE="1", LOCAL_RANK="0", MASTER_ADDR="127.0.0.1", MASTER_PORT="29511")
    from streaming import MDSWriter, Stream, StreamingDataset
    from streaming.base.batching import generate_work
    from streaming.base.util import clean_stale_shared_memory
    from streaming.base.world import World
    clean_stale_shared_memory()
    with tempfile.TemporaryDirectory() as folder:
        streams = []
        for number, (weight, size) in enumerate(zip(weights, sizes)):
            out = os.path.join(folder, str(number))
            with MDSWriter(out=out, columns={"n": "int32"}) as writer:
                for row in range(size):
                    writer.write({"n": row})
            streams.append(Stream(local=out, proportion=weight))
        data = StreamingDataset(
            streams=streams, epoch_size=positions, shuffle=True, shuffle_seed=0, batch_size=64, num_canonical_nodes=1
        )
        world = World.detect()
        started = time.process_time()
        ids = np.asarray(generate_work(data.batching_method, data, world, 0, 0)).ravel()
        spent = time.process_time() - started
        started = time.process_time()
        generate_work(data.batching_method, data, world, 0, positions // 2)
        seek = time.process_time() - started
        ids = ids[ids >= 0][:positions]
        starts = np.concatenate([[0], np.cumsum(sizes)[:-1]])
        counts = np.bincount(np.searchsorted(starts, ids, side="right") - 1, minlength=len(sizes)).tolist()
        return {"seconds": spent, "seek": seek, "counts": counts, "positions": len(ids)}


def interleave(weights, sizes, positions):
    """Seconds that `datasets.interleave_datasets` takes for an order of these proportions, for reading on from its middle, and
    counts by dataset. It ends when the first dataset does not suffice, so the datasets are as long as they must be."""
    import time
    import numpy as np
    import pyarrow as pa
    from datasets import Dataset, interleave_datasets
    enough = [max(size, int(1.5 * weight * positions) + 1000) for weight, size in zip(weights, sizes)]
    sets = [Dataset(pa.table({"d": pa.array(np.full(size, number, np.int32))})) for number, size in enumerate(enough)]
    started = time.process_time()
    mixed = interleave_datasets(sets, probabilities=weights, seed=0, stopping_strategy="first_exhausted")
    spent = time.process_time() - started
    count = min(positions, len(mixed))
    first = np.asarray(mixed.with_format("numpy")[:count]["d"])
    return {
        "seconds": spent * count / len(mixed), "seek": spent, "counts": np.bincount(first, minlength=len(sizes)).tolist(),
        "positions": count,
    }
'''
