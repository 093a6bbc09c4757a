"""Measure size, speed and making of each recipe's file beside torch in float32; lines go to bench.json.

python tests/bench/quantize.py [PHOTOS]      (half an hour, nothing else may run)

PHOTOS is what `nightshift ingest` takes, and adds the ResNet-18 and the ResNet-50 at 224 pixels; without it
only the networks for 32 pixels are measured, on noise. Networks are not trained, which changes no size and no
time; how accurate recipes are is for tests/bench/accuracy.py. A file runs in the runtime that Nightshift
chooses for it, the peer is torch's own eager float32. They take turns in one process, and medians count.
"""

import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from night import record
from safetensors.numpy import save

from nightshift import storage
from nightshift.config import PreprocessSettings, TrainSettings
from nightshift.config.quantization import RECIPES, QuantizeSettings
from nightshift.data.dataset import load_split, scaled, standardised
from nightshift.hardware import processor
from nightshift.inference import onnx_stats, runtime
from nightshift.models import build
from nightshift.quantization import onnx_export, recipes
from nightshift.records import SPLITS, Dataset, Duplicates, Profile, Shard

CLASSES, EACH = 10, 32  # images of a class, in every split
ROUNDS, SECONDS = 7, 1.0
BATCHES = (8, 32, 128)
PRODUCT = 2048  # rows and columns of a matrix
SMALL = {
    "resnet9, half as wide": TrainSettings(model="resnet9", width=0.5),
    "resnet20": TrainSettings(model="resnet20"),
    "resnet56": TrainSettings(model="resnet56"),
    "resnet18": TrainSettings(model="resnet18"),
}
LARGE = {"resnet18": TrainSettings(model="resnet18"), "resnet50": TrainSettings(model="resnet50")}
# An untrained network has no accuracy to keep.
SETTINGS = QuantizeSettings(
    recipes=RECIPES, calibration_images=128, accuracy_budget=1, qat_epochs=1, binary_epochs=1
)


def main(photos: str | None = None) -> int:
    torch.set_num_threads(processor.threads())
    runtime.AGREEMENT = 0  # an untrained network has no label that it prefers
    ceiling()
    with tempfile.TemporaryDirectory(prefix="nightshift-bench-", dir="/var/tmp") as folder:
        os.environ["NIGHTSHIFT_STORE"] = f"file://{folder}"
        noise = np.random.default_rng(0)
        shape = (CLASSES * EACH, 32, 32, 3)
        images = {split: noise.integers(0, 256, shape, dtype=np.uint8) for split in SPLITS}
        for name, settings in SMALL.items():
            one(f"{name} at 32 pixels", settings, dataset_of(folder, images, 32), RECIPES)
        if photos:
            pixels = photos_of(photos, 224)
            images = {split: np.resize(pixels, (CLASSES * EACH, 224, 224, 3)) for split in SPLITS}
            for name, settings in LARGE.items():
                one(f"{name} at 224 pixels", settings, dataset_of(folder, images, 224), RECIPES)
    return 0


def ceiling() -> None:
    """What the machine itself gains by int8: products of large matrices, which leave nothing else to do."""
    real = torch.rand(PRODUCT, PRODUCT)
    whole = torch.randint(-127, 128, (PRODUCT, PRODUCT), dtype=torch.int8)
    mine, theirs = turns(lambda: torch._int_mm(whole, whole), lambda: real @ real)
    each = PRODUCT**3 / 1e9  # billions of multiply-adds
    record("matrix products in int8", each / mine, "GMAC/s", "torch float32", each / theirs)


def one(name: str, settings: TrainSettings, dataset: Dataset, wanted: tuple[str, ...]) -> None:
    """Make, weigh and time the files of one network."""
    settings = settings.model_copy(update={"batch_size": 32, "compile": "no"})
    images = load_split(dataset, "test").images
    size = {}
    for recipe in ("fp32", *(recipe for recipe in wanted if recipe != "fp32")):
        begun = time.perf_counter()
        trained = recipes.Trained(network_of(settings, dataset), dataset, settings, f"file://{recipe}")
        with tempfile.TemporaryDirectory() as folder:
            graph, _ = recipes.find(recipe).make(trained._replace(folder=f"file://{folder}"), SETTINGS)
        data = onnx_export.finish(graph, dataset, recipe)
        record(f"{name}, {recipe}: making", time.perf_counter() - begun, "s")
        size[recipe] = len(data)
        record(f"{name}, {recipe}: file", len(data) / 1e6, "MB", "fp32", size["fp32"] / 1e6)
        proof = onnx_stats.proof(graph)
        record(f"{name}, {recipe}: bits of a weight", float(proof["weight_bits"]), "bits")
        record(f"{name}, {recipe}: multiply-adds in int8", float(proof["int8_share"]), "share")
        serve(f"{name}, {recipe}", data, network_of(settings, dataset), images, dataset)
    bits(name, settings, dataset, images.numpy())


def bits(name: str, settings: TrainSettings, dataset: Dataset, pixels: runtime.Pixels) -> None:
    """What portable int8 costs in time beside all 8 bits, and what it gains beside float, by runtime."""
    kinds = {"fp32": ("fp32", True), "portable": ("int8", True), "8 bits": ("int8", False)}
    made = {}
    for kind, (recipe, portable) in kinds.items():
        trained = recipes.Trained(network_of(settings, dataset), dataset, settings, "file://bits")
        graph, _ = recipes.find(recipe).make(trained, SETTINGS.model_copy(update={"portable": portable}))
        made[kind] = onnx_export.finish(graph, dataset, recipe)
    for where in ("onnxruntime", "openvino-f32"):
        sessions = {kind: runtime.Session(data, where) for kind, data in made.items()}
        for count in (1, max(BATCHES)):
            for peer in ("8 bits", "fp32"):
                mine, theirs = turns(
                    lambda: sessions["portable"].predict(pixels[:count]),  # noqa: B023
                    lambda: sessions[peer].predict(pixels[:count]),  # noqa: B023
                )
                row = f"{name}, portable int8, {where}, {count} at once"
                record(row, count / mine, "images/s", f"{peer} in the same runtime", count / theirs)


def serve(name: str, data: bytes, network: torch.nn.Module, images: torch.Tensor, dataset: Dataset) -> None:
    """Times of a file beside those of the network in torch: one image, and the best batch of each."""
    pixels = images.numpy()
    alone = runtime.fastest(data, pixels).session
    many = runtime.fastest(data, pixels, batch=max(BATCHES)).session

    def eager(count: int) -> Callable[[], object]:
        ready = standardised(scaled(images[:count]), dataset).contiguous()

        def call() -> object:
            with torch.inference_mode():
                return network(ready).softmax(1)

        return call

    def ours(session: runtime.Session, count: int) -> Callable[[], object]:
        return lambda: session.predict(pixels[:count])

    mine, theirs = turns(ours(alone, 1), eager(1))
    record(f"{name}: latency, {alone.runtime}", 1000 * mine, "ms", "torch float32", 1000 * theirs)
    rates = [(count, turns(ours(many, count), eager(count))) for count in BATCHES]
    best = max(count / seconds[0] for count, seconds in rates)
    peer = max(count / seconds[1] for count, seconds in rates)
    record(f"{name}: best batch, {many.runtime}", best, "images/s", "torch float32", peer)


def turns(ours: Callable[[], object], peer: Callable[[], object]) -> tuple[float, float]:
    """Median seconds of a call of each, which take turns for about SECONDS each."""
    calls, found = (ours, peer), ([], [])  # type: tuple[Callable[[], object], ...], tuple[list[float], ...]
    for number in range(ROUNDS):
        for call, seconds in zip(calls, found, strict=True):
            end = time.perf_counter() + SECONDS / ROUNDS
            while True:
                begun = time.perf_counter()
                call()
                if number:  # the first round warms up
                    seconds.append(time.perf_counter() - begun)
                if time.perf_counter() > end:
                    break
    mine, theirs = (statistics.median(seconds) for seconds in found)
    return mine, theirs


def network_of(settings: TrainSettings, dataset: Dataset) -> torch.nn.Module:
    """Untrained, but with statistics of its batch norms, so that ranges are those of a network at work."""
    network = build.build(settings, classes=CLASSES, image_size=dataset.image_size)
    images = load_split(dataset, "train").images[:64]
    with torch.no_grad():
        for _ in range(3):
            network.train()(standardised(scaled(images), dataset))
    return network.eval()


def photos_of(folder: str, side: int) -> np.ndarray:
    """Real photos, uint8 [N,side,side,3]."""
    from nightshift.data.images import prepare

    files = sorted(path for path in Path(folder).rglob("*") if path.suffix.lower() in (".jpg", ".jpeg"))
    settings = PreprocessSettings(image_size=side)
    return np.stack([prepare(path.read_bytes(), settings) for path in files[: CLASSES * EACH]])


def dataset_of(folder: str, images: dict[str, np.ndarray], side: int) -> Dataset:
    classes, shards = tuple(map(str, range(CLASSES))), []
    for split, pixels in images.items():
        labels = np.arange(len(pixels)) % CLASSES
        tensors = {"images": pixels, "labels": labels, "ids": np.zeros((len(pixels), 32), np.uint8)}
        file = storage.write(f"file://{folder}/{side}-{split}.safetensors", save(tensors))
        shards.append(Shard(file=file, split=split, images=len(pixels), classes=classes))
    return Dataset(
        digest="0" * 64,
        classes=classes,
        shards=tuple(shards),
        counts={split: dict.fromkeys(classes, EACH) for split in SPLITS},
        mean=(0.5, 0.5, 0.5),
        std=(0.25, 0.25, 0.25),
        refused=0,
        image_size=side,
        preprocess=PreprocessSettings(image_size=side),
        source="",
        batches={},
        profile=Profile(images=0, classes={}, histograms={}),
        duplicates=Duplicates(merged=0, conflicting=0, near=0, near_excluded=True),
    )


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
