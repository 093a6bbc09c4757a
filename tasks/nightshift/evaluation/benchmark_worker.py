"""A process that holds one model and nothing else of ours, and times it when it is told to.

    python -m nightshift.evaluation.benchmark_worker MODEL.onnx IMAGES.npy RUNTIME

RUNTIME is one of `nightshift.inference.runtime`, or `fastest`. `benchmark` starts these. Every line of stdout
is a JSON object: first what loading took, then, for each command line of stdin, the seconds that it asked
for; an `error` in place of either is the last line. The end of stdin ends the process, so it never outlives
who started it. Imports numpy and the runtimes only.
"""

import itertools
import json
import os
import sys
import time
from pathlib import Path
from typing import Any, Final, TextIO, cast

import numpy as np

from nightshift.inference import runtime
from nightshift.inference.runtime import Choice, Pixels, Runtime, Session

FASTEST: Final = "fastest"  # in place of a runtime: choose it
SETTLE: Final = 5  # single images before the first is timed
STATUS: Final = Path("/proc/self/status")


def main(model: str, images: str, wanted: str) -> int:
    answers = _take_stdout()
    try:
        pixels: Pixels = np.load(images, mmap_mode="r", allow_pickle=False)  # read as far as it is used
        begun = time.perf_counter()
        choice = _load(Path(model).read_bytes(), pixels, wanted)
        loaded = time.perf_counter() - begun
        for turn in range(SETTLE):
            choice.session.predict(_some(pixels, 1, turn))
        facts = {
            "runtime": choice.session.runtime,
            "agreements": choice.agreements,
            "reference": choice.reference,
            "rejected": choice.rejected,
            "load_seconds": loaded,
            "memory_mb": peak_mb(),
        }
        _say(answers, facts)
        for line in sys.stdin:
            _say(answers, {"seconds": _times(choice.session, pixels, **json.loads(line))})
    except Exception as error:  # the runtimes raise kinds that are not public; who started this must hear
        _say(answers, {"error": " ".join(str(error).split())[:300] or type(error).__name__})
        return 1
    return 0


def peak_mb() -> float:
    """The most memory, in 10^6 bytes, that this process has held so far."""
    try:
        row = next(line for line in STATUS.read_text().splitlines() if line.startswith("VmHWM:"))
        return int(row.split()[1]) * 1024 / 1e6
    except OSError:  # not Linux
        import resource

        # On Linux this counts what the starting process held before this one became another program.
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6


def _load(model: bytes, pixels: Pixels, wanted: str) -> Choice:
    if wanted == FASTEST:
        return runtime.fastest(model, np.asarray(pixels))
    return Choice(Session(model, cast(Runtime, wanted)), {}, (), "onnxruntime")


def _times(
    session: Session, pixels: Pixels, *, batch: int, calls: int, limit: float, warm: int
) -> list[float]:
    """Seconds of `calls` predictions of `batch` images, fewer after `limit` s, not counting `warm` before."""
    seconds: list[float] = []
    spent = 0.0
    for turn in itertools.count(-warm):
        images = _some(pixels, batch, turn + warm)
        begun = time.perf_counter()
        session.predict(images)
        if turn >= 0:
            seconds.append(time.perf_counter() - begun)
            spent += seconds[-1]
            if len(seconds) == calls or spent >= limit:
                break
    return seconds


def _some(pixels: Pixels, count: int, turn: int) -> Pixels:
    """A single image that is another one every turn, or `count` of them, again from the first if need be."""
    return (
        pixels[turn % len(pixels)][None].copy()
        if count == 1
        else np.resize(pixels, (count, *pixels.shape[1:]))
    )


def _take_stdout() -> TextIO:
    """Where answers go; what libraries print goes to stderr from now on."""
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    return answers


def _say(answers: TextIO, value: dict[str, Any]) -> None:
    print(json.dumps(value), file=answers, flush=True)


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
