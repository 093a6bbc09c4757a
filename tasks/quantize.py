"""Stage `quantize`: a recipe makes a candidate, one ONNX file, of a checkpoint or of several that vote.

python -m tasks quantize --spec spec.json --result result.json
"""

import time

from tasks import ensemble, recipes, storage
from tasks.config import digest_of, store_root
from tasks.dataset import centre_crop, load_split
from tasks.records import Candidate, Dataset
from tasks.specs import QuantizeSpec

FORMAT = 2  # raise it when the same checkpoints and settings would give another file or record


def quantize(spec: QuantizeSpec) -> Candidate:
    """Make one candidate, or find it again when it was made before; `candidate.json` is written last."""
    folder = storage.join(store_root(), "candidates", _key(spec))
    done = storage.join(folder, "candidate.json")
    if storage.exists(done):
        print(f"found again, not made: {done}", flush=True)
        return storage.read_record(done, Candidate)
    begun = time.perf_counter()
    recipe = recipes.find(spec.recipe)  # first, so that a wrong name is said before anything is loaded
    data, details = recipe.make(_trained(spec), spec.settings)
    artifact = storage.write(storage.join(folder, "model.onnx"), data)
    candidate = Candidate(
        recipe=spec.recipe,
        vote=spec.vote,
        model=artifact,
        checkpoints=tuple(checkpoint.weights for checkpoint in spec.checkpoints),
        details=details,
        seconds=round(time.perf_counter() - begun, 3),
    )
    storage.write_record(done, candidate)
    facts = ", ".join(f"{name} {value}" for name, value in details.items())
    print(
        f"{candidate.name}: {artifact.size / 1e6:.2f} MB, {facts}, in {candidate.seconds:.1f} s", flush=True
    )
    return candidate


def _trained(spec: QuantizeSpec) -> recipes.Trained:
    first = spec.checkpoints[0]  # all are of one data set and differ only in the member's number
    dataset = storage.read_record(first.dataset_uri, Dataset)
    network = ensemble.restore(spec.checkpoints, dataset, spec.vote, mirror=spec.settings.mirror)
    images = load_split(dataset, "train")
    images = images._replace(images=centre_crop(images.images, dataset.image_size))
    return recipes.Trained(network, dataset, images, first.settings.seed)


def _key(spec: QuantizeSpec) -> str:
    settings = spec.settings.model_dump(
        mode="json", exclude={"recipes", "vote"}
    )  # one candidate is made here
    weights = [checkpoint.weights.sha256 for checkpoint in spec.checkpoints]
    # Two data sets can share a checkpoint's bytes only by accident, but class names and sizes come from them.
    parts = {"dataset": spec.checkpoints[0].dataset_uri, "salt": spec.salt, "format": FORMAT}
    return digest_of({**parts, "checkpoints": weights, "candidate": spec.name, "settings": settings})
