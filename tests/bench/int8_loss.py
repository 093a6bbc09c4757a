"""Measure what int8 files lose against fp32 by the bits of their weights; lines go to bench.json.

python tests/bench/int8_loss.py PIPELINE FOLDER [--seeds 3] [--networks resnet20 …] [--set train.epochs=4 …]

PIPELINE and FOLDER are those of accuracy.py, and trainings are found again. Each network has three int8
files: all 8 bits, 7 bits everywhere, and as many as are portable (`quantize.portable`). Accuracy on all test
images is that of exact arithmetic, and of each runtime on this machine and held to AVX2, where a file of 8
bits saturates. ONNX Runtime cannot be held: portability.py emulates a processor for it.
"""

import statistics
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import labels_on
import numpy as np
import torch
from accuracy import arguments, prepared
from night import record
from numpy.typing import NDArray
from portability import Processor, answers

NETWORKS: Final[Mapping[str, dict[str, Any]]] = {
    "resnet20": {"train.width": 1.0},
    "resnet56": {"train.width": 1.0},
    "resnet9": {"train.width": 0.5},
    "resnet18": {"train.width": 0.5},
}
HERE: Final = Processor("here", (sys.executable,), ("exact", "onnxruntime", "openvino-f32"), {})
HELD: Final = Processor("held to AVX2", (sys.executable,), ("openvino-f32",), {"ONEDNN_MAX_CPU_ISA": "AVX2"})
Table = dict[str, list[float]]  # percent by row, one number a seed


def main() -> int:
    parser = arguments(__doc__)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--networks", nargs="+", default=list(NETWORKS), choices=list(NETWORKS))
    asked = parser.parse_args()
    print(f"instructions: {', '.join(labels_on.instructions())}")
    for name in asked.networks:
        table: Table = {}
        for seed in range(asked.seeds):
            pipeline, uri = prepared(asked, {"train.model": name, "train.seed": seed, **NETWORKS[name]})
            with tempfile.TemporaryDirectory(prefix="nightshift-bench-", dir="/var/tmp") as folder:
                one(pipeline, uri, Path(folder), table)
        for row, reached in table.items():
            record(f"{name}, {asked.seeds} seeds: {row}", statistics.mean(reached), "%")
            if len(reached) > 1:
                record(f"{name}, {asked.seeds} seeds: {row}, deviation", statistics.stdev(reached), "%")
    return 0


def one(pipeline: Any, uri: str, folder: Path, table: Table) -> None:
    """Add the numbers of one seed to the table."""
    from nightshift import storage
    from nightshift.data.dataset import load_split
    from nightshift.records import Checkpoint, Dataset
    from nightshift.records.specs import TrainSpec
    from nightshift.runner import run_stage

    dataset = storage.read_record(uri, Dataset)
    spec = TrainSpec(dataset_uri=uri, settings=pipeline.train)
    checkpoint = Checkpoint.model_validate(run_stage("train", spec))
    test = load_split(dataset, "test")
    images, truth = folder / "images.npy", test.labels.numpy()
    np.save(images, test.images.numpy())
    for kind, data in files(pipeline, checkpoint, dataset).items():
        file = folder / f"{kind}.onnx"
        file.write_bytes(data)
        exact: NDArray[np.int64] | None = None
        for processor in (HERE, HELD):
            for runtime in processor.runtimes:
                labels = answers(processor, runtime, file, images)[0]["label"]
                exact = labels if exact is None else exact
                row = f"{kind}, {runtime} {processor.name}"
                table.setdefault(f"{row}, accuracy", []).append(100 * float(np.mean(labels == truth)))
                table.setdefault(f"{row}, exact labels", []).append(100 * float(np.mean(labels == exact)))


def files(pipeline: Any, checkpoint: Any, dataset: Any) -> dict[str, bytes]:
    """The float file, and int8 files by the bits of their weights."""
    from nightshift.models import ensemble
    from nightshift.quantization import onnx_export
    from nightshift.quantization.recipes import Trained, fp32, int8

    network = ensemble.restore((checkpoint,), dataset, None, flip_tta=False)
    trained = Trained(network, dataset, checkpoint.settings, "")
    made = {"fp32": onnx_export.finish(fp32.make(trained, pipeline.quantize)[0], dataset, "fp32")}
    scales = int8.weight_scales
    for kind, portable in (("8 bits", False), ("7 bits", False), ("portable", True)):
        try:
            if kind == "7 bits":
                int8.weight_scales = seven_bits
            settings = pipeline.quantize.model_copy(update={"portable": portable})
            made[kind] = onnx_export.finish(int8.make(trained, settings)[0], dataset, "int8")
        finally:
            int8.weight_scales = scales
    return made


def seven_bits(weight: torch.Tensor, *, portable: bool) -> torch.Tensor:
    """Steps of which the largest weight of each output channel has 64."""
    return (weight.flatten(1).abs().amax(1) / 64).clamp_min(1e-8)


if __name__ == "__main__":
    sys.exit(main())
