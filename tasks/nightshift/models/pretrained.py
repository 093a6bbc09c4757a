"""What a training starts from, put into its network: ImageNet weights, or those of another training.

Weights files are safetensors. They say of which network they are and which classes their head knows, so a
head is carried over by the names of its classes, whatever their order.
"""

import json
import pickle
from collections.abc import Mapping
from typing import NamedTuple

import torch
from safetensors import SafetensorError
from safetensors.torch import load
from torch import Tensor, nn
from torchvision.models import get_model_weights

from nightshift import storage
from nightshift.config import TrainSettings
from nightshift.errors import InputError, OutageError
from nightshift.models import build, resnet
from nightshift.models.freezing import HEAD, STEM, frozen, part_of
from nightshift.records import Dataset, InitialWeights


class Source(NamedTuple):
    """Weights by the names of their tensors, and what their file says of them; empty where it is silent."""

    name: str
    tensors: Mapping[str, Tensor]
    network: str
    classes: tuple[str, ...]


def about(settings: TrainSettings, dataset: Dataset) -> dict[str, object]:
    """What a weights file says of itself."""
    return {"network": _described(settings), "classes": dataset.classes}


def fitting(settings: TrainSettings, start: InitialWeights | None) -> TrainSettings:
    """The settings, without those that need a champion where there is none yet."""
    if settings.weights != "champion" or start is not None:
        return settings
    print("there is no champion yet: training starts from scratch, nothing frozen", flush=True)
    return settings.model_copy(update={"weights": "none", "freeze": "none", "backbone_lr_factor": 1.0})


def begin(
    network: nn.Module, settings: TrainSettings, dataset: Dataset, start: InitialWeights | None
) -> None:
    """Put the weights that training starts from into an untrained network and print what was taken.

    Raises InputError when they are damaged or of another network, or when something new would be frozen, and
    OutageError when they cannot be fetched.
    """
    if settings.weights == "none":
        return
    if settings.weights == "imagenet":
        source = _imagenet(settings, dataset)
    elif start is not None:
        source = _read(start)
    else:
        raise InputError(
            f"the training was not told which weights {settings.weights} are; its spec needs `start`"
        )
    new = _take(network, settings, source, dataset.classes)
    kept = frozen(network, settings, 1)
    if random := [name for name in new if part_of(name) in kept]:
        raise InputError(
            f"train.freeze = {settings.freeze!r} would keep {', '.join(random)} as drawn at random, since "
            f"{source.name} holds nothing that fits; set train.freeze = 'none'"
        )
    if kept:
        print(f"frozen: {', '.join(kept)}", flush=True)


def _take(network: nn.Module, settings: TrainSettings, source: Source, classes: tuple[str, ...]) -> list[str]:
    """Copy what fits; the names of the tensors that stay new."""
    own = network.state_dict()
    # torchvision's older files lack the counters of batch norm, which torch then takes as 0.
    given = {name: torch.zeros(()) for name in own if name.endswith("num_batches_tracked")}
    given = {**given, **source.tensors}
    _check_body(settings, source, own, given)
    same = source.classes == classes

    def fits(name: str) -> bool:
        return name in given and given[name].shape == own[name].shape and (same or not name.startswith("fc."))

    new = [name for name in own if not fits(name)]
    for name in set(own) - set(new):
        own[name].copy_(given[name])
    known = 0 if same else _take_rows(own, given, source.classes, classes)
    rows = f", but for the rows of {known} of {len(classes)} classes" if known else ""
    fresh = f"; new: {', '.join(new)}{rows}" if new else ""
    print(f"took {len(own) - len(new)} of {len(own)} tensors from {source.name}{fresh}", flush=True)
    return new


def _take_rows(
    own: Mapping[str, Tensor], given: Mapping[str, Tensor], theirs: tuple[str, ...], ours: tuple[str, ...]
) -> int:
    """Copy the rows of the last layer whose classes have the same names; how many these are."""
    common = [name for name in ours if name in theirs]
    for name in ("fc.weight", "fc.bias"):
        if name in own and name in given:
            rows = given[name][[theirs.index(each) for each in common]]
            own[name][[ours.index(each) for each in common]] = rows.to(own[name])
    return len(common)


def _check_body(
    settings: TrainSettings, source: Source, own: Mapping[str, Tensor], given: Mapping[str, Tensor]
) -> None:
    """Raise InputError unless the body is the same network; the first kernel may see other channels."""
    for name in {**own, **given}:
        ours, theirs = (list(of[name].shape) if name in of else [] for of in (own, given))
        channels = part_of(name) == STEM and len(ours) == 4 and ours[:1] + ours[2:] == theirs[:1] + theirs[2:]
        if ours != theirs and part_of(name) != HEAD and not channels:
            raise InputError(
                f"{source.name} holds a {source.network or 'network'} that does not fit the "
                f"{_described(settings)} to be trained ({name} is {theirs or 'missing'} there and "
                f"{ours or 'missing'} here); set train.model, width, depth and stem to its own, or "
                "train.weights = 'none'"
            )


def _read(start: InitialWeights) -> Source:
    """Another training's weights, checked against their digest."""
    data = storage.read_artifact(start.weights)
    try:
        tensors = load(data)
        header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
        said = json.loads(header.get("__metadata__", {}).get(build.ABOUT, "{}"))
    except (SafetensorError, ValueError, TypeError, AttributeError) as error:
        raise InputError(f"{start.weights.uri} is not a safetensors file ({error})") from error
    classes = tuple(said.get("classes", ()))
    if "fc.weight" in tensors and len(tensors["fc.weight"]) != len(classes):
        classes = ()  # of a file that others made
    return Source(start.name, tensors, said.get("network", ""), classes)


def _imagenet(settings: TrainSettings, dataset: Dataset) -> Source:
    """torchvision's best ImageNet weights, from its cache or from the internet."""
    name = settings.model
    _check_imagenet_fits(settings, dataset)
    weights = get_model_weights(name).DEFAULT
    folder = f"{torch.hub.get_dir()}/checkpoints"
    try:
        # The file is a pickle; weights_only limits it to tensors, and its hash is checked after the download.
        state: dict[str, Tensor] = weights.get_state_dict(progress=False, check_hash=True, weights_only=True)
    except pickle.UnpicklingError as error:
        raise InputError(
            f"the file of {weights.url} in {folder} holds something else than tensors; remove it"
        ) from error
    except (OSError, RuntimeError) as error:
        raise OutageError(
            f"ImageNet weights of {name} cannot be fetched from {weights.url} ({error}); put that file "
            f"into {folder}, or set train.weights = 'none'"
        ) from error
    return Source("torchvision's ImageNet weights", state, name, ())


def _check_imagenet_fits(settings: TrainSettings, dataset: Dataset) -> None:
    if settings.model not in resnet.NAMES:
        raise InputError(
            f"there are no ImageNet weights of {settings.model}; choose one of {', '.join(resnet.NAMES)}, "
            "or set train.weights = 'none'"
        )
    shape = build.shape_of(settings, len(dataset.classes), dataset.image_size, dataset.preprocess.channels)
    given = (shape.width, shape.depth, shape.small_stem, shape.stem_kernel, shape.channels)
    if given != (1, 1, False, 7, 3):
        stem = "small" if shape.small_stem else "imagenet"
        raise InputError(
            "weights 'imagenet' need train.width 1, train.depth 1 and the imagenet stem with kernel 7 on 3 "
            f"channels, got width {shape.width:g}, depth {shape.depth:g} and the {stem} stem with kernel "
            f"{shape.stem_kernel} at {dataset.image_size} pixels on {shape.channels} channels; change these, "
            "or set train.weights = 'none'"
        )


def _described(settings: TrainSettings) -> str:
    return f"{settings.model} of width {settings.width:g} and depth {settings.depth:g}"
