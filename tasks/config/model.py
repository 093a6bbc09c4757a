"""The knobs of the network and of what is made of it."""

from typing import Literal

from pydantic import Field, field_validator

from tasks.config.base import ADVANCED, Settings


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
