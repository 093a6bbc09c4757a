"""What a training starts from: which tensors are taken, which are new, and what is refused."""

import os
import pickle
from pathlib import Path

import pytest
import torch
from safetensors.torch import load, save
from torch import nn
from torchvision.models import get_model_weights

from nightshift import storage
from nightshift.config import PreprocessSettings, TrainSettings
from nightshift.errors import InputError, OutageError
from nightshift.models import build, pretrained
from nightshift.records import Dataset, InitialWeights

THIN = TrainSettings(width=0.125, weights="models:/x/3")
FULL = TrainSettings(weights="imagenet", stem="imagenet")


def built(settings: TrainSettings, dataset: Dataset, seed: int = 0) -> nn.Module:
    return build.build(
        settings,
        classes=len(dataset.classes),
        image_size=dataset.image_size,
        channels=dataset.preprocess.channels,
        seed=seed,
    )


@pytest.fixture
def kept(ml_store):
    """Keeps a network's weights as a training does."""

    def keep(network: nn.Module, settings: TrainSettings, dataset: Dataset) -> InitialWeights:
        data = build.to_bytes(network, pretrained.about(settings, dataset))
        return InitialWeights(
            name="models:/x/3", weights=storage.write(f"file://{ml_store}/m.safetensors", data)
        )

    return keep


def of(dataset: Dataset, *classes: str, channels: int = 3) -> Dataset:
    settings = PreprocessSettings(image_size=dataset.image_size, channels=channels)
    return dataset.model_copy(update={"classes": classes or dataset.classes, "preprocess": settings})


def test_the_same_classes_take_every_tensor(ml_dataset, kept, capsys):
    donor, network = built(THIN, ml_dataset, 1), built(THIN, ml_dataset, 2)
    pretrained.begin(network, THIN, ml_dataset, kept(donor, THIN, ml_dataset))
    assert build.to_bytes(network) == build.to_bytes(donor)
    assert capsys.readouterr().out == "took 122 of 122 tensors from models:/x/3\n"


def test_other_classes_get_a_new_head(ml_dataset, kept, capsys):
    donor = built(THIN, ml_dataset, 1)
    other = of(ml_dataset, "cat", "dog")
    network = built(THIN, other, 2)
    before = network.fc.weight.clone()
    pretrained.begin(network, THIN, other, kept(donor, THIN, ml_dataset))
    assert torch.equal(network.layer4[1].bn2.running_var, donor.layer4[1].bn2.running_var)
    assert torch.equal(network.conv1.weight, donor.conv1.weight)
    assert torch.equal(network.fc.weight, before)
    assert capsys.readouterr().out == ("took 120 of 122 tensors from models:/x/3; new: fc.weight, fc.bias\n")


def test_the_rows_of_classes_follow_their_names(ml_dataset, kept, capsys):
    donor = built(THIN, ml_dataset, 1)
    names = ml_dataset.classes
    grown = of(ml_dataset, names[3], "a new one", *names[:3])
    network = built(THIN, grown, 2)
    before = network.fc.weight.clone()
    pretrained.begin(network, THIN, grown, kept(donor, THIN, ml_dataset))
    for layer, given in ((network.fc.weight, donor.fc.weight), (network.fc.bias, donor.fc.bias)):
        assert torch.equal(layer[[0, 2, 3, 4]], given[[3, 0, 1, 2]])
    assert torch.equal(network.fc.weight[1], before[1])
    assert "new: fc.weight, fc.bias, but for the rows of 4 of 5 classes" in capsys.readouterr().out


@pytest.mark.parametrize("name", ["resnet18", "resnet20", "resnet9"])
def test_other_channels_get_a_new_first_kernel(ml_dataset, kept, capsys, name):
    settings = THIN.model_copy(update={"model": name, "width": 0.25})
    start = kept(built(settings, ml_dataset, 1), settings, ml_dataset)
    five = of(ml_dataset, channels=5)
    pretrained.begin(built(settings, five), settings, five, start)
    first = "conv1.0.weight" if name == "resnet9" else "conv1.weight"
    assert capsys.readouterr().out.endswith(f"tensors from models:/x/3; new: {first}\n")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"width": 0.5}, r"the resnet18 of width 0\.5 and depth 1 .* is \[16, 3, 3, 3\] there and \[32, "),
        ({"depth": 2}, r"the resnet18 of width 0\.125 and depth 2 .* is missing there"),
        ({"depth": 0.5}, r"depth 0\.5 .* there and missing here"),
        ({"model": "resnet9"}, r"the resnet9 of width 0\.125"),
        ({"stem_kernel": 5}, r"conv1\.weight is \[16, 3, 3, 3\] there and \[16, 3, 5, 5\] here"),
    ],
    ids=str,
)
def test_another_body_is_refused_with_both_networks(ml_dataset, kept, change, words):
    start = kept(built(THIN, ml_dataset), THIN, ml_dataset)
    settings = THIN.model_copy(update=change)
    network = built(settings, ml_dataset)
    before = build.to_bytes(network)
    whole = r"models:/x/3 holds a resnet18 of width 0\.125 and depth 1 that does not fit .*" + words
    with pytest.raises(InputError, match=whole):
        pretrained.begin(network, settings, ml_dataset, start)
    assert build.to_bytes(network) == before


def test_a_file_that_says_nothing_of_its_classes_gets_a_new_head(ml_dataset, ml_store, capsys):
    data = save(load(build.to_bytes(built(THIN, ml_dataset, 1))))
    start = InitialWeights(name="file", weights=storage.write(f"file://{ml_store}/m.safetensors", data))
    pretrained.begin(built(THIN, ml_dataset), THIN, ml_dataset, start)
    assert "new: fc.weight, fc.bias" in capsys.readouterr().out


def test_what_would_be_frozen_at_random_is_refused(ml_dataset, kept, capsys):
    start = kept(built(THIN, ml_dataset), THIN, ml_dataset)
    frozen = THIN.model_copy(update={"freeze": "layer1"})
    pretrained.begin(built(frozen, ml_dataset), frozen, ml_dataset, start)
    assert "frozen: stem, layer1\n" in capsys.readouterr().out
    five = of(ml_dataset, channels=5)
    with pytest.raises(InputError, match=r"'layer1' would keep conv1\.weight as drawn at random"):
        pretrained.begin(built(frozen, five), frozen, five, start)


def test_changed_weights_are_refused(ml_dataset, kept):
    start = kept(built(THIN, ml_dataset), THIN, ml_dataset)
    storage.write(start.weights.uri, build.to_bytes(built(THIN, ml_dataset, 1)))
    with pytest.raises(InputError, match="was changed or damaged"):
        pretrained.begin(built(THIN, ml_dataset), THIN, ml_dataset, start)


class Evil:
    """Makes a folder when it is unpickled."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __reduce__(self) -> tuple[object, ...]:
        return os.mkdir, (str(self.folder),)


def test_a_pickle_is_never_loaded_as_safetensors(ml_dataset, ml_store, tmp_path):
    data = pickle.dumps({"conv1.weight": Evil(tmp_path / "evil")})
    start = InitialWeights(name="evil", weights=storage.write(f"file://{ml_store}/m.safetensors", data))
    with pytest.raises(InputError, match="is not a safetensors file"):
        pretrained.begin(built(THIN, ml_dataset), THIN, ml_dataset, start)
    assert not (tmp_path / "evil").exists()


def test_a_champion_that_is_not_there_yet_means_from_scratch(capsys):
    settings = TrainSettings(weights="champion", freeze="layer2", backbone_lr_factor=0.1)
    found = pretrained.fitting(settings, None)
    assert (found.weights, found.freeze, found.backbone_lr_factor) == ("none", "none", 1.0)
    assert "there is no champion yet: training starts from scratch, nothing frozen" in capsys.readouterr().out


def test_weights_that_the_plan_did_not_find_are_not_passed_over(ml_dataset):
    with pytest.raises(InputError, match=r"not told which weights models:/x/3 are"):
        pretrained.begin(built(THIN, ml_dataset), THIN, ml_dataset, None)


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """torchvision's cache, where no network fills it; the path of the file of ResNet-18."""
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    monkeypatch.setattr("torch.hub.download_url_to_file", _no_network)
    (tmp_path / "checkpoints").mkdir()
    return tmp_path / "checkpoints" / get_model_weights("resnet18").DEFAULT.url.rpartition("/")[2]


def _no_network(*arguments: object, **options: object) -> None:
    raise OSError("no route to host")


def test_imagenet_weights_fill_everything_but_the_head(ml_dataset, cache, capsys):
    dataset = ml_dataset.model_copy(update={"image_size": 224})
    donor = built(FULL, of(dataset, *(str(number) for number in range(1000))), 9)
    # As in torchvision's file, which is older than the counters.
    state = {k: v.detach() for k, v in donor.state_dict().items() if not k.endswith("num_batches_tracked")}
    torch.save(state, cache)
    network = built(FULL, dataset)
    pretrained.begin(network, FULL, dataset, None)
    assert torch.equal(network.layer4[1].conv2.weight, donor.layer4[1].conv2.weight)
    assert network.fc.out_features == 4
    assert capsys.readouterr().out == (
        "took 120 of 122 tensors from torchvision's ImageNet weights; new: fc.weight, fc.bias\n"
    )


def test_imagenet_weights_that_are_no_tensors_are_refused(ml_dataset, cache, tmp_path):
    dataset = ml_dataset.model_copy(update={"image_size": 224})
    torch.save({"conv1.weight": Evil(tmp_path / "evil")}, cache)
    with pytest.raises(InputError, match="holds something else than tensors; remove it"):
        pretrained.begin(built(FULL, dataset), FULL, dataset, None)
    assert not (tmp_path / "evil").exists()


def test_imagenet_weights_that_cannot_be_fetched_name_the_cache(ml_dataset, cache):
    dataset = ml_dataset.model_copy(update={"image_size": 224})
    with pytest.raises(OutageError, match="put that file into") as caught:
        pretrained.begin(built(FULL, dataset), FULL, dataset, None)
    assert str(cache.parent) in str(caught.value)


@pytest.mark.parametrize(
    "change", [{"width": 0.5}, {"stem": "small"}, {"stem": "auto"}, {"model": "resnet9"}]
)
def test_imagenet_weights_need_their_own_network(ml_dataset, change):
    settings = FULL.model_copy(update=change)
    words = "there are no ImageNet weights of resnet9" if "model" in change else r"need train\.width 1, train"
    with pytest.raises(InputError, match=words):
        pretrained.begin(built(settings, ml_dataset), settings, ml_dataset, None)


def test_imagenet_weights_are_for_colours(ml_dataset):
    five = of(ml_dataset, channels=5)
    with pytest.raises(InputError, match=r"on 3 channels, got .* on 5 channels"):
        pretrained.begin(built(FULL, five), FULL, five, None)
