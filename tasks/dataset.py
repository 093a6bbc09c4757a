"""Shards to tensors. No Python per image.

A data set is small enough to sit in memory as bytes (60,000 photos of 32x32 are 184 MB), so a split is
loaded once, kept on the device that trains, and cut into batches by index.
"""

from typing import NamedTuple

import torch
from safetensors import SafetensorError
from safetensors.torch import load
from torch import Tensor

from tasks import storage
from tasks.errors import InputError
from tasks.records import Dataset, Shard, Split


class Images(NamedTuple):
    """images uint8 [N,H,W,C]; labels int64 [N], indices into the data set's classes; ids uint8 [N,32]."""

    images: Tensor
    labels: Tensor
    ids: Tensor

    def to(self, device: torch.device) -> "Images":
        return Images(*(tensor.to(device) for tensor in self))


def load_split(dataset: Dataset, split: Split) -> Images:
    """All images of one split, in the order of the shards, without the rows that the data set leaves out.

    Training images keep their stored side, from which `augmentation` cuts; those of the other splits are cut
    to the side that the network sees. Raises InputError when a shard is damaged or does not fit the data set.
    """
    shards = [shard for shard in dataset.shards if shard.split == split]
    total = sum(shard.images - len(shard.drop) for shard in shards)
    if total == 0:
        raise InputError(f"data set {dataset.digest[:12]} has no {split} images; add images to its source")
    side = dataset.preprocess.side if split == "train" else dataset.image_size
    pixels = torch.empty((total, side, side, dataset.preprocess.channels), dtype=torch.uint8)
    labels, ids = torch.empty(total, dtype=torch.int64), torch.empty((total, 32), dtype=torch.uint8)
    start = 0
    for shard in shards:
        content = _read(shard, dataset)
        rows = slice(start, start + len(content.labels))
        pixels[rows] = centre_crop(content.images, side)
        labels[rows], ids[rows] = content.labels, content.ids
        start += len(content.labels)
    return Images(pixels, labels, ids)


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
    shuffled = labels[order]
    turn = torch.empty_like(order)  # how many images of the same class come before
    for label in torch.unique(shuffled):
        rows = (shuffled == label).nonzero().squeeze(1)
        turn[rows] = torch.arange(len(rows))
    return order[turn.argsort(stable=True)[:count]].sort().values


def _read(shard: Shard, dataset: Dataset) -> Images:
    """One shard, with its labels mapped by class name onto the classes of the data set."""
    try:
        content = load(storage.read_artifact(shard.file))
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
    return Images(images, index[labels], ids)
