"""The manifest of a data set: counts and statistics over all parts, and what cannot be learnt from."""

import numpy as np
import pyarrow as pa
import pytest

from nightshift.config import AssembleSettings, Pipeline
from nightshift.data.index import SCHEMA, THUMBNAIL, WITHOUT_THUMBNAILS, Index
from nightshift.data.manifest import build, count, statistics
from nightshift.data.shards import moments
from nightshift.errors import InputError
from nightshift.records import Artifact, BatchSeen, Dataset, Duplicates, PartResult, Plan, Shard

NOWHERE = Artifact(uri="file:///x", sha256="0" * 64, size=1)
NOTHING = Duplicates(merged=0, conflicting=0, near=0, near_excluded=True)
Rows = list[tuple[str, str]]  # split and class
WHOLE: Rows = [("train", "cat"), ("train", "cat"), ("train", "ant"), ("validation", "cat"), ("test", "cat")]


def shard(split: str, images: int, mean=(0.5, 0.5, 0.5), square=(0.3, 0.3, 0.3)) -> Shard:
    return Shard(file=NOWHERE, split=split, images=images, classes=("cat",), mean=mean, mean_square=square)


def index(rows: Rows) -> Index:
    """All rows in one part whose shards follow the splits."""
    splits = list(dict.fromkeys(split for split, _ in rows))
    facts = [
        {
            **dict.fromkeys(SCHEMA.names, 0),
            **{"key": f"b/{n}", "id": bytes(32), "label": label, "split": split, "group": "", "extra": ""},
            **{"shard": splits.index(split), "row": n, "format": "PNG", "thumbnail": bytes(THUMBNAIL**2)},
        }
        for n, (split, label) in enumerate(rows)
    ]
    table = pa.Table.from_pylist(facts, schema=SCHEMA)
    shards = table["shard"].to_numpy()
    return Index(table.select(WITHOUT_THUMBNAILS), shards, np.array([0, len(rows)]), (NOWHERE,))


def made(rows: Rows, drop: list[int] | None = None, **settings) -> Dataset:
    plan = Plan(
        pipeline=Pipeline(name="pets", assemble=AssembleSettings(**settings)),
        night="n",
        source="s3://b/incoming/pets",
        work=True,
        reason="",
        batches=1,
        images=len(rows),
        data_digest="d" * 64,
        settings_digest="s" * 64,
        parts_uri="",
        messages=(),
    )
    splits = list(dict.fromkeys(split for split, _ in rows))
    shards = tuple(shard(split, [s for s, _ in rows].count(split)) for split in splits)
    part = PartResult(part="p", batch="b", shards=shards, index=NOWHERE, refusals=(), seconds=1.0)
    marked = np.zeros(len(rows), bool)
    marked[drop or []] = True
    seen = {"b": BatchSeen(files=len(rows), digest="1")}
    return build(plan, seen, [part], index(rows), marked, NOTHING, {})


def test_classes_and_counts_come_from_the_rows_that_stay():
    dataset = made(WHOLE, drop=[1])
    assert dataset.classes == ("ant", "cat")
    assert dataset.counts["train"] == {"ant": 1, "cat": 1}
    assert [shard.drop for shard in dataset.shards] == [(1,), (), ()]
    assert dataset.profile.images == 4


def test_what_is_left_out_by_other_settings_is_another_data_set():
    assert made(WHOLE).digest == made(WHOLE).digest
    assert made(WHOLE).digest != made(WHOLE, near_duplicates="report").digest


def test_counts_of_classes_stand_in_the_order_of_their_names():
    assert list(count(index(WHOLE).rows, np.ones(5, bool))["train"]) == ["ant", "cat"]


def test_statistics_over_shards_equal_those_over_all_pixels():
    generator = np.random.default_rng(0)
    blocks = [generator.integers(0, 200, (count, 4, 4, 3), np.uint8) for count in (3, 8)]
    mean, std = statistics([shard("train", len(block), *moments(block)) for block in blocks])
    pixels = np.concatenate(blocks) / 255
    assert np.allclose(mean, pixels.mean((0, 1, 2)))
    assert np.allclose(std, pixels.std((0, 1, 2)))


def test_one_class_only_is_refused_by_name():
    with pytest.raises(InputError, match=r"s3://b/incoming/pets has one class only \('cat'\)"):
        made([(split, "cat") for split, _ in WHOLE])


@pytest.mark.parametrize("names", [("Cat", "cat"), ("1", "001"), ("\u00c9", "\u00e9")])
def test_a_class_in_two_spellings_is_refused_with_a_batch_of_each(names: tuple[str, str]):
    one, other = sorted(names)
    why = (
        rf"classes {one!r} \(batch b\) and {other!r} \(batch b\) of s3://b/incoming/pets differ only in case"
    )
    with pytest.raises(InputError, match=why):
        made([*WHOLE, *((split, name) for split in ("train", "test") for name in names)])


def test_an_empty_split_is_refused():
    with pytest.raises(InputError, match=r"the validation split .* is empty"):
        made(WHOLE, drop=[3])


def test_nothing_usable_is_refused():
    with pytest.raises(InputError, match="no image of s3://b/incoming/pets could be used"):
        made([])
