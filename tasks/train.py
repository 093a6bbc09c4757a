"""Stage `train`: a data set becomes a checkpoint, one member of the ensemble at a time.

python -m tasks train --spec spec.json --result result.json
"""

import contextlib
import time
from collections.abc import Callable, Iterator

from torch import nn

from tasks import loop, model, ranks, storage, weights
from tasks.config import digest_of, store_root
from tasks.dataset import load_split
from tasks.device import find_device
from tasks.errors import InputError
from tasks.feed import open_feed
from tasks.progress import Progress
from tasks.ranks import Ranks
from tasks.rate import find_rate
from tasks.records import Checkpoint, Dataset
from tasks.specs import TrainSpec

FORMAT = 1  # raise it when the same settings would train another network
MEMBER_STRIDE = 10_007  # keeps the seeds of the members apart from each other and from seeds close by


def train(spec: TrainSpec) -> Checkpoint:
    """Train one network, or find it again when the same data and settings were trained before.

    The weights are written first and `checkpoint.json` last, so its presence means done.
    """
    dataset = storage.read_record(spec.dataset_uri, Dataset)
    folder = storage.join(store_root(), "checkpoints", _key(spec, dataset))
    done = storage.join(folder, "checkpoint.json")
    if storage.exists(done):
        checkpoint = storage.read_record(done, Checkpoint)
        print(f"found again, not trained: {done}", flush=True)
        with _tracked(spec, dataset, reused=True) as log:
            log([(name, value, spec.settings.epochs) for name, value in checkpoint.metrics.items()])
        return checkpoint
    processes = ranks.count_for(spec.settings.processes)
    if processes > 1 and not ranks.started():
        ranks.launch("train", spec, processes)
        return storage.read_record(done, Checkpoint)
    begun = time.perf_counter()
    with ranks.joined() as group, _tracked(spec, dataset, reused=False, leads=group.leads) as log:
        progress = Progress(
            storage.join(folder, "progress.safetensors"), minutes=spec.settings.checkpoint_minutes
        )
        network, metrics = _train(spec, dataset, log, progress, group)
        if group.leads:
            data = model.to_bytes(network, weights.about(spec.settings, dataset))
            checkpoint = Checkpoint(
                weights=storage.write(storage.join(folder, "model.safetensors"), data),
                dataset_uri=spec.dataset_uri,
                settings=spec.settings,
                member=spec.member,
                metrics=metrics,
                seconds=round(time.perf_counter() - begun, 3),
            )
            storage.write_record(done, checkpoint)
            progress.forget()
            print(f"trained in {checkpoint.seconds:.1f} s: {checkpoint.weights.uri}", flush=True)
        group.wait()
    return storage.read_record(done, Checkpoint)


Log = Callable[[list[tuple[str, float, int]]], None]


def _train(
    spec: TrainSpec, dataset: Dataset, log: Log, progress: Progress, group: Ranks
) -> tuple[nn.Module, dict[str, float]]:
    """The trained network and the metrics of its last epoch; `log` gets those of all epochs at once."""
    training = _prepared(spec, dataset, group)
    settings = training.settings
    rows: list[tuple[str, float, int]] = []
    metrics: dict[str, float] = {}
    try:
        for epoch in training.run(progress):
            if not settings.patience or epoch.validation_accuracy > metrics.get("validation_accuracy", -1):
                metrics = epoch.metrics()  # of the weights that are the result
            rows += [(name, value, epoch.number) for name, value in epoch.metrics().items()]
            print(
                f"epoch {epoch.number}/{settings.epochs}  loss {epoch.train_loss:.3f}  "
                f"validation {epoch.validation_accuracy:.4f}  {epoch.images_per_second:,.0f} images/s",
                flush=True,
            )
    finally:
        log(rows)  # what was learned before a failure is worth seeing too
    parameters, multiply_adds = _cost(training.network, dataset)
    facts = {"parameters": parameters, "multiply_adds": multiply_adds, "train_images": _images(dataset)}
    return training.network, {**metrics, **{name: float(value) for name, value in facts.items()}}


def _prepared(spec: TrainSpec, dataset: Dataset, group: Ranks) -> loop.Training:
    """A training that has not begun: data, network, and the learning rate where it is to be found."""
    settings = weights.fitting(spec.settings, spec.start)
    seed = settings.seed + MEMBER_STRIDE * spec.member
    if len(dataset.classes) < 2:
        raise InputError(
            f"training needs at least 2 classes, got {list(dataset.classes)}; add images of another class"
        )
    feed, validation = open_feed(dataset, settings, seed, group), load_split(dataset, "validation")
    network = model.build(
        settings,
        classes=len(dataset.classes),
        image_size=dataset.image_size,
        channels=dataset.preprocess.channels,
        seed=seed,
    )
    weights.begin(network, settings, dataset, spec.start)
    parameters, multiply_adds = _cost(network, dataset)
    print(
        f"{settings.model}, {parameters:,} parameters, {multiply_adds:,} multiply-adds an image; "
        f"{_images(dataset):,} images of {len(dataset.classes)} classes, on {find_device()}",
        flush=True,
    )
    if settings.find_rate:
        rate = find_rate(network, feed, validation, dataset=dataset, settings=settings, seed=seed)
        print(
            f"learning rate {rate:.2g} is found, and taken instead of {settings.learning_rate:g}", flush=True
        )
        settings = settings.model_copy(update={"learning_rate": rate})
    return loop.Training(
        network, feed, validation, dataset=dataset, settings=settings, seed=seed, ranks=group
    )


def _images(dataset: Dataset) -> int:
    return sum(dataset.counts["train"].values())


def _cost(network: nn.Module, dataset: Dataset) -> tuple[int, int]:
    return model.cost(network, dataset.image_size, dataset.preprocess.channels)


def _key(spec: TrainSpec, dataset: Dataset) -> str:
    # How many members there are does not change one of them, so a larger ensemble keeps the trained ones.
    settings = spec.settings.model_dump(mode="json", exclude={"members", "checkpoint_minutes"})
    # Weights that it starts from count by their digest: an alias may mean others the next night.
    start = spec.start.weights.sha256 if spec.start else ""
    parts = {"dataset": dataset.digest, "settings": settings, "member": spec.member, "salt": spec.salt}
    return digest_of({**parts, "start": start, "format": FORMAT})


@contextlib.contextmanager
def _tracked(spec: TrainSpec, dataset: Dataset, *, reused: bool, leads: bool = True) -> Iterator[Log]:
    """A child run in MLflow around the training, when the night has a run; otherwise metrics go nowhere."""
    if spec.mlflow_run_id is None or not leads:
        yield lambda rows: None
        return
    from tasks import tracking  # imports mlflow, which takes seconds

    params = {**spec.settings.model_dump(mode="json"), "member": spec.member, "dataset": dataset.digest}
    if spec.start:
        params |= {"start": spec.start.name, "start_sha256": spec.start.weights.sha256}
    tags = {"nightshift.reused": str(reused).lower()}
    with tracking.child_run(spec.mlflow_run_id, f"train-{spec.member}", params=params, tags=tags) as run_id:
        yield lambda rows: tracking.log_metrics(run_id, rows)
