"""What each stage is asked to do: one frozen JSON record per stage, handed over as `--spec`."""

from typing import Final, Literal

from pydantic import Field

from nightshift.config import (
    EvaluateSettings,
    Pipeline,
    PreprocessSettings,
    PromotionPolicy,
    QuantizeSettings,
    TrainSettings,
)
from nightshift.config.evaluation import Asks
from nightshift.config.upkeep import Retention
from nightshift.records import (
    Candidate,
    Checkpoint,
    Drift,
    Evaluation,
    FailedCandidate,
    InitialWeights,
    Message,
    Plan,
    PredictionPlan,
    PromotionPrecondition,
    Record,
    Variant,
)

MOST_TRIALS: Final = 256  # each is a task of its own in Airflow


class PlanSpec(Record):
    pipeline: Pipeline
    night: str
    force: bool = False


class PreprocessSpec(Record):
    message: Message
    source: str
    settings: PreprocessSettings


class AssembleSpec(Record):
    plan: Plan


class TrainSpec(Record):
    dataset_uri: str
    settings: TrainSettings
    member: int = 0
    cache_salt: str = ""  # Plan.salt
    start: InitialWeights | None = None  # Plan.start
    mlflow_run_id: str | None = None
    run_name: str = ""  # of the child run in MLflow; train-<member> when empty


class QuantizeSpec(Variant):
    checkpoints: tuple[Checkpoint, ...]  # of Variant.of
    settings: QuantizeSettings
    cache_salt: str = ""


class EvaluateSpec(Record):
    plan: Plan
    dataset_uri: str
    members: tuple[Checkpoint, ...]
    candidates: tuple[Candidate | FailedCandidate, ...]
    drifts: tuple[Drift, ...] = ()
    settings: EvaluateSettings
    policy: PromotionPolicy


class RegisterSpec(Record):
    plan: Plan
    dataset_uri: str
    members: tuple[Checkpoint, ...]
    evaluation: Evaluation


class PromoteSpec(Record):
    """`check` looks, `move` moves the alias, `record` writes down a refusal by a person or by time."""

    action: Literal["check", "move", "record"]
    intent: Literal["promote", "roll back", "audit"] = "promote"
    pipeline: str
    version: str = ""  # empty to roll back to the champion before, and to audit
    sha256: str = ""  # of the file that was offered; empty when a person names a version
    by: str = "policy"
    reason: str = ""  # that a person gives
    run: str = ""  # of the promotion, by which a second try knows what the first one did
    only_challenger: bool = False  # a version that was offered is not promoted once a newer one came
    bound: PromotionPrecondition | None = None  # what `check` saw; `move` refuses when it changed since
    asks: Asks  # when a person has to approve of a promotion
    approved: bool = False  # whether a person did
    manual_moves: Literal["report", "put_back"] = "report"
    outcome: Literal["rejected", "expired"] | None = None


class CloseSpec(Record):
    """End the MLflow run of a night that ended, with the reason when it failed."""

    mlflow_run_id: str
    failed: bool
    reason: str


class LookSpec(Record):
    """Find batches without labels that are to be predicted: those of the policy, or the named ones."""

    pipeline: Pipeline
    run: str
    version: str = ""  # empty means the champion
    batches: tuple[str, ...] = ()


class PredictSpec(Record):
    forecast: PredictionPlan
    message: Message


class SummariseSpec(Record):
    forecast: PredictionPlan


class SweepSpec(Record):
    """Try values of some settings, each as `train.learning_rate=log:0.01..1`; see `search_space`."""

    pipeline: Pipeline
    name: str
    over: tuple[str, ...]
    trials: int = Field(ge=1, le=MOST_TRIALS)


class TrialSpec(Record):
    sweep_uri: str
    number: int  # from 1


class ConcludeSpec(Record):
    sweep_uri: str


class UpkeepSpec(Record):
    """`look` lists what nothing needs any more, `delete` deletes what is on the list at `list_uri`."""

    action: Literal["look", "delete"]
    settings: Retention = Retention()  # for `look`; a list has its own
    named: tuple[str, ...] = ()  # addresses, or JSON with addresses, of what stays; for `look`
    list_uri: str = ""
    now: float | None = None  # seconds since 1970; empty is the time when it runs
