"""The pool of decoders: the same pixels as without it, and a bad image costs only itself."""

import contextlib
import io
import os
import subprocess
import sys
from collections import deque
from collections.abc import Iterator
from pathlib import Path

import cv2
import evil_files
import numpy as np
import psutil
import pytest
from PIL import Image
from waiting import patience, slowness, wait_for

from nightshift.config import PreprocessSettings
from nightshift.data.decoding.pool import (
    AHEAD,
    CHUNK_IMAGES,
    Decoded,
    DecoderPool,
    Slot,
    _packed,
    _unpacked,
    decode_for_shard,
)
from nightshift.data.images import UnreadableError, load, prepare, stored
from nightshift.errors import StageError

SETTINGS = PreprocessSettings(image_size=16, stored_size=24)
ROOT = Path(__file__).parents[1]


def encoded(extension: str = ".png", seed: int = 0, side: int = 40) -> bytes:
    pixels = np.random.default_rng(seed).integers(0, 256, (side, side + 20, 3), dtype=np.uint8)
    return bytes(cv2.imencode(extension, pixels)[1])


@pytest.fixture(scope="module")
def decoders() -> Iterator[DecoderPool]:
    with DecoderPool(decode_for_shard, SETTINGS, processes=2) as pool:
        yield pool


def kinds(results: list[Decoded | UnreadableError]) -> list[str]:
    return ["seen" if isinstance(result, Decoded) else result.reason for result in results]


def test_the_pool_gives_the_pixels_of_shards_and_of_predictions_bit_for_bit() -> None:
    files = [
        encoded(extension, seed) for seed, extension in enumerate([".jpg", ".png", ".webp", ".tiff"] * 10)
    ]
    files.append(encoded(".jpg", side=900))
    for changes in ({}, {"resize": "letterbox"}, {"denoise": "median", "smoothing": 0.1}):
        settings = SETTINGS.model_copy(update=changes)
        with DecoderPool(decode_for_shard, settings, processes=1) as decoders:
            results = list(decoders.map(files))
        for data, result in zip(files, results, strict=True):
            assert isinstance(result, Decoded)
            assert np.array_equal(result.pixels, stored(data, settings))
            assert np.array_equal(result.pixels[4:20, 4:20], prepare(data, settings))
            assert result[1:] == decode_for_shard(data, settings)[1:]


def test_results_come_in_order_with_their_reasons(decoders: DecoderPool) -> None:
    files = [b"" if number % 7 == 0 else encoded(seed=number) for number in range(100)]
    results = list(decoders.map(files))
    assert kinds(results) == ["empty" if number % 7 == 0 else "seen" for number in range(100)]
    for data, result in zip(files, results, strict=True):
        if isinstance(result, Decoded):
            assert np.array_equal(result.pixels, stored(data, SETTINGS))


def test_what_is_lent_holds_until_the_next_is_asked_for() -> None:
    files = [encoded(seed=number) for number in range(4 * CHUNK_IMAGES)]
    with DecoderPool(decode_for_shard, SETTINGS, borrow=True) as lending:
        for _ in range(2):
            for data, result in zip(files, lending.map(files), strict=True):
                assert isinstance(result, Decoded)
                assert np.array_equal(result.pixels, stored(data, SETTINGS))
            assert len(lending._free) == AHEAD


def test_what_is_known_about_an_image_comes_with_it(decoders: DecoderPool) -> None:
    (seen,) = decoders.map([encoded(".jpg")])
    assert isinstance(seen, Decoded)
    assert seen[1:4] == ("JPEG", 60, 40)
    assert seen.pixels.shape == (24, 24, 3)
    assert seen.pixels.dtype == np.uint8
    assert seen[1:4] == load(encoded(".jpg"), SETTINGS)[1:]


def test_files_are_taken_only_a_few_chunks_ahead(decoders: DecoderPool) -> None:
    taken = 0

    def files() -> Iterator[bytes]:
        nonlocal taken
        while True:
            taken += 1
            yield encoded(seed=taken % 5)

    results = decoders.map(files())
    for _ in range(100):
        assert isinstance(next(results), Decoded)
    assert taken <= 100 + (AHEAD * 2 + 1) * CHUNK_IMAGES
    results.close()  # type: ignore[attr-defined]
    assert kinds(list(decoders.map([encoded()]))) == ["seen"]


def test_a_crash_costs_one_image() -> None:
    files = [encoded(seed=number) for number in range(40)]
    files[5] = evil_files.CRASH
    files[30] = evil_files.SURPRISE
    with DecoderPool(evil_files.see, SETTINGS, processes=2) as decoders:
        results = list(decoders.map(files))
    assert [number for number, kind in enumerate(kinds(results)) if kind != "seen"] == [5, 30]
    assert kinds([results[5], results[30]]) == ["crashed", "crashed"]
    assert "SIGABRT" in str(results[5])
    assert "nobody foresaw this" in str(results[30])
    for data, result in zip(files, results, strict=True):
        if isinstance(result, Decoded):
            assert np.array_equal(result.pixels, stored(data, SETTINGS))


def test_without_room_in_the_shared_memory_results_are_the_same(decoders: DecoderPool) -> None:
    files = [encoded(seed=number) for number in range(40)]
    roomy = list(decoders.map(files))
    free, decoders._free = decoders._free, deque()
    try:
        narrow = list(decoders.map(files))
    finally:
        decoders._free = free
    for one, other in zip(roomy, narrow, strict=True):
        assert isinstance(one, Decoded)
        assert isinstance(other, Decoded)
        assert np.array_equal(one.pixels, other.pixels)
        assert one[1:] == other[1:]


def test_buffers_travel_outside_the_message_where_there_is_room() -> None:
    memory = bytearray(20_000)
    images = [decode_for_shard(encoded(seed=seed), SETTINGS) for seed in range(2)]
    size = images[0].pixels.nbytes
    packed = _packed(images, memoryview(memory), Slot(100, 2 * size))
    assert packed.sizes == [size] * 2
    assert len(packed.frame) < size
    assert memory[100 : 100 + size] == images[0].pixels.tobytes()
    assert not any(memory[:100] + memory[100 + 2 * size :])
    for image, again in zip(
        images, _unpacked(packed, memoryview(memory), Slot(100, 2 * size), bytearray), strict=True
    ):
        assert np.array_equal(again.pixels, image.pixels)
        assert again[1:] == image[1:]
    narrow = _packed(images, memoryview(memory), Slot(100, 2 * size - 1))
    assert narrow.sizes == []
    assert len(narrow.frame) > 2 * size


def test_a_hang_costs_one_image() -> None:
    files = [encoded(seed=number) for number in range(20)]
    files[3] = evil_files.HANG
    limit = 2 * slowness()  # the others have to be decoded within it
    quick = SETTINGS.model_copy(update={"decode_seconds": limit})
    with DecoderPool(evil_files.see, quick, processes=2) as decoders:
        results = list(decoders.map(files))
        assert [number for number, kind in enumerate(kinds(results)) if kind != "seen"] == [3]
        assert kinds([results[3]]) == ["timeout"]
        assert f"{limit:g} s" in str(results[3])


def test_a_memory_bomb_costs_one_image() -> None:
    buffer = io.BytesIO()
    Image.new("RGB", (7000, 7000)).save(buffer, "PNG", compress_level=1)  # 147 MB of pixels
    files = [encoded(), buffer.getvalue(), encoded(seed=1)]
    with DecoderPool(
        decode_for_shard, SETTINGS.model_copy(update={"decode_megabytes": 100}), processes=1
    ) as decoders:
        assert kinds(list(decoders.map(files))) == ["seen", "too-much-memory", "seen"]
    with DecoderPool(decode_for_shard, SETTINGS, processes=1) as decoders:
        assert kinds(list(decoders.map(files))) == ["seen"] * 3


def test_a_pool_whose_processes_do_not_start_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("nightshift.data.decoding.pool._start", os.abort)
    with (
        pytest.raises(StageError, match="do not start"),
        DecoderPool(decode_for_shard, SETTINGS, processes=1),
    ):
        pass


def test_processes_killed_between_images_are_replaced(decoders: DecoderPool) -> None:
    assert kinds(list(decoders.map([encoded()]))) == ["seen"]
    for child in psutil.Process().children():
        if "spawn_main" in " ".join(child.cmdline()):
            child.kill()
    assert kinds(list(decoders.map([encoded()] * 40))) == ["seen"] * 40


def test_decoders_import_nothing_heavy_and_die_with_their_parent(tmp_path: Path) -> None:
    script = tmp_path / "parent.py"
    script.write_text(
        "import os, sys, time\n"
        "from nightshift.config import PreprocessSettings\n"
        "from nightshift.data.decoding.pool import DecoderPool, decode_for_shard\n"
        "def heavy():\n"
        "    return sorted({'torch', 'mlflow', 'airflow', 'pandas'} & set(sys.modules))\n"
        "if __name__ == '__main__':\n"
        "    pool = DecoderPool(decode_for_shard, PreprocessSettings(), processes=1).__enter__()._pool\n"
        f"    ask = lambda what: pool.schedule(what).result({patience(60)})\n"
        "    print(ask(heavy), ask(os.getpid), flush=True)\n"
        "    busy = pool.schedule(time.sleep, args=(600,))\n"
        "    while not busy.running():\n"
        "        time.sleep(0.05)\n"
        "    os.kill(os.getpid(), 9)\n",
        encoding="utf-8",
    )
    environment, output = {**os.environ, "PYTHONPATH": str(ROOT / "tasks")}, tmp_path / "output"
    with output.open("w", encoding="utf-8") as file:
        subprocess.run([sys.executable, script], env=environment, stdout=file, check=False)
    modules, child = output.read_text(encoding="utf-8").rsplit(maxsplit=1)
    assert modules == "[]"
    try:
        wait_for(lambda: not psutil.pid_exists(int(child)), f"decoder {child} to end with its parent", 20)
    finally:
        with contextlib.suppress(psutil.NoSuchProcess):
            psutil.Process(int(child)).kill()
