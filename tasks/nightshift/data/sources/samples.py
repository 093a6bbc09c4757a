"""Batches that need no files: scikit-learn's handwritten digits, and a tiny generated set for trials."""

import zlib
from typing import Final, Literal, cast

from nightshift.data.sources import Batch, Item, batch_name
from nightshift.errors import InputError

Sample = Literal["digits", "tiny"]
SAMPLES: Final[tuple[Sample, ...]] = ("digits", "tiny")


def sample(kind: Sample, name: str | None = None) -> list[Batch]:
    """All six batches of `digits`, or the one called `name`; or one batch of `tiny`.

    Each name gives `tiny` other images, the same name always the same ones. Raises InputError.
    """
    if kind == "tiny":
        return [_tiny(batch_name(name, "batch-1"))]
    batches = _digits()
    chosen = [batch for batch in batches if name in (None, batch.name)]
    if not chosen:
        known = ", ".join(batch.name for batch in batches)
        raise InputError(f"batch {name!r} is not one of the sample digits, which has {known}")
    return chosen


def _digits() -> list[Batch]:
    """scikit-learn's 1,797 handwritten digits (8x8, values 0 to 16), dealt out in turn to six batches."""
    from sklearn.datasets import load_digits

    bundle = load_digits()
    batches: list[list[Item]] = [[] for _ in range(6)]
    for index, (image, label) in enumerate(zip(bundle.images, bundle.target, strict=True)):
        key = f"{label}/digit-{index:04d}.png"
        batches[index % 6].append(Item(key, str(label), _png(image * (255 / 16))))
    return [Batch(f"batch-{number}", tuple(items)) for number, items in enumerate(batches, start=1)]


def _tiny(name: str) -> Batch:
    """80 noisy 8x8 images of 4 classes: the class is the quadrant that is bright."""
    import numpy as np

    noise = np.random.default_rng(zlib.crc32(name.encode()))
    items = []
    for index in range(80):
        row, column = divmod(index % 4, 2)
        image = noise.uniform(0, 96, (8, 8))
        image[row * 4 : row * 4 + 4, column * 4 : column * 4 + 4] += 128
        label = f"{('top', 'bottom')[row]}-{('left', 'right')[column]}"
        items.append(Item(f"{label}/tiny-{index:02d}.png", label, _png(image)))
    return Batch(name, tuple(items))


def _png(image: object) -> bytes:
    """Grey values 0 to 255 [H,W] as an 8-bit PNG."""
    import cv2
    import numpy as np

    encoded = cv2.imencode(".png", np.rint(cast("np.ndarray", image)).astype(np.uint8))[1]
    return encoded.tobytes()
