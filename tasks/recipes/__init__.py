"""Quantization recipes: each file makes one ONNX file of a trained network, and is found by its name.

A recipe `int8-qat` is the module `tasks.recipes.int8_qat` with the function

    make(trained: Trained, settings: QuantizeSettings) -> tuple[bytes, Details]

so a new recipe is a new file and a word in `QuantizeSettings.recipes`, nothing else.
"""

import importlib
import importlib.util
import pkgutil
from typing import NamedTuple, Protocol, cast

from torch import nn

from tasks.config import QuantizeSettings
from tasks.dataset import Images
from tasks.errors import InputError
from tasks.records import Dataset

Details = dict[str, float | int | str]


class Trained(NamedTuple):
    """What a recipe starts from: a network (or a Vote of several) in evaluation mode and what it learned.

    `images` are the training images, uint8 [N,H,W,C] cut to the side that the network sees; the `seed`
    chooses among them for calibration.
    """

    network: nn.Module
    dataset: Dataset
    images: Images
    seed: int


class Recipe(Protocol):
    def make(self, trained: Trained, settings: QuantizeSettings) -> tuple[bytes, Details]: ...


def find(name: str) -> Recipe:
    """The module of a recipe. Raises InputError listing the known ones."""
    module = f"{__name__}.{name.replace('-', '_')}"
    if not name.replace("-", "").isalnum() or importlib.util.find_spec(module) is None:
        known = ", ".join(sorted(found.name.replace("_", "-") for found in pkgutil.iter_modules(__path__)))
        raise InputError(f"recipe {name!r} is unknown; known are {known}")
    return cast(Recipe, importlib.import_module(module))
