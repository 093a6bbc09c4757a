"""The last images that were predicted: by them the runtimes are compared."""

import threading
from collections import deque
from typing import Final, NamedTuple

import numpy as np

from nightshift.config import PreprocessSettings
from nightshift.inference.runtime import Pixels

LOOK: Final = 256  # images from which the share of equal labels says something


class Sample(NamedTuple):
    """Images uint8 [N,H,W,C], prepared by `settings`, and how many usually come together."""

    settings: PreprocessSettings
    pixels: Pixels
    batch: int

    def suits(self, settings: PreprocessSettings) -> bool:
        """Whether they are as these settings prepare images."""
        return self.settings.same_pixels(settings)


class RecentImages:
    """Written by the thread that predicts, read by the one that compares; that one is woken by `wake`."""

    def __init__(self, wake: threading.Event) -> None:
        self._wake = wake
        self._lock = threading.Lock()
        self._images: deque[Pixels] = deque(maxlen=LOOK)
        self._batches: deque[int] = deque(maxlen=LOOK)
        self._settings: PreprocessSettings | None = None

    def add(self, settings: PreprocessSettings, images: list[Pixels], together: int) -> None:
        """Images that were predicted, each uint8 [H,W,C], of so many that waited; those of other settings are
        forgotten."""
        with self._lock:
            if settings is not self._settings:
                if self._settings is None or not settings.same_pixels(self._settings):
                    self._images.clear()
                    self._batches.clear()
                self._settings = settings
            before = len(self._images)
            self._images.extend(images)
            self._batches.append(together)
            if before < LOOK == len(self._images):
                self._wake.set()

    def sample(self) -> Sample | None:
        """The images, or None while there are too few."""
        with self._lock:
            if self._settings is None or len(self._images) < LOOK:
                return None
            usual = int(np.median(self._batches))
            return Sample(self._settings, np.stack(self._images), max(1, usual))
