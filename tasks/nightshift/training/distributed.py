"""Several processes that train one network together: torch's DistributedDataParallel, one process per device.

`launch` starts them on this machine. For several machines, torchrun starts the stage on each of them:

    torchrun --nnodes 2 --nproc-per-node 1 --rdzv-endpoint HOST:PORT -m nightshift train --spec … --result …
"""

import contextlib
import os
import sys
import tempfile
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import torch
from pydantic import BaseModel
from torch import Tensor, distributed, nn
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
from torch.distributed.launcher.api import LaunchConfig, elastic_launch
from torch.nn.parallel import DistributedDataParallel

from nightshift import runner
from nightshift.hardware import processor
from nightshift.models.device import find_device

LOOPBACK: Final = "lo" if sys.platform == "linux" else "lo0"


@dataclass(frozen=True)
class ProcessGroup:
    """Rank and world size of this process. What concerns only one is done by the first, `is_main`."""

    rank: int = 0
    world_size: int = 1

    @property
    def is_main(self) -> bool:
        return self.rank == 0

    def shard(self, count: int) -> slice:
        """This process's share of `count` rows; shares differ by one row at most."""
        return slice(count * self.rank // self.world_size, count * (self.rank + 1) // self.world_size)

    def wrap(self, network: nn.Module) -> nn.Module:
        """The network, its gradients averaged over all processes."""
        return network if self.world_size == 1 else DistributedDataParallel(network)

    @contextlib.contextmanager
    def no_sync(self, network: nn.Module, apart: bool) -> Iterator[None]:
        """Let gradients add up in each process, where more of the same batch follows."""
        with (
            network.no_sync()
            if apart and isinstance(network, DistributedDataParallel)
            else contextlib.nullcontext()
        ):
            yield

    def broadcast_buffers(self, network: nn.Module) -> None:
        """Give all processes the first one's buffers, the running statistics of its norms."""
        if self.world_size > 1:
            for buffer in network.buffers():
                distributed.broadcast(buffer, 0)

    def all_reduce(self, value: Tensor) -> Tensor:
        """The sum over all processes."""
        if self.world_size > 1:
            distributed.all_reduce(value)
        return value

    def from_main(self, value: float) -> float:
        """The first process's value, in float32 and the same in all."""
        if self.world_size == 1:
            return value
        shared = torch.tensor(value, device=find_device())
        distributed.broadcast(shared, 0)
        return float(shared)

    def barrier(self) -> None:
        """Go on when all have come here."""
        if self.world_size > 1:
            distributed.barrier()


SINGLE_PROCESS: Final = ProcessGroup()


def process_count(asked: int) -> int:
    """Number of processes: as asked, or for 0 one on each accelerator, and one where there is none."""
    return asked or (torch.accelerator.device_count() if torch.accelerator.is_available() else 1) or 1


def is_distributed() -> bool:
    """Whether this process is one of several already."""
    return int(os.environ.get("WORLD_SIZE", "1")) > 1


@contextlib.contextmanager
def process_group() -> Iterator[ProcessGroup]:
    """This process among those that torchrun or `launch` started; only the first one is heard."""
    if not is_distributed():
        yield SINGLE_PROCESS
        return
    device = find_device()
    if device.type != "cpu":
        torch.accelerator.set_device_index(device.index)
    distributed.init_process_group("nccl" if device.type == "cuda" else "gloo")
    ranks = ProcessGroup(distributed.get_rank(), distributed.get_world_size())
    with contextlib.ExitStack() as stack:
        stack.callback(distributed.destroy_process_group)
        if not ranks.is_main:
            stack.enter_context(contextlib.redirect_stdout(stack.enter_context(open(os.devnull, "w"))))
        yield ranks


def launch(stage: str, spec: BaseModel, processes: int) -> None:
    """Run a stage in several processes on this machine; raises what the first failed one failed with."""
    with tempfile.TemporaryDirectory(prefix="nightshift-") as folder, _environment(processes):
        spec_file, result = Path(folder, "spec.json"), Path(folder, "result.json")
        spec_file.write_text(spec.model_dump_json(), encoding="utf-8")
        config = LaunchConfig(
            min_nodes=1,
            max_nodes=1,
            nproc_per_node=processes,
            run_id=uuid.uuid4().hex,
            rdzv_backend="c10d",
            rdzv_endpoint="127.0.0.1:0",
            max_restarts=0,
            local_addr="127.0.0.1",
        )
        command = ("-m", "nightshift", stage, "--spec", str(spec_file), "--result", str(result))
        try:
            elastic_launch(config, sys.executable)(*command)
        except ChildFailedError as error:
            rank, failure = error.get_first_failure()
            runner.outcome(stage, failure.exitcode, result, f"process {rank} of {processes} failed")


@contextlib.contextmanager
def _environment(processes: int) -> Iterator[None]:
    """What the processes inherit: their share of the cores, loopback, and whose death they do not survive."""
    threads = max(1, processor.threads() // processes)
    before = dict(os.environ)
    os.environ.update(
        {
            "NIGHTSHIFT_THREADS": str(threads),
            "OMP_NUM_THREADS": str(threads),
            "GLOO_SOCKET_IFNAME": LOOPBACK,
            "PYTHONUNBUFFERED": "1",
            runner.PARENT: str(os.getpid()),
        }
    )
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)
