"""Shards to tensors. No Python per image; how a training gets its batches of them is in `loader`."""

import json
import math
import os
import tempfile
from collections.abc import Callable
from typing import Final, NamedTuple

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load
from torch import Tensor

from nightshift.errors import InputError, OutageError
from nightshift.records import Artifact, Dataset, Shard, Split
from nightshift.storage import cache, outputs

IN_MEMORY: Final = 2**29  # bytes of validation or test pixels; more are read through a file on the local disk


class Images(NamedTuple):
    """images uint8 [N,H,W,C]; labels int64 [N], indices into the data set's classes; ids uint8 [N,32]."""

    images: Tensor
    labels: Tensor
    ids: Tensor

    def to(self, device: torch.device) -> "Images":
        return Images(*(tensor.to(device, non_blocking=True) for tensor in self))

    def at(self, rows: Tensor | slice) -> "Images":
        return Images(*(tensor[rows] for tensor in self))

    def chunk(self, count: int) -> list["Images"]:
        """Cut into `count` of about the same size."""
        parts = (tensor.tensor_split(count) for tensor in self)
        return [Images(*part) for part in zip(*parts, strict=True)]

    def batches(self, size: int) -> list["Images"]:
        """Cut into as few as hold at most `size` images each."""
        return self.chunk(-(-len(self.labels) // size))

    @classmethod
    def joined(cls, parts: list["Images"]) -> "Images":
        return cls(*(torch.cat(tensors) for tensors in zip(*parts, strict=True)))


class Rows(NamedTuple):
    """Some rows of a shard, counted without those that the data set leaves out."""

    shard: Shard
    rows: slice | Tensor  # int64 indices where they are not a stretch

    @property
    def total(self) -> int:
        return len(self.rows) if isinstance(self.rows, Tensor) else int(self.rows.stop - self.rows.start)


def rows_of(dataset: Dataset, split: Split, rank: int = 0, world: int = 1) -> list[Rows]:
    """What process `rank` of `world` reads of a split: an even share of its rows, drawn at random.

    Rows lie in the order of the source, by class or in turn. Shares that follow any such order would have
    classes and batch norm statistics of their own; the same draw in every process gives all of them to each.
    """
    shards = [shard for shard in dataset.shards if shard.split == split]
    counts = [shard.images - len(shard.drop) for shard in shards]
    if world == 1:
        return [Rows(shard, slice(0, count)) for shard, count in zip(shards, counts, strict=True) if count]
    order = torch.randperm(sum(counts), generator=torch.Generator().manual_seed(0))
    owner = torch.empty_like(order)
    owner[order] = torch.arange(len(order)) % world
    mine = [(share == rank).nonzero().squeeze(1) for share in torch.split(owner, counts)]
    return [Rows(shard, rows) for shard, rows in zip(shards, mine, strict=True) if len(rows)]


def load_split(dataset: Dataset, split: Split, rank: int = 0, world: int = 1) -> Images:
    """All images of one split in the order of the shards, or the share of one of several processes.

    Training images keep their stored side, from which `augmentation` cuts; those of the other splits are cut
    to the side that the network sees, and lie in a file of the local cache where they are many: everybody
    reads them batch by batch. Raises InputError when a shard is damaged or does not fit the data set, and
    OutageError when the disk is full.
    """
    wanted = rows_of(dataset, split, rank, world)
    total = sum(rows.total for rows in wanted)
    if total == 0:
        raise InputError(f"data set {dataset.digest[:12]} has no {split} images; add images to its source")
    side = dataset.preprocess.side if split == "train" else dataset.image_size
    shape = (total, side, side, dataset.preprocess.channels)
    # Who asks for training images has looked for room.
    pixels = torch.empty(shape, dtype=torch.uint8) if split == "train" else room_for(shape)
    labels, ids = torch.empty(total, dtype=torch.int64), torch.empty((total, 32), dtype=torch.uint8)
    start = 0
    for rows in wanted:
        content = read_rows(rows, dataset)
        place = slice(start, start + rows.total)
        pixels[place] = centre_crop(content.images, side)
        labels[place], ids[place] = content.labels, content.ids
        start += rows.total
    return Images(pixels, labels, ids)


def room_for(shape: tuple[int, int, int, int]) -> Tensor:
    """Room for images, uint8 [N,H,W,C]: where they are many, in a file without a name that goes with them.

    Raises OutageError when the disk is full.
    """
    size, folder = math.prod(shape), cache.folder()
    if size <= IN_MEMORY:
        return torch.empty(shape, dtype=torch.uint8)
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=folder) as file:
            os.posix_fallocate(file.fileno(), 0, size)  # later a full disk would be a signal, not an error
            return torch.from_file(file.name, shared=True, size=size, dtype=torch.uint8).view(shape)
    except OSError as error:
        raise OutageError(
            f"{size / 1e9:,.1f} GB of images do not fit into {folder} ({error.strerror}); make room there, "
            "or set NIGHTSHIFT_CACHE to a folder with room"
        ) from error


def centre_crop(images: Tensor, side: int) -> Tensor:
    """The middle [N,side,side,C] of images [N,H,W,3]; of an odd rest, the larger half is below and right."""
    top, left = (images.shape[1] - side) // 2, (images.shape[2] - side) // 2
    return images[:, top : top + side, left : left + side]


def scaled(images: Tensor) -> Tensor:
    """uint8 [B,H,W,C] as float32 [B,C,H,W] from 0 to 1; no copy is needed for channels last."""
    return images.permute(0, 3, 1, 2).float().div_(255)


def standardised(pixels: Tensor, dataset: Dataset) -> Tensor:
    """Pixels [B,C,H,W] from 0 to 1 less the training mean, over the training standard deviation."""
    shape = (1, -1, 1, 1)
    mean = torch.tensor(dataset.mean, device=pixels.device).view(shape)
    deviation = torch.tensor(dataset.std, device=pixels.device).view(shape)
    return (pixels - mean) / deviation.clamp_min(1e-3)


def stratified(labels: Tensor, count: int, seed: int) -> Tensor:
    """Sorted indices of `count` rows (all, when there are fewer) spread evenly over the classes, int64.

    A class with too few images gives all of them and the others fill up, so rare classes are always seen.
    """
    generator = torch.Generator().manual_seed(seed)
    order = torch.randperm(len(labels), generator=generator)
    return order[turns(labels[order]).argsort(stable=True)[:count]].sort().values


def turns(labels: Tensor) -> Tensor:
    """How many rows of the same class come before each, int64 [N]."""
    turn = torch.empty_like(labels)
    for label in torch.unique(labels):
        rows = (labels == label).nonzero().squeeze(1)
        turn[rows] = torch.arange(len(rows))
    return turn


def read_rows(rows: Rows, dataset: Dataset, read: Callable[[Artifact], bytes] = outputs.read) -> Images:
    """Rows of a shard, with their labels mapped by class name onto the classes of the data set."""
    shard = rows.shard
    try:
        content = load(read(shard.file))
        images, labels, ids = content["images"], content["labels"], content["ids"]
    except (SafetensorError, KeyError) as error:
        raise InputError(
            f"shard {shard.file.uri} is not safetensors with images, labels and ids ({error}); "
            "preprocess it again"
        ) from error
    side = dataset.preprocess.side
    expected = ((shard.images, side, side, dataset.preprocess.channels), (shard.images,), (shard.images, 32))
    if (tuple(images.shape), tuple(labels.shape), tuple(ids.shape)) != expected:
        raise InputError(
            f"shard {shard.file.uri} holds images {tuple(images.shape)} and labels {tuple(labels.shape)}, "
            f"expected {expected[0]} and {expected[1]}; preprocess it again"
        )
    unknown = sorted(set(shard.classes) - set(dataset.classes)) if not shard.drop else []
    if unknown or (shard.images and not 0 <= int(labels.min()) <= int(labels.max()) < len(shard.classes)):
        raise InputError(
            f"shard {shard.file.uri} has classes or labels that the data set does not know "
            f"({', '.join(unknown) or 'label out of range'}); assemble the data set again"
        )
    kept = torch.ones(shard.images, dtype=torch.bool)
    kept[list(shard.drop)] = False
    # A class of which this data set leaves out every image has no index, and no row that asks for it.
    index = torch.tensor(
        [dataset.classes.index(name) if name in dataset.classes else -1 for name in shard.classes]
    )
    if shard.drop:
        images, labels, ids = images[kept], labels[kept], ids[kept]
    return Images(images, index[labels], ids).at(rows.rows)


def originals(dataset: Dataset, split: Split) -> list[str]:
    """`batch/key` of every image of the split, in the order of `load_split`.

    Raises InputError when a shard does not name them.
    """
    keys: list[str] = []
    for rows in rows_of(dataset, split):
        shard = rows.shard
        data = outputs.read(shard.file)
        header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
        named = json.loads(header.get("__metadata__", {}).get("keys", "[]"))
        if len(named) != shard.images:
            raise InputError(
                f"shard {shard.file.uri} names {len(named)} originals for {shard.images} images; preprocess "
                "it again"
            )
        keys += np.delete(np.array(named, dtype=object), list(shard.drop)).tolist()
    return keys
