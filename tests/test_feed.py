"""Batches follow from seed and epoch, whatever memory there is and from whichever step they are asked for."""

import collections

import pytest
import torch
from safetensors.torch import load, save

from nightshift import storage
from nightshift.config import TrainSettings
from nightshift.data.dataset import Images, load_split, rows_of
from nightshift.errors import InputError
from nightshift.training.distributed import ProcessGroup
from nightshift.training.loader import InMemoryLoader, StreamingLoader, open_loader, seed_at, steps_of

SETTINGS = TrainSettings(batch_size=16)


def identities(batches: list[Images]) -> list[bytes]:
    return [bytes(row.tolist()) for batch in batches for row in batch.ids]


@pytest.fixture
def streamed(monkeypatch, tmp_path, ml_dataset):
    """A loader of the tiny data set in shards of 20 images, two of which fit into memory at a time."""
    monkeypatch.setenv("NIGHTSHIFT_RESIDENT_MB", "0")
    monkeypatch.setenv("NIGHTSHIFT_CACHE", str(tmp_path / "cache"))
    return open_loader(ml_dataset, SETTINGS, 3)


def test_a_data_set_that_fits_stays_in_memory_and_one_that_does_not_is_streamed(ml_dataset, streamed, capsys):
    assert isinstance(streamed, StreamingLoader)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("NIGHTSHIFT_RESIDENT_MB", "100")
        assert isinstance(open_loader(ml_dataset, SETTINGS, 3), InMemoryLoader)


@pytest.mark.parametrize("kind", ["resident", "streamed"])
def test_an_epoch_shows_every_image_once_and_each_epoch_in_another_order(kind, ml_dataset, streamed):
    everything = load_split(ml_dataset, "train")
    loader = streamed if kind == "streamed" else InMemoryLoader(everything, ml_dataset, SETTINGS, 3)
    epochs = [list(loader.batches(number)) for number in (1, 2, 1)]
    assert [len(batch.labels) for batch in epochs[0]] == [16] * 5 == [16] * loader.steps
    orders = [identities(batches) for batches in epochs]
    assert sorted(orders[0]) == sorted(identities([everything]))
    assert orders[0] == orders[2] != orders[1]
    labels = dict(zip(identities([everything]), everything.labels.tolist(), strict=True))
    for batch in epochs[0]:
        assert [labels[name] for name in identities([batch])] == batch.labels.tolist()


@pytest.mark.parametrize("kind", ["resident", "streamed"])
def test_the_rest_of_an_epoch_is_what_would_have_come(kind, ml_dataset, streamed):
    loader = streamed
    if kind == "resident":
        loader = InMemoryLoader(load_split(ml_dataset, "train"), ml_dataset, SETTINGS, 3)
    whole = [identities([batch]) for batch in loader.batches(2)]
    assert [identities([batch]) for batch in loader.batches(2, 3)] == whole[3:]


def test_groups_of_shards_leave_no_image_out_where_batches_end_elsewhere(ml_dataset, monkeypatch, tmp_path):
    monkeypatch.setenv("NIGHTSHIFT_CACHE", str(tmp_path))
    shard = next(shard for shard in ml_dataset.shards if shard.split == "train")
    parts = [
        rows._replace(rows=slice(start, stop))
        for rows in rows_of(ml_dataset.model_copy(update={"shards": (shard,)}), "train")
        for start, stop in ((0, 7), (7, 50), (50, 51), (51, 80))
    ]
    loader = StreamingLoader(parts, ml_dataset, SETTINGS, 0)
    assert loader.group >= 4
    for group in (1, 2, 3):
        loader.group = group
        batches = list(loader.batches(1))
        assert len(set(identities(batches))) == 80
        assert [len(batch.labels) for batch in batches] == [16] * 5


def test_processes_share_the_images_and_take_as_many_steps(ml_dataset):
    settings = SETTINGS.model_copy(update={"batch_size": 27})
    for world in (2, 3):
        loaders = [open_loader(ml_dataset, settings, 3, ProcessGroup(rank, world)) for rank in range(world)]
        seen = [name for loader in loaders for name in identities(list(loader.batches(1)))]
        assert len(set(seen)) == len(seen) == 80
        assert {loader.steps for loader in loaders} == {3}


@pytest.mark.parametrize("world", [2, 3])
def test_each_process_has_its_share_of_every_class(ml_dataset, world):
    """Rows lie sorted by class, as folders are read."""
    (shard,) = [shard for shard in ml_dataset.shards if shard.split == "train"]
    content = load(storage.read_artifact(shard.file))
    order = torch.argsort(content["labels"], stable=True)
    file = storage.write(
        f"{shard.file.uri}.sorted", save({name: each[order] for name, each in content.items()})
    )
    dataset = ml_dataset.model_copy(update={"shards": (shard.model_copy(update={"file": file}),)})
    shares = [load_split(dataset, "train", rank, world) for rank in range(world)]
    assert sorted(identities(shares)) == sorted(identities([load_split(dataset, "train")]))
    for share in shares:
        counts = torch.bincount(share.labels, minlength=4)
        assert counts.min() > 0


def test_sampling_shows_every_class_as_often(ml_dataset):
    everything = load_split(ml_dataset, "train")
    few = everything.at(
        torch.cat(
            [(everything.labels == label).nonzero().squeeze(1)[: 20 if label else 2] for label in range(4)]
        )
    )
    counts = {name: 20 if number else 2 for number, name in enumerate(ml_dataset.classes)}
    dataset = ml_dataset.model_copy(update={"counts": {**ml_dataset.counts, "train": counts}})
    settings = SETTINGS.model_copy(update={"imbalance": "sampling"})
    loader = InMemoryLoader(few, dataset, settings, 0)
    shown = collections.Counter(
        int(label) for epoch in range(1, 30) for batch in loader.batches(epoch) for label in batch.labels
    )
    assert min(shown.values()) > 0.8 * max(shown.values())


@pytest.mark.parametrize(
    ("images", "size", "world"), [(5, 2, 1), (3, 2, 1), (7, 2, 2), (9, 3, 2), (2, 8192, 1)]
)
def test_no_batch_has_a_single_image(ml_dataset, images, size, world):
    settings = SETTINGS.model_copy(update={"batch_size": size})
    steps = steps_of(images, settings, world)
    for rank in range(world):
        first, last = images * rank // world, images * (rank + 1) // world
        mine = load_split(ml_dataset, "train").at(slice(first, last))
        loader = InMemoryLoader(mine, ml_dataset, settings, 0, steps)
        sizes = [len(batch.labels) for batch in loader.batches(1)]
        assert sum(sizes) == last - first
        assert min(sizes) >= 2
        assert len(sizes) == steps


def test_one_image_is_too_few(ml_dataset):
    with pytest.raises(InputError, match="at least 2 images, got 1"):
        InMemoryLoader(load_split(ml_dataset, "train").at(slice(0, 1)), ml_dataset, SETTINGS, 0)


def test_seeds_of_different_places_differ():
    places = {
        seed_at(seed, epoch, step, rank)
        for seed in range(5)
        for epoch in range(5)
        for step in range(5)
        for rank in range(2)
    }
    assert len(places) == 250
    assert seed_at(1, 23) != seed_at(12, 3)
    assert 0 <= min(places) <= max(places) < 2**63
