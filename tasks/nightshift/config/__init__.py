"""The knobs of every stage, their ranges and their meaning; read from `dags/pipelines/<name>.toml`.

The same models give the Airflow form, `nightshift run --set`, and the parameters logged to MLflow.
Each field's description is the help text that people see. A field marked `ADVANCED` sits in the
collapsed section of the form.
"""

import os
from collections.abc import Mapping
from typing import Annotated, Final

from pydantic import AfterValidator, Field, model_validator

from nightshift.config.base import ADVANCED, Settings, digest_of
from nightshift.config.data import AssembleSettings, PreprocessSettings, RetrainPolicy
from nightshift.config.evaluation import EvaluateSettings, PromotionPolicy
from nightshift.config.prediction import PredictPolicy
from nightshift.config.quantization import QuantizeSettings, VoteRule
from nightshift.config.schedule import Cron, TimeZone
from nightshift.config.source import Source
from nightshift.config.training import TrainSettings

__all__ = [
    "ADVANCED",
    "NAME_PATTERN",
    "STAGE_SETTINGS",
    "AssembleSettings",
    "EvaluateSettings",
    "Pipeline",
    "PredictPolicy",
    "PreprocessSettings",
    "PromotionPolicy",
    "QuantizeSettings",
    "RetrainPolicy",
    "Settings",
    "TrainSettings",
    "VoteRule",
    "digest_of",
    "store_root",
]

NAME_PATTERN: Final = r"^[a-z][a-z0-9_-]{0,39}$"
YEAR_HOURS: Final = 365 * 24


def _own_experiment(name: str) -> str:
    if name.endswith("-predictions"):
        raise ValueError(
            f"name must not end in -predictions, got {name!r}: another pipeline's predictions have the "
            "MLflow experiment that is called so; rename the file"
        )
    return name


class Pipeline(Settings):
    """One `dags/pipelines/<name>.toml`: the DAG `retrain_<name>` and everything it needs to know."""

    name: Annotated[str, Field(pattern=NAME_PATTERN), AfterValidator(_own_experiment)]
    description: str = Field("", max_length=1000, description="What it is, for people; shown in Airflow.")
    source: Source | None = Field(
        None, description="URI of the batches; empty means <store>/incoming/<name>."
    )
    schedule: Cron | None = Field(None, description="Cron expression; empty means by hand only.")
    timezone: TimeZone = Field("UTC", description="Time zone of the schedule, such as Europe/Berlin.")
    deadline_hours: float | None = Field(
        None,
        gt=0,
        le=YEAR_HOURS,
        description="A night that is not done after so many hours is told of; empty means never.",
    )
    settle_minutes: float = Field(
        10,
        ge=0,
        le=24 * 60,
        description="A batch without a _READY marker is complete after this many minutes without change.",
    )
    retrain: RetrainPolicy = RetrainPolicy()
    preprocess: PreprocessSettings = PreprocessSettings()
    assemble: AssembleSettings = AssembleSettings()
    train: TrainSettings = TrainSettings()
    quantize: QuantizeSettings = QuantizeSettings()
    evaluate: EvaluateSettings = EvaluateSettings()
    promotion: PromotionPolicy = PromotionPolicy()
    predict: PredictPolicy = PredictPolicy()

    @model_validator(mode="after")
    def _tries_what_it_asks(self) -> "Pipeline":
        policy, tried = self.promotion, self.evaluate
        for name in ("min_corrupted_accuracy", "max_corrupted_loss", "min_attacked_accuracy"):
            if getattr(policy, name) is not None and tried.robustness == "none":
                raise ValueError(
                    f"promotion.{name} needs evaluate.robustness 'quick' or 'full', got 'none', which tries "
                    "nothing"
                )
        if policy.min_attacked_accuracy is not None and tried.attack_epsilon == 0:
            raise ValueError(
                "promotion.min_attacked_accuracy needs evaluate.attack_epsilon above 0, got 0, which tries "
                "no attack"
            )
        if self.quantize.flip_tta and not self.train.flip:
            raise ValueError(
                "quantize.flip_tta needs train.flip, got false: a network that never saw a mirrored image is "
                "asked about one; set both, or neither for digits, text and signs"
            )
        return self

    def settings_digest(self) -> str:
        """Digest of what shapes the model; when and from where a night runs is not part of it."""
        stages = {stage: getattr(self, stage).model_dump(mode="json") for stage in STAGE_SETTINGS}
        if self.train.members == 1:
            del stages["quantize"]["vote"]  # one network has nobody to vote with
        return digest_of(stages)


STAGE_SETTINGS: Final[dict[str, type[Settings]]] = {
    "preprocess": PreprocessSettings,
    "assemble": AssembleSettings,
    "train": TrainSettings,
    "quantize": QuantizeSettings,
    "evaluate": EvaluateSettings,
    "promotion": PromotionPolicy,
}


def store_root(environment: Mapping[str, str] = os.environ) -> str:
    """URI under which everything is kept, from NIGHTSHIFT_STORE."""
    return environment.get("NIGHTSHIFT_STORE", "s3://nightshift").rstrip("/")
