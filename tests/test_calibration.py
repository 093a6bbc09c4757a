"""Which images the ranges come from, and how many of them."""

import pytest
import torch

from nightshift.config import QuantizeSettings
from nightshift.data.dataset import Images, load_split, stratified
from nightshift.errors import InputError
from nightshift.models.build import build
from nightshift.quantization import calibration, onnx_export
from nightshift.quantization.calibration import calibrated, calibration_images, shares
from nightshift.quantization.recipes.int8 import QUANTIZED


def ids(images) -> list[bytes]:
    return [bytes(row) for row in images.ids.tolist()]


def test_images_are_of_the_training_split_and_of_all_classes(ml_dataset):
    images = calibration_images(ml_dataset, 40, seed=0)
    assert set(ids(images)) <= set(ids(load_split(ml_dataset, "train")))
    assert images.labels.bincount().tolist() == [10, 10, 10, 10]
    assert images.images.shape == (40, 8, 8, 3)


def test_the_seed_chooses(ml_dataset):
    once, again, other = (calibration_images(ml_dataset, 16, seed=seed) for seed in (1, 1, 2))
    assert ids(once) == ids(again)
    assert set(ids(once)) != set(ids(other))


def test_more_than_there_are_means_all(ml_dataset):
    assert len(calibration_images(ml_dataset, 1000, seed=0).labels) == 80


def test_images_are_cut_to_what_the_network_sees(ml_build):
    dataset = ml_build(side=8, stored=12)
    assert calibration_images(dataset, 16, seed=0).images.shape[1:] == (8, 8, 3)


def test_no_more_shards_are_read_than_needed(ml_dataset, monkeypatch):
    shards = [shard for shard in ml_dataset.shards if shard.split == "train"]
    several = ml_dataset.model_copy(
        update={
            "shards": (*ml_dataset.shards, *shards, *shards),
            "counts": ml_dataset.counts | {"train": dict.fromkeys(ml_dataset.classes, 60)},
        }
    )
    read = []
    real = calibration.read_rows
    monkeypatch.setattr(calibration, "read_rows", lambda rows, dataset: read.append(1) or real(rows, dataset))
    calibration_images(several, 40, seed=0)
    assert len(read) == 1
    calibration_images(several, 120, seed=0)
    assert len(read) == 1 + 2


def test_no_more_images_are_held_than_asked_for(ml_dataset, monkeypatch):
    """Of 1,000 classes, the first 512 of every shard that was read would be 182 GB."""
    shards = [shard for shard in ml_dataset.shards if shard.split == "train"]
    several = ml_dataset.model_copy(
        update={
            "shards": tuple(shards * 5),
            "counts": ml_dataset.counts | {"train": dict.fromkeys(ml_dataset.classes, 100)},
        }
    )
    held = []
    real = Images.joined
    monkeypatch.setattr(
        Images, "joined", lambda parts: held.append(sum(len(p.labels) for p in parts)) or real(parts)
    )
    assert len(calibration_images(several, 200, seed=0).labels) == 200
    assert held == [200]


def test_shares_are_those_of_an_even_draw():
    for seed in range(200):
        generator = torch.Generator().manual_seed(seed)
        counts = torch.randint(0, 40, (7,), generator=generator)
        count = int(torch.randint(1, 300, (1,), generator=generator))
        labels = torch.repeat_interleave(torch.arange(7), counts)
        drawn = labels[stratified(labels, count, seed)].bincount(minlength=7)
        given = shares(counts, count, generator)
        assert given.sort().values.tolist() == drawn.sort().values.tolist()
        assert (given - drawn).abs().max() <= 1


def test_of_more_classes_than_images_the_seed_chooses_those_that_give_one():
    given = [shares(torch.full((1000,), 50), 512, torch.Generator().manual_seed(seed)) for seed in (1, 1, 2)]
    for each in given:
        assert (int(each.sum()), int(each.max())) == (512, 1)
        assert 200 < int(each[:500].sum()) < 312
    assert torch.equal(given[0], given[1])
    assert not torch.equal(given[0], given[2])


@pytest.mark.parametrize(
    ("counts", "said"),
    [({"top-left": 80, "top-right": 0}, "got 80 of top-left, 0 of top-right"), ({}, "got none")],
)
def test_one_class_or_none_is_refused(ml_dataset, counts, said):
    poor = ml_dataset.model_copy(update={"counts": ml_dataset.counts | {"train": counts}})
    with pytest.raises(InputError, match=f"calibration needs training images of at least 2 classes, {said}"):
        calibration_images(poor, 16, seed=0)


@pytest.fixture
def graph(ml_night):
    network = build(ml_night.checkpoint.settings, classes=4, image_size=8).eval()
    return onnx_export.export(network, ml_night.dataset)


def seen(graph, dataset, settings) -> dict[str, float | int | str]:
    with calibrated(graph, dataset, settings, QUANTIZED, 0) as found:
        assert found.ranges.stat().st_size > 0
        return found.details


def test_images_are_added_until_ranges_settle(graph, ml_night, monkeypatch):
    monkeypatch.setattr(calibration, "FIRST", 10)
    settings = QuantizeSettings(calibration_images=80)
    monkeypatch.setattr(calibration, "SETTLED", -1.0)  # never
    all_of_them = seen(graph, ml_night.dataset, settings)
    monkeypatch.setattr(calibration, "SETTLED", 0.5)
    few = seen(graph, ml_night.dataset, settings)
    assert all_of_them["calibration_images"] == 80
    assert few["calibration_images"] == 20
    assert 0 < few["calibration_growth"] <= 0.5
    assert few["calibration_digest"] != all_of_them["calibration_digest"]


def test_ranges_of_many_images_contain_those_of_few(graph, ml_night, monkeypatch):
    pixels = torch.from_numpy(calibration_images(ml_night.dataset, 64, seed=0).images.numpy()).numpy()
    settings = QuantizeSettings()
    import tempfile
    from pathlib import Path

    with tempfile.TemporaryDirectory() as folder:
        calibrator = calibration._calibrator(graph, settings, QUANTIZED, Path(folder))
        first = calibration._measured(calibrator, pixels[:8])
        both = calibration._measured(calibrator, pixels[8:])
    grown = 0
    for name, range_ in first.items():
        (low, high), (lower, higher) = range_.range_value, both[name].range_value
        assert lower <= low
        assert higher >= high
        grown += bool(lower < low or higher > high)
    assert grown > 0
    assert calibration._growth(first, both) > 0
