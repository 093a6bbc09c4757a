"""Quantization recipes: each file makes one ONNX graph of a trained network, and is found by its name.

A recipe `int8-qat` is the module `nightshift.quantization.recipes.int8_qat` with the function

    make(trained: Trained, settings: QuantizeSettings) -> tuple[onnx.ModelProto, Details]

so a new recipe is a new file, nothing else. The stage finishes the graph, runs it once, and proves from it
what was quantized; `Details` is what only the recipe knows.
"""

import importlib
from typing import NamedTuple, Protocol, cast

import onnx
from torch import nn

from nightshift.config import TrainSettings
from nightshift.config.quantization import RECIPES, QuantizeSettings
from nightshift.errors import InputError
from nightshift.records import Dataset

Details = dict[str, float | int | str]


class Trained(NamedTuple):
    """What a recipe starts from: a network (or a Vote of several) in evaluation mode and how it learned.

    A recipe may change the network. `folder` is where one that trains keeps how far it is.
    """

    network: nn.Module
    dataset: Dataset
    settings: TrainSettings
    folder: str


class Recipe(Protocol):
    def make(self, trained: Trained, settings: QuantizeSettings) -> tuple[onnx.ModelProto, Details]: ...


def find(name: str) -> Recipe:
    """The module of a recipe. Raises InputError listing the known ones."""
    if name not in RECIPES:
        raise InputError(f"recipe {name!r} is unknown; known are {', '.join(RECIPES)}")
    return cast(Recipe, importlib.import_module(f"{__name__}.{name.replace('-', '_')}"))
