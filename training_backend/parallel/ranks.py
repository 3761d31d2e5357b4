"""What ranks tell each other beside gradients: sums of numbers, on the host or on the device.

Belongs here: the one way to add up over ranks. Every rank must make the same calls in the same order. Does not belong here:
gradients, which the strategy adds up (`strategies.py`), and what the sums mean.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
import torch.distributed as dist
from lightning_fabric import Fabric
from torch import Tensor


class Ranks:
    """This rank among `world`. With one rank nothing is sent, and sums are what they were.

    Numbers of the host travel by gloo in a group of their own: adding them up waits for the other hosts, never for a device.
    """

    def __init__(self, fabric: Fabric) -> None:
        self.rank, self.world = fabric.global_rank, fabric.world_size
        self._hosts = dist.new_group(backend="gloo") if self.world > 1 else None

    def host_sum(self, values: Sequence[float]) -> list[float]:
        """Sums over ranks, in float64."""
        return self.begin_host_sum(values)()

    def begin_host_sum(self, values: Sequence[float]) -> Callable[[], list[float]]:
        """The same, begun: what comes back waits for the other ranks when it is called, so that work can be done meanwhile."""
        if self.world == 1:
            return lambda: list(values)
        sums = torch.tensor(values, dtype=torch.float64)
        work = dist.all_reduce(sums, group=self._hosts, async_op=True)

        def wait() -> list[float]:
            assert work is not None
            work.wait()
            return [float(value) for value in sums]

        return wait

    def any(self, flag: bool) -> bool:
        """Whether it holds on some rank."""
        return self.host_sum([float(flag)])[0] > 0

    def wait(self) -> None:
        """Until every rank has come here."""
        self.host_sum([0.0])

    def device_sum(self, tensor: Tensor) -> Tensor:
        """Sum over ranks of a tensor on the device, in place."""
        if self.world > 1:
            dist.all_reduce(tensor)
        return tensor

    def close(self) -> None:
        """Leave the group; call when every rank is done talking."""
        if self.world > 1:
            dist.destroy_process_group()
