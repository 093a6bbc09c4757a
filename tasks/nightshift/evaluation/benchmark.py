"""Measures how fast models answer, each in fresh processes of its own that take turns.

    speeds, machine = measure({"fp32": data, "int8": other}, {"fp32": images, "int8": images}, settings)

Only one process works at a time, and none for long, so that the noise of a shared machine meets all models
alike. First those with all threads take their turns, then those with one: fewer models lie in memory at once.
"""

import contextlib
import json
import math
import os
import signal
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import IO, Any, Final, NamedTuple, Self, cast

import numpy as np

from nightshift.config import EvaluateSettings
from nightshift.errors import InputError
from nightshift.evaluation.benchmark_worker import FASTEST
from nightshift.hardware.processor import threads
from nightshift.inference import hardware
from nightshift.inference.runtime import Pixels
from nightshift.records import Benchmark, Machine, Timing

ROUNDS: Final = 5  # turns of every process with single images
SINGLE_SECONDS: Final = 0.5  # that such a turn may take
BATCH_ROUNDS: Final = 3
BATCH_SECONDS: Final = 0.1
BATCH_CALLS: Final = 10
FIRST_BATCH, GROWTH = 8, 4  # batches of 1, 8, 32, 128 and so on
WORTH: Final = 1.02  # how many times faster a larger batch must be to look for a larger one still
LONGEST_CALL: Final = 2.0  # seconds; where a batch would take longer, it is not tried
ENDING_SECONDS: Final = 10.0


class Timed(NamedTuple):
    """What a process said once it had loaded its model, and its times."""

    facts: dict[str, Any]
    pace: Timing


class UntimedError(InputError):
    """Some models could not be timed: the `reasons` by name. `speeds` holds those of all others."""

    def __init__(self, reasons: dict[str, str], speeds: dict[str, Benchmark], machine: Machine) -> None:
        super().__init__("; ".join(reasons.values()))
        self.reasons, self.speeds, self.machine = reasons, speeds, machine


def measure(
    models: Mapping[str, bytes], images: Mapping[str, Pixels], settings: EvaluateSettings
) -> tuple[dict[str, Benchmark], Machine]:
    """The speed of each model by name, and the machine that it was measured on.

    `images` are uint8 [N,H,W,C] for each model, of the size it takes: the first of them decide whether a
    runtime's labels are those of the file's exact arithmetic, and the models are timed on them.
    `load_seconds` and `memory_mb` are of the process with one thread, before it sees a batch. If a model
    cannot be loaded or its process dies, the others are timed nevertheless; then UntimedError is raised, and
    holds what was measured.
    """
    reasons: dict[str, str] = {}
    with tempfile.TemporaryDirectory(prefix="nightshift-timing-") as folder:
        files = {
            name: _write(Path(folder), number, model, images[name])
            for number, (name, model) in enumerate(models.items())
        }
        full = _side_by_side(files, dict.fromkeys(files, FASTEST), threads(), settings, reasons)
        runtimes = {name: timed.facts["runtime"] for name, timed in full.items()}
        single = _side_by_side(files, runtimes, 1, settings, reasons)
    speeds = {
        name: Benchmark(
            runtime=runtimes[name],
            agreements=full[name].facts["agreements"],
            reference=full[name].facts["reference"],
            single=timed.pace,
            full=full[name].pace,
            load_seconds=timed.facts["load_seconds"],
            memory_mb=timed.facts["memory_mb"],
            size=len(models[name]),
        )
        for name, timed in single.items()
    }
    if reasons:
        raise UntimedError(reasons, speeds, hardware.describe())
    return speeds, hardware.describe()


def _write(folder: Path, number: int, model: bytes, images: Pixels) -> tuple[Path, Path]:
    file, pixels = folder / f"{number}.onnx", folder / f"{number}.npy"
    file.write_bytes(model)
    np.save(pixels, images, allow_pickle=False)
    return file, pixels


def _side_by_side(
    files: Mapping[str, tuple[Path, Path]],
    runtimes: Mapping[str, str],
    count: int,
    settings: EvaluateSettings,
    reasons: dict[str, str],
) -> dict[str, Timed]:
    """Time the models of `runtimes` with `count` threads; the reason of one that fails goes to `reasons`."""
    with Turns(reasons) as turns:
        for name, runtime in runtimes.items():
            turns.start(name, files[name], runtime, count)
        calls = math.ceil(settings.latency_runs / ROUNDS)
        singles = turns.take(list(turns.processes), ROUNDS, 1, calls, SINGLE_SECONDS)
        rates = _rates(turns, singles, settings.throughput_batch)
        return {
            name: Timed(process.facts, _pace(count, singles[name], rates[name]))
            for name, process in turns.processes.items()
        }


def _rates(turns: "Turns", singles: Mapping[str, list[float]], largest: int) -> dict[str, dict[int, float]]:
    """Images per second by batch. Batches grow, for each model as long as that makes it faster."""
    rates = {name: {1: 1 / statistics.median(seconds)} for name, seconds in singles.items()}
    growing = list(rates)
    for batch in _batches(largest):
        growing = [name for name in growing if batch / max(rates[name].values()) <= LONGEST_CALL]
        taken = turns.take(growing, BATCH_ROUNDS, batch, BATCH_CALLS, BATCH_SECONDS)
        found = {name: batch / statistics.median(seconds) for name, seconds in taken.items()}
        growing = [name for name, rate in found.items() if rate > WORTH * max(rates[name].values())]
        for name, rate in found.items():
            rates[name][batch] = rate
    return rates


def _batches(largest: int) -> Iterator[int]:
    batch = FIRST_BATCH
    while batch < largest:
        yield batch
        batch *= GROWTH
    if largest > 1:
        yield largest


def _pace(count: int, singles: list[float], rates: Mapping[int, float]) -> Timing:
    p50, p90, p99 = (1000 * float(value) for value in np.percentile(singles, (50, 90, 99)))
    batch = max(rates, key=lambda size: rates[size])
    return Timing(
        threads=count,
        latency_ms_p50=p50,
        latency_ms_p90=p90,
        latency_ms_p99=p99,
        images_per_second=rates[batch],
        batch=batch,
    )


class Turns:
    """Processes that take turns. One that fails is left out from then on, with its reason in `reasons`."""

    def __init__(self, reasons: dict[str, str]) -> None:
        self.processes: dict[str, Process] = {}
        self._reasons = reasons
        self._ends = contextlib.ExitStack()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._ends.close()

    def start(self, name: str, files: tuple[Path, Path], runtime: str, count: int) -> None:
        """Start a process and wait until it has loaded its model, so that loading is undisturbed."""
        process = Process(name, files, runtime, count)
        self._ends.callback(process.end)
        with self._noting(name):
            process.load()
            self.processes[name] = process

    def take(
        self, names: list[str], rounds: int, batch: int, calls: int, limit: float
    ) -> dict[str, list[float]]:
        """Seconds of predictions of `batch` images: `calls` per process and round, fewer after `limit` s."""
        seconds: dict[str, list[float]] = {name: [] for name in names}
        for turn in range(rounds):
            warm = 2 if batch == 1 else int(turn == 0)
            for name in [name for name in names if name in self.processes]:
                with self._noting(name):
                    command = {"batch": batch, "calls": calls, "limit": limit, "warm": warm}
                    seconds[name] += self.processes[name].ask(command)["seconds"]
        return {name: found for name, found in seconds.items() if name in self.processes}

    @contextlib.contextmanager
    def _noting(self, name: str) -> Iterator[None]:
        try:
            yield
        except InputError as error:
            self._reasons[name] = str(error)
            self.processes.pop(name, None)


class Process:
    """A running `benchmark_worker`; `facts` is what it says of its model once `load` has returned."""

    facts: dict[str, Any]

    def __init__(self, name: str, files: tuple[Path, Path], runtime: str, count: int) -> None:
        self.name = name
        self._process = subprocess.Popen(
            [sys.executable, "-m", "nightshift.evaluation.benchmark_worker", *map(str, files), runtime],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            encoding="utf-8",
            env=_environment(count),
        )
        self._stdin = cast(IO[str], self._process.stdin)
        self._stdout = cast(IO[str], self._process.stdout)
        self.pid = self._process.pid

    def load(self) -> None:
        """Raises InputError when the model cannot be loaded or the process dies of it."""
        self.facts = self._answer()
        for sentence in self.facts["rejected"]:
            print(f"{self.name}: {sentence}", flush=True)

    def ask(self, command: Mapping[str, object]) -> dict[str, Any]:
        """The answer to one command. Raises InputError when there is none."""
        with contextlib.suppress(BrokenPipeError):  # then there is no answer either
            print(json.dumps(command), file=self._stdin, flush=True)
        return self._answer()

    def _answer(self) -> dict[str, Any]:
        line = self._stdout.readline()
        if not line.endswith("\n"):
            how = _how(self._process.wait())
            raise InputError(
                f"model {self.name!r} could not be timed: its process ended with {how} instead of an answer; "
                "look at the lines above, and leave the model out or make it again"
            )
        answer: dict[str, Any] = json.loads(line)
        if "error" in answer:
            raise InputError(f"model {self.name!r} could not be timed: {answer['error']}")
        return answer

    def end(self) -> None:
        """The end of its stdin ends it; it is killed if it does not follow."""
        with contextlib.suppress(BrokenPipeError), self._process:
            self._stdin.close()
            try:
                self._process.wait(ENDING_SECONDS)
            except subprocess.TimeoutExpired:
                self._process.kill()


def _environment(count: int) -> dict[str, str]:
    """This one's with another number of threads, and malloc as a process has it that only predicts."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("MALLOC_")}
    caps = ("NIGHTSHIFT_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
    return {**kept, **dict.fromkeys(caps, str(count))}


def _how(code: int) -> str:
    return f"signal {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"
