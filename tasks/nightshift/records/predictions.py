"""Records of predictions in batches: what is to be predicted, and what came of it."""

from pydantic import Field

from nightshift.config import Pipeline, PreprocessSettings
from nightshift.records.data import Artifact, BatchSeen, Message, Profile, Record, Refusal


class PredictionPlan(Record):
    """What a prediction run will do, and `reason` why; without batches it does nothing."""

    pipeline: Pipeline
    run: str
    reason: str
    source: str
    version: str = ""  # of the model
    sha256: str = ""
    dataset: str = ""  # digest of the data set that the model was trained on
    preprocess: PreprocessSettings = PreprocessSettings()  # pixels as the model wants them, the file's limits
    batches: dict[str, BatchSeen] = Field(default_factory=dict)
    parts_uri: str = ""  # PartList of all these batches
    messages: tuple[Message, ...] = ()  # what nobody has predicted yet with this version

    @property
    def images(self) -> int:
        return sum(batch.files for batch in self.batches.values())


class LowConfidence(Record):
    """An image of which the model is not sure."""

    key: str  # <batch>/<path in the batch>
    label: str
    confidence: float


class PartPredictions(Record):
    """What one part came to, `_parts/<digest>.json`, written last: its presence means done."""

    part: str  # digest
    batch: str
    file: Artifact  # Parquet, see nightshift.workflows.predict.layout
    images: int
    refusals: tuple[Refusal, ...]
    profile: Profile  # of the images, with the predicted labels as classes
    confidences: tuple[int, ...]  # images by the probability of their label, in equal bins from 0 to 1
    unsure: tuple[LowConfidence, ...]  # the least sure first, as many as are listed
    runtime: str
    seconds: float


class Predicted(Record):
    """What one message did, in numbers."""

    parts: int
    images: int
    refused: int
    seconds: float


class BatchPredictions(Record):
    """`_SUCCESS` of a batch: what was predicted by which model. Files that it does not name do not count."""

    batch: str
    digest: str  # BatchSeen.digest
    version: str
    sha256: str
    files: tuple[Artifact, ...]
    images: int
    refused: int
    unsure: int  # listed for a person to label
    at: str  # ISO 8601, UTC
