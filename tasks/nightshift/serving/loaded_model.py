"""A model that is ready to answer: its session is warm, and its images are prepared as it was trained."""

from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np

from nightshift.config import PreprocessSettings
from nightshift.errors import InputError
from nightshift.inference import runtime
from nightshift.inference.model_file import ModelFile
from nightshift.inference.openvino_streams import PIECES
from nightshift.inference.runtime import Runtime, Session
from nightshift.serving.events import say
from nightshift.serving.recent_images import Sample


class Options(NamedTuple):
    """How the endpoint works."""

    queue: int = 256  # images that were let in and are not answered yet
    max_batch: int = 64  # images per call of the model
    max_megabytes: int = 16  # MiB of a request
    max_pixels: int = 50_000_000  # of an image; the model's own limit holds too
    decode_megabytes: int = 512  # MiB that one image may take to decode; the model's own limit holds too
    queue_megabytes: int = 256  # MiB of all requests that are not answered yet
    poll_seconds: float = 10.0  # between two looks at the alias
    runtime: Runtime | Literal["auto"] = "auto"

    @property
    def queue_bytes(self) -> int:
        """One request has room in any case."""
        return max(self.queue_megabytes, self.max_megabytes) * 2**20


@dataclass(frozen=True, eq=False)
class LoadedModel:
    """One model in one runtime. Images are prepared by `settings` and predicted by `session`, always both."""

    model: ModelFile
    session: Session
    settings: PreprocessSettings

    def in_session(self, session: Session) -> "LoadedModel":
        return LoadedModel(self.model, session, self.settings)


def load(model: ModelFile, options: Options, sample: Sample | None) -> LoadedModel:
    """The model, warm, in the runtime asked for: `auto` is the fastest for `sample`, else ONNX Runtime's.

    Whatever `auto` takes gives the labels of the file's exact arithmetic.

    Raises InputError when the runtime refuses the file, or the file what its own settings make of an image.
    """
    settings = model.preprocess.model_copy(
        update={
            "max_megabytes": options.max_megabytes,
            "decode_megabytes": min(options.decode_megabytes, model.preprocess.decode_megabytes),
            "max_pixels": min(options.max_pixels, model.preprocess.max_pixels),
        }
    )
    if model.warning:
        say("model_not_portable", version=model.version, sentence=model.warning)
    if options.runtime != "auto":
        session = Session(model.data, options.runtime)
    elif sample is not None and sample.suits(settings):
        session = fastest(model, sample)
    else:
        session = Session(model.data, model.runtime)
    warm_up(session, settings, options.max_batch)
    return LoadedModel(model, session, settings)


def fastest(model: ModelFile, sample: Sample) -> Session:
    """The session of the fastest runtime for these images; said with what was rejected."""
    choice = runtime.fastest(model.data, sample.pixels, batch=sample.batch)
    for sentence in choice.rejected:
        say("runtime_passed_over", version=model.version, sentence=sentence)
    say(
        "runtime_chosen",
        version=model.version,
        runtime=choice.session.runtime,
        agreement=f"{choice.agreement:.4f}",
        batch=sample.batch,
    )
    return choice.session


def warm_up(session: Session, settings: PreprocessSettings, max_batch: int) -> None:
    """Predict nothing in every size of call that makes the session compile or allocate something new."""
    usual = (size for size in (1, 2, *PIECES, max_batch) if size <= max_batch)
    calls = [(session.share, size) for size in sorted({session.lane_size(size) for size in usual})]
    try:
        for call, size in [(session.predict, 1), *calls]:
            call(np.zeros((size, *settings.input_shape), np.uint8))
    except InputError:
        raise
    except Exception as error:  # the runtimes raise kinds that are not public
        reason = " ".join(str(error).split())[:300]
        raise InputError(f"{session.runtime} cannot run the model ({reason}); use another runtime") from error
