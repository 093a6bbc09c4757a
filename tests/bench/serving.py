"""Measure images per second of an ONNX file in OpenVINO beside its own benchmark; lines go to bench.json.

python tests/bench/serving.py FOLDER|FILE.onnx      (two minutes, nothing else may run)

From a folder of photos it makes an untrained int8 ResNet-18 at 224 pixels. The peer is `benchmark_app` with
the hint and the batch that suit the file best, found in a first pass. Then both take turns, each in a fresh
process, and medians count. Images are noise: a prediction takes the same time whatever it sees.
"""

import os
import re
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
from night import record
from untrained import int8_file

from nightshift.evaluation.benchmark import Process
from nightshift.inference.runtime import Session

HINTS = ("throughput", "latency")
BATCHES = (1, 4, 16, 64, 128)
LOOK_SECONDS, SECONDS = 2, 5
REPEATS = 5
THREADS = os.cpu_count() or 1  # with a hint, benchmark_app takes them all
MANY = 128  # images per call of ours, the default of evaluate.throughput_batch


def main(given: Path) -> int:
    with tempfile.TemporaryDirectory() as folder:
        compare(int8_file(str(given), folder) if given.is_dir() else given)
    return 0


def compare(model: Path) -> None:
    shape = Session(model.read_bytes(), "openvino").shape
    found = {
        (hint, batch): peer(model, shape, hint, batch, LOOK_SECONDS) for hint in HINTS for batch in BATCHES
    }
    hint, batch = max(found, key=lambda key: found[key])
    with tempfile.TemporaryDirectory() as folder:
        images = Path(folder, "images.npy")
        np.save(images, np.random.default_rng(0).integers(0, 256, (MANY, *map(int, shape)), dtype=np.uint8))
        speeds = [(ours(model, images), peer(model, shape, hint, batch, SECONDS)) for _ in range(REPEATS)]
    mine, theirs = (statistics.median(values) for values in zip(*speeds, strict=True))
    for pair in speeds:
        print(f"{model.name}: {pair[0]:.1f} and {pair[1]:.1f} images/s, {pair[0] / pair[1]:.3f}", flush=True)
    name = f"{model.stem} in OpenVINO, {THREADS} threads"
    record(name, mine, "images/s", f"benchmark_app, {hint}, batch {batch}", theirs)


def ours(model: Path, images: Path) -> float:
    """Images per second of `Session.predict` with many images at once."""
    process = Process(model.name, (model, images), "openvino", THREADS)
    try:
        process.load()
        command = {"batch": MANY, "calls": 1_000_000, "limit": SECONDS, "warm": 2}
        seconds = process.ask(command)["seconds"]
    finally:
        process.end()
    return MANY * len(seconds) / sum(seconds)


def peer(model: Path, shape: tuple[int | None, ...], hint: str, batch: int, seconds: int) -> float:
    """Images per second that benchmark_app says it reached."""
    sizes = ",".join(map(str, (batch, *shape)))
    command = [
        *(sys.executable, "-c", "from openvino.tools.benchmark.main import main; main()"),
        *("-m", str(model), "-d", "CPU"),
        *("-hint", hint, "-shape", f"images[{sizes}]", "-layout", "images[NHWC]"),
        *("-t", str(seconds)),
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    told = re.search(r"Throughput:\s*([\d.]+) FPS", done.stdout)
    if told is None:
        raise SystemExit(f"{' '.join(command)} failed:\n{done.stdout[-3000:]}{done.stderr[-3000:]}")
    print(f"benchmark_app, {hint}, batch {batch}: {float(told[1]):.1f} images/s", flush=True)
    return float(told[1])


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
