"""Resumable training state in one object of the store: after a crash, the next try goes on from there.

One safetensors file: the tensors of the state, and everything else as JSON in its header. It is written whole
or not at all, and nothing in it is executed when it is read.
"""

import json
import time
from typing import Any, Final

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from nightshift import storage

SHARE: Final = 0.02  # of the time of a training, at most, that saving takes
State = dict[str, Any]  # of tensors, numbers, texts, and dicts, lists and tuples of them


class TrainingCheckpoint:
    """The state of one training, kept at `uri`."""

    def __init__(self, uri: str, minutes: float = 5) -> None:
        """Within an epoch, it is kept again after so many minutes."""
        self.uri, self._pause = uri, 60 * minutes
        self._next = 0.0  # time from which saving again is worth what it takes
        self._last = time.monotonic()

    @property
    def is_due(self) -> bool:
        return time.monotonic() >= self._next

    @property
    def is_overdue(self) -> bool:
        return self.is_due and time.monotonic() >= self._last + self._pause

    def save(self, state: State) -> None:
        begun = time.monotonic()
        tensors: dict[str, Tensor] = {}
        rest = json.dumps(_without_tensors(state, tensors))
        storage.write(self.uri, save(tensors, metadata={"state": rest}))
        ended = time.monotonic()
        self._next, self._last = ended + (ended - begun) / SHARE, ended

    def load(self) -> State | None:
        """The last state, or None where there is none that can be read: then training starts anew."""
        try:
            data = storage.read(self.uri)
        except storage.MissingError:
            return None
        try:
            tensors = load(data)
            header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
            state: State = _with_tensors(json.loads(header["__metadata__"]["state"]), tensors)
        except (SafetensorError, KeyError, ValueError) as error:
            print(f"{self.uri} cannot be read ({error}); training starts anew", flush=True)
            return None
        return state

    def delete(self) -> None:
        storage.delete(self.uri)


def _without_tensors(value: Any, tensors: dict[str, Tensor]) -> Any:
    """For JSON: a tensor becomes its name among `tensors`, a dict its pairs, since keys may be numbers."""
    if isinstance(value, Tensor):
        name = str(len(tensors))
        tensors[name] = value.detach().cpu().contiguous().clone()
        return {"tensor": name}
    if isinstance(value, dict):
        return {"pairs": [[key, _without_tensors(item, tensors)] for key, item in value.items()]}
    if isinstance(value, list | tuple):
        return {type(value).__name__: [_without_tensors(item, tensors) for item in value]}
    return value


def _with_tensors(value: Any, tensors: dict[str, Tensor]) -> Any:
    if not isinstance(value, dict):
        return value
    ((kind, content),) = value.items()
    if kind == "tensor":
        return tensors[content]
    if kind == "pairs":
        return {key: _with_tensors(item, tensors) for key, item in content}
    items = [_with_tensors(item, tensors) for item in content]
    return tuple(items) if kind == "tuple" else items


def restore_optimizer(optimizer: torch.optim.Optimizer, state: State) -> None:
    """Load a state, its tensors in the memory order of their weights, which fused optimizers rely on."""
    optimizer.load_state_dict(state)
    for weight, values in optimizer.state.items():
        for name, tensor in values.items():
            if isinstance(tensor, Tensor) and tensor.shape == weight.shape:
                values[name] = torch.empty_like(weight).copy_(tensor)
