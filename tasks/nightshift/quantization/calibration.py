"""The images from which the ranges of integers are measured, and how many of them are enough."""

import contextlib
import io
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final, NamedTuple

import numpy as np
import onnx
import onnxruntime
import torch
from numpy.typing import NDArray
from onnxruntime.quantization import (
    CalibraterBase,
    CalibrationDataReader,
    CalibrationMethod,
    TensorsData,
    create_calibrator,
    save_tensors_data,
)
from torch import Tensor

from nightshift.config import QuantizeSettings, digest_of
from nightshift.data.dataset import Images, centre_crop, read_rows, rows_of, turns
from nightshift.errors import InputError
from nightshift.inference.onnx_stats import INPUT
from nightshift.records import Dataset

BATCH: Final = 32  # images at a time: all that flows through the network is kept of them
FIRST: Final = 64  # images before ranges are looked at for the first time
SETTLED: Final = 0.02  # mean growth of the ranges at which twice as many images were not worth it
METHODS: Final = {
    "minmax": CalibrationMethod.MinMax,
    "entropy": CalibrationMethod.Entropy,
    "percentile": CalibrationMethod.Percentile,
}


class Calibration(NamedTuple):
    """Ranges of every tensor in a file that `quantize_static` reads, and what they were measured on."""

    ranges: Path
    details: dict[str, float | int | str]


def calibration_images(dataset: Dataset, count: int, seed: int) -> Images:
    """Training images, `count` or all of them, evenly of all classes, cut to the side that the network sees.

    They come in an order drawn by the seed, so that the first few are a fair sample too. Shards are read one
    at a time, also in such an order, until there is enough of every class.

    Raises InputError when there are no training images, or all are of one class.
    """
    counts = dataset.counts["train"]
    if sum(number > 0 for number in counts.values()) < 2:
        kinds = ", ".join(f"{number} of {name}" for name, number in counts.items()) or "none"
        raise InputError(
            f"calibration needs training images of at least 2 classes, got {kinds}; add images of another"
        )
    draw = torch.Generator().manual_seed(seed)
    missing = shares(torch.tensor([counts.get(name, 0) for name in dataset.classes]), count, draw)
    rows, found = rows_of(dataset, "train"), []
    for place in torch.randperm(len(rows), generator=draw).tolist():
        content = read_rows(rows[place], dataset)
        order = torch.randperm(len(content.labels), generator=draw)
        labels = content.labels[order]
        taken = content.at(order[turns(labels) < missing[labels]])  # a copy: the shard is not held
        found.append(taken._replace(images=centre_crop(taken.images, dataset.image_size)))
        missing -= taken.labels.bincount(minlength=len(missing))
        if missing.max() <= 0:
            break
    together = Images.joined(found)
    return together.at(torch.randperm(len(together.labels), generator=draw))


def shares(counts: Tensor, count: int, draw: torch.Generator) -> Tensor:
    """How many of `count` images each class gives, int64 [K], of those that it has, int64 [K].

    Equally many, and where a class has too few, the others fill up; who gives one more is drawn.
    """
    given = torch.zeros_like(counts)
    while (left := count - int(given.sum())) > 0 and (open_ := counts > given).any():
        each = max(1, left // int(open_.sum()))
        more = torch.where(open_, torch.minimum(counts - given, torch.tensor(each)), 0)
        if int(more.sum()) > left:  # the last round: one each, as far as they go
            some = open_.nonzero().squeeze(1)
            more[some[torch.randperm(len(some), generator=draw)][left:]] = 0
        given += more
    return given


def images_digest(images: Images) -> str:
    """Which images these are, in whichever order."""
    return digest_of(sorted(bytes(row).hex() for row in images.ids.tolist()))


@contextlib.contextmanager
def calibrated(
    graph: onnx.ModelProto, dataset: Dataset, settings: QuantizeSettings, kinds: tuple[str, ...], seed: int
) -> Iterator[Calibration]:
    """Measure the ranges of what nodes of some kinds take and give, on as many images as it takes.

    Their number is doubled until the ranges hardly change, or the settings allow no more.
    """
    images = calibration_images(dataset, settings.calibration_images, seed)
    pixels = images.images.numpy()
    with TemporaryDirectory(prefix="nightshift-calibration-") as folder:
        calibrator = _calibrator(graph, settings, kinds, Path(folder))
        ranges, seen, growth = None, 0, 0.0
        for taken in _sizes(len(pixels)):
            before, ranges = ranges, _measured(calibrator, pixels[seen:taken])
            seen, growth = taken, _growth(before, ranges) if before else 0.0
            if before and growth <= SETTLED:
                break
        assert ranges is not None  # noqa: S101 for mypy: there is at least one size
        file = Path(folder, "ranges.json")
        save_tensors_data(ranges, file)
        yield Calibration(
            file,
            {
                "calibration": settings.calibration,
                "calibration_images": seen,
                "calibration_digest": images_digest(images.at(slice(seen))),
                "calibration_growth": round(growth, 4),
            },
        )


def _sizes(most: int) -> Iterator[int]:
    size = FIRST
    while size < most:
        yield size
        size *= 2
    yield most


class _OneBatch(CalibrationDataReader):  # type: ignore[misc]
    def __init__(self, images: NDArray[np.uint8]) -> None:
        self._left = [images]

    def get_next(self) -> dict[str, NDArray[np.uint8]] | None:
        return {INPUT: self._left.pop()} if self._left else None


def _measured(calibrator: CalibraterBase, pixels: NDArray[np.uint8]) -> TensorsData:
    """The ranges of all images that the calibrator has seen, these included."""
    with contextlib.redirect_stdout(io.StringIO()):  # it prints lines for every batch
        for start in range(0, len(pixels), BATCH):
            calibrator.collect_data(_OneBatch(pixels[start : start + BATCH]))
        return calibrator.compute_data()


def _calibrator(
    graph: onnx.ModelProto, settings: QuantizeSettings, kinds: tuple[str, ...], folder: Path
) -> CalibraterBase:
    plain = folder / "plain.onnx"
    onnx.save(graph, plain)
    calibrator = create_calibrator(
        plain,
        list(kinds),
        augmented_model_path=str(folder / "augmented.onnx"),
        calibrate_method=METHODS[settings.calibration],
        extra_options={"symmetric": False},
    )
    # Its own session takes every core, whatever else runs on the machine.
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    calibrator.infer_session = onnxruntime.InferenceSession(
        calibrator.augmented_model_path, options, providers=["CPUExecutionProvider"]
    )
    return calibrator


def _growth(before: TensorsData, after: TensorsData) -> float:
    """Mean over all tensors of the change of the range's width, as a share of what it was."""
    widths = [(_width(old), _width(after[name])) for name, old in before.items()]
    shares = [abs(new / old - 1) for old, new in widths if old > 0]
    return float(np.mean(shares)) if shares else 0.0


def _width(tensor: object) -> float:
    low, high = tensor.range_value  # type: ignore[attr-defined]
    return float(np.max(high) - np.min(low))
