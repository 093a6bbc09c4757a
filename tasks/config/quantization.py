"""The knobs of what is made of a trained network."""

from typing import Literal

from pydantic import Field, field_validator

from tasks.config.base import ADVANCED, Settings


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
