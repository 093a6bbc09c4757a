"""Records of images on their way: from a batch that was seen to the data set version of a night."""

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from nightshift.config import Pipeline, PreprocessSettings, digest_of

Split = Literal["train", "validation", "test"]
SPLITS: tuple[Split, ...] = ("train", "validation", "test")


class Record(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Artifact(Record):
    """One stored object: where it is, and the SHA-256 that its bytes must have."""

    uri: str
    sha256: str
    size: int


class InitialWeights(Record):
    """Weights that a training starts from, fixed before the night works: safetensors of another training."""

    name: str  # what people call them, such as models:/digits/3
    weights: Artifact


class SplitFolders(Record):
    """How the folders of a batch without a manifest name splits, see nightshift.data.splits."""

    around: str = ""  # the folder around everything, with a slash at its end
    outer: bool  # <split>/<class>/…, else <class>/<split>/…
    twice: tuple[str, ...] = ()  # splits that hold one folder of the same split
    named: tuple[Split, ...] = ()  # splits that a file is in, sorted


class Part(Record):
    """A cut of one batch, the unit that is preprocessed once and found again by its digest."""

    batch: str
    keys: tuple[str, ...]  # relative to the batch
    manifest: str | None = None  # where labels come from instead of the class folders, relative to the batch
    splits: SplitFolders | None = None  # where folders name splits
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
    batches: tuple[str, ...] = ()  # the first few that they are of, for logs


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
    newest: float = 0.0  # when the newest image was written, seconds since 1970; 0 where nothing tells
    cache_salt: str = ""  # the night's name when nothing may be taken from an earlier night
    start: InitialWeights | None = (
        None  # what `train.weights` came to, None for random and for ImageNet weights
    )
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
    index: Artifact  # one row per image, see nightshift.data.index
    refusals: tuple[Refusal, ...]
    seconds: float
    tries: int = 1  # nights that preprocessed it, because of refusals that might have passed


class Profile(Record):
    """What a data set looks like, in counts: comparable with that of any other data set."""

    images: int
    classes: dict[str, int]
    histograms: dict[
        str, tuple[int, ...]
    ]  # brightness, contrast, sharpness, pixels; bins of nightshift.data.drift


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
    corrected: int = 0  # exact copies under a label that a newer upload corrects
    near: int  # training images that look like a validation or test image
    near_validation: int = 0  # validation images that look like a test image
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
    # Images by class of those that are left out, since no training image is of them.
    untrained: dict[str, int] = Field(default_factory=dict)

    @property
    def batches_digest(self) -> str:
        """Of the files that it was made of, whatever the settings."""
        return digest_of({name: batch.model_dump(mode="json") for name, batch in self.batches.items()})

    @property
    def pixels_digest(self) -> str:
        """Of the bytes of all shards: other decoders make others of the same files."""
        return digest_of([(shard.file.sha256, shard.drop) for shard in self.shards])

    @property
    def test_digest(self) -> str:
        """Of the images that models are judged on, with the classes that they count as."""
        shards = [(shard.file.sha256, shard.drop) for shard in self.shards if shard.split == "test"]
        return digest_of([self.classes, shards])
