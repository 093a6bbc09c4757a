"""The knobs of the judgement: how candidates are measured, and which of them may become champion."""

from datetime import timedelta
from typing import Literal

from pydantic import Field, model_validator

from nightshift.config.base import ADVANCED, Settings

Asks = Literal["never", "first", "always"]  # when a person has to approve of a promotion


class EvaluateSettings(Settings):
    latency_runs: int = Field(
        200,
        ge=10,
        le=100_000,
        description="Single-image predictions timed for each model, with one thread and with all; fewer "
        "where they would take more than 2.5 seconds.",
        json_schema_extra=ADVANCED,
    )
    throughput_batch: int = Field(
        128,
        ge=1,
        le=4096,
        description="Largest batch tried when throughput is timed: 8, 32, 128 and so on, as long as a larger "
        "one is faster.",
        json_schema_extra=ADVANCED,
    )
    robustness: Literal["none", "quick", "full"] = Field(
        "quick",
        description="Corrupted test images that models are shown too: 'quick' 4 kinds at 2 severities, "
        "'full' 15 kinds at 5 severities.",
        json_schema_extra=ADVANCED,
    )
    robustness_images: int = Field(
        500,
        ge=1,
        le=1_000_000,
        description="Test images, at most, that are corrupted and attacked, evenly of all classes.",
        json_schema_extra=ADVANCED,
    )
    attack_epsilon: float = Field(
        2.0,
        ge=0,
        le=64,
        description="Largest change of a pixel, of a range of 255, by which attacks (FGSM and PGD) try to "
        "mislead; 0 tries none.",
        json_schema_extra=ADVANCED,
    )
    attack_steps: int = Field(
        10, ge=1, le=1000, description="Steps of the attack PGD.", json_schema_extra=ADVANCED
    )


class PromotionPolicy(Settings):
    """The gates: hard limits first, then what may be lost against the champion."""

    mode: Literal["auto", "approve", "never"] = Field(
        "auto",
        description="'auto' promotes when all gates pass, 'approve' asks a person, 'never' only records.",
    )
    first_champion: Literal["as_mode", "approve"] = Field(
        "as_mode",
        description="Whether a person is asked for the very first champion, which nothing can be compared "
        "with, even where mode is 'auto'.",
        json_schema_extra=ADVANCED,
    )
    objective: Literal["latency", "throughput", "size", "accuracy"] = Field(
        "latency",
        description="What the chosen candidate is best at, among those inside the loss budget and the hard "
        "limits: the median time of one prediction, images per second in batches, the size of the file or "
        "validation accuracy; only 'accuracy' has a reason to choose a vote.",
        json_schema_extra=ADVANCED,
    )
    min_accuracy: float = Field(0.8, ge=0, le=1, description="Hard floor for test accuracy, 0 to 1.")
    min_first_accuracy: float | None = Field(
        None,
        ge=0,
        le=1,
        description="Floor for the test accuracy of the very first champion, 0 to 1; empty means "
        "min_accuracy.",
        json_schema_extra=ADVANCED,
    )
    min_class_recall: float | None = Field(
        None,
        ge=0,
        le=1,
        description="Hard floor for the recall of every class on the test images, 0 to 1; empty means none.",
        json_schema_extra=ADVANCED,
    )
    max_champion_loss: float = Field(
        0.005,
        ge=0,
        le=1,
        description="Test accuracy that may be lost against the best champion so far, 0 to 1.",
    )
    significance: float | None = Field(
        None,
        gt=0,
        le=0.5,
        description="When set, such as 0.05: a test accuracy that is lower than the best champion's at this "
        "level (McNemar's test) is refused even inside the margin, and a higher one is a gain only at this "
        "level. Empty means that significance is only reported.",
        json_schema_extra=ADVANCED,
    )
    max_accuracy_loss: float = Field(
        0.005,
        ge=0,
        le=1,
        description="Validation accuracy a candidate may lose against fp32 of the same networks, 0 to 1.",
    )
    max_class_loss: float | None = Field(
        0.1,
        ge=0,
        le=1,
        description="Recall that any class may lose against the best champion, and against fp32 of the same "
        "networks, 0 to 1, where it is more than chance explains over all classes (5 % of nights); empty "
        "means any.",
        json_schema_extra=ADVANCED,
    )
    retired: tuple[str, ...] = Field(
        (),
        description="Classes that a challenger need not know any more although the champion does, by name; "
        "any other class that is missing refuses it.",
        json_schema_extra=ADVANCED,
    )
    max_calibration_error: float | None = Field(
        None,
        gt=0,
        le=1,
        description="Hard limit for how far confidence and accuracy are apart on average (expected "
        "calibration error, 0 to 1); empty means none.",
        json_schema_extra=ADVANCED,
    )
    min_corrupted_accuracy: float | None = Field(
        None,
        ge=0,
        le=1,
        description="Hard floor for the mean accuracy on corrupted test images, 0 to 1; empty means none.",
        json_schema_extra=ADVANCED,
    )
    max_corrupted_loss: float | None = Field(
        None,
        ge=0,
        le=1,
        description="Mean accuracy on corrupted test images that may be lost against the champion, 0 to 1; "
        "empty means any.",
        json_schema_extra=ADVANCED,
    )
    min_attacked_accuracy: float | None = Field(
        None,
        ge=0,
        le=1,
        description="Hard floor for the accuracy under the strongest attack that is tried, 0 to 1; empty "
        "means none.",
        json_schema_extra=ADVANCED,
    )
    max_latency_ms: float | None = Field(
        None,
        gt=0,
        le=3_600_000,
        description="Hard limit for the median time of one prediction in milliseconds; empty means none.",
        json_schema_extra=ADVANCED,
    )
    max_size_mb: float | None = Field(
        None,
        gt=0,
        le=1_000_000,
        description="Hard limit for the model file in megabytes; empty means none.",
        json_schema_extra=ADVANCED,
    )
    max_drift: float | None = Field(
        None,
        gt=0,
        le=1000,
        description="Hard limit for the drift of the images from the champion's training data (population "
        "stability index; 0.25 is large); empty means none.",
        json_schema_extra=ADVANCED,
    )
    max_leakage: float | None = Field(
        0.01,
        ge=0,
        le=1,
        description="Hard limit for the training images that look like a validation or test image, as a "
        "share of all training images; empty means none.",
        json_schema_extra=ADVANCED,
    )
    max_data_age_days: float | None = Field(
        None,
        gt=0,
        le=36_500,
        description="Hard limit for the age of the newest image in days; empty means none.",
        json_schema_extra=ADVANCED,
    )
    approval_hours: float = Field(
        72,
        gt=0,
        le=24 * 90,
        description="Hours an approval may wait before it counts as refused.",
        json_schema_extra=ADVANCED,
    )
    manual_moves: Literal["report", "put_back"] = Field(
        "report",
        description="What becomes of a champion that somebody set by hand in MLflow although its gates "
        "failed or its file was changed: report it, or put the alias back. One that passed is accepted.",
        json_schema_extra=ADVANCED,
    )

    @model_validator(mode="after")
    def _fit_together(self) -> "PromotionPolicy":
        if self.min_first_accuracy is not None and self.min_first_accuracy < self.min_accuracy:
            raise ValueError(
                f"min_first_accuracy must be at least min_accuracy ({self.min_accuracy:g}), which holds for "
                f"every version, got {self.min_first_accuracy:g}"
            )
        if self.mode == "never" and self.first_champion == "approve":
            raise ValueError(
                "first_champion 'approve' needs mode 'auto' or 'approve', got 'never', which promotes nothing"
            )
        return self

    @property
    def asks(self) -> Asks:
        """When a person has to approve: of every promotion, of the very first champion, or of none."""
        if self.mode == "approve":
            return "always"
        return "first" if self.first_champion == "approve" else "never"

    @property
    def approval_timeout(self) -> timedelta:
        return timedelta(hours=self.approval_hours)
