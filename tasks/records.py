"""What stages hand to each other: small frozen JSON records that point at artifacts by URI and digest.

No tensors, no pixels, and never a path agreed by custom. `<Stage>Spec` is what a stage is asked to do.
"""

from typing import Literal

from pydantic import BaseModel, ConfigDict

from tasks.config import (
    EvaluateSettings,
    Pipeline,
    PreprocessSettings,
    PromotionPolicy,
    QuantizeSettings,
    TrainSettings,
)

Split = Literal["train", "validation", "test"]
SPLITS: tuple[Split, ...] = ("train", "validation", "test")


class Record(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Artifact(Record):
    """One stored object: where it is, and the SHA-256 that its bytes must have."""

    uri: str
    sha256: str
    size: int


class Part(Record):
    """A cut of one batch, the unit that is preprocessed once and found again by its digest."""

    batch: str
    keys: tuple[str, ...]  # relative to the batch
    manifest: bool = False  # labels come from the batch's manifest.csv instead of its class folders
    digest: str


class Message(Record):
    """Parts that travel through the queue together; `parts_uri` holds them as a JSON list of Part."""

    parts_uri: str
    parts: int
    images: int


class Plan(Record):
    """What a night will do. `decision` says why it does nothing, when it does nothing."""

    pipeline: Pipeline
    night: str
    source: str
    work: bool
    reason: str
    batches: int
    images: int
    data_digest: str  # of all parts and the preprocess settings
    settings_digest: str
    parts_uri: str  # JSON list of every Part of the night, done or not
    messages: tuple[Message, ...]  # what is still to be preprocessed
    salt: str = ""  # the night's name when it was forced, so that nothing is taken from an earlier night
    mlflow_run_id: str | None = None


class Shard(Record):
    """One safetensors file: images uint8 [N,H,W,3], labels int64 [N], ids uint8 [N,32] (files' SHA-256)."""

    file: Artifact
    split: Split
    images: int
    classes: tuple[str, ...]  # a label is an index into this list
    counts: dict[str, int] = {}  # images per class
    mean: tuple[float, float, float] = (0.0, 0.0, 0.0)  # of the pixels per channel, 0 to 1
    mean_square: tuple[float, float, float] = (0.0, 0.0, 0.0)


class Refusal(Record):
    """A file that did not become an image: nothing is dropped without one of these."""

    key: str
    reason: str
    detail: str


class PartResult(Record):
    """The manifest of one preprocessed part, written last: its presence means done."""

    part: str  # digest
    batch: str
    shards: tuple[Shard, ...]
    refusals: tuple[Refusal, ...]
    seconds: float


class Dataset(Record):
    """The manifest of one data set version, `datasets/<digest>.json`."""

    digest: str
    classes: tuple[str, ...]
    shards: tuple[Shard, ...]
    counts: dict[Split, dict[str, int]]  # images per split and class
    mean: tuple[float, float, float]  # of the training pixels, 0 to 1
    std: tuple[float, float, float]
    refused: int
    image_size: int
    preprocess: PreprocessSettings
    source: str


class Checkpoint(Record):
    """A trained network in float: safetensors weights and what is needed to build it again."""

    weights: Artifact
    dataset_uri: str
    settings: TrainSettings
    member: int
    metrics: dict[str, float]
    seconds: float


def best_checkpoint(members: list[Checkpoint]) -> Checkpoint:
    """The member that does best on validation; the first of equals."""
    return max(members, key=lambda member: member.metrics.get("validation_accuracy", 0.0))


class Candidate(Record):
    """One ONNX file, uint8 [N,H,W,3] in, `probabilities` and `label` out."""

    recipe: str
    model: Artifact
    checkpoint: Artifact
    details: dict[str, float | int | str]
    seconds: float


class Verdict(Record):
    """One gate of the promotion policy with both numbers."""

    gate: str
    passed: bool
    value: float
    limit: float
    sentence: str


class Scores(Record):
    """How one model did on one split."""

    model: str  # recipe, or `champion`
    sha256: str
    images: int
    accuracy: float
    precision: float  # macro, as recall and f1
    recall: float
    f1: float
    per_class: dict[str, dict[str, float]]
    confusion: tuple[tuple[int, ...], ...]  # rows: true class, columns: predicted class
    latency_ms_p50: float
    latency_ms_p99: float
    images_per_second: float
    runtime: str
    size: int


class Evaluation(Record):
    """What the night found out. Everything that `register` writes down comes from here."""

    chosen: str  # recipe
    candidate: Candidate
    classes: tuple[str, ...]
    validation: dict[str, float]  # accuracy per recipe on the validation split
    test: dict[str, Scores]  # chosen recipe, fp32, champion, best
    champion_version: str | None
    best_version: str | None  # the best champion so far, by its version
    verdicts: tuple[Verdict, ...]
    report: Artifact
    unknown_to_champion: int  # test images of classes that the champion does not know

    @property
    def passed(self) -> bool:
        return all(verdict.passed for verdict in self.verdicts)


class ModelVersion(Record):
    """One registered version and what became of it."""

    name: str
    version: str
    sha256: str
    state: Literal["challenger", "refused"]
    reasons: tuple[str, ...]
    mlflow_run_id: str


class Decision(Record):
    """One entry of the ledger, `ledger/<pipeline>/…`: who decided what, when, on which evidence."""

    pipeline: str
    kind: Literal["challenger", "refused", "promoted", "rejected", "expired", "superseded"]
    version: str
    sha256: str
    data_digest: str
    settings_digest: str
    instead_of: str | None
    by: str
    at: str  # ISO 8601, UTC
    night: str
    reasons: tuple[str, ...]


# What each stage is asked to do.


class PlanSpec(Record):
    pipeline: Pipeline
    night: str
    force: bool = False


class PreprocessSpec(Record):
    message: Message
    source: str
    pipeline: str
    settings: PreprocessSettings


class AssembleSpec(Record):
    plan: Plan


class TrainSpec(Record):
    dataset_uri: str
    settings: TrainSettings
    member: int = 0
    salt: str = ""  # Plan.salt
    mlflow_run_id: str | None = None


class QuantizeSpec(Record):
    recipe: str
    checkpoint: Checkpoint
    settings: QuantizeSettings
    salt: str = ""


class EvaluateSpec(Record):
    plan: Plan
    dataset_uri: str
    candidates: tuple[Candidate, ...]
    settings: EvaluateSettings
    policy: PromotionPolicy


class RegisterSpec(Record):
    plan: Plan
    dataset_uri: str
    evaluation: Evaluation


class PromoteSpec(Record):
    """`check` looks, `move` moves the alias, `record` writes down a refusal by a person or by time."""

    action: Literal["check", "move", "record"]
    pipeline: str
    version: str
    sha256: str = ""  # of the file that was offered; empty when a person names a version
    by: str = "policy"
    only_challenger: bool = False  # a version that was offered is not promoted once a newer one came
    outcome: Literal["rejected", "expired"] | None = None


class CloseSpec(Record):
    """End the MLflow run of a night that ended, with the reason when it failed."""

    mlflow_run_id: str
    failed: bool
    reason: str
