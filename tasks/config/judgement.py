"""The knobs of the judgement: how candidates are measured, and which of them may become champion."""

from datetime import timedelta
from typing import Literal

from pydantic import Field

from tasks.config.base import ADVANCED, Settings


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


class PromotionPolicy(Settings):
    mode: Literal["auto", "approve", "never"] = Field(
        "auto",
        description="'auto' promotes when all gates pass, 'approve' asks a person, 'never' only records.",
    )
    objective: Literal["latency", "throughput", "size", "accuracy"] = Field(
        "latency",
        description="What the chosen candidate is best at, among those inside the loss budget and the hard "
        "limits: the median time of one prediction, images per second in batches, the size of the file or "
        "validation accuracy; only 'accuracy' has a reason to choose a vote.",
        json_schema_extra=ADVANCED,
    )
    min_accuracy: float = Field(0.8, ge=0, le=1, description="Hard floor for test accuracy, 0 to 1.")
    max_champion_loss: float = Field(
        0.005,
        ge=0,
        le=1,
        description="Test accuracy that may be lost against the best champion so far, 0 to 1.",
    )
    max_accuracy_loss: float = Field(
        0.005,
        ge=0,
        le=1,
        description="Validation accuracy a candidate may lose against fp32 of the same networks, 0 to 1.",
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
    max_drift: float | None = Field(
        None,
        gt=0,
        description="Hard limit for the drift of the images from the champion's training data (population "
        "stability index; 0.25 is large); empty means none.",
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
