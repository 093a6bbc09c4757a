"""Which weights a training starts from: `train.weights` becomes an address and a digest, once a night.

The plan finds them, so that all members of a night and every retry start from the same weights, also when an
alias moves meanwhile.
"""

import hashlib

from pydantic import ValidationError

from nightshift import storage
from nightshift.errors import InputError
from nightshift.records import Artifact, Checkpoint, InitialWeights


def find(weights: str, pipeline: str) -> InitialWeights | None:
    """The weights that the setting means, or None for random and for ImageNet weights.

    None also stands for a champion that the pipeline does not have yet. Raises InputError for what does not
    exist or is not a checkpoint.
    """
    if weights in ("none", "imagenet"):
        return None
    if weights == "champion":
        return _champion(pipeline)
    if weights.startswith("models:/"):
        from nightshift.tracking import registry  # imports mlflow, which takes seconds

        return registry.checkpoint_of(weights)
    if weights.endswith(".safetensors"):
        data = storage.read(weights)
        sha256 = hashlib.sha256(data).hexdigest()
        return InitialWeights(name=weights, weights=Artifact(uri=weights, sha256=sha256, size=len(data)))
    try:
        return InitialWeights(name=weights, weights=storage.read_record(weights, Checkpoint).weights)
    except ValidationError as error:
        raise InputError(
            f"{weights} is not the checkpoint.json of a training; correct train.weights"
        ) from error


def _champion(pipeline: str) -> InitialWeights | None:
    from nightshift.tracking import registry

    version = registry.alias_version(pipeline, registry.CHAMPION)
    if version is None:
        print(f"models:/{pipeline}@{registry.CHAMPION} does not exist yet: training starts from scratch")
        return None
    return registry.checkpoint_of(f"models:/{pipeline}/{version}")
