"""The knobs of every stage, their ranges and their meaning; read from `dags/pipelines/<name>.toml`.

The same models give the Airflow form, `nightshift run --set`, and the parameters logged to MLflow.
Each field's description is the help text that people see. A field marked `ADVANCED` sits in the
collapsed section of the form.
"""

import hashlib
import json
import os
import re
from collections.abc import Mapping
from datetime import timedelta
from typing import Annotated, Final, Literal
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator
from pydantic.config import JsonDict

ADVANCED: Final[JsonDict] = {"advanced": True}
NAME_PATTERN: Final = r"^[a-z][a-z0-9_-]{0,39}$"
SIMPLE_CRON: Final = re.compile(r"^(@(hourly|daily|weekly|monthly|yearly)|\S+( +\S+){4})$")


class Settings(BaseModel):
    """A frozen group of knobs; an unknown key is an error, so that a typing mistake is never ignored."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    def digest(self) -> str:
        """SHA-256 over the canonical JSON of all values: equal settings, equal digest."""
        return digest_of(self.model_dump(mode="json"))


class PreprocessSettings(Settings):
    image_size: int = Field(32, ge=8, le=1024, description="Side of the square the model sees, in pixels.")
    stored_size: int | None = Field(
        None,
        ge=8,
        le=2048,
        description="Side of the square kept in the shards, in pixels; empty means the image size. "
        "Larger leaves room for random crops (256 for 224).",
        json_schema_extra=ADVANCED,
    )
    resize: Literal["crop", "letterbox", "stretch"] = Field(
        "crop",
        description="How a photo becomes a square: crop the centre, letterbox with black, or stretch.",
        json_schema_extra=ADVANCED,
    )
    part_images: int = Field(
        2000,
        ge=1,
        le=100_000,
        description="Images in one queue message; aim at 10 to 60 seconds of work.",
        json_schema_extra=ADVANCED,
    )
    validation_fraction: float = Field(
        0.15,
        gt=0,
        lt=0.5,
        description="Share of the images kept for choosing among candidates.",
        json_schema_extra=ADVANCED,
    )
    test_fraction: float = Field(
        0.15,
        gt=0,
        lt=0.5,
        description="Share of the images kept for the final judgement.",
        json_schema_extra=ADVANCED,
    )
    max_pixels: int = Field(
        50_000_000,
        ge=64,
        le=500_000_000,
        description="Images with more pixels than this are refused before they are decoded.",
        json_schema_extra=ADVANCED,
    )

    @model_validator(mode="after")
    def _stored_covers_input(self) -> "PreprocessSettings":
        if self.stored_size is not None and self.stored_size < self.image_size:
            raise ValueError(
                f"stored_size must be at least image_size ({self.image_size}), got {self.stored_size}"
            )
        return self

    @property
    def side(self) -> int:
        """Side of the stored square in pixels."""
        return self.stored_size or self.image_size


class TrainSettings(Settings):
    model: Literal["resnet18", "resnet34", "resnet50", "resnet101", "resnet152"] = Field(
        "resnet18", description="The network. Deeper is more accurate and slower."
    )
    width: float = Field(
        1.0, ge=0.125, le=2.0, description="Factor on the number of channels; below 1 is thinner and faster."
    )
    stem: Literal["auto", "imagenet", "small"] = Field(
        "auto",
        description="First layers: 'imagenet' shrinks the image fourfold, 'small' keeps its size; "
        "'auto' takes 'small' up to 64 pixels.",
        json_schema_extra=ADVANCED,
    )
    epochs: int = Field(20, ge=1, le=1000, description="Passes over the training images.")
    batch_size: int = Field(128, ge=2, le=8192, description="Images per optimizer step.")
    learning_rate: float = Field(0.05, gt=0, le=10, description="Highest learning rate of the schedule.")
    optimizer: Literal["sgd", "adamw"] = Field("sgd", description="'sgd' is Nesterov momentum 0.9.")
    weight_decay: float = Field(
        5e-4,
        ge=0,
        le=1,
        description="Decay of the weights; norms and biases are left alone.",
        json_schema_extra=ADVANCED,
    )
    label_smoothing: float = Field(
        0.1,
        ge=0,
        lt=1,
        description="Probability mass taken from the label and spread over all classes.",
        json_schema_extra=ADVANCED,
    )
    flip: bool = Field(False, description="Mirror training images at random; wrong for digits and text.")
    crop_padding: int = Field(
        2,
        ge=0,
        le=64,
        description="Training images are shifted by up to this many pixels.",
        json_schema_extra=ADVANCED,
    )
    rotation: float = Field(
        0.0, ge=0, le=180, description="Training images are turned by up to this many degrees."
    )
    members: int = Field(
        1, ge=1, le=16, description="Networks trained with different seeds.", json_schema_extra=ADVANCED
    )
    weights: Literal["none", "imagenet"] = Field(
        "none",
        description="Start from random weights, or from torchvision's ImageNet weights.",
        json_schema_extra=ADVANCED,
    )
    seed: int = Field(
        0, ge=0, le=2**31 - 1, description="Seed of every random choice.", json_schema_extra=ADVANCED
    )


class QuantizeSettings(Settings):
    recipes: tuple[Literal["fp32", "int8"], ...] = Field(
        ("fp32", "int8"), min_length=1, description="Candidates to make of the trained network."
    )
    calibration_images: int = Field(
        512,
        ge=16,
        le=100_000,
        description="Training images from which int8 ranges are measured.",
        json_schema_extra=ADVANCED,
    )

    @field_validator("recipes")
    @classmethod
    def _reference_present(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        if len(set(value)) != len(value):
            raise ValueError(f"recipes must not repeat, got {', '.join(value)}")
        return value if "fp32" in value else ("fp32", *value)


class EvaluateSettings(Settings):
    latency_runs: int = Field(
        200,
        ge=10,
        le=100_000,
        description="Single-image predictions timed for each model.",
        json_schema_extra=ADVANCED,
    )
    throughput_batch: int = Field(
        64,
        ge=1,
        le=4096,
        description="Images per batch when throughput is timed.",
        json_schema_extra=ADVANCED,
    )


class PromotionPolicy(Settings):
    mode: Literal["auto", "approve", "never"] = Field(
        "auto",
        description="'auto' promotes when all gates pass, 'approve' asks a person, 'never' only records.",
    )
    objective: Literal["latency", "size", "accuracy"] = Field(
        "latency",
        description="What the chosen candidate is best at, among those inside the loss budget.",
        json_schema_extra=ADVANCED,
    )
    min_accuracy: float = Field(0.8, ge=0, le=1, description="Hard floor for test accuracy, 0 to 1.")
    max_champion_loss: float = Field(
        0.005,
        ge=0,
        le=1,
        description="Test accuracy that may be lost against the best champion so far, 0 to 1.",
    )
    max_quantization_loss: float = Field(
        0.005, ge=0, le=1, description="Validation accuracy a recipe may lose against fp32, 0 to 1."
    )
    max_latency_ms: float | None = Field(
        None,
        gt=0,
        description="Hard limit for the median time of one prediction in milliseconds; empty means none.",
        json_schema_extra=ADVANCED,
    )
    max_size_mb: float | None = Field(
        None,
        gt=0,
        description="Hard limit for the model file in megabytes; empty means none.",
        json_schema_extra=ADVANCED,
    )
    approval_hours: float = Field(
        72,
        gt=0,
        le=24 * 90,
        description="Hours an approval may wait before it counts as refused.",
        json_schema_extra=ADVANCED,
    )

    @property
    def approval_timeout(self) -> timedelta:
        return timedelta(hours=self.approval_hours)


class Pipeline(Settings):
    """One `dags/pipelines/<name>.toml`: the DAG `retrain_<name>` and everything it needs to know."""

    name: Annotated[str, Field(pattern=NAME_PATTERN)]
    description: str = ""
    source: str | None = Field(None, description="URI of the batches; empty means <store>/incoming/<name>.")
    schedule: str | None = Field(None, description="Cron expression; empty means by hand only.")
    timezone: str = Field("UTC", description="Time zone of the schedule, such as Europe/Berlin.")
    settle_minutes: float = Field(
        10,
        ge=0,
        le=24 * 60,
        description="A batch without a _READY marker is complete after this many minutes without change.",
    )
    preprocess: PreprocessSettings = PreprocessSettings()
    train: TrainSettings = TrainSettings()
    quantize: QuantizeSettings = QuantizeSettings()
    evaluate: EvaluateSettings = EvaluateSettings()
    promotion: PromotionPolicy = PromotionPolicy()

    @field_validator("timezone")
    @classmethod
    def _known_zone(cls, value: str) -> str:
        try:
            ZoneInfo(value)
        except (ZoneInfoNotFoundError, ValueError) as error:
            raise ValueError(f"timezone must be an IANA name such as Europe/Berlin, got {value!r}") from error
        return value

    @field_validator("schedule")
    @classmethod
    def _cron(cls, value: str | None) -> str | None:
        if value is not None and not SIMPLE_CRON.match(value):
            raise ValueError(f"schedule must be five cron fields or @daily and the like, got {value!r}")
        return value

    def settings_digest(self) -> str:
        """Digest of what shapes the model; when and from where a night runs is not part of it."""
        return digest_of({stage: getattr(self, stage).model_dump(mode="json") for stage in STAGE_SETTINGS})


STAGE_SETTINGS: Final[dict[str, type[Settings]]] = {
    "preprocess": PreprocessSettings,
    "train": TrainSettings,
    "quantize": QuantizeSettings,
    "evaluate": EvaluateSettings,
    "promotion": PromotionPolicy,
}


def digest_of(value: object) -> str:
    """SHA-256 (64 hex digits) of the canonical JSON of `value`."""
    return hashlib.sha256(json.dumps(value, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def store_root(environment: Mapping[str, str] = os.environ) -> str:
    """URI under which everything is kept, from NIGHTSHIFT_STORE."""
    return environment.get("NIGHTSHIFT_STORE", "s3://nightshift").rstrip("/")
