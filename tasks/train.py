"""Stage `train`: a data set becomes a checkpoint, one member of the ensemble at a time.

python -m tasks train --spec spec.json --result result.json
"""

import time

from torch import nn

from tasks import loop, model, storage
from tasks.config import digest_of, store_root
from tasks.dataset import load_split
from tasks.errors import InputError
from tasks.history import History, Shown, shown
from tasks.progress import Progress
from tasks.records import Checkpoint, Dataset
from tasks.specs import TrainSpec

FORMAT = 2  # raise it when the same settings would train another network or leave other files
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
        history = storage.read_record(storage.join(folder, "history.json"), History)
        with shown(spec, dataset, reused=True) as show:
            show.facts(checkpoint.metrics)
            for epoch in history.epochs:
                show.epoch(epoch)
            show.end(history)
        return checkpoint
    begun = time.perf_counter()
    with shown(spec, dataset, reused=False) as show:
        progress = Progress(storage.join(folder, "progress.safetensors"))
        network, history, facts = _train(spec, dataset, show, progress)
        weights = storage.write(storage.join(folder, "model.safetensors"), model.to_bytes(network))
        storage.write_record(storage.join(folder, "history.json"), history)
        checkpoint = Checkpoint(
            weights=weights,
            dataset_uri=spec.dataset_uri,
            settings=spec.settings,
            member=spec.member,
            metrics={**history.metrics(spec.settings.patience), **facts},
            seconds=round(time.perf_counter() - begun, 3),
        )
        storage.write_record(done, checkpoint)
        progress.forget()
        show.end(history)
    print(f"trained in {checkpoint.seconds:.1f} s: {weights.uri}", flush=True)
    return checkpoint


def _train(
    spec: TrainSpec, dataset: Dataset, show: Shown, progress: Progress
) -> tuple[nn.Module, History, dict[str, float]]:
    """The trained network, its epochs, and how large network and data set are."""
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
    facts = {"parameters": parameters, "multiply_adds": multiply_adds, "train_images": len(images.labels)}
    show.facts(facts)
    training = loop.Training(network, images, validation, dataset=dataset, settings=settings, seed=seed)
    for epoch in training.run(progress):
        show.epoch(epoch)
        print(
            f"epoch {epoch.number}/{settings.epochs}  loss {epoch.train_loss:.3f}  "
            f"validation {epoch.validation_accuracy:.4f}  {epoch.images_per_second:,.0f} images/s",
            flush=True,
        )
    return network, History(epochs=tuple(training.epochs)), {name: float(n) for name, n in facts.items()}


def _key(spec: TrainSpec, dataset: Dataset) -> str:
    # How many members there are does not change one of them, so a larger ensemble keeps the trained ones.
    settings = spec.settings.model_dump(mode="json", exclude={"members"})
    parts = {"dataset": dataset.digest, "settings": settings, "member": spec.member, "salt": spec.salt}
    return digest_of({**parts, "format": FORMAT})
