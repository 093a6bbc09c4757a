"""Where a network is computed and in which precision: found, not configured."""

import functools
import os
import shutil
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final, cast

import psutil
import torch
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks
from torch.optim import Optimizer

from nightshift.config import TrainSettings
from nightshift.errors import InputError

WORTH: Final = 1.2  # how many times faster bfloat16 must be where only a try can tell
TRIES: Final = 5
SHARE: Final = 0.5  # of the free memory that images, or one step, may take
REPAID: Final = 2000  # steps after which compiling, a minute or so, has repaid itself
PRECISION: Final = "NIGHTSHIFT_PRECISION"
PRECISIONS: Final = ("float32", "bfloat16", "float16")
CGROUP: Final = Path("/sys/fs/cgroup")


def find_device() -> torch.device:
    """The accelerator that torch finds (among several this process's own), or the CPU."""
    found = torch.accelerator.current_accelerator(check_available=True)
    if found is None:
        return torch.device("cpu")
    return torch.device(found.type, int(os.environ.get("LOCAL_RANK", "0")))


def free_memory(device: torch.device) -> int:
    """Bytes that are free: of the accelerator, or of the machine within the limit of the container."""
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    free = psutil.virtual_memory().available
    limit, used = (_number(CGROUP / name) for name in ("memory.max", "memory.current"))
    return free if limit is None or used is None else max(0, min(free, limit - used))


def _number(file: Path) -> int | None:
    try:
        return int(file.read_text())
    except (OSError, ValueError):  # no container, or no limit
        return None


def room(device: torch.device) -> int:
    """Bytes of images that may stay on the device for a whole training.

    NIGHTSHIFT_RESIDENT_MB says it instead, for a machine that is shared with others.
    """
    allowed = os.environ.get("NIGHTSHIFT_RESIDENT_MB")
    return int(allowed) * 2**20 if allowed else int(SHARE * free_memory(device))


def micro_batch_count(network: nn.Module, pixels: Tensor, batch: int) -> int:
    """Number of micro-batches in which a batch goes through the network so that what it keeps fits.

    `pixels` are two images, float32 [2,C,H,W], on the device; the network's statistics stay as they are.
    """
    kept = 0

    def count(tensor: Tensor) -> Tensor:
        nonlocal kept
        kept += tensor.nbytes
        return tensor

    before = {name: buffer.clone() for name, buffer in network.named_buffers()}
    with saved_tensors_hooks(count, lambda tensor: tensor):
        network(pixels)
    for name, buffer in network.named_buffers():
        buffer.copy_(before[name])
    needed = kept / len(pixels) * batch
    return max(1, -(-int(needed) // max(1, int(SHARE * free_memory(pixels.device)))))


def out_of_memory(error: RuntimeError) -> bool:
    """Whether this is what torch raises when it gets no memory, on the CPU without a type of its own."""
    return isinstance(error, torch.OutOfMemoryError) or "can't allocate memory" in str(error)


def compiled(network: nn.Module, settings: TrainSettings, device: torch.device, steps: int) -> nn.Module:
    """The network compiled by torch where that pays: on a GPU in a training of many steps.

    On a CPU it does not: a ResNet-9 trained at 438 images/s instead of 515, after half a minute of compiling.
    """
    wanted = settings.compile == "yes" or (
        settings.compile == "auto" and device.type == "cuda" and steps >= REPAID
    )
    if not wanted:
        return network
    if not shutil.which(os.environ.get("CXX", "c++")):
        print("the network is not compiled: there is no C++ compiler (c++, or what CXX names)", flush=True)
        return network
    return cast(nn.Module, torch.compile(network))


class Precision:
    """How steps are computed: float32, bfloat16, or float16 with scaled losses on older GPUs.

    Weights and their updates are float32 always.
    """

    def __init__(self, device: torch.device, dtype: torch.dtype | None = None) -> None:
        """`dtype` is found where none is given."""
        self.device = device
        if given := dtype or _asked():
            self.dtype, self.reason = given, "asked for"
        else:
            self.dtype, self.reason = _fastest(device)
        self._scaler = torch.amp.GradScaler(device.type, enabled=self.dtype == torch.float16)

    @property
    def name(self) -> str:
        return str(self.dtype).removeprefix("torch.")

    def autocast(self) -> torch.autocast:
        return torch.autocast(self.device.type, self.dtype, enabled=self.dtype != torch.float32)

    def backward(self, loss: Tensor) -> None:
        self._scaler.scale(loss).backward()  # type: ignore[no-untyped-call]

    def unscale(self, optimizers: Sequence[Optimizer]) -> None:
        """Give the gradients their true length, before they are clipped and followed."""
        for optimizer in filter(_moves, optimizers):
            self._scaler.unscale_(optimizer)

    def step(self, optimizers: Sequence[Optimizer]) -> None:
        for optimizer in optimizers:
            if _moves(optimizer):
                self._scaler.step(optimizer)
            else:  # its weights are all frozen, for which the scaler raises
                optimizer.step()
        self._scaler.update()

    def state(self) -> dict[str, Any]:
        return {"dtype": self.name, "scaler": self._scaler.state_dict()}

    def restore(self, state: dict[str, Any]) -> None:
        """Go on in the precision that the training began in."""
        self.__init__(self.device, getattr(torch, state["dtype"]))  # type: ignore[misc]
        self._scaler.load_state_dict(state["scaler"])


def _moves(optimizer: Optimizer) -> bool:
    return any(weight.grad is not None for group in optimizer.param_groups for weight in group["params"])


def _asked() -> torch.dtype | None:
    """The precision that NIGHTSHIFT_PRECISION names: a try may find another one the next time."""
    name = os.environ.get(PRECISION)
    if not name:
        return None
    if name not in PRECISIONS:
        raise InputError(
            f"{PRECISION} must be one of {', '.join(PRECISIONS)}, got {name!r}; correct or unset it"
        )
    return cast(torch.dtype, getattr(torch, name))


def _fastest(device: torch.device) -> tuple[torch.dtype, str]:
    """bfloat16 on tensor cores and AMX tiles, float16 on older GPUs; and why in a few words.

    With AVX-512 BF16 alone a try decides: one processor trains a ResNet-9 1.75 times faster with it, another
    a ResNet-18 at 17 instead of 26 images/s.
    """
    if device.type == "cuda":
        if torch.cuda.is_bf16_supported(including_emulation=False):
            return torch.bfloat16, "the GPU computes it"
        return torch.float16, "the GPU has no bfloat16"
    features = torch.cpu.get_capabilities() if device.type == "cpu" else {}
    if features.get("amx_bf16"):
        return torch.bfloat16, "AMX computes it"
    if not features.get("avx512_bf16"):
        return torch.float32, "bfloat16 would be emulated"
    gain = _gain()
    measured = f"bfloat16 measured {gain:.1f} times as fast"
    return (torch.bfloat16 if gain >= WORTH else torch.float32), measured


@functools.cache
@torch.inference_mode(False)
@torch.enable_grad()
def _gain() -> float:
    """How many times faster a convolution and its way back are in bfloat16, the best of a few tries each.

    By one thread and its own time, so that whatever else the machine does has little to say in it.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with torch.random.fork_rng():
            layer = nn.Sequential(nn.Conv2d(256, 256, 3, padding=1, bias=False), nn.BatchNorm2d(256))
            layer = layer.to(memory_format=torch.channels_last)
            pixels = torch.rand(32, 256, 8, 8).to(memory_format=torch.channels_last)
        seconds: dict[bool, list[float]] = {False: [], True: []}
        for turn in range(2 * (TRIES + 1)):
            begun = time.thread_time()
            with torch.autocast("cpu", torch.bfloat16, enabled=turn % 2 == 1):
                result = layer(pixels)
            result.float().sum().backward()
            if turn > 1:  # the first of each warms up
                seconds[turn % 2 == 1].append(time.thread_time() - begun)
    finally:
        torch.set_num_threads(threads)
    return min(seconds[False]) / min(seconds[True])
