"""How far a model's confidence is what it says."""

from typing import Final

import numpy as np
from numpy.typing import NDArray

from nightshift.records import Reliability

BINS: Final = 10


def reliability(confidence: NDArray[np.float32], right: NDArray[np.bool_]) -> Reliability:
    """By what the likeliest class got, float32 [N] from 0 to 1: how often it was right, bool [N]."""
    places = np.minimum((confidence * BINS).astype(np.int64), BINS - 1)
    counts = np.bincount(places, minlength=BINS)
    filled = counts > 0
    sure = np.bincount(places, weights=confidence, minlength=BINS)[filled] / counts[filled]
    good = np.bincount(places, weights=right, minlength=BINS)[filled] / counts[filled]
    return Reliability(
        confidence=tuple(sure.tolist()), accuracy=tuple(good.tolist()), images=tuple(counts[filled].tolist())
    )
