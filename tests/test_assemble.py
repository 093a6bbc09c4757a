"""The manifest of a data set: counts and statistics over all parts, and what cannot be learnt from."""

import numpy as np
import pytest

from tasks.assemble import build, statistics
from tasks.config import Pipeline
from tasks.errors import InputError
from tasks.preprocess import moments
from tasks.records import Artifact, PartResult, Plan, Shard


def shard(split: str, counts: dict[str, int], mean=(0.5, 0.5, 0.5), square=(0.3, 0.3, 0.3)) -> Shard:
    return Shard(
        file=Artifact(uri="file:///x", sha256="0" * 64, size=1),
        split=split,
        images=sum(counts.values()),
        classes=tuple(sorted(counts)),
        counts=counts,
        mean=mean,
        mean_square=square,
    )


def part(*shards: Shard) -> PartResult:
    return PartResult(part="p", batch="b", shards=shards, refusals=(), seconds=1.0)


def a_plan() -> Plan:
    return Plan(
        pipeline=Pipeline(name="pets"),
        night="n",
        source="s3://b/incoming/pets",
        work=True,
        reason="",
        batches=1,
        images=1,
        data_digest="d" * 64,
        settings_digest="s" * 64,
        parts_uri="",
        messages=(),
    )


def test_classes_and_counts_come_from_all_parts():
    one = part(shard("train", {"cat": 3}), shard("validation", {"cat": 1}), shard("test", {"cat": 1}))
    two = part(shard("train", {"ant": 2, "cat": 1}))
    dataset = build(a_plan(), [one, two])
    assert dataset.classes == ("ant", "cat")
    assert dataset.counts["train"] == {"cat": 4, "ant": 2}
    assert len(dataset.shards) == 4


def test_statistics_over_shards_equal_those_over_all_pixels():
    generator = np.random.default_rng(0)
    blocks = [generator.integers(0, 200, (count, 4, 4, 3), np.uint8) for count in (3, 8)]
    shards = [shard("train", {"cat": len(block)}, *moments(block)) for block in blocks]
    mean, std = statistics(shards)
    pixels = np.concatenate(blocks) / 255
    assert np.allclose(mean, pixels.mean((0, 1, 2)))
    assert np.allclose(std, pixels.std((0, 1, 2)))


def test_one_class_only_is_refused_by_name():
    with pytest.raises(InputError, match=r"s3://b/incoming/pets has one class only \('cat'\)"):
        build(a_plan(), [part(shard("train", {"cat": 3}))])


def test_an_empty_split_is_refused():
    with pytest.raises(InputError, match=r"the validation split .* is empty"):
        build(a_plan(), [part(shard("train", {"cat": 3, "ant": 1}))])


def test_nothing_usable_is_refused():
    with pytest.raises(InputError, match="no image of s3://b/incoming/pets could be used"):
        build(a_plan(), [part()])
