"""Measure decoding against bare loops over the same files on one core, and append JSON lines to bench.json.

python tests/bench/images.py FOLDER      (photos in any depth below it; nothing else may run)

Peers take turns file by file, so that a noisy machine is fair to all, and medians count.
"""

import io
import resource
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import simplejpeg
import torch
from night import record
from PIL import Image
from torchvision.transforms import v2

from nightshift.config import PreprocessSettings
from nightshift.data.decoding.pool import DecoderPool, decode_for_shard
from nightshift.data.image_stats import features
from nightshift.data.images import stored

SIDE = 224
PHOTOS = 400
ROUNDS = 7
LARGE = 12  # photos of 4000 x 3000 pixels


def main() -> int:
    cv2.setNumThreads(1)
    torch.set_num_threads(1)
    photos = [path.read_bytes() for path in sorted(Path(sys.argv[1]).rglob("*.jpg"))[:PHOTOS]]
    if len(photos) < PHOTOS:
        raise SystemExit(f"{sys.argv[1]} holds {len(photos)} photos; {PHOTOS} are needed")
    settings = PreprocessSettings(image_size=SIDE)
    small(photos, settings)
    large(photos[:LARGE], settings)
    pool(photos, settings)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    record("images: peak memory of the whole measurement", peak, "MiB")
    return 0


def small(photos: list[bytes], settings: PreprocessSettings) -> None:
    """348 x 348 photos to 224 x 224: ours, the bare loops, and what ImageFolder does."""
    loops = [opencv, simple]
    speeds = compare(photos, [lambda data: stored(data, settings), *loops, torchvision])
    ours, *bare = speeds[: 1 + len(loops)]
    best = max(zip(bare, ("OpenCV", "simplejpeg and OpenCV"), strict=True))
    record("decode and resize to 224", ours, "images/s", f"bare loop: {best[1]}", best[0])
    record("decode and resize to 224", ours, "images/s", "Pillow and torchvision", speeds[3])


def large(photos: list[bytes], settings: PreprocessSettings) -> None:
    """12 megapixels to 224 x 224, with scaled decoding and without; and how far the results are apart."""
    enlarged = [twelve_megapixels(data) for data in photos]
    whole = settings.model_copy(update={"scaled_decoding": False})
    scaled_speed, whole_speed = compare(
        enlarged, [lambda data: stored(data, settings), lambda data: stored(data, whole)]
    )
    record("12 megapixels, scaled decoding", scaled_speed, "images/s", "whole", whole_speed)
    apart = [
        np.abs(stored(data, settings).astype(int) - stored(data, whole).astype(int)) for data in enlarged
    ]
    record("12 megapixels, scaled decoding: mean difference", float(np.mean(apart)), "grey levels")
    record("12 megapixels, scaled decoding: largest difference", float(np.max(apart)), "grey levels")


def pool(photos: list[bytes], settings: PreprocessSettings) -> None:
    """A pool of one process against the same work without it, by the clock; and what the features cost."""
    pooled, alone = [], []
    with DecoderPool(decode_for_shard, settings, processes=1) as decoders:
        for _ in range(ROUNDS):
            started = time.perf_counter()
            for _result in decoders.map(photos):
                pass
            halfway = time.perf_counter()
            for data in photos:
                decode_for_shard(data, settings)
            pooled.append(halfway - started)
            alone.append(time.perf_counter() - halfway)
    speeds = [len(photos) / statistics.median(times) for times in (pooled, alone)]
    record(
        "decode, resize and features in a pool of one process", speeds[0], "images/s", "no pool", speeds[1]
    )
    squares = [stored(data, settings) for data in photos]
    started = time.process_time()
    for square in squares:
        features(square)
    record("features of 224 x 224", (time.process_time() - started) / len(squares) * 1000, "ms")


def compare(files: list[bytes], loops: list[Callable[[bytes], object]]) -> list[float]:
    """Images per second of one core's time, from each file's median. The loops take turns file by file."""
    seconds = np.zeros((ROUNDS, len(files), len(loops)))
    for number in range(ROUNDS):
        kept = []
        for row, data in enumerate(files):
            for place in range(len(loops)):
                index = (place + number) % len(loops)  # in another order each round
                started = time.process_time()
                kept.append(loops[index](data))
                seconds[number, row, index] = time.process_time() - started
    return [len(files) / float(total) for total in np.median(seconds, axis=0).sum(axis=0)]


def opencv(data: bytes) -> np.ndarray:
    image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
    return cv2.cvtColor(cv2.resize(image, (SIDE, SIDE), interpolation=cv2.INTER_AREA), cv2.COLOR_BGR2RGB)


def simple(data: bytes) -> np.ndarray:
    return cv2.resize(simplejpeg.decode_jpeg(data), (SIDE, SIDE), interpolation=cv2.INTER_AREA)


IMAGE_FOLDER = v2.Compose([v2.Resize(SIDE), v2.CenterCrop(SIDE), v2.PILToTensor()])


def torchvision(data: bytes) -> torch.Tensor:
    return IMAGE_FOLDER(Image.open(io.BytesIO(data)).convert("RGB"))


def twelve_megapixels(data: bytes) -> bytes:
    photo = Image.open(io.BytesIO(data)).convert("RGB").resize((4000, 3000), Image.Resampling.BICUBIC)
    buffer = io.BytesIO()
    photo.save(buffer, "JPEG", quality=90)
    return buffer.getvalue()


if __name__ == "__main__":
    sys.exit(main())
