"""Stage `quantize`: a checkpoint and a recipe become a candidate, one ONNX file.

python -m tasks quantize --spec spec.json --result result.json
"""

import time

from tasks import model, recipes, storage
from tasks.config import digest_of, store_root
from tasks.dataset import centre_crop, load_split
from tasks.records import Candidate, Dataset
from tasks.specs import QuantizeSpec

FORMAT = 1  # raise it when the same checkpoint and settings would give another file


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
        model=artifact,
        checkpoint=spec.checkpoint.weights,
        details=details,
        seconds=round(time.perf_counter() - begun, 3),
    )
    storage.write_record(done, candidate)
    facts = ", ".join(f"{name} {value}" for name, value in details.items())
    print(f"{spec.recipe}: {artifact.size / 1e6:.2f} MB, {facts}, in {candidate.seconds:.1f} s", flush=True)
    return candidate


def _trained(spec: QuantizeSpec) -> recipes.Trained:
    checkpoint = spec.checkpoint
    dataset = storage.read_record(checkpoint.dataset_uri, Dataset)
    network = model.restore(
        storage.read_artifact(checkpoint.weights),
        checkpoint.settings,
        classes=len(dataset.classes),
        image_size=dataset.image_size,
        channels=dataset.preprocess.channels,
    )
    images = load_split(dataset, "train")
    images = images._replace(images=centre_crop(images.images, dataset.image_size))
    return recipes.Trained(network, dataset, images, checkpoint.settings.seed)


def _key(spec: QuantizeSpec) -> str:
    settings = spec.settings.model_dump(mode="json", exclude={"recipes"})  # one recipe at a time is made here
    parts = {"checkpoint": spec.checkpoint.weights.sha256, "recipe": spec.recipe, "settings": settings}
    # Two data sets can share a checkpoint's bytes only by accident, but class names and sizes come from them.
    return digest_of({**parts, "dataset": spec.checkpoint.dataset_uri, "salt": spec.salt, "format": FORMAT})
