"""idx and npz arrays become PNG files that hold exactly their pixels."""

import gzip
import io
import struct
import zipfile
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from source_files import scratch

from nightshift.data.sources import Item, allowance, find
from nightshift.errors import InputError

__all__ = ["scratch"]  # a fixture

NOISE = np.random.default_rng(0)
GREY = NOISE.integers(0, 256, (5, 4, 3), np.uint8)
RGB = NOISE.integers(0, 256, (5, 4, 6, 3), np.uint8)


def idx(path: Path, values: np.ndarray) -> Path:
    path.parent.mkdir(exist_ok=True)
    header = struct.pack(f">HBB{values.ndim}I", 0, 8, values.ndim, *values.shape)
    data = header + values.astype(np.uint8).tobytes()
    path.write_bytes(gzip.compress(data) if path.suffix == ".gz" else data)
    return path


def npz(path: Path, **arrays: Any) -> Path:
    np.savez_compressed(path, **arrays)
    return path


def pixels(item: Item) -> np.ndarray:
    """RGB or grey, as PNG holds it."""
    return pixels_of(item.read())


def pixels_of(data: bytes) -> np.ndarray:
    image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
    return image[..., ::-1] if image.ndim == 3 else image


def test_the_four_files_of_mnist_are_a_batch_with_its_splits(tmp_path: Path) -> None:
    folder = tmp_path / "mnist"
    idx(folder / "train-images-idx3-ubyte.gz", GREY)
    idx(folder / "train-labels-idx1-ubyte.gz", np.array([3, 1, 4, 1, 5]))
    idx(folder / "t10k-images-idx3-ubyte", GREY[:2])
    idx(folder / "t10k-labels-idx1-ubyte", np.array([9, 2]))
    with find(folder) as batch:
        found = {item.key: (item.label, item.split) for item in batch.items}
        assert found["images/train/4/000002.png"] == ("4", "train")
        assert found["images/t10k/9/000000.png"] == ("9", "test")
        assert len(found) == 7
        assert batch.classes == {"1": 2, "2": 1, "3": 1, "4": 1, "5": 1, "9": 1}
        train = [item for item in batch.items if item.split == "train"]
        assert all((pixels(item) == GREY[index]).all() for index, item in enumerate(train))
        assert batch.manifest is not None
        assert b"images/t10k/2/000001.png,2,test," in batch.manifest


def test_a_pair_of_idx_files_beside_its_packed_copy_is_read_once(tmp_path: Path) -> None:
    for suffix in ("", ".gz"):
        path = idx(tmp_path / "set" / f"digits-images-idx3-ubyte{suffix}", GREY)
        idx(tmp_path / "set" / f"digits-labels-idx1-ubyte{suffix}", np.arange(5))
    with find(tmp_path / "set") as folder, find(path) as file:
        assert [item.key for item in folder.items] == [f"{i}/00000{i}.png" for i in range(5)]
        assert (folder.manifest, folder.name, file.name) == (None, "set", "digits")


def test_npz_arrays_with_splits_and_text_labels(tmp_path: Path) -> None:
    path = npz(
        tmp_path / "set.npz",
        x_train=RGB,
        y_train=np.array(["cat", "dog", "cat", "dog", "cat"]),
        x_val=RGB[:1],
        y_val=np.array([["dog"]]),
        weights=np.ones(3),
    )
    with find(path) as batch:
        assert {(item.key.split("/")[1], item.split) for item in batch.items} == {
            ("x_train", "train"),
            ("x_val", "validation"),
        }
        assert batch.classes == {"cat": 3, "dog": 3}
        assert all((pixels(batch.items[i]) == RGB[i]).all() for i in range(5))
        assert batch.ignored == {"array 'weights', whose name is not one of the known pairs": 1}


def test_arrays_named_as_in_medical_collections(tmp_path: Path) -> None:
    arrays = {f"{split}_images": GREY for split in ("train", "val", "test")}
    arrays |= {f"{split}_labels": np.arange(5).reshape(5, 1) for split in ("train", "val", "test")}
    with find(npz(tmp_path / "set.npz", **arrays)) as batch:
        assert [item.split for item in batch.items[::5]] == ["train", "test", "validation"]


def test_other_channels_than_grey_and_rgb_become_arrays(tmp_path: Path) -> None:
    for channels in (2, 4, 5):
        images = NOISE.integers(0, 256, (3, 4, 6, channels), np.uint8)
        with find(npz(tmp_path / "set.npz", x=images, y=np.arange(3))) as batch:
            assert [item.key for item in batch.items] == [f"{n}/00000{n}.npy" for n in range(3)]
            read = [np.load(io.BytesIO(item.content.read()), allow_pickle=False) for item in batch.items]
        assert np.array_equal(np.stack(read), images)


@pytest.mark.parametrize("shape", [(1, 28, 28), (3, 32, 32), (3, 20, 30), (1, 20, 30), (13, 64, 64)])
def test_channels_may_be_first_as_pytorch_has_them(tmp_path: Path, shape: tuple[int, int, int]) -> None:
    images = NOISE.integers(0, 256, (4, *shape), np.uint8)
    with find(npz(tmp_path / "set.npz", x=images, y=np.arange(4))) as batch:
        assert batch.notes[0] == f"array 'x', {[4, *shape]}, is taken as [N,C,H,W]"
        if shape[0] == 13:
            read = [np.load(io.BytesIO(item.content.read()), allow_pickle=False) for item in batch.items]
            assert batch.notes[1:] == (
                "images of 13 channels need preprocess.channels = 13 in the pipeline file",
            )
        else:
            read = [pixels(item) for item in batch.items]
    expected = np.moveaxis(images, 1, 3)
    assert np.array_equal(np.stack(read), expected[..., 0] if shape[0] == 1 else expected)


@pytest.mark.parametrize(
    "shape", [(28, 28, 1), (32, 32, 3), (20, 30, 3), (3, 30, 3), (20, 30, 5), (28, 28, 13), (32, 32, 32)]
)
def test_channels_that_are_last_stay_last(tmp_path: Path, shape: tuple[int, int, int]) -> None:
    images = NOISE.integers(0, 256, (2, *shape), np.uint8)
    with find(npz(tmp_path / "set.npz", x=images, y=np.arange(2))) as batch:
        assert not [note for note in batch.notes if "[N,C,H,W]" in note]
        first = batch.items[0].read()
    read = np.load(io.BytesIO(first)) if first[:6] == b"\x93NUMPY" else pixels_of(first)
    assert np.array_equal(read, images[0, ..., 0] if shape[2] == 1 else images[0])


def test_sixteen_bits_stay_sixteen_bits(tmp_path: Path) -> None:
    for kind in ("<u2", ">u2"):
        deep = NOISE.integers(0, 65536, (3, 4, 4, 1)).astype(kind)
        with find(npz(tmp_path / "set.npz", x=deep, y=np.array([0, 1, 2]))) as batch:
            images = [pixels(item) for item in batch.items]
        assert images[0].dtype == np.uint16
        assert (np.stack(images) == deep[..., 0]).all()


@pytest.mark.parametrize(
    ("arrays", "words"),
    [
        ({"x": np.zeros((2, 4, 4, 33), np.uint8), "y": np.arange(2)}, r"\[2, 4, 4, 33\]; .*at most 32 chann"),
        ({"x": np.zeros((2, 16), np.uint8), "y": np.arange(2)}, r"has the shape \[2, 16\]"),
        ({"x": np.zeros((2, 4, 4)), "y": np.arange(2)}, "holds float64; pixels must be uint8 or uint16"),
        ({"x": GREY, "y": np.arange(4)}, "has 5 images and 4 labels"),
        ({"x": GREY, "y": np.eye(5)}, r"labels must be whole numbers or texts \[N\]"),
        ({"x": GREY, "y": np.array(["a", "b", "../c", "d", "e"])}, "label must not"),
        ({"x": GREY, "z": np.arange(5)}, "holds the arrays x, z; it must hold x and y"),
        ({"x": GREY, "y": np.array([{}, 1, 2, 3, 4])}, "is not a readable npz file without pickled objects"),
        ({"x": GREY[:0], "y": np.arange(0)}, "holds no images"),
    ],
)
def test_arrays_that_are_no_labelled_images_are_refused(
    tmp_path: Path, arrays: dict[str, Any], words: str
) -> None:
    with pytest.raises(InputError, match=words):
        find(npz(tmp_path / "set.npz", **arrays))


def test_a_damaged_npz_is_refused(tmp_path: Path) -> None:
    path = npz(tmp_path / "set.npz", x=GREY, y=np.arange(5))
    path.write_bytes(path.read_bytes()[:-30])
    with pytest.raises(InputError, match="is not a readable npz file"):
        find(path)
    with zipfile.ZipFile(path, "w") as pack:
        pack.writestr("x.npy", b"no array")
    with pytest.raises(InputError, match="is not a readable npz file"):
        find(path)


def test_idx_files_that_lie_are_refused(tmp_path: Path) -> None:
    images = idx(tmp_path / "set" / "train-images-idx3-ubyte", GREY)
    with pytest.raises(InputError, match="has no labels beside it; two files belong together"):
        find(images)
    labels = idx(tmp_path / "set" / "train-labels-idx1-ubyte", np.arange(5))
    images.write_bytes(images.read_bytes()[:-1])
    with pytest.raises(InputError, match="has 75 bytes, its header says 76; copy it again"):
        find(tmp_path / "set")
    images.write_bytes(b"\x00\x00\x0d\x03" + bytes(12))
    with pytest.raises(InputError, match="begins with 0000 and type 0xd"):
        find(tmp_path / "set")
    images.write_bytes(struct.pack(">HBB3I", 0, 8, 3, 2**32 - 1, 2**32 - 1, 2**32 - 1))
    with pytest.raises(InputError, match="its header says"):
        find(tmp_path / "set")
    images.write_bytes(b"\x00")
    with pytest.raises(InputError, match="is not a readable idx file"):
        find(tmp_path / "set")
    idx(images, GREY)
    labels.write_bytes(b"")
    with pytest.raises(InputError, match="train-labels-idx1-ubyte is not a readable idx file"):
        find(tmp_path / "set")


def test_files_that_grow_a_thousandfold_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(allowance, "ALWAYS_ALLOWED", 2**20)
    images, labels = np.zeros((1024, 64, 64), np.uint8), np.zeros(1024, np.uint8)
    np.savez_compressed(tmp_path / "zeros.npz", x_train=images, y_train=labels)
    idx = gzip.compress(struct.pack(">BBBB3I", 0, 0, 8, 3, *images.shape) + images.tobytes())
    (tmp_path / "train-images-idx3-ubyte.gz").write_bytes(idx)
    (tmp_path / "train-labels-idx1-ubyte").write_bytes(struct.pack(">BBBBI", 0, 0, 8, 1, 1024) + bytes(1024))
    for name in ("zeros.npz", "train-images-idx3-ubyte.gz"):
        with pytest.raises(InputError, match="grows to more than 200 times its size"):
            find(tmp_path / name)


def test_the_members_of_an_npz_share_one_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(allowance, "ALWAYS_ALLOWED", 2**20)
    part = np.zeros((150, 64, 64), np.uint8)  # each of them would still be allowed
    np.savez_compressed(tmp_path / "parts.npz", **{f"part{number}": part for number in range(4)})
    with pytest.raises(InputError, match="grows to more than 200 times its size"):
        find(tmp_path / "parts.npz")
    np.savez(tmp_path / "many.npz", **{f"part{number}": part[:1] for number in range(101)})
    with pytest.raises(InputError, match="holds more than 100 arrays"):
        find(tmp_path / "many.npz")


def test_labels_as_long_as_a_book_are_refused(tmp_path: Path) -> None:
    np.savez(tmp_path / "long.npz", x=np.zeros((2, 4, 4), np.uint8), y=np.array(["a" * 1000, "b"]))
    with pytest.raises(InputError, match="2 labels of 4000 bytes; at most 2000000 of 1024 are read"):
        find(tmp_path / "long.npz")


def test_a_damaged_member_of_any_packing_is_refused_in_words(tmp_path: Path) -> None:
    buffer = io.BytesIO()
    np.save(buffer, np.zeros((2, 40, 40), np.uint8))
    for packing in (zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA):
        path = tmp_path / f"{packing}.npz"
        with zipfile.ZipFile(path, "w", packing) as pack:
            pack.writestr("x.npy", buffer.getvalue())
        data = path.read_bytes()
        for at in range(35, 80):
            path.write_bytes(data[:at] + bytes([data[at] ^ 0xFF]) + data[at + 1 :])
            with pytest.raises(InputError):
                find(path)
