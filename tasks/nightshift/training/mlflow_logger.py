"""Metrics of a training in MLflow while it goes on, and the epochs that are kept beside its checkpoint.

Nothing of it makes the training wait. What MLflow lacks when a training is tried again or found again is
logged then, from the kept epochs.
"""

import contextlib
import platform
from collections.abc import Callable, Iterator, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Final

import torch

from nightshift.models.device import find_device
from nightshift.records import Dataset, Record
from nightshift.records.models import Epoch
from nightshift.records.specs import TrainSpec

Log = Callable[[Sequence[tuple[str, float, int]]], None]  # of (name, value, step)
FACTS: Final = ("parameters", "multiply_adds", "train_images")  # counts, known once the network is built


class TrainingHistory(Record):
    """All epochs of a training, also those before it was broken off."""

    epochs: tuple[Epoch, ...]

    @property
    def best(self) -> Epoch:
        """The first of those that did best on the validation images."""
        return max(self.epochs, key=lambda epoch: epoch.validation_accuracy)

    def metrics(self, patience: int) -> dict[str, float]:
        """Of the epoch whose weights are the result, and how long the best one took to reach."""
        result = self.best if patience else self.epochs[-1]
        return {**result.metrics(), "seconds_to_best": self.best.seconds}


class MlflowLogger:
    """A training as people see it in MLflow; without a run nobody looks, and nothing is done."""

    def __init__(self, run_id: str = "", log: Log = lambda rows: None, title: str = "", logged: int = 0):
        self._run_id, self._log, self._title = run_id, log, title
        self._logged = logged  # epochs, by a try before this one

    def log_params(self, counts: Mapping[str, float]) -> None:
        """Log the FACTS among `counts` as parameters."""
        if self._run_id:
            from nightshift.tracking import runs

            runs.log_params(self._run_id, {name: int(counts[name]) for name in FACTS})

    def epoch(self, epoch: Epoch) -> None:
        """Log an epoch, and its accuracy a second time at the second instead of the number of the epoch."""
        if epoch.number > self._logged:
            by_second = ("validation_accuracy_by_second", epoch.validation_accuracy, round(epoch.seconds))
            self._log([by_second, *((name, value, epoch.number) for name, value in epoch.metrics().items())])

    def finish(self, history: TrainingHistory) -> None:
        """Log what is known only at the end, and draw the curves."""
        if self._run_id:
            from nightshift.report.training_curves import figure
            from nightshift.tracking import runs

            self._log([("seconds_to_best", history.best.seconds, history.best.number)])
            runs.log_artifact(self._run_id, "curves.png", figure(history.epochs, self._title))


@contextlib.contextmanager
def mlflow_logger(
    spec: TrainSpec, dataset: Dataset, *, reused: bool, leads: bool = True
) -> Iterator[MlflowLogger]:
    """A child of the night's run, when the night has one; of several processes, only the first has it."""
    if spec.mlflow_run_id is None or not leads:
        yield MlflowLogger()
        return
    from nightshift.tracking import runs  # imports mlflow, which takes seconds

    params = {**spec.settings.model_dump(mode="json"), "member": spec.member, "dataset": dataset.digest}
    if spec.start:
        params |= {"start": spec.start.name, "start_sha256": spec.start.weights.sha256}
    tags = {"nightshift.reused": str(reused).lower()}
    name = spec.run_name or f"train-{spec.member}"
    with runs.child_run(spec.mlflow_run_id, name, params=params, tags=tags) as run_id:
        pipeline, images = runs.pipeline_of(run_id), dataset.profile.images
        runs.log_dataset(run_id, name=pipeline, digest=dataset.digest, source=spec.dataset_uri, rows=images)
        title = f"{pipeline}, {spec.settings.model}, member {spec.member}"
        logged = runs.last_step(run_id, "train_loss")
        if not reused:
            runs.set_tags(run_id, machine())
        with runs.live(run_id, machine=not reused) as log:
            yield MlflowLogger(run_id, log, title, logged)


def machine() -> dict[str, str]:
    """What trains, as tags; another try may run elsewhere, so these are no parameters of the training."""
    return {
        "nightshift.version": version("nightshift-ml"),
        "nightshift.torch": torch.__version__,
        "nightshift.models.device": _device(),
        "nightshift.threads": str(torch.get_num_threads()),
    }


def _device() -> str:
    """The device in words, such as `NVIDIA H100 80GB HBM3`."""
    device = find_device()
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    with contextlib.suppress(OSError):  # only Linux has the file
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()
