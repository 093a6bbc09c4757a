"""What stages hand to each other: frozen JSON records with URIs and digests, no tensors, no agreed paths."""

from collections.abc import Sequence
from typing import Literal

from pydantic import BaseModel, ConfigDict

from tasks.config import Pipeline, PreprocessSettings, TrainSettings, VoteRule

Split = Literal["train", "validation", "test"]
SPLITS: tuple[Split, ...] = ("train", "validation", "test")


class Record(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Artifact(Record):
    """One stored object: where it is, and the SHA-256 that its bytes must have."""

    uri: str
    sha256: str
    size: int


class Start(Record):
    """Weights that a training starts from, fixed before the night works: safetensors of another training."""

    name: str  # what people call them, such as models:/digits/3
    weights: Artifact


class Part(Record):
    """A cut of one batch, the unit that is preprocessed once and found again by its digest."""

    batch: str
    keys: tuple[str, ...]  # relative to the batch
    manifest: str | None = None  # where labels come from instead of the class folders, relative to the batch
    seconds: float = 0.0  # estimated work of one core
    digest: str


class BatchSeen(Record):
    """A batch as its listing showed it; settings play no part in the digest."""

    files: int
    digest: str


class PartList(Record):
    """What `parts_uri` holds: parts, and for a whole night the batches that they were cut from."""

    batches: dict[str, BatchSeen]
    parts: tuple[Part, ...]


class Message(Record):
    """Parts that travel through the queue together; `parts_uri` holds them as a PartList."""

    parts_uri: str
    parts: int
    images: int
    seconds: float = 0.0  # estimated work of one core


class Plan(Record):
    """What a night will do, and `reason` why; without `work` it does nothing."""

    pipeline: Pipeline
    night: str
    source: str
    work: bool
    reason: str
    batches: int
    images: int
    data_digest: str  # of all parts and the preprocess settings
    settings_digest: str
    parts_uri: str  # PartList of the night, done or not
    messages: tuple[Message, ...]  # what is still to be preprocessed
    previous: str = ""  # digest of the data set of the last decision
    drift_limit: float | None = None  # when set, the night trains only if the new images drift further
    salt: str = ""  # the night's name when nothing may be taken from an earlier night
    start: Start | None = None  # what `train.weights` came to, None for random and for ImageNet weights
    mlflow_run_id: str | None = None


class Shard(Record):
    """One safetensors file: images uint8 [N,H,W,C], labels int64 [N], ids uint8 [N,32] (files' SHA-256)."""

    file: Artifact
    split: Split
    images: int
    classes: tuple[str, ...]  # a label is an index into this list
    drop: tuple[int, ...] = ()  # rows that this data set version leaves out
    mean: tuple[float, ...] = ()  # of the pixels per channel, 0 to 1
    mean_square: tuple[float, ...] = ()


class Refusal(Record):
    """A file that did not become an image: nothing is dropped without one of these."""

    key: str
    sha256: str  # of the file's bytes; empty when they were not read
    reason: str  # a code to count by
    detail: str


class PartResult(Record):
    """The manifest of one preprocessed part, written last: its presence means done."""

    part: str  # digest
    batch: str
    shards: tuple[Shard, ...]
    index: Artifact  # one row per image, see tasks.index
    refusals: tuple[Refusal, ...]
    seconds: float


class Profile(Record):
    """What a data set looks like, in counts: comparable with that of any other data set."""

    images: int
    classes: dict[str, int]
    histograms: dict[str, tuple[int, ...]]  # brightness, contrast, sharpness, pixels; bins of tasks.drift


class Drift(Record):
    """How far the images have moved from those of an earlier data set."""

    of: Literal["data", "new"]  # the whole data set, or only its batches that the other did not have
    against: Literal["previous", "champion"]  # the data set of the last decision, or that of the champion
    dataset: str  # the other's digest
    psi: dict[str, float]  # population stability index by property, classes among them

    @property
    def largest(self) -> float:
        return max(self.psi.values(), default=0.0)


class Duplicates(Record):
    """What was found more than once. Counts are of images left out of this data set version."""

    merged: int  # exact copies beyond the first
    conflicting: int  # exact copies under several labels
    near: int  # training images that look like a validation or test image
    near_excluded: bool


class Dataset(Record):
    """The manifest of one data set version, `datasets/<digest>.json`."""

    digest: str
    classes: tuple[str, ...]
    shards: tuple[Shard, ...]
    counts: dict[Split, dict[str, int]]  # images per split and class
    mean: tuple[float, ...]  # of the training pixels per channel, 0 to 1
    std: tuple[float, ...]
    refused: int
    image_size: int
    preprocess: PreprocessSettings
    source: str
    batches: dict[str, BatchSeen]
    profile: Profile
    duplicates: Duplicates


class Checkpoint(Record):
    """A trained network in float: safetensors weights and what is needed to build it again."""

    weights: Artifact
    dataset_uri: str
    settings: TrainSettings
    member: int
    metrics: dict[str, float]
    seconds: float


class Variant(Record):
    """What a candidate is made of: a recipe, and the vote of all members or without one the best of them."""

    recipe: str
    vote: VoteRule | None = None

    @property
    def name(self) -> str:
        return f"{self.recipe}-{self.vote}-vote" if self.vote else self.recipe

    @property
    def reference(self) -> str:
        """Name of the float candidate of the same networks, against which a recipe's loss is taken."""
        return self.model_copy(update={"recipe": "fp32"}).name

    def of(self, members: Sequence[Checkpoint]) -> tuple[Checkpoint, ...]:
        """The checkpoints it is made of: all that vote, or the best on validation, the first of equals."""
        if self.vote:
            return tuple(members)
        return (max(members, key=lambda member: member.metrics.get("validation_accuracy", 0.0)),)


def variants(pipeline: Pipeline) -> list[Variant]:
    """The candidates of a night, each with another name; a vote takes more than one member."""
    rules = pipeline.quantize.rules if pipeline.train.members > 1 else ()
    return [
        Variant(recipe=recipe, vote=vote) for vote in (None, *rules) for recipe in pipeline.quantize.recipes
    ]


class Candidate(Variant):
    """One ONNX file, uint8 [N,H,W,C] in, `probabilities` and `label` out."""

    model: Artifact
    checkpoints: tuple[Artifact, ...]  # one, or those of all that vote
    details: dict[str, float | int | str]
    seconds: float


class Verdict(Record):
    """One gate of the promotion policy with both numbers."""

    gate: str
    passed: bool
    value: float
    limit: float
    sentence: str


class Standings(Record):
    """Accuracy of the members of an ensemble on the validation split, in float, and of their votes."""

    members: tuple[float, ...]
    soft: float
    hard: float


class Scores(Record):
    """How one model did on one split."""

    model: str  # name of a candidate, or `champion`
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

    chosen: str  # name of the candidate
    candidate: Candidate
    classes: tuple[str, ...]
    validation: dict[str, float]  # accuracy per candidate on the validation split
    test: dict[str, Scores]  # chosen candidate, its fp32 reference, champion, best
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
    dataset: str  # digest
    data_digest: str
    settings_digest: str
    instead_of: str | None
    by: str
    at: str  # ISO 8601, UTC
    night: str
    reasons: tuple[str, ...]
