"""Batches from listings: when they are complete, how they are cut, and how parts travel together."""

import subprocess
import sys
from collections import Counter
from typing import get_args

import pytest

from nightshift.config import PreprocessSettings
from nightshift.data.batches import DENOISE_SECONDS, MAX_MESSAGES, Batch, complete, cut, grouped, work
from nightshift.storage import Stored

OLD, NEW = 1_000.0, 4e9  # seconds since 1970: long settled, and still changing
SETTINGS = PreprocessSettings()


def listing(*rows: tuple[str, float]) -> list[Stored]:
    return [Stored(key, 10, "etag", modified) for key, modified in rows]


def files(count: int, size: int = 1, etag: str = "e") -> tuple[tuple[str, int, str], ...]:
    return tuple((f"cat/{index:06d}.png", size, etag) for index in range(count))


def test_a_batch_waits_until_its_marker_is_there_or_it_settled():
    waiting: list[str] = []
    objects = listing(
        ("a/x/1.png", NEW), ("a/_READY", NEW), ("b/x/1.png", NEW), ("c/x/1.png", OLD), ("stray.png", OLD)
    )
    assert [batch.name for batch in complete(objects, 600, waiting, Counter())] == ["a", "c"]
    assert waiting == ["b"]


@pytest.mark.parametrize("name", ["manifest.csv", "manifest.parquet"])
def test_markers_and_manifests_are_not_images(name):
    objects = listing(("a/_READY", OLD), (f"a/{name}", OLD), ("a/x/1.png", OLD))
    (batch,) = complete(objects, 600, [], Counter())
    assert [key for key, _, _ in batch.files] == ["x/1.png"]
    (part,) = cut(batch, SETTINGS, "s3://x/y")
    assert part.manifest == name


def test_parts_cover_a_batch_once_and_carry_equal_work():
    settings = PreprocessSettings(part_seconds=0.0043)
    parts = list(cut(Batch("a", files(9), None), settings, "s3://x/y"))
    assert [len(part.keys) for part in parts] == [3, 3, 3]
    assert [key for part in parts for key in part.keys] == [key for key, _, _ in files(9)]
    assert len({part.digest for part in parts}) == 3


def test_large_files_make_smaller_parts():
    settings = PreprocessSettings(part_seconds=20)
    parts = list(cut(Batch("a", files(1000, size=5_000_000), None), settings, "s3://x/y"))
    assert sum(len(part.keys) for part in parts) == 1000
    assert all(10 <= part.seconds <= 25 for part in parts)
    assert len(list(cut(Batch("a", files(1000), None), settings, "s3://x/y"))) == 1


@pytest.mark.parametrize("change", ["etag", "manifest", "settings"])
def test_a_parts_digest_changes_with_what_its_shards_depend_on(change):
    def digest(etag: str = "e", manifest: tuple[str, int, str] | None = None, size: int = 32) -> str:
        (part,) = cut(
            Batch("a", files(1, etag=etag), manifest), PreprocessSettings(image_size=size), "s3://x"
        )
        return part.digest

    changed = {
        "etag": digest(etag="f"),
        "manifest": digest(manifest=("manifest.csv", 3, "m")),
        "settings": digest(size=64),
    }
    assert digest() == digest()
    assert changed[change] != digest()


def test_what_a_batch_looks_like_does_not_depend_on_settings_but_on_its_files():
    assert Batch("a", files(3), None).seen() == Batch("b", files(3), None).seen()
    assert Batch("a", files(3), None).seen() != Batch("a", files(3, etag="f"), None).seen()
    assert Batch("a", files(3), None).seen().files == 3


@pytest.mark.parametrize("count", [1, 7, 1000, 5000])
def test_messages_are_bounded_and_lose_nothing(count):
    settings = PreprocessSettings(part_seconds=0.0013)
    parts = list(cut(Batch("a", files(count), None), settings, "s3://x/y"))
    groups = list(grouped(parts, settings.part_seconds))
    assert len(groups) <= MAX_MESSAGES
    assert [part for group in groups for part in group] == parts


def test_small_batches_travel_together():
    parts = [part for n in range(50) for part in cut(Batch(f"b{n:02d}", files(10), None), SETTINGS, "s3://x")]
    assert len(parts) == 50
    assert len(list(grouped(parts, SETTINGS.part_seconds))) == 1


def test_work_grows_with_number_and_size():
    assert work(files(10), SETTINGS) > work(files(5), SETTINGS)
    assert work(files(5, size=10**7), SETTINGS) > work(files(5), SETTINGS)


def test_settings_that_cost_more_make_smaller_parts():
    """Two thousand images of 224 pixels take non-local means half an hour of one core."""
    plain = list(cut(Batch("a", files(2000), None), SETTINGS, "s3://x"))
    given = SETTINGS.model_copy(update={"denoise": "nlmeans", "image_size": 224})
    costly = list(cut(Batch("a", files(2000), None), given, "s3://x"))
    assert len(plain) == 1
    assert len(costly) > 10
    assert max(part.seconds for part in costly) < 1.5 * SETTINGS.part_seconds
    assert set(DENOISE_SECONDS) == set(get_args(PreprocessSettings.model_fields["denoise"].annotation))


def test_a_million_keys_are_cut_within_a_gigabyte():
    code = """
import re
from collections import Counter
from nightshift.data.batches import complete, cut, grouped
from nightshift.config import PreprocessSettings
from nightshift.storage import Stored
settings = PreprocessSettings()
objects = (
    Stored(f"batch-{b:03d}/class-{c}/photo-of-things-{n:012d}.jpg", 150_000, f"{n + 10**6 * b:032x}", 1.0)
    for b in range(50)
    for c in range(8)
    for n in range(2500)
)
parts = [part for batch in complete(objects, 0, [], Counter()) for part in cut(batch, settings, "s3://b/x")]
groups = list(grouped(parts, settings.part_seconds))
assert sum(len(part.keys) for part in parts) == 1_000_000, len(parts)
assert len(groups) <= 256, len(groups)
print(re.search(r"VmHWM:\\s+(\\d+) kB", open("/proc/self/status").read())[1])
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) < 1024**2
