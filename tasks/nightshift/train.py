"""Stage `train`: a data set becomes a checkpoint, one member of the ensemble at a time.

python -m nightshift train --spec spec.json --result result.json
"""

import contextlib
import time
from collections.abc import Callable
from typing import NamedTuple

from torch import nn

from nightshift import storage
from nightshift.config import digest_of, store_root
from nightshift.data.dataset import load_split
from nightshift.errors import InputError, PrunedError
from nightshift.models import build, pretrained
from nightshift.models.device import find_device
from nightshift.provenance import environment
from nightshift.records import Artifact, Checkpoint, Conditions, Dataset
from nightshift.records.models import Epoch
from nightshift.records.specs import TrainSpec
from nightshift.storage import outputs
from nightshift.training import distributed, trainer
from nightshift.training.checkpointing import TrainingCheckpoint
from nightshift.training.distributed import ProcessGroup
from nightshift.training.loader import open_loader
from nightshift.training.lr_finder import find_learning_rate
from nightshift.training.mlflow_logger import MlflowLogger, TrainingHistory, mlflow_logger

FORMAT = 4  # raise it when the same settings would train another network, or its record has another shape
MEMBER_STRIDE = 10_007  # keeps the seeds of the members apart from each other and from seeds close by


class Trained(NamedTuple):
    network: nn.Module
    history: TrainingHistory
    facts: dict[str, float]  # how large network and data set are
    made_with: Conditions


Watch = Callable[[Epoch], None]


def train(spec: TrainSpec, watch: Watch = lambda epoch: None) -> Checkpoint:
    """Train one network, or find it again when the same data and settings were trained before.

    The weights are written first and `checkpoint.json` last, so its presence means done. `watch` gets every
    epoch, and stops the training by raising PrunedError; of several processes, it gets them at the end.
    """
    dataset = storage.read_record(spec.dataset_uri, Dataset)
    folder = storage.join(store_root(), "checkpoints", _key(spec, dataset))
    done = storage.join(folder, "checkpoint.json")
    if checkpoint := outputs.found(done, Checkpoint, _files):
        print(f"found again, not trained: {done}", flush=True)
        history = storage.read_record(storage.join(folder, "history.json"), TrainingHistory)
        with mlflow_logger(spec, dataset, reused=True) as show:
            show.log_params(checkpoint.metrics)
            for epoch in history.epochs:
                show.epoch(epoch)
            show.finish(history)
        return checkpoint
    processes = distributed.process_count(spec.settings.processes)
    if processes > 1 and not distributed.is_distributed():
        distributed.launch("train", spec, processes)
        for epoch in storage.read_record(storage.join(folder, "history.json"), TrainingHistory).epochs:
            with contextlib.suppress(PrunedError):  # it has ended, so there is nothing left to stop
                watch(epoch)
        return storage.read_record(done, Checkpoint)
    begun = time.perf_counter()
    with (
        distributed.process_group() as group,
        mlflow_logger(spec, dataset, reused=False, leads=group.is_main) as show,
    ):
        progress = TrainingCheckpoint(
            storage.join(folder, "progress.safetensors"), minutes=spec.settings.checkpoint_minutes
        )
        try:
            trained = _train(spec, dataset, show, progress, group, watch)
        except PrunedError:
            progress.delete()  # nobody goes on with it; after any other end, the last good state is kept
            raise
        if group.is_main:
            checkpoint = _written(spec, dataset, folder, trained, time.perf_counter() - begun)
            checkpoint = outputs.claim(done, checkpoint, _files)
            progress.delete()
            show.finish(trained.history)
            print(f"trained in {checkpoint.seconds:.1f} s: {checkpoint.weights.uri}", flush=True)
        group.barrier()
    return storage.read_record(done, Checkpoint)


def _files(checkpoint: Checkpoint) -> list[Artifact]:
    return [checkpoint.weights]


def _written(spec: TrainSpec, dataset: Dataset, folder: str, trained: Trained, seconds: float) -> Checkpoint:
    data = build.to_bytes(trained.network, pretrained.about(spec.settings, dataset))
    artifact = outputs.write(folder, "model.safetensors", data)
    storage.write_record(storage.join(folder, "history.json"), trained.history)
    return Checkpoint(
        weights=artifact,
        dataset_uri=spec.dataset_uri,
        settings=spec.settings,
        member=spec.member,
        metrics={**trained.history.metrics(spec.settings.patience), **trained.facts},
        seconds=round(seconds, 3),
        made_with=trained.made_with,
    )


def _train(
    spec: TrainSpec,
    dataset: Dataset,
    show: MlflowLogger,
    progress: TrainingCheckpoint,
    group: ProcessGroup,
    watch: Watch,
) -> Trained:
    """Train to the end, every epoch shown."""
    training = _prepared(spec, dataset, group)
    parameters, multiply_adds = build.cost(training.network, dataset.image_size, dataset.preprocess.channels)
    images = sum(dataset.counts["train"].values())
    print(
        f"{spec.settings.model}, {parameters:,} parameters, {multiply_adds:,} multiply-adds an image; "
        f"{images:,} images of {len(dataset.classes)} classes, on {find_device()}",
        flush=True,
    )
    facts = {"parameters": parameters, "multiply_adds": multiply_adds, "train_images": images}
    show.log_params(facts)
    for epoch in training.run(progress):
        show.epoch(epoch)
        print(
            f"epoch {epoch.number}/{spec.settings.epochs}  loss {epoch.train_loss:.3f}  "
            f"validation {epoch.validation_accuracy:.4f}  {epoch.images_per_second:,.0f} images/s",
            flush=True,
        )
        watch(epoch)
    history = TrainingHistory(epochs=tuple(training.epochs))
    made_with = environment.describe(
        training.precision.name,
        processes=group.world_size,
        micro_batches=training.micro_batches,
        group=training.loader.group,
    )
    counts = {name: float(number) for name, number in facts.items()}
    return Trained(training.network, history, counts, made_with)


def _prepared(spec: TrainSpec, dataset: Dataset, group: ProcessGroup) -> trainer.Trainer:
    """A training that has not begun: data, network, and the learning rate where it is to be found."""
    settings = pretrained.fitting(spec.settings, spec.start)
    seed = settings.seed + MEMBER_STRIDE * spec.member
    if len(dataset.classes) < 2:
        raise InputError(
            f"training needs at least 2 classes, got {list(dataset.classes)}; add images of another class"
        )
    loader, validation = open_loader(dataset, settings, seed, group), load_split(dataset, "validation")
    network = build.build(
        settings,
        classes=len(dataset.classes),
        image_size=dataset.image_size,
        channels=dataset.preprocess.channels,
        seed=seed,
    )
    pretrained.begin(network, settings, dataset, spec.start)
    if settings.find_learning_rate:
        rate = 0.0
        if group.is_main:
            rate = find_learning_rate(
                network, loader, validation, dataset=dataset, settings=settings, seed=seed
            )
        rate = group.from_main(rate)
        print(
            f"learning rate {rate:.2g} is found, and taken instead of {settings.learning_rate:g}", flush=True
        )
        settings = settings.model_copy(update={"learning_rate": rate})
    return trainer.Trainer(
        network, loader, validation, dataset=dataset, settings=settings, seed=seed, ranks=group
    )


def _key(spec: TrainSpec, dataset: Dataset) -> str:
    # How many members there are does not change one of them, so a larger ensemble keeps the trained ones.
    settings = spec.settings.model_dump(mode="json", exclude={"members", "checkpoint_minutes"})
    # Weights that it starts from count by their digest: an alias may mean others the next night.
    start = spec.start.weights.sha256 if spec.start else ""
    parts = {
        "dataset": dataset.digest,
        "settings": settings,
        "member": spec.member,
        "cache_salt": spec.cache_salt,
    }
    return digest_of({**parts, "start": start, "format": FORMAT})
