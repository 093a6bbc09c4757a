"""A model as those get it who use it: the ONNX file's bytes, checked, and what the file says of itself.

From the registry (`models:/digits@champion`, `models:/digits/3`), a store (`s3://…`, `file://…`) or the disk.
"""

import hashlib
from pathlib import Path
from typing import NamedTuple

from nightshift import storage
from nightshift.config import PreprocessSettings
from nightshift.errors import InputError
from nightshift.hardware import processor
from nightshift.inference.portability import PAIR_LIMIT, pair_sum_of, saturates_here
from nightshift.inference.runtime import EXACT, Runtime
from nightshift.records import model_facts
from nightshift.security import encryption


class ModelFile(NamedTuple):
    """One model. `version` is that of the registry, empty for a file."""

    uri: str
    data: bytes
    sha256: str
    version: str
    classes: tuple[str, ...]
    preprocess: PreprocessSettings
    pair_sum: int | None  # largest sum of two products of its integer layers; None where it cannot be told

    @property
    def portable(self) -> bool:
        """Whether no sum of two products can leave 16 bits, so that all processors give the same labels."""
        return self.pair_sum is not None and self.pair_sum <= PAIR_LIMIT

    @property
    def runtime(self) -> Runtime:
        """The runtime that gives the right labels here, whatever the images are."""
        return EXACT if saturates_here(self.pair_sum) else "onnxruntime"

    @property
    def warning(self) -> str:
        """A sentence for who loads a file that is not portable; empty for the others."""
        if self.portable:
            return ""
        largest = "an unknown sum" if self.pair_sum is None else f"{self.pair_sum:,}"
        sentence = (
            f"model {self.uri} is not portable: two products of its weights add up to {largest}, and "
            f"without VNNI, AMX or Arm's dot products sums may saturate above {PAIR_LIMIT:,}; make a new "
            "version with quantize.portable = true"
        )
        if not saturates_here(self.pair_sum):
            return sentence
        lacking = f"{processor.name()} has {processor.missing_dot_products()}"
        return f"{sentence}; {lacking}: exact arithmetic is right here, 2 to 4 times slower"

    @property
    def origin(self) -> str:
        """What identifies it, in words."""
        digest = f"SHA-256 {self.sha256}"
        return f"version {self.version}, {digest}, checked" if self.version else digest

    @property
    def exact(self) -> str:
        """An address that always means this model, where it is a registered one."""
        if not self.version:
            return self.uri
        name = self.uri.removeprefix("models:/").partition("@")[0].partition("/")[0]
        return f"models:/{name}/{self.version}"


def load(uri: str) -> ModelFile:
    """Fetch a model. Raises InputError when it is missing, is not what it should be, or cannot be used.

    A registered one is compared with its digest and, with public keys configured, with its signature.
    """
    if uri.startswith("models:/"):
        from nightshift.tracking.registry import fetch_model

        data, tags = fetch_model(uri)
        return of_bytes(uri, data, tags["version"])
    return of_bytes(uri, storage.read(uri) if uri.startswith(("s3://", "file://")) else _read_file(uri))


def of_bytes(uri: str, data: bytes, version: str = "") -> ModelFile:
    """A model of which the bytes are there; `uri` is what errors call it. Raises InputError."""
    if data.startswith(encryption.MAGIC):
        raise InputError(f"model {uri!r} is sealed; open it first by nightshift unseal {uri} FILE.onnx")
    classes, settings, pair_sum = _facts(uri, data)
    return ModelFile(uri, data, hashlib.sha256(data).hexdigest(), version, classes, settings, pair_sum)


def _read_file(path: str) -> bytes:
    try:
        return Path(path).expanduser().read_bytes()
    except OSError as error:
        raise InputError(
            f"model {path!r} cannot be read ({error.strerror}); give models:/NAME@champion, "
            "models:/NAME/VERSION, an s3:// or file:// address, or the path of an .onnx file"
        ) from error


def _facts(uri: str, data: bytes) -> tuple[tuple[str, ...], PreprocessSettings, int | None]:
    """Class names, preprocessing and pair sum from the metadata; the graph is loaded as it is, not run."""
    from onnxruntime import GraphOptimizationLevel, InferenceSession, SessionOptions

    options = SessionOptions()
    options.graph_optimization_level = GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level = 4
    try:
        loaded = InferenceSession(data, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # kinds that are not public
        reason = " ".join(str(error).split())[:300]
        raise InputError(
            f"model {uri} cannot be loaded by onnxruntime ({reason}); give a model that Nightshift made"
        ) from error
    metadata = loaded.get_modelmeta().custom_metadata_map
    return *model_facts.of(uri, metadata), pair_sum_of(metadata, data)
