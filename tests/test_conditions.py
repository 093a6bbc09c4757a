"""The conditions of this process."""

import cv2
import numpy as np
import torch

from nightshift.models.device import find_device
from nightshift.provenance import environment


def test_they_are_those_of_this_process(ml_store):
    found = environment.describe("bfloat16", micro_batches=2, group=3)
    assert (found.precision, found.micro_batches, found.group, found.processes) == ("bfloat16", 2, 3, 1)
    assert (found.threads, found.device) == (1, find_device().type)
    assert found.packages["numpy"] == np.__version__
    assert found.packages["torch"] == torch.__version__.partition("+")[0]
    assert found.packages["opencv"].startswith(cv2.__version__)
    assert "not installed" not in found.packages.values()


def test_a_package_that_is_not_there_is_said_to_be_none():
    assert environment._version(("no-such-wheel", "nor-this-one")) == "not installed"
