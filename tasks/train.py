"""Stage `train`: a data set becomes a checkpoint, one member of the ensemble at a time.

python -m tasks train --spec spec.json --result result.json
"""

import contextlib
import time
from collections.abc import Callable, Iterator

from torch import nn

from tasks import loop, model, storage
from tasks.config import digest_of, store_root
from tasks.dataset import load_split
from tasks.errors import InputError, PrunedError
from tasks.progress import Progress
from tasks.records import Checkpoint, Dataset
from tasks.specs import TrainSpec

FORMAT = 1  # raise it when the same settings would train another network
MEMBER_STRIDE = 10_007  # keeps the seeds of the members apart from each other and from seeds close by


Log = Callable[[list[tuple[str, float, int]]], None]
Watch = Callable[[loop.Epoch], None]


def train(spec: TrainSpec, watch: Watch | None = None) -> Checkpoint:
    """Train one network, or find it again when the same data and settings were trained before.

    The weights are written first and `checkpoint.json` last, so its presence means done. `watch` gets every
    epoch, and stops the training by raising PrunedError.
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
    begun = time.perf_counter()
    with _tracked(spec, dataset, reused=False) as log:
        progress = Progress(storage.join(folder, "progress.safetensors"))
        try:
            network, metrics = _train(spec, dataset, log, progress, watch)
        except (InputError, PrunedError):
            progress.forget()  # this training does not go on
            raise
        weights = storage.write(storage.join(folder, "model.safetensors"), model.to_bytes(network))
        checkpoint = Checkpoint(
            weights=weights,
            dataset_uri=spec.dataset_uri,
            settings=spec.settings,
            member=spec.member,
            metrics=metrics,
            seconds=round(time.perf_counter() - begun, 3),
        )
        storage.write_record(done, checkpoint)
        progress.forget()
    print(f"trained in {checkpoint.seconds:.1f} s: {weights.uri}", flush=True)
    return checkpoint


def _train(
    spec: TrainSpec, dataset: Dataset, log: Log, progress: Progress, watch: Watch | None
) -> tuple[nn.Module, dict[str, float]]:
    """The trained network and the metrics of its last epoch; `log` gets those of all epochs at once."""
    settings, seed = spec.settings, spec.settings.seed + MEMBER_STRIDE * spec.member
    images, validation = load_split(dataset, "train"), load_split(dataset, "validation")
    if len(dataset.classes) < 2:
        raise InputError(
            f"training needs at least 2 classes, got {list(dataset.classes)}; add images of another class"
        )
    network = model.build(
        settings,
        classes=len(dataset.classes),
        image_size=dataset.image_size,
        channels=dataset.preprocess.channels,
        seed=seed,
    )
    parameters, multiply_adds = model.cost(network, dataset.image_size, dataset.preprocess.channels)
    print(
        f"{settings.model}, {parameters:,} parameters, {multiply_adds:,} multiply-adds an image; "
        f"{len(images.labels):,} images of {len(dataset.classes)} classes, on {loop.find_device()}",
        flush=True,
    )
    rows: list[tuple[str, float, int]] = []
    metrics: dict[str, float] = {}
    try:
        training = loop.Training(network, images, validation, dataset=dataset, settings=settings, seed=seed)
        for epoch in training.run(progress):
            if not settings.patience or epoch.validation_accuracy > metrics.get("validation_accuracy", -1):
                metrics = epoch.metrics()  # of the weights that are the result
            rows += [(name, value, epoch.number) for name, value in epoch.metrics().items()]
            print(
                f"epoch {epoch.number}/{settings.epochs}  loss {epoch.train_loss:.3f}  "
                f"validation {epoch.validation_accuracy:.4f}  {epoch.images_per_second:,.0f} images/s",
                flush=True,
            )
            if watch:
                watch(epoch)
    finally:
        log(rows)  # what was learned before a failure is worth seeing too
    facts = {"parameters": parameters, "multiply_adds": multiply_adds, "train_images": len(images.labels)}
    return network, {**metrics, **{name: float(value) for name, value in facts.items()}}


def _key(spec: TrainSpec, dataset: Dataset) -> str:
    # How many members there are does not change one of them, so a larger ensemble keeps the trained ones.
    settings = spec.settings.model_dump(mode="json", exclude={"members"})
    parts = {"dataset": dataset.digest, "settings": settings, "member": spec.member, "salt": spec.salt}
    return digest_of({**parts, "format": FORMAT})


@contextlib.contextmanager
def _tracked(spec: TrainSpec, dataset: Dataset, *, reused: bool) -> Iterator[Log]:
    """A child run in MLflow around the training, when the night has a run; otherwise metrics go nowhere."""
    if spec.mlflow_run_id is None:
        yield lambda rows: None
        return
    from tasks import tracking  # imports mlflow, which takes seconds

    params = {**spec.settings.model_dump(mode="json"), "member": spec.member, "dataset": dataset.digest}
    tags = {"nightshift.reused": str(reused).lower()}
    name = spec.run_name or f"train-{spec.member}"
    with tracking.child_run(spec.mlflow_run_id, name, params=params, tags=tags) as run_id:
        yield lambda rows: tracking.log_metrics(run_id, rows)
