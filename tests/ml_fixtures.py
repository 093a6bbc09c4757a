"""A real data set of 4 classes and a night made of it once, for the tests of training and what follows.

The class is the quadrant of an 8x8 image that is bright. Originals are PNG files in the store, as ingested.
"""

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import cv2
import numpy as np
import pytest
import speeds
import torch
from safetensors.numpy import save

from nightshift import storage
from nightshift.config import (
    EvaluateSettings,
    Pipeline,
    PreprocessSettings,
    PromotionPolicy,
    QuantizeSettings,
    TrainSettings,
    digest_of,
)
from nightshift.config.quantization import RECIPES
from nightshift.evaluation import benchmark, contenders
from nightshift.quantize import quantize
from nightshift.records import (
    SPLITS,
    BatchSeen,
    Candidate,
    Checkpoint,
    Dataset,
    Duplicates,
    Plan,
    Profile,
    Shard,
    variants,
)
from nightshift.records.specs import EvaluateSpec, QuantizeSpec, TrainSpec
from nightshift.train import train

if TYPE_CHECKING:
    from nightshift.tracking.registry import Registered

CLASSES = ("bottom-left", "bottom-right", "top-left", "top-right")
PER_SPLIT = {"train": 80, "validation": 24, "test": 24}
SETTINGS = TrainSettings(width=0.125, epochs=6, batch_size=16, learning_rate=0.05, crop_padding=0)


SEVERAL = SETTINGS.model_copy(update={"members": 3})
CALIBRATED = QuantizeSettings(calibration_images=32, vote="both")


class Night(NamedTuple):
    root: Path
    dataset_uri: str
    dataset: Dataset
    checkpoint: Checkpoint
    candidates: dict[str, Candidate]
    plan: Plan


EVERY = QuantizeSettings(recipes=RECIPES, calibration_images=32, binary_epochs=3)


class Ensemble(NamedTuple):
    """Three members on the data of the night, and the candidates of the best one and of both votes."""

    dataset_uri: str
    dataset: Dataset
    members: tuple[Checkpoint, ...]
    candidates: dict[str, Candidate]
    plan: Plan


def picture(label: int, side: int, noise: np.random.Generator) -> np.ndarray:
    """uint8 [side,side,3]: noise, and one bright quadrant."""
    image = noise.uniform(0, 96, (side, side))
    half = side // 2
    row, column = divmod((2, 3, 0, 1)[label], 2)
    image[row * half : (row + 1) * half, column * half : (column + 1) * half] += 128
    return np.repeat(image.astype(np.uint8)[..., None], 3, axis=2)


def build_dataset(
    root: Path,
    *,
    side: int = 8,
    stored: int | None = None,
    classes: tuple[str, ...] = CLASSES,
    per_split: dict[str, int] = PER_SPLIT,
) -> str:
    """Write originals, one shard per split and the manifest below `root`; the URI of the manifest."""
    noise, shards, counts = np.random.default_rng(7), [], {}
    settings = PreprocessSettings(image_size=side, stored_size=stored)
    source = f"file://{root}/incoming/tiny"
    for split in SPLITS:
        total = per_split[split]
        labels = np.arange(total) % len(classes)
        images = np.stack([picture(int(label), settings.side, noise) for label in labels])
        keys, ids = [], []
        for index, (image, label) in enumerate(zip(images, labels, strict=True)):
            data = cv2.imencode(".png", image)[1].tobytes()
            keys.append(f"batch-1/{classes[label]}/{split}-{index:03d}.png")
            storage.write(storage.join(source, keys[-1]), data)
            ids.append(np.frombuffer(hashlib.sha256(data).digest(), np.uint8))
        tensors = {"images": images, "labels": labels.astype(np.int64), "ids": np.stack(ids)}
        file = storage.write(
            f"file://{root}/shards/{split}.safetensors", save(tensors, metadata={"keys": json.dumps(keys)})
        )
        shards.append(Shard(file=file, split=split, images=total, classes=classes))
        counts[split] = {name: int((labels == index).sum()) for index, name in enumerate(classes)}
    dataset = Dataset(
        digest=digest_of([shard.file.sha256 for shard in shards]),
        classes=classes,
        shards=tuple(shards),
        counts=counts,
        mean=(0.31, 0.31, 0.31),
        std=(0.24, 0.24, 0.24),
        refused=0,
        image_size=side,
        preprocess=settings,
        source=source,
        batches={"batch-1": BatchSeen(files=sum(per_split.values()), digest="b" * 64)},
        profile=Profile(images=sum(per_split.values()), classes={}, histograms={}),
        duplicates=Duplicates(merged=0, conflicting=0, near=0, near_excluded=True),
    )
    uri = f"file://{root}/datasets/{dataset.digest}.json"
    storage.write_record(uri, dataset)
    return uri


def make_plan(dataset: Dataset, settings: TrainSettings = SETTINGS) -> Plan:
    pipeline = Pipeline(name="tiny", preprocess=dataset.preprocess, train=settings, quantize=CALIBRATED)
    return Plan(
        pipeline=pipeline,
        night="night-1",
        source=dataset.source,
        work=True,
        reason="new images",
        batches=1,
        images=sum(PER_SPLIT.values()),
        data_digest=dataset.digest,
        settings_digest=pipeline.settings_digest(),
        parts_uri="",
        messages=(),
    )


def registered(night: Night, recipe: str = "fp32", **changes: Any) -> "Registered":
    """A candidate of the night as version 3 of its model, with changes."""
    from nightshift.tracking.registry import Registered  # imports mlflow, which takes seconds

    candidate = night.candidates[recipe]
    values = {
        "version": "3",
        "sha256": candidate.model.sha256,
        "model": storage.read_artifact(candidate.model),
        "classes": night.dataset.classes,
        "preprocess": night.dataset.preprocess,
        "tags": {"nightshift.data.batches": night.dataset.batches_digest},
        **changes,
    }
    return Registered(**values)


def spec_of(night: Night | Ensemble, **changes: Any) -> EvaluateSpec:
    """To evaluate all candidates of the night, with changes."""
    plan = night.plan.model_copy(update=changes.pop("plan", {}))
    policy = changes.pop("policy", PromotionPolicy(min_accuracy=0.5))
    candidates = changes.pop("candidates", tuple(night.candidates.values()))
    # Robustness is the longest part, and what most tests don't ask about.
    settings = EvaluateSettings(
        latency_runs=10, throughput_batch=8, robustness=changes.pop("robustness", "none")
    )
    return EvaluateSpec(
        plan=plan,
        dataset_uri=night.dataset_uri,
        members=night.members if isinstance(night, Ensemble) else (night.checkpoint,),
        candidates=candidates,
        settings=settings,
        policy=policy,
    )


@pytest.fixture
def ml_store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty store of its own for one test."""
    _settle(monkeypatch, tmp_path)
    return tmp_path


@pytest.fixture
def ml_dataset_uri(ml_store: Path) -> str:
    return build_dataset(ml_store)


@pytest.fixture
def ml_dataset(ml_dataset_uri: str) -> Dataset:
    return storage.read_record(ml_dataset_uri, Dataset)


@pytest.fixture
def ml_build(ml_store: Path) -> Callable[..., Dataset]:
    """Builds a data set in the test's own store; see `build_dataset`."""
    return lambda **options: storage.read_record(build_dataset(ml_store, **options), Dataset)


@pytest.fixture(scope="session")
def _ml_made(tmp_path_factory: pytest.TempPathFactory) -> Night:
    root = tmp_path_factory.mktemp("night")
    with pytest.MonkeyPatch.context() as patch:
        _settle(patch, root)
        uri = build_dataset(root)
        dataset = storage.read_record(uri, Dataset)
        checkpoint = train(TrainSpec(dataset_uri=uri, settings=SETTINGS))
        settings = QuantizeSettings(calibration_images=32)
        candidates = {
            recipe: quantize(QuantizeSpec(recipe=recipe, checkpoints=(checkpoint,), settings=settings))
            for recipe in settings.recipes
        }
    # Not inside the block: a session's fixture would keep its environment for all tests that follow.
    return Night(root, uri, dataset, checkpoint, candidates, make_plan(dataset))


@pytest.fixture
def ml_night(_ml_made: Night, monkeypatch: pytest.MonkeyPatch) -> Night:
    """A trained checkpoint with its fp32 and int8 candidates, made once for the session; don't change it."""
    _settle(monkeypatch, _ml_made.root)
    return _ml_made


@pytest.fixture(scope="session")
def _ml_every(_ml_made: Night) -> dict[str, Candidate]:
    made = {}
    with pytest.MonkeyPatch.context() as patch:
        _settle(patch, _ml_made.root)
        for recipe in RECIPES:
            spec = QuantizeSpec(recipe=recipe, checkpoints=(_ml_made.checkpoint,), settings=EVERY)
            made[recipe] = quantize(spec)
    return made


@pytest.fixture
def ml_every(ml_night: Night, _ml_every: dict[str, Candidate]) -> dict[str, Candidate]:
    """The candidates of all recipes, of the checkpoint and in the store of `ml_night`; don't change them."""
    return _ml_every


@pytest.fixture(scope="session")
def _ml_voted(_ml_made: Night) -> Ensemble:
    uri, dataset, plan = _ml_made.dataset_uri, _ml_made.dataset, make_plan(_ml_made.dataset, SEVERAL)
    with pytest.MonkeyPatch.context() as patch:
        _settle(patch, _ml_made.root)
        members = tuple(train(TrainSpec(dataset_uri=uri, settings=SEVERAL, member=m)) for m in range(3))
        candidates = {}
        for variant in variants(plan.pipeline):
            spec = QuantizeSpec(**variant.model_dump(), checkpoints=variant.of(members), settings=CALIBRATED)
            candidates[variant.name] = quantize(spec)
    return Ensemble(uri, dataset, members, candidates, plan)


@pytest.fixture
def ml_ensemble(ml_night: Night, _ml_voted: Ensemble) -> Ensemble:
    """Three trained members and all their candidates, in the store of `ml_night`; don't change it."""
    return _ml_voted


def _settle(patch: pytest.MonkeyPatch, root: Path) -> None:
    patch.setenv("NIGHTSHIFT_STORE", f"file://{root}")
    patch.setenv("NIGHTSHIFT_THREADS", "1")
    patch.delenv("MLFLOW_TRACKING_URI", raising=False)
    torch.set_num_threads(1)


@pytest.fixture
def crowned(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Sets the champions that the registry answers with; the registry itself has its own tests."""

    from nightshift.tracking.registry import Champions  # imports mlflow, which takes seconds

    def crown(current: "Registered", best: "Registered | None" = None) -> None:
        monkeypatch.setattr(contenders, "champions", lambda name: Champions(current, best or current))

    return crown


@pytest.fixture
def timed(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, np.ndarray]]:
    """Nothing is measured; the images that every model would have been timed on, call by call."""
    calls = []

    def measure(models, images, settings):
        assert set(images) == set(models)
        calls.append(images)
        return speeds.measure(models, images, settings)

    monkeypatch.setattr(benchmark, "measure", measure)
    return calls
