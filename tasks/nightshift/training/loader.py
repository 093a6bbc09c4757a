"""Data loaders: batches from memory where the data set fits, otherwise from shards in turn.

The batches of an epoch follow from the training's seed and the epoch's number alone, so a training that was
broken off asks for the rest of them.
"""

import hashlib
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Final, Protocol

import torch
from torch import Tensor

from nightshift.config import TrainSettings
from nightshift.data.dataset import Images, Rows, load_split, read_rows, rows_of
from nightshift.errors import InputError
from nightshift.models.device import find_device, room
from nightshift.records import Dataset
from nightshift.training.distributed import SINGLE_PROCESS, ProcessGroup
from nightshift.training.shard_cache import ShardCache

ALIVE: Final = 3  # groups of shards in memory: what is left of one, the present one, and the next


class Loader(Protocol):
    """The training images of one process; `steps` batches are an epoch."""

    images: int
    steps: int
    group: int  # shards in memory together, whose images are mixed; 0 where all are

    def batches(self, epoch: int, first: int = 0) -> Iterator[Images]:
        """The batches of an epoch (from 1) from number `first` (from 0), on the device that trains.

        In chunks of equal size, none dropped: one image alone would break batch norm.
        """
        ...


def seed_at(seed: int, *place: int) -> int:
    """63 bits that follow from a place in a training and nothing else."""
    text = ":".join(map(str, (seed, *place)))
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8]) >> 1


def open_loader(
    dataset: Dataset, settings: TrainSettings, seed: int, ranks: ProcessGroup = SINGLE_PROCESS
) -> Loader:
    """On the device where there is room, else in memory, else from the local disk and the store.

    Raises InputError when the data set has no training images.
    """
    wanted = rows_of(dataset, "train", ranks.rank, ranks.world_size)
    steps = steps_of(sum(rows.total for rows in rows_of(dataset, "train")), settings, ranks.world_size)
    each = dataset.preprocess.side**2 * dataset.preprocess.channels
    size = each * sum(rows.total for rows in wanted)
    device = find_device()
    cpu = torch.device("cpu")
    if size <= room(device) or size <= room(cpu):
        home = device if size <= room(device) else cpu
        images = load_split(dataset, "train", ranks.rank, ranks.world_size).to(home)
        return InMemoryLoader(images, dataset, settings, seed, steps)
    print(
        f"{size / 1e9:.1f} GB of training images do not fit into memory: shards are read in turns", flush=True
    )
    return StreamingLoader(wanted, dataset, settings, seed, steps)


class InMemoryLoader:
    """All images in memory, as bytes: 60,000 photos of 32x32 are 184 MB."""

    group = 0

    def __init__(
        self, images: Images, dataset: Dataset, settings: TrainSettings, seed: int, steps: int | None = None
    ) -> None:
        """`steps` are those of all processes, where there are several."""
        self._all, self._dataset, self._settings, self._seed = images, dataset, settings, seed
        self._labels = images.labels.cpu()
        self.images = len(self._labels)
        self.steps = steps or steps_of(self.images, settings)

    def batches(self, epoch: int, first: int = 0) -> Iterator[Images]:
        rows = _order(self._labels, self._dataset, self._settings, _generator(self._seed, epoch))
        home, device = self._all.labels.device, find_device()
        for batch in rows.tensor_split(self.steps)[first:]:
            yield self._all.at(batch.to(home)).to(device)


class StreamingLoader:
    """Groups of shards in another order each epoch, the images mixed within a group.

    A thread fetches the next group while the present one is trained on. Groups are as large as memory allows,
    since images of one class lie together in shards.
    """

    def __init__(
        self,
        wanted: list[Rows],
        dataset: Dataset,
        settings: TrainSettings,
        seed: int,
        steps: int | None = None,
    ) -> None:
        self._wanted, self._dataset, self._settings, self._seed = wanted, dataset, settings, seed
        self._cache = ShardCache.of_machine({rows.shard.file.sha256 for rows in wanted})
        largest = max((rows.shard.file.size for rows in wanted), default=1)
        self.group = max(1, room(torch.device("cpu")) // (ALIVE * largest))
        self.images = sum(rows.total for rows in wanted)
        self.steps = steps or steps_of(self.images, settings)

    def batches(self, epoch: int, first: int = 0) -> Iterator[Images]:
        sizes = [len(part) for part in torch.empty(self.images).tensor_split(self.steps)]
        device, number, rest = find_device(), 0, None
        for group in self._groups(epoch):
            group = group if rest is None else Images.joined([rest, group])
            start, count = 0, len(group.labels)
            while number < self.steps and start + sizes[number] <= count:
                if number >= first:
                    yield group.at(slice(start, start + sizes[number])).to(device)
                start += sizes[number]
                number += 1
            rest = group.at(slice(start, count))

    def _groups(self, epoch: int) -> Iterator[Images]:
        """Each group read and mixed, the next one on its way."""
        order = torch.randperm(len(self._wanted), generator=_generator(self._seed, epoch)).tolist()
        groups = [order[start : start + self.group] for start in range(0, len(order), self.group)]
        with ThreadPoolExecutor(1) as reader:
            coming: Future[Images] = reader.submit(self._read, groups[0], epoch, 0)
            for number in range(len(groups)):
                present = coming.result()
                if number + 1 < len(groups):
                    coming = reader.submit(self._read, groups[number + 1], epoch, number + 1)
                yield present

    def _read(self, group: list[int], epoch: int, number: int) -> Images:
        parts = [read_rows(self._wanted[at], self._dataset, self._cache.read) for at in group]
        images = Images.joined(parts)
        generator = _generator(self._seed, epoch, number)
        return images.at(_order(images.labels, self._dataset, self._settings, generator))


def steps_of(images: int, settings: TrainSettings, processes: int = 1) -> int:
    """Batches in an epoch, the same number in every process, and none of one image, which breaks batch norm.

    Raises InputError where a process would have less than two images.
    """
    if images < 2 * processes:
        each = f" for each of {processes} processes" if processes > 1 else ""
        raise InputError(f"training needs at least 2 images{each}, got {images}; add images to the source")
    return min(-(-images // settings.batch_size), images // processes // 2)


def _generator(seed: int, *place: int) -> torch.Generator:
    """On the CPU whatever trains, so that the order of images is the same everywhere."""
    return torch.Generator().manual_seed(seed_at(seed, *place))


def _order(labels: Tensor, dataset: Dataset, settings: TrainSettings, generator: torch.Generator) -> Tensor:
    """Rows in the order of an epoch, int64 [N]; with `sampling`, rare classes as often as the others."""
    if settings.imbalance != "sampling":
        return torch.randperm(len(labels), generator=generator)
    counts = class_counts(dataset)
    return torch.multinomial(1 / counts[labels].double(), len(labels), replacement=True, generator=generator)


def class_counts(dataset: Dataset) -> Tensor:
    """Training images of each class, int64 [K]."""
    return torch.tensor([dataset.counts["train"].get(name, 0) for name in dataset.classes])
