"""Records of what is made of the images: trained networks, and the ONNX files of them."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from pydantic import Field

from nightshift.config import Pipeline, TrainSettings, VoteRule
from nightshift.records.data import Artifact, Plan, Record


class Code(Record):
    """Which Nightshift it was."""

    version: str  # of the package
    commit: str  # of git; empty where the package lies in no repository of its own
    sha256: str  # over all Python files of the package, also those that no commit has


class Conditions(Record):
    code: Code
    packages: dict[str, str]  # versions of those whose sums or decoders the result hangs on
    processor: str
    device: str  # kind that torch computed on: cpu, cuda, mps, …
    precision: str  # that torch computed in: float32, bfloat16 or float16
    threads: int  # of each process
    processes: int = 1
    micro_batches: int = 1  # in which a batch went through the network, as memory allowed
    group: int = 0  # shards of which images were mixed, as memory allowed; 0 where all were


class Checkpoint(Record):
    """A trained network in float: safetensors weights and what is needed to build it again."""

    weights: Artifact
    dataset_uri: str
    settings: TrainSettings
    member: int
    metrics: dict[str, float]
    seconds: float
    made_with: Conditions


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
    details: dict[str, float | int | str]  # of the recipe, and the proof of `nightshift.inference.onnx_stats`
    # Largest possible sum of two products by integer layer, see `nightshift.inference.pair_sums`.
    pair_sums: dict[str, int] = Field(default_factory=dict)
    seconds: float
    made_with: Conditions

    @property
    def pair_sum(self) -> int:
        """The largest of all layers; 0 where none computes in integers."""
        return max(self.pair_sums.values(), default=0)


class BuildRecord(Record):
    """All that a version was made of and with: what it takes to make it again."""

    plan: Plan
    dataset: str  # digest
    pixels: str  # Dataset.pixels_digest
    members: tuple[Checkpoint, ...]  # of which the candidate is made: one, or all that vote
    candidate: Candidate


class FailedCandidate(Variant):
    """A candidate that its recipe could not make, and why in one sentence; the others go on without it."""

    reason: str


def outcome(result: Mapping[str, Any]) -> Candidate | FailedCandidate:
    """What the stage `quantize` came to, from the plain dict that it returned."""
    return (FailedCandidate if "reason" in result else Candidate).model_validate(result)


class Epoch(NamedTuple):
    """What one pass over the training images came to; the loss is the mean that was minimised, in nats."""

    number: int  # from 1
    train_loss: float
    validation_accuracy: float
    validation_loss: float  # cross-entropy in nats, whatever was minimised
    learning_rate: float
    images_per_second: float
    seconds: float  # of all epochs up to this one

    def metrics(self) -> dict[str, float]:
        return {key: float(value) for key, value in self._asdict().items() if key != "number"}
