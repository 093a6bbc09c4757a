"""Real image sets as sources: counts, splits and groups are those of the sets. Skipped where they are not."""

import csv
import importlib.util
import itertools
import shutil
from collections import Counter
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import cv2
import numpy as np
import pytest

from nightshift import storage
from nightshift.data import labels
from nightshift.data.sources import find, ingest

DATA = Path(__file__).resolve().parent.parent.parent / "shared" / "data"
pytestmark = pytest.mark.skipif(
    not (DATA / "export.py").is_file(), reason=f"the real image sets are not in {DATA}"
)


@pytest.fixture(scope="module")
def sets() -> ModuleType:
    """Generators of (class, name, image) by the set's name, for `train` and `test`."""
    spec = importlib.util.spec_from_file_location("real_sets", DATA / "export.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_mnist_s_files_are_its_70_000_digits(sets: ModuleType, tmp_path: Path) -> None:
    expected = [(split, label) for split in ("test", "train") for label, _, _ in sets.mnist(split)]
    images = itertools.chain.from_iterable(sets.mnist(split) for split in ("test", "train"))
    store = f"file://{tmp_path}/store"
    with find(DATA / "mnist") as batch:
        assert [(item.split, item.label) for item in batch.items] == expected
        some = slice(0, 70_000, 700)
        assert ingest(replace(batch, items=batch.items[some]), store).uploaded == 100
        for item, (label, _, image) in zip(
            batch.items[some], itertools.islice(images, 0, 70_000, 700), strict=True
        ):
            data = np.frombuffer(storage.read(f"{store}/mnist/{item.key}"), np.uint8)
            assert item.label == label
            assert (cv2.imdecode(data, cv2.IMREAD_UNCHANGED) == image).all()


def test_grocery_photos_keep_their_official_split_and_their_bytes(sets: ModuleType, tmp_path: Path) -> None:
    expected: Counter[tuple[str, str]] = Counter()
    content = set()
    for split in ("train", "test"):
        for label, name, data in sets.grocery(split):
            path = tmp_path / "grocery" / split / label / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)
            expected[split, label] += 1
            content.add(data)
    pack = shutil.make_archive(str(tmp_path / "grocery"), "tar", tmp_path, "grocery")
    store = f"file://{tmp_path}/store"
    with find(tmp_path / "grocery") as batch, find(pack) as packed:
        assert Counter((item.split or "", item.label) for item in batch.items) == expected
        assert len(batch.classes) == 31
        assert packed.manifest == batch.manifest
        assert ingest(batch, store).uploaded == 1745
        again = ingest(packed, store)
        assert (again.uploaded, again.skipped) == (0, 1745)
    stored = [each.key for each in storage.listing(f"{store}/grocery") if each.key.endswith(".jpg")]
    assert {storage.read(f"{store}/grocery/{key}") for key in stored} == content


def test_blood_cells_keep_the_photo_they_were_cut_from(sets: ModuleType, tmp_path: Path) -> None:
    (tmp_path / "cells").mkdir()
    rows = []
    for split in ("train", "test"):
        for label, name, image in itertools.islice(sets.bccd(split), 150):
            cv2.imwrite(str(tmp_path / "cells" / name), image[..., ::-1])
            rows.append((name, label, split, name.rpartition("-")[0]))
    with (tmp_path / "cells" / "cells.csv").open("w", newline="") as file:
        csv.writer(file).writerows([labels.COLUMNS, *rows])
    store = f"file://{tmp_path}/store"
    result = ingest(find(tmp_path / "cells" / "cells.csv"), store)
    assert result.classes == dict(sorted(Counter(label for _, label, _, _ in rows).items()))
    found = labels.read(storage.read(f"{store}/cells/manifest.csv"), "manifest.csv")
    assert [(path, *label[:3]) for path, label in found.items()] == [
        (f"images/{name}", label, split, photo) for name, label, split, photo in rows
    ]
    sides = {label.group: label.split for label in found.values()}
    assert all(label.split == sides[label.group] for label in found.values())
