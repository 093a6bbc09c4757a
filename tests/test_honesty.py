"""What must never become champion, from the candidate's bytes through the real registry to the alias."""

from collections.abc import Callable
from dataclasses import dataclass

import doctored
import numpy as np
import pytest
from ml_fixtures import SETTINGS, Night, make_plan, registered, spec_of

from nightshift import storage
from nightshift.config import PromotionPolicy, QuantizeSettings
from nightshift.data.dataset import load_split
from nightshift.evaluate import evaluate
from nightshift.inference.runtime import Session
from nightshift.quantize import quantize
from nightshift.records import BatchSeen, Candidate, Evaluation
from nightshift.records.specs import PromoteSpec, QuantizeSpec, RegisterSpec, TrainSpec
from nightshift.register import register
from nightshift.tracking import ledger, registry, runs
from nightshift.train import train
from nightshift.workflows.promote.promote import promote

pytestmark = pytest.mark.usefixtures("timed")
MANY = {"train": 80, "validation": 200, "test": 400}


def changed(night: Night, recipe: str, change: Callable[..., bytes], *arguments: float) -> Candidate:
    """A candidate of the night whose file was made worse."""
    candidate = night.candidates[recipe]
    data = change(storage.read_artifact(candidate.model), *arguments, classes=len(night.dataset.classes))
    name = f"{change.__name__}-{'-'.join(f'{value:g}' for value in arguments)}.onnx"
    return candidate.model_copy(update={"model": storage.write(f"file://{night.root}/{name}", data)})


def failed(evaluation: Evaluation) -> dict[str, str]:
    return {verdict.gate: verdict.sentence for verdict in evaluation.verdicts if not verdict.passed}


@pytest.fixture
def large(ml_build, ml_store) -> Night:
    """A night with 400 test images, of which one is a quarter of a point."""
    dataset = ml_build(per_split=MANY)
    uri = f"file://{ml_store}/datasets/{dataset.digest}.json"
    checkpoint = train(TrainSpec(dataset_uri=uri, settings=SETTINGS))
    settings = QuantizeSettings(calibration_images=32)
    candidates = {
        recipe: quantize(QuantizeSpec(recipe=recipe, checkpoints=(checkpoint,), settings=settings))
        for recipe in settings.recipes
    }
    return Night(ml_store, uri, dataset, checkpoint, candidates, make_plan(dataset))


def test_two_classes_that_are_swapped_fail_the_gates(large):
    # The validation split is not asked, so that the test split is what must notice.
    swapped = changed(large, "int8", doctored.swapped, 0, 1)
    policy = PromotionPolicy(min_accuracy=0.8, max_accuracy_loss=1)
    refused = failed(evaluate(spec_of(large, candidates=(large.candidates["fp32"], swapped), policy=policy)))
    assert {"accuracy floor", "class loss"} <= set(refused)
    assert "bottom-left" in refused["class loss"]
    assert "bottom-right" in refused["class loss"]


def test_an_int8_model_that_is_worse_on_one_class_only_fails_its_gate(large):
    """Overall it passes every floor and margin: three classes of four are as they were."""
    worse = changed(large, "int8", doctored.blind, 2, 0.0)
    policy = PromotionPolicy(min_accuracy=0.5, max_accuracy_loss=1, objective="size")
    refused = failed(evaluate(spec_of(large, candidates=(large.candidates["fp32"], worse), policy=policy)))
    assert set(refused) == {"class loss"}
    assert "class top-left is 0.00% against" in refused["class loss"]


def test_a_champion_that_is_better_stays(large, crowned):
    crowned(registered(large, tags={"nightshift.data.batches": "older"}))
    worse = changed(large, "fp32", doctored.failing, 100)
    refused = failed(evaluate(spec_of(large, candidates=(worse,))))
    assert "non-inferiority" in refused
    assert "of version 3, the best champion so far" in refused["non-inferiority"]


def test_the_present_champion_is_the_measure_where_it_is_better_than_the_best_before(large, crowned):
    before = changed(large, "fp32", doctored.failing, 300)
    data = storage.read_artifact(before.model)
    best = registered(large, version="1", model=data, sha256=before.model.sha256)
    crowned(registered(large, tags={"nightshift.data.batches": "older"}), best)
    worse = changed(large, "fp32", doctored.failing, 100)
    refused = failed(evaluate(spec_of(large, candidates=(worse,))))
    assert "of version 3, the best champion so far" in refused["non-inferiority"]


@dataclass
class Nights:
    """Nights of one pipeline in a row, each registered and, when it may be, promoted."""

    night: Night
    policy: PromotionPolicy
    count: int = 0

    def run(self, candidate: Candidate) -> tuple[Evaluation, str]:
        """Evaluate, register, and promote a challenger; each night has fresher data, which is a gain."""
        self.count += 1
        name = self.night.plan.pipeline.name
        plan = {
            "night": f"night-{self.count}",
            "data_digest": f"{self.count:064}",
            "mlflow_run_id": runs.open_run(name, f"night-{self.count}", params={}),
        }
        new = {f"batch-{self.count}": BatchSeen(files=1, digest=f"{self.count:064}")}
        dataset = self.night.dataset.model_copy(update={"batches": new})
        uri = storage.write_record(f"{self.night.dataset_uri}.{self.count}.json", dataset).uri
        spec = spec_of(self.night, candidates=(candidate,), policy=self.policy, plan=plan)
        spec = spec.model_copy(update={"dataset_uri": uri})
        evaluation = evaluate(spec)
        version = register(
            RegisterSpec(
                plan=spec.plan,
                dataset_uri=uri,
                members=spec.members,
                evaluation=evaluation,
            )
        )
        if version.state == "challenger":
            offer = {"pipeline": name, "version": version.version, "sha256": version.sha256}
            move = {"action": "move", "asks": "never", **offer}
            promote(PromoteSpec.model_validate(move))
        return evaluation, version.version


def test_ten_nights_that_each_lose_a_little_are_refused_from_the_second_on(large, mlflow_server):
    test = load_split(large.dataset, "test")
    images, labels = test.images.numpy(), test.labels.numpy()
    _, predicted = Session(storage.read_artifact(large.candidates["fp32"].model)).predict(images)
    marks = np.sort(doctored.mark(images)[predicted == labels])
    nights = Nights(large, PromotionPolicy(min_accuracy=0.5, max_champion_loss=0.008, max_class_loss=None))
    _, first = nights.run(large.candidates["fp32"])
    assert registry.alias_version("tiny", "champion") == first
    accuracy, champions = [], []
    for night in range(1, 11):  # about two images of 400 each night, of three that may be lost
        evaluation, _ = nights.run(changed(large, "fp32", doctored.failing, int(marks[2 * night])))
        accuracy.append(evaluation.test["fp32"].accuracy)
        champions.append(registry.alias_version("tiny", "champion"))
    steps = np.diff([float((predicted == labels).mean()), *accuracy])
    assert steps.max() < 0, steps
    assert steps.min() >= -0.008, steps
    assert champions == ["2"] * 10
    kinds = [entry.kind for entry in ledger.history("tiny")]
    assert kinds == ["challenger", "promoted"] * 2 + ["refused"] * 9
