"""The knobs of what is made of a trained network."""

from pathlib import Path
from typing import Annotated, Final, Literal

from pydantic import AfterValidator, Field, field_validator

from nightshift.config.base import ADVANCED, Settings

VoteRule = Literal["soft", "hard"]
# The file names say which recipes there are, so that a new one is a new file and nothing else.
RECIPES: Final = tuple(
    sorted(
        file.stem.replace("_", "-")
        for file in Path(__file__).parents[1].joinpath("quantization", "recipes").glob("*.py")
        if not file.stem.startswith("_")
    )
)


def _known(recipe: str) -> str:
    if recipe not in RECIPES:
        raise ValueError(f"must be one of {', '.join(RECIPES)}, got {recipe!r}")
    return recipe


RecipeName = Annotated[str, AfterValidator(_known), Field(json_schema_extra={"enum": list(RECIPES)})]


class QuantizeSettings(Settings):
    recipes: tuple[RecipeName, ...] = Field(
        ("fp32", "int8"),
        min_length=1,
        description="Candidates to make of the trained network: fp32 as it is; fp16 half the size; int8 a "
        "quarter and the quickest; int8-accuracy with layers left in float until it loses nothing; int8-qat "
        "and binary (a twentieth) with a training of their own.",
    )
    vote: Literal["none", "soft", "hard", "both"] = Field(
        "soft",
        description="Candidates that are all members of an ensemble voting in one file, beside those of the "
        "best member: 'soft' takes the mean of their probabilities, 'hard' counts the classes they name.",
        json_schema_extra=ADVANCED,
    )
    flip_tta: bool = Field(
        False,
        description="Candidates answer with the mean of an image and its mirror image: a little more "
        "accurate, twice the work, and wrong for digits and text.",
        json_schema_extra=ADVANCED,
    )
    portable: bool = Field(
        True,
        description="Bound the weights of int8 files so that they give the same labels on every processor. "
        "Off keeps all 8 bits: right only where every machine that serves the model has VNNI, AMX or the dot "
        "products of Arm.",
        json_schema_extra=ADVANCED,
    )
    calibration: Literal["minmax", "entropy", "percentile"] = Field(
        "minmax",
        description="How the ranges of int8 are taken from what is measured: the extremes, those that keep "
        "the most information, or without the outermost 0.001 %.",
        json_schema_extra=ADVANCED,
    )
    calibration_images: int = Field(
        512,
        ge=16,
        le=100_000,
        description="Training images, at most, from which int8 ranges are measured; fewer are taken when "
        "more do not change them.",
        json_schema_extra=ADVANCED,
    )
    float_layers: Literal["none", "first", "last", "both"] = Field(
        "none",
        description="Layers that int8 leaves in float: the first or the last of the network, or both.",
        json_schema_extra=ADVANCED,
    )
    accuracy_budget: float = Field(
        0.001,
        ge=0,
        le=1,
        description="Validation accuracy that int8-accuracy may lose against fp32, 0 to 1; the layers that "
        "hurt most stay in float until it is kept.",
        json_schema_extra=ADVANCED,
    )
    qat_epochs: int = Field(
        1,
        ge=1,
        le=1000,
        description="Epochs in which int8-qat adapts the weights to rounding.",
        json_schema_extra=ADVANCED,
    )
    binary_epochs: int = Field(
        8,
        ge=1,
        le=1000,
        description="Epochs in which binary trains weights of one bit, from the trained ones on.",
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
