"""The members of an ensemble: restored alone or as one, compared, and served as one file."""

import numpy as np
import onnx
import onnxruntime
import pytest

from nightshift import storage
from nightshift.config import QuantizeSettings
from nightshift.data.dataset import load_split
from nightshift.errors import InputError
from nightshift.inference.runtime import Session, installed
from nightshift.models import ensemble
from nightshift.models.voting import Vote
from nightshift.quantization import onnx_export, recipes
from nightshift.quantize import quantize
from nightshift.records.specs import QuantizeSpec
from nightshift.training import trainer


def file_of(made, name: str) -> bytes:
    return storage.read_artifact(made.candidates[name].model)


@pytest.fixture
def images(ml_ensemble) -> np.ndarray:
    return load_split(ml_ensemble.dataset, "test").images.numpy()


@pytest.fixture
def each(ml_ensemble, images) -> np.ndarray:
    """Probabilities [M,N,K] that the members' own float files give."""
    files = []
    for member in ml_ensemble.members:
        network = ensemble.restore([member], ml_ensemble.dataset, None)
        graph = onnx_export.export(network, ml_ensemble.dataset)
        files.append(onnx_export.finish(graph, ml_ensemble.dataset, "fp32"))
    assert len(set(files)) == 3
    return np.stack([Session(data).predict(images)[0] for data in files])


@pytest.mark.parametrize("runtime", installed())
def test_the_soft_file_gives_the_mean_of_the_members_probabilities(ml_ensemble, images, each, runtime):
    probabilities, labels = Session(file_of(ml_ensemble, "fp32-soft-vote"), runtime).predict(images)
    # OpenVINO computes in bfloat16 where the processor can.
    np.testing.assert_allclose(probabilities, each.mean(0), atol=1e-5 if runtime == "onnxruntime" else 0.02)
    assert labels.tolist() == each.mean(0).argmax(1).tolist()


@pytest.mark.parametrize("runtime", installed())
def test_the_hard_file_gives_each_class_its_share_of_the_votes(ml_ensemble, images, each, runtime):
    # Noise and pairs of images, on which the members disagree.
    noise = np.random.default_rng(1)
    images = np.concatenate([images, noise.integers(0, 256, (200, *images.shape[1:]), np.uint8)])
    data = file_of(ml_ensemble, "fp32-hard-vote")
    probabilities, labels = Session(data, runtime).predict(images)
    votes = np.rint(3 * probabilities)
    np.testing.assert_allclose(probabilities, votes / 3, atol=1e-6)
    assert (votes.sum(1) == 3).all()
    assert (votes.max(1) == 1).any(), "three members never named three classes, so no tie was seen"
    assert (votes[np.arange(len(images)), labels] == votes.max(1)).all()
    np.testing.assert_array_equal(votes[:24].argmax(1), labels[:24])


def test_a_vote_is_one_file_that_normalises_once(ml_ensemble):
    single, voted = (onnx.load_model_from_string(file_of(ml_ensemble, n)) for n in ("fp32", "fp32-soft-vote"))
    assert [value.name for value in voted.graph.input] == ["images"]
    assert [value.name for value in voted.graph.output] == ["probabilities", "label"]
    count = {
        kind: [sum(node.op_type == kind for node in graph.graph.node) for graph in (single, voted)]
        for kind in ("Cast", "Conv", "Gemm")
    }
    assert count == {"Cast": [1, 1], "Conv": [21, 61], "Gemm": [1, 3]}


@pytest.mark.parametrize("rule", ["soft", "hard"])
def test_int8_quantizes_every_member(ml_ensemble, images, rule):
    made = ml_ensemble.candidates
    assert made[f"int8-{rule}-vote"].details["quantized_nodes"] == 3 * made["int8"].details["quantized_nodes"]
    assert made[f"int8-{rule}-vote"].model.size < 0.4 * made[f"fp32-{rule}-vote"].model.size
    labels = {
        name: Session(file_of(ml_ensemble, f"{name}-{rule}-vote")).predict(images)[1]
        for name in ("fp32", "int8")
    }
    assert (labels["fp32"] != labels["int8"]).sum() <= 1


def test_no_runtime_strays_further_from_the_literal_int8_vote_than_int8_from_float(ml_ensemble, images):
    data = file_of(ml_ensemble, "int8-soft-vote")
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    (literal,) = onnxruntime.InferenceSession(data, options).run(["probabilities"], {"images": images})
    for name in installed():
        probabilities, _ = Session(data, name).predict(images)
        assert np.abs(probabilities - literal).mean() < 0.005, name


@pytest.mark.parametrize("name", ["fp32-hard-vote", "int8-soft-vote"])
def test_the_same_members_give_the_same_bytes(ml_ensemble, ml_store, name):
    made = ml_ensemble.candidates[name]
    spec = QuantizeSpec(
        recipe=made.recipe,
        vote=made.vote,
        checkpoints=ml_ensemble.members,
        settings=ml_ensemble.plan.pipeline.quantize,
    )
    again = quantize(spec)
    assert again.model.uri != made.model.uri
    assert again.model.sha256 == made.model.sha256
    assert again.checkpoints == tuple(member.weights for member in ml_ensemble.members)


def test_standings_are_those_of_the_members_and_of_their_votes(ml_ensemble):
    validation = load_split(ml_ensemble.dataset, "validation")
    found = ensemble.standings(ml_ensemble.members, ml_ensemble.dataset)
    networks = [ensemble.restore([member], ml_ensemble.dataset, None) for member in ml_ensemble.members]
    alone = [trainer.score(network, validation, ml_ensemble.dataset)[0] for network in networks]
    assert found.members == pytest.approx(alone, abs=1 / 24)
    for name, accuracy in (("soft", found.soft), ("hard", found.hard)):
        _, labels = Session(file_of(ml_ensemble, f"fp32-{name}-vote")).predict(validation.images.numpy())
        assert accuracy == pytest.approx(float((labels == validation.labels.numpy()).mean()))


def test_a_vote_takes_several_checkpoints_and_no_vote_one(ml_ensemble):
    dataset = ml_ensemble.dataset
    assert isinstance(ensemble.restore(ml_ensemble.members, dataset, "hard"), Vote)
    for checkpoints, rule in ((ml_ensemble.members, None), (ml_ensemble.members[:1], "soft")):
        with pytest.raises(InputError, match=f"got {len(checkpoints)} and the rule"):
            ensemble.restore(checkpoints, dataset, rule)


def test_weights_too_large_for_one_file_are_refused_before_the_work(ml_ensemble, monkeypatch):
    monkeypatch.setattr(onnx_export, "LARGEST", 100_000)
    network = ensemble.restore(ml_ensemble.members, ml_ensemble.dataset, "soft")
    trained = recipes.Trained(network, ml_ensemble.dataset, load_split(ml_ensemble.dataset, "train"), 0)
    with pytest.raises(InputError, match=r"the weights take .* GB, one ONNX file holds less than"):
        recipes.find("fp32").make(trained, ml_ensemble.plan.pipeline.quantize)


def given(network, dataset, images: np.ndarray) -> np.ndarray:
    """Probabilities [N,K] of a network's float file."""
    data = onnx_export.finish(onnx_export.export(network, dataset), dataset, "fp32")
    return Session(data).predict(np.ascontiguousarray(images))[0]


def test_a_network_that_looks_at_the_mirror_image_too_answers_with_the_mean(ml_ensemble, images):
    member, dataset = ml_ensemble.members[0], ml_ensemble.dataset
    plain, other, both = (
        given(ensemble.restore([member], dataset, None, flip_tta=flip_tta), dataset, pixels)
        for flip_tta, pixels in ((False, images), (False, images[:, :, ::-1]), (True, images))
    )
    np.testing.assert_allclose(both, (plain + other) / 2, atol=1e-5)
    assert not np.allclose(both, plain, atol=1e-2)


def test_the_members_of_a_vote_look_at_mirror_images_too(ml_ensemble, images):
    dataset, members = ml_ensemble.dataset, ml_ensemble.members
    vote = given(ensemble.restore(members, dataset, "soft", flip_tta=True), dataset, images)
    alone = [
        given(ensemble.restore([member], dataset, None, flip_tta=True), dataset, images) for member in members
    ]
    np.testing.assert_allclose(vote, np.mean(alone, axis=0), atol=1e-5)


def test_a_mirrored_network_can_be_quantized(ml_ensemble):
    settings = QuantizeSettings(calibration_images=32, flip_tta=True)
    plain = ml_ensemble.candidates["int8"]
    spec = QuantizeSpec(recipe="int8", checkpoints=ml_ensemble.members[:1], settings=settings)
    candidate = quantize(spec)
    assert candidate.details["quantized_nodes"] == plain.details["quantized_nodes"]
    assert candidate.model.sha256 != plain.model.sha256
