"""Sets that torchvision knows, from copies on the disk; nothing here reaches the network."""

import io
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from torchvision import datasets

from nightshift.data.sources import find, torchvision_datasets
from nightshift.errors import InputError

NOISE = np.random.default_rng(0)


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder for sets, and no network."""

    def offline(*arguments: object, **named: object) -> None:
        raise OSError("Network is unreachable")

    monkeypatch.setenv("NIGHTSHIFT_DATASETS", str(tmp_path / "sets"))
    monkeypatch.setattr("urllib.request.urlopen", offline)
    return tmp_path / "sets"


def mnist(folder: Path, kind: str, labels: dict[str, list[int]]) -> dict[str, np.ndarray]:
    """A set in the layout of torchvision's MNIST."""
    raw = folder / kind / "raw"
    raw.mkdir(parents=True)
    images = {}
    for stem, values in labels.items():
        images[stem] = NOISE.integers(0, 256, (len(values), 28, 28), np.uint8)
        header = struct.pack(">4B3I", 0, 0, 8, 3, len(values), 28, 28)
        (raw / f"{stem}-images-idx3-ubyte").write_bytes(header + images[stem].tobytes())
        (raw / f"{stem}-labels-idx1-ubyte").write_bytes(
            struct.pack(">4BI", 0, 0, 8, 1, len(values)) + bytes(values)
        )
    return images


def test_a_copy_on_the_disk_is_read_without_the_network(folder: Path) -> None:
    images = mnist(folder, "MNIST", {"train": [7, 0, 7], "t10k": [4]})
    batch = find("torchvision://mnist")
    assert (batch.name, batch.classes) == ("mnist", {"0": 1, "4": 1, "7": 2})
    assert [(item.key, item.split) for item in batch.items] == [
        ("images/train/7/000000.png", "train"),
        ("images/train/0/000001.png", "train"),
        ("images/train/7/000002.png", "train"),
        ("images/test/4/000000.png", "test"),
    ]
    found = [np.asarray(Image.open(io.BytesIO(item.read()))) for item in batch.items]
    assert (np.stack(found) == np.concatenate([images["train"], images["t10k"]])).all()


def test_class_names_are_kept_and_made_safe_with_a_word(folder: Path) -> None:
    mnist(folder, "FashionMNIST", {"train": [0, 9], "t10k": [1]})
    batch = find("torchvision://FashionMNIST", "clothes")
    assert batch.name == "clothes"
    assert batch.classes == {"Ankle boot": 1, "T-shirt-top": 1, "Trouser": 1}
    assert batch.notes == ("class 'T-shirt/top' is called 'T-shirt-top', which is safe in a path",)


def test_a_set_without_splits_is_class_folders(folder: Path) -> None:
    for name in ("Forest", "River"):
        (folder / "eurosat" / "2750" / name).mkdir(parents=True)
        Image.new("RGB", (4, 4)).save(folder / "eurosat" / "2750" / name / "1.jpg")
    batch = find("torchvision://EuroSAT")
    assert [item.key for item in batch.items] == ["Forest/000000.png", "River/000001.png"]
    assert batch.manifest is None


def test_what_cannot_be_downloaded_is_said_in_one_sentence(folder: Path) -> None:
    with pytest.raises(
        InputError, match=r"MNIST is not in .*sets and cannot be downloaded .*; connect"
    ) as said:
        find("torchvision://MNIST")
    assert "\n" not in str(said.value)
    with pytest.raises(InputError, match=r"ImageNet is not in .*; get it from its owners, or copy"):
        find("torchvision://ImageNet")


def test_an_unknown_name_is_answered_with_near_ones() -> None:
    with pytest.raises(InputError, match=r"'CIFAR-10' .* did you mean CIFAR10 or CIFAR100"):
        find("torchvision://CIFAR-10")
    with pytest.raises(InputError, match=r"'zzzz' .* known are CIFAR10, CIFAR100, "):
        find("torchvision://zzzz")


@pytest.mark.parametrize("name", sorted(torchvision_datasets.SETS))
def test_every_known_set_is_one_of_torchvision_s_and_takes_our_arguments(name: str) -> None:
    import inspect

    parameters = inspect.signature(getattr(datasets, name)).parameters
    anything = any(each.kind is each.VAR_KEYWORD for each in parameters.values())
    for _, arguments in torchvision_datasets.SETS[name]:
        assert anything or arguments.keys() <= parameters.keys()
    assert anything or ("download" in parameters) or name in torchvision_datasets.NO_DOWNLOAD


class Pairs:
    """A set whose list of targets may be of another kind than its targets are."""

    def __init__(self, targets: list[Any], listed: Any = None) -> None:
        self.given = targets
        self.targets = listed
        self.read = 0

    def __len__(self) -> int:
        return len(self.given)

    def __getitem__(self, index: int) -> tuple[None, Any]:
        self.read += 1
        return None, self.given[index]


@pytest.mark.parametrize("listed", [None, np.zeros((9, 8)), [0] * 9, [1]])
def test_targets_that_a_set_does_not_list_are_taken_from_its_images(listed: Any) -> None:
    given = [np.int64(3), *range(8)]
    assert torchvision_datasets._targets(Pairs(given, listed)) == given


def test_targets_that_a_set_lists_are_taken_without_decoding_all_images() -> None:
    images = Pairs(list(range(9)), np.arange(9))
    assert torchvision_datasets._targets(images) == list(range(9))
    assert images.read == 2


def test_an_extended_mnist_has_its_digit_first_among_its_targets(folder: Path) -> None:
    raw = folder / "QMNIST" / "raw"
    raw.mkdir(parents=True)
    for kind in ("train", "test"):
        images = NOISE.integers(0, 256, (2, 28, 28), np.uint8)
        (raw / f"qmnist-{kind}-images-idx3-ubyte").write_bytes(
            struct.pack(">4B3I", 0, 0, 8, 3, 2, 28, 28) + images.tobytes()
        )
        rows = np.array([[5, *range(7)], [2, *range(7)]], ">i4")
        (raw / f"qmnist-{kind}-labels-idx2-int").write_bytes(
            struct.pack(">4B2I", 0, 0, 12, 2, 2, 8) + rows.tobytes()
        )
    assert find("torchvision://QMNIST").classes == {"2": 2, "5": 2}
