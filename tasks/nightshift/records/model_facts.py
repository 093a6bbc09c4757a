"""What an ONNX file says of itself in its metadata. Its bytes are checked and signed, so this is what counts;
tags in MLflow have room for less."""

import json
from collections.abc import Mapping
from typing import Final, NamedTuple

from pydantic import ValidationError

from nightshift.config import PreprocessSettings
from nightshift.errors import InputError

CLASSES: Final = "nightshift.classes"  # a JSON list in the order of the probabilities
PREPROCESS: Final = "nightshift.preprocess"


class Facts(NamedTuple):
    classes: tuple[str, ...]
    preprocess: PreprocessSettings


def of(uri: str, metadata: Mapping[str, str]) -> Facts:
    """Class names and preprocessing of a file; `uri` is what errors call it. Raises InputError."""
    try:
        classes = tuple(str(name) for name in json.loads(metadata[CLASSES]))
        return Facts(classes, PreprocessSettings.model_validate_json(metadata[PREPROCESS]))
    except (KeyError, ValueError, ValidationError) as error:
        raise InputError(
            f"model {uri} does not say its classes and preprocessing in its metadata "
            f"({type(error).__name__}: {error}); give a model that Nightshift made"
        ) from error


def read(uri: str, model: bytes) -> Facts:
    """As `of`, from the bytes of a file that was checked. Raises InputError."""
    import onnx

    metadata = onnx.load_model_from_string(model).metadata_props
    return of(uri, {fact.key: fact.value for fact in metadata})
