"""Measure training steps against a plain loop and a bare one, and what feeding takes; lines go to bench.json.

python tests/bench/train.py      (about 6 minutes, nothing else may run)

The peers take turns in one process, a few steps each, and medians count. Images are noise: a step takes the
same time whatever it sees. The plain loop is what torchvision's reference script does: PIL images through
transforms in a DataLoader with workers, float32, contiguous. The bare one is as fast as a loop by hand gets
here: bfloat16 where the processor gains by it, channels last, a fused optimizer, images that lie ready as
normalised floats.
"""

import itertools
import os
import statistics
import sys
import time
from collections.abc import Iterator

from nightshift.runner import MALLOC

if os.environ.get("MALLOC_TOP_PAD_") != MALLOC["MALLOC_TOP_PAD_"]:  # as stages run; set before the start
    os.execve(sys.executable, [sys.executable, *sys.argv], {**os.environ, **MALLOC})  # noqa: S606

import torch
from night import record
from PIL import Image
from torch.nn.functional import cross_entropy
from torch.utils.data import DataLoader, Dataset
from torchvision.transforms import v2

from nightshift.config import PreprocessSettings, TrainSettings
from nightshift.data.dataset import Images, standardised
from nightshift.models import build
from nightshift.models.device import Precision, find_device
from nightshift.records import Dataset as Manifest
from nightshift.records import Duplicates, Profile
from nightshift.training.augmentation import augment
from nightshift.training.loader import InMemoryLoader
from nightshift.training.trainer import Trainer

SIDE, CLASSES, IMAGES = 32, 10, 4096
STEPS, ROUNDS = 4, 5
CASES = {
    "resnet18": TrainSettings(model="resnet18", batch_size=128, flip=True, crop_padding=4),
    "resnet9": TrainSettings(model="resnet9", width=0.5, batch_size=512, flip=True, crop_padding=4),
}
MEAN, DEVIATION = (0.5, 0.5, 0.5), (0.25, 0.25, 0.25)


def main() -> int:
    pixels = torch.randint(0, 256, (IMAGES, SIDE, SIDE, 3), dtype=torch.uint8)
    labels = torch.arange(IMAGES) % CLASSES
    images = Images(pixels, labels, torch.zeros((IMAGES, 32), dtype=torch.uint8))
    for name, settings in CASES.items():
        peers = {
            "ours": ours(settings, images),
            "plain": plain(settings, images),
            "bare": bare(settings, images),
        }
        speeds = take_turns(peers, settings.batch_size)
        record(
            f"{name} at 32 pixels: training",
            speeds["ours"],
            "images/s",
            "torchvision's loop",
            speeds["plain"],
        )
        record(f"{name} at 32 pixels: training", speeds["ours"], "images/s", "bare loop", speeds["bare"])
        fed = feeding(settings, images)
        record(f"{name} at 32 pixels: batches, augmented", fed, "images/s", "training", speeds["ours"])
    return 0


def take_turns(peers: dict[str, Iterator[None]], batch: int) -> dict[str, float]:
    """Images per second of each peer's median step."""
    seconds: dict[str, list[float]] = {name: [] for name in peers}
    for turn in range(ROUNDS):
        for name, steps in peers.items():
            for number in range(STEPS):
                begun = time.perf_counter()
                next(steps)
                if turn or number > 1:  # the first two warm up
                    seconds[name].append(time.perf_counter() - begun)
    return {name: batch / statistics.median(times) for name, times in seconds.items()}


def built(settings: TrainSettings) -> torch.nn.Module:
    return build.build(settings, classes=CLASSES, image_size=SIDE)


def ours(settings: TrainSettings, images: Images) -> Iterator[None]:
    manifest = dataset_of(images)
    loader = InMemoryLoader(images.to(find_device()), manifest, settings, 0)
    training = Trainer(built(settings), loader, images, dataset=manifest, settings=settings, seed=0)
    training.network.train()
    for epoch in itertools.count(1):
        for batch in loader.batches(epoch):
            training.step(batch, epoch)
            yield


class Photos(Dataset):  # type: ignore[type-arg]
    """What ImageFolder gives after decoding: a PIL image through the transforms of torchvision's script."""

    def __init__(self, images: Images) -> None:
        self.photos = [Image.fromarray(image.numpy()) for image in images.images]
        self.labels = images.labels.tolist()
        self.transform = v2.Compose(
            [
                v2.RandomCrop(SIDE, padding=4),
                v2.RandomHorizontalFlip(),
                v2.PILToTensor(),
                v2.ToDtype(torch.float, scale=True),
                v2.Normalize(MEAN, DEVIATION),
            ]
        )

    def __len__(self) -> int:
        return len(self.photos)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        return self.transform(self.photos[index]), self.labels[index]


def plain(settings: TrainSettings, images: Images) -> Iterator[None]:
    network = built(settings).to(memory_format=torch.contiguous_format).to(find_device()).train()
    optimizer = torch.optim.SGD(network.parameters(), lr=0.01, momentum=0.9, weight_decay=5e-4)
    loader = DataLoader(
        Photos(images),
        batch_size=settings.batch_size,
        shuffle=True,
        num_workers=os.cpu_count() or 1,
        prefetch_factor=1,  # little is left of it in the turns of the others
        drop_last=True,
        persistent_workers=True,
    )
    while True:
        for pixels, labels in loader:
            output = network(pixels.to(find_device()))
            loss = cross_entropy(output, labels.to(find_device()), label_smoothing=0.1)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            loss.item()  # which its metric logger asks for after every step
            yield


def bare(settings: TrainSettings, images: Images) -> Iterator[None]:
    device = find_device()
    network, precision = built(settings).to(device).train(), Precision(device)
    optimizer = torch.optim.SGD(
        network.parameters(), lr=0.01, momentum=0.9, weight_decay=5e-4, nesterov=True, fused=True
    )
    ready = standardised(images.images.permute(0, 3, 1, 2).float() / 255, dataset_of(images)).to(device)
    labels = images.labels.to(device)
    while True:
        for rows in torch.randperm(IMAGES, device=device).split(settings.batch_size):
            optimizer.zero_grad(set_to_none=True)
            with precision.autocast():
                output = network(ready[rows].contiguous(memory_format=torch.channels_last))
            cross_entropy(output.float(), labels[rows], label_smoothing=0.1).backward()
            optimizer.step()
            yield


def feeding(settings: TrainSettings, images: Images) -> float:
    """Images per second that come out of the loader, augmented and standardised, without a network."""
    manifest, device = dataset_of(images), find_device()
    loader, generator = InMemoryLoader(images.to(device), manifest, settings, 0), torch.Generator(device)
    seconds = []
    for epoch in range(1, ROUNDS + 1):
        begun = time.perf_counter()
        for batch in loader.batches(epoch):
            standardised(augment(batch.images, settings, SIDE, generator), manifest)
        seconds.append(time.perf_counter() - begun)
    return IMAGES / statistics.median(seconds)


def dataset_of(images: Images) -> Manifest:
    count = len(images.labels)
    return Manifest(
        digest="0" * 64,
        classes=tuple(map(str, range(CLASSES))),
        shards=(),
        counts={"train": dict.fromkeys(map(str, range(CLASSES)), count // CLASSES)},
        mean=MEAN,
        std=DEVIATION,
        refused=0,
        image_size=SIDE,
        preprocess=PreprocessSettings(image_size=SIDE),
        source="",
        batches={},
        profile=Profile(images=count, classes={}, histograms={}),
        duplicates=Duplicates(merged=0, conflicting=0, near=0, near_excluded=True),
    )


if __name__ == "__main__":
    sys.exit(main())
