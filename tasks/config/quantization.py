"""The knobs of what is made of a trained network."""

from typing import Literal

from pydantic import Field, field_validator

from tasks.config.base import ADVANCED, Settings

VoteRule = Literal["soft", "hard"]


class QuantizeSettings(Settings):
    recipes: tuple[Literal["fp32", "int8"], ...] = Field(
        ("fp32", "int8"), min_length=1, description="Candidates to make of the trained network."
    )
    vote: Literal["none", "soft", "hard", "both"] = Field(
        "soft",
        description="Candidates that are all members of an ensemble voting in one file, beside those of the "
        "best member: 'soft' takes the mean of their probabilities, 'hard' counts the classes they name.",
        json_schema_extra=ADVANCED,
    )
    mirror: bool = Field(
        False,
        description="Candidates answer with the mean of an image and its mirror image: a little more "
        "accurate, twice the work, and wrong for digits and text.",
        json_schema_extra=ADVANCED,
    )
    calibration_images: int = Field(
        512,
        ge=16,
        le=100_000,
        description="Training images from which int8 ranges are measured.",
        json_schema_extra=ADVANCED,
    )

    @property
    def rules(self) -> tuple[VoteRule, ...]:
        """The votes that `vote` asks for."""
        if self.vote == "both":
            return ("soft", "hard")
        return () if self.vote == "none" else (self.vote,)

    @field_validator("recipes")
    @classmethod
    def _reference_present(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        if len(set(value)) != len(value):
            raise ValueError(f"recipes must not repeat, got {', '.join(value)}")
        return value if "fp32" in value else ("fp32", *value)
