"""Measure whether a quantized ONNX file gives the same labels on other processors; lines go to bench.json.

python tests/bench/portability.py [MODEL.onnx IMAGES.npy …] [--images 200]      (ten minutes)

IMAGES are uint8 [N,H,W,C]. Without files, a network learns the sample `digits` for a few epochs, and every
integer recipe makes a file of it. Processors are emulated by qemu-user and compared with the file's exact
arithmetic: ONNX Runtime without graph optimization, not emulated. A process that takes longer than LIMIT is
ended. What cannot be emulated or fetched here is said in a sentence, and the rest goes on.

qemu 7.2 emulates AVX2 but no AVX-512 and no VNNI, whatever processor it is asked for; the column
`instructions` is what the process itself saw. AVX-512 without VNNI is had from OpenVINO on the machine
itself, which can be held to less than the processor has.
"""

import argparse
import json
import platform
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Final, NamedTuple

import arm_python
import labels_on
import numpy as np
from night import environment, record
from numpy.typing import NDArray

GUEST: Final = Path(labels_on.__file__)
X86: Final = ("SandyBridge", "Haswell", "Skylake-Server")
LIMIT: Final = 600  # seconds of one process
QUICK: Final = {"train.epochs": 6, "quantize.binary_epochs": 4}
FLOAT: Final = ("fp32", "fp16")  # recipes without integers
HELD: Final = ("AVX2", "AVX512_CORE")  # what oneDNN may use of a machine that has more


class Processor(NamedTuple):
    """How Python runs on a processor, and the runtimes that are tried there."""

    name: str
    python: tuple[str, ...]
    runtimes: tuple[str, ...]
    variables: dict[str, str]
    instructions: str = ""  # instead of what the process says it sees


class Row(NamedTuple):
    """A file on a processor: percent of labels that are those of exact arithmetic, the largest difference of
    a probability, and wall seconds; or why there are none."""

    file: str
    processor: str
    instructions: str
    runtime: str
    equal: float = 0.0
    difference: float = 0.0
    seconds: float = 0.0
    problem: str = ""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("files", nargs="*", metavar="MODEL.onnx IMAGES.npy")
    parser.add_argument("--images", type=int, default=200)
    asked = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # an exception, so that a child is ended too
    files = [Path(name).absolute() for name in asked.files]
    if len(files) % 2 or asked.images < 1 or not all(file.is_file() for file in files):
        given = f"{' '.join(asked.files)} --images {asked.images}"
        raise SystemExit(
            f"got {given}; name pairs of files that exist, MODEL.onnx IMAGES.npy, and 1 image or more"
        )
    with tempfile.TemporaryDirectory(prefix="nightshift-bench-", dir="/var/tmp") as folder:
        pairs = list(zip(files[::2], files[1::2], strict=True)) or own_files(Path(folder))
        found, missing = processors(Path(folder))
        rows = [row for pair in pairs for row in measured(*pair, found, asked.images, Path(folder))]
    print(table(rows), *missing, sep="\n")
    return 0


def own_files(into: Path) -> list[tuple[Path, Path]]:
    """A file of every integer recipe, of a network that learned digits quickly, each with the test images."""
    from accuracy import prepared
    from evaluate import candidates

    from nightshift import storage
    from nightshift.config.quantization import RECIPES
    from nightshift.data.dataset import load_split
    from nightshift.records import Candidate, Dataset

    recipes = [recipe for recipe in RECIPES if recipe not in FLOAT]
    asked = argparse.Namespace(pipeline="digits", folder="digits", set=[])
    ready = candidates(*prepared(asked, {**QUICK, "quantize.recipes": recipes}))
    images = into / "digits.npy"
    np.save(images, load_split(storage.read_record(ready.uri, Dataset), "test").images.numpy())
    pairs = []
    for candidate in ready.candidates:
        if isinstance(candidate, Candidate) and candidate.recipe in recipes:
            file = into / f"digits {candidate.recipe}.onnx"
            file.write_bytes(storage.read_artifact(candidate.model))
            pairs.append((file, images))
    return pairs


def processors(into: Path) -> tuple[list[Processor], list[str]]:
    """Processors that can be had here, and a sentence on each that cannot."""
    here, both = (sys.executable,), ("onnxruntime", "openvino")
    found = [Processor("this machine", here, (*both, "openvino-f32"), {})]
    missing = []
    for most in HELD:
        if most == "AVX2" or "AVX-512" in labels_on.instructions():
            held = {"ONEDNN_MAX_CPU_ISA": most}
            found.append(Processor(f"this machine held to {most}", here, ("openvino-f32",), held, most))
    for cpu in X86:
        if shutil.which("qemu-x86_64") and platform.machine() == "x86_64":
            found.append(Processor(f"x86 {cpu}", ("qemu-x86_64", "-cpu", cpu, *here), both, {}))
        else:
            missing.append(f"x86 {cpu}: this needs an x86 machine with qemu-user: apt install qemu-user")
    try:
        arm = arm_python.fetched()
    except arm_python.UnavailableError as error:
        return found, [*missing, f"Arm {', '.join(arm_python.PARTS)}: {error}"]
    for cpu in arm_python.PARTS:
        command, variables = arm_python.command(arm, cpu, into)
        found.append(Processor(f"Arm {cpu}", tuple(command), both[:1], variables))
    return found, missing


def measured(model: Path, images: Path, on: list[Processor], most: int, into: Path) -> list[Row]:
    """A row for every processor and runtime; lines go to bench.json."""
    pixels = np.load(images)[:most]
    if pixels.dtype != np.uint8 or pixels.ndim != 4 or not len(pixels):
        raise SystemExit(
            f"{images} holds {pixels.dtype} {list(pixels.shape)}; save uint8 [N,H,W,C] with np.save"
        )
    few = into / "images.npy"
    np.save(few, pixels)
    try:
        exact, _, _ = answers(on[0], "exact", model, few)
    except arm_python.UnavailableError as error:
        raise SystemExit(f"{model} does not run on this machine: {error}") from error
    rows = []
    for processor in on:
        for runtime in processor.runtimes:
            row = Row(model.stem, processor.name, processor.instructions, runtime)
            try:
                given, seen, seconds = answers(processor, runtime, model, few)
            except arm_python.UnavailableError as error:
                rows.append(row._replace(problem=str(error)))
                continue
            equal = 100 * float(np.mean(given["label"] == exact["label"]))
            difference = float(np.abs(given["probabilities"] - exact["probabilities"]).max())
            row = row._replace(instructions=row.instructions or seen, equal=equal, difference=difference)
            rows.append(row._replace(seconds=seconds))
            name = f"{row.file}, {row.processor} ({row.instructions}), {runtime}"
            record(f"{name}: labels of exact arithmetic, {len(pixels)} images", equal, "%")
            record(f"{name}: largest difference of a probability", difference, "probability")
    return rows


def answers(on: Processor, runtime: str, model: Path, images: Path) -> tuple[NDArray[np.void], str, float]:
    """Records of `labels_on.py`, the instructions that it saw, and wall seconds.

    Raises UnavailableError when the process fails or takes longer than LIMIT.
    """
    out = images.with_name("labels.npy")
    out.unlink(missing_ok=True)
    words = [*on.python, str(GUEST), str(model), str(images), str(out), runtime]
    begun = time.perf_counter()
    try:
        done = subprocess.run(
            words,
            env={**environment(), **on.variables},
            capture_output=True,
            text=True,
            check=False,
            timeout=LIMIT,
        )
    except subprocess.TimeoutExpired as error:
        raise arm_python.UnavailableError(f"it took over {LIMIT} s; lower --images") from error
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["without a word"])[-1]
        raise arm_python.UnavailableError(f"it ended with {done.returncode}: {last}")
    seen = ", ".join(json.loads(done.stdout.splitlines()[-1])) or "baseline"
    return np.load(out), seen, time.perf_counter() - begun


def table(rows: list[Row]) -> str:
    lines = [("file", "processor", "instructions", "runtime", "same labels", "difference", "seconds")]
    for row in rows:
        figures = (f"{row.equal:.2f} %", f"{row.difference:.4f}", f"{row.seconds:.1f}")
        lines.append((*row[:4], *((row.problem, "", "") if row.problem else figures)))
    widths = [max(len(line[column]) for line in lines) for column in range(4)]
    return "\n".join(
        "  ".join(
            [*(text.ljust(width) for text, width in zip(line[:4], widths, strict=True)), *line[4:]]
        ).rstrip()
        for line in lines
    )


if __name__ == "__main__":
    sys.exit(main())
