"""Stage `quantize`: a recipe makes a candidate, one ONNX file, of a checkpoint or of several that vote.

python -m nightshift quantize --spec spec.json --result result.json
"""

import time

from nightshift import storage
from nightshift.config import digest_of, store_root
from nightshift.errors import InputError
from nightshift.inference import onnx_stats, pair_sums
from nightshift.models import ensemble
from nightshift.provenance import environment
from nightshift.quantization import finetune, onnx_export, recipes
from nightshift.records import Artifact, Candidate, Dataset, FailedCandidate
from nightshift.records.specs import QuantizeSpec
from nightshift.storage import outputs

FORMAT = 6  # raise it when the same checkpoints and settings would give another file or record


def quantize(spec: QuantizeSpec) -> Candidate | FailedCandidate:
    """Make one candidate, or find it again when it was made before; `candidate.json` is written last.

    What cannot be made, for a reason that trying again would not change, is Unmade: the others go on.
    """
    folder = storage.join(store_root(), "candidates", _key(spec))
    done = storage.join(folder, "candidate.json")
    if again := outputs.found(done, Candidate, _files):
        print(f"found again, not made: {done}", flush=True)
        return again
    begun = time.perf_counter()
    try:
        data, details, sums = _made(spec, folder)
    except InputError as error:
        print(f"{spec.name} is not made: {error}", flush=True)
        return FailedCandidate(recipe=spec.recipe, vote=spec.vote, reason=str(error))
    artifact = outputs.write(folder, "model.onnx", data)
    candidate = Candidate(
        recipe=spec.recipe,
        vote=spec.vote,
        model=artifact,
        checkpoints=tuple(checkpoint.weights for checkpoint in spec.checkpoints),
        details=details,
        pair_sums=sums,
        seconds=round(time.perf_counter() - begun, 3),
        made_with=environment.describe(str(details.get("precision", "float32"))),
    )
    candidate = outputs.claim(done, candidate, _files)
    finetune.delete_checkpoints(folder)
    facts = ", ".join(f"{name} {value}" for name, value in details.items())
    print(
        f"{candidate.name}: {artifact.size / 1e6:.2f} MB, {facts}, in {candidate.seconds:.1f} s", flush=True
    )
    return candidate


def _files(candidate: Candidate) -> list[Artifact]:
    return [candidate.model]


def _made(spec: QuantizeSpec, folder: str) -> tuple[bytes, recipes.Details, dict[str, int]]:
    """The finished file, what the recipe says of it beside the proof that it did something, its pair sums."""
    recipe = recipes.find(spec.recipe)  # first, so that a wrong name is said before anything is loaded
    dataset = storage.read_record(spec.checkpoints[0].dataset_uri, Dataset)  # all members are of one
    network = ensemble.restore(spec.checkpoints, dataset, spec.vote, flip_tta=spec.settings.flip_tta)
    trained = recipes.Trained(network, dataset, spec.checkpoints[0].settings, folder)
    graph, details = recipe.make(trained, spec.settings)
    proof = onnx_stats.proof(graph)
    if (
        spec.recipe != "fp32"
        and proof["quantized_nodes"] == 0
        and proof["weight_bits"] == onnx_stats.FLOAT_BITS
    ):
        raise InputError(
            f"recipe {spec.recipe} changed nothing: none of the {proof['layers']} layers is quantized and "
            f"weights still take {onnx_stats.FLOAT_BITS} bits; leave {spec.recipe} out of "
            "quantize.recipes, or fewer layers in float"
        )
    return onnx_export.finish(graph, dataset, spec.recipe), proof | details, pair_sums.pair_sums(graph)


def _key(spec: QuantizeSpec) -> str:
    settings = spec.settings.model_dump(
        mode="json", exclude={"recipes", "vote"}
    )  # one candidate is made here
    weights = [checkpoint.weights.sha256 for checkpoint in spec.checkpoints]
    # Two data sets can share a checkpoint's bytes only by accident, but class names and sizes come from them.
    parts = {"dataset": spec.checkpoints[0].dataset_uri, "cache_salt": spec.cache_salt, "format": FORMAT}
    return digest_of({**parts, "checkpoints": weights, "candidate": spec.name, "settings": settings})
