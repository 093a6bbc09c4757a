"""The knobs of the network and of the weights that it starts from."""

import re
from typing import Annotated, Final, Literal, Self

from pydantic import AfterValidator, Field, field_validator, model_validator

from nightshift.config.base import ADVANCED, Settings

NAMED: Final = ("none", "imagenet", "champion")
MODEL: Final = re.compile(r"models:/[^/@]+(@[^/@]+|/\d+)")
FILE: Final = re.compile(r"(s3://[^/]+|file://)(/.+)?/(checkpoint\.json|[^/]+\.safetensors)")


def _known(value: str) -> str:
    if value in NAMED or MODEL.fullmatch(value) or FILE.fullmatch(value):
        return value
    raise ValueError(
        f"weights must be {', '.join(NAMED)}, a registered model such as models:/digits@champion or "
        "models:/digits/3, or the address of a checkpoint (s3://…/checkpoint.json or a .safetensors file), "
        f"got {value!r}"
    )


Weights = Annotated[str, AfterValidator(_known)]


Model = Literal[
    "resnet9",
    "resnet18",
    "resnet34",
    "resnet50",
    "resnet101",
    "resnet152",
    "wide_resnet50_2",
    "wide_resnet101_2",
    "resnext50_32x4d",
    "resnext101_32x8d",
    "resnext101_64x4d",
    "resnet20",
    "resnet32",
    "resnet44",
    "resnet56",
    "resnet110",
]
THREE_STAGES: Final = ("resnet9", "resnet20", "resnet32", "resnet44", "resnet56", "resnet110")


class NetworkSettings(Settings):
    model: Model = Field(
        "resnet18",
        description="The network. Deeper is more accurate and slower; resnet9 is for short trainings, and "
        "resnet20 to resnet110 are the thin ones for images of 32 pixels.",
    )
    width: float = Field(
        1.0, ge=0.125, le=4.0, description="Factor on the number of channels; below 1 is thinner and faster."
    )
    depth: float = Field(
        1.0,
        ge=0.25,
        le=4.0,
        description="Factor on the number of blocks; below 1 is shallower and faster.",
        json_schema_extra=ADVANCED,
    )
    stem: Literal["auto", "imagenet", "small"] = Field(
        "auto",
        description="First layers: 'imagenet' shrinks the image fourfold, 'small' keeps its size; "
        "'auto' takes 'small' up to 64 pixels.",
        json_schema_extra=ADVANCED,
    )
    stem_kernel: int | None = Field(
        None,
        ge=1,
        le=11,
        description="Side of the first convolution's kernel, odd; empty means 7 for the imagenet stem, 3 for "
        "the small one.",
        json_schema_extra=ADVANCED,
    )
    pooling: Literal["auto", "average", "max", "gem"] = Field(
        "auto",
        description="How features become one vector before the last layer; 'gem' is a mean with a learned "
        "exponent, 'auto' is max for resnet9 and average for the others.",
        json_schema_extra=ADVANCED,
    )
    dropout: float = Field(
        0.0,
        ge=0,
        lt=1,
        description="Share of the features dropped before the last layer while training.",
        json_schema_extra=ADVANCED,
    )
    weights: Weights = Field(
        "none",
        description="Where training starts: 'none' is random, 'imagenet' torchvision's weights, 'champion' "
        "this pipeline's own once it has one; or models:/name@alias, models:/name/3, or the address of a "
        "checkpoint.json or a .safetensors file.",
        examples=list(NAMED),
        json_schema_extra=ADVANCED,
    )
    freeze: Literal["none", "stem", "layer1", "layer2", "layer3", "layer4", "backbone"] = Field(
        "none",
        description="Everything up to and including this part keeps the weights and statistics that it "
        "started with; 'backbone' is all but the head.",
        json_schema_extra=ADVANCED,
    )
    unfreeze_epoch: int = Field(
        0,
        ge=0,
        le=1000,
        description="From this epoch on one more frozen part is trained each epoch, the one next to the head "
        "first. 0 is never.",
        json_schema_extra=ADVANCED,
    )
    backbone_lr_factor: float = Field(
        1.0,
        gt=0,
        le=1,
        description="Factor on the learning rate of everything but the head.",
        json_schema_extra=ADVANCED,
    )

    @field_validator("stem_kernel")
    @classmethod
    def _odd(cls, value: int | None) -> int | None:
        if value is not None and value % 2 == 0:
            raise ValueError(f"stem_kernel must be odd, got {value}")
        return value

    @model_validator(mode="after")
    def _can_freeze(self) -> Self:
        if self.freeze != "none" and self.weights == "none":
            raise ValueError(
                f"freeze = {self.freeze!r} would keep random weights; set weights, or freeze = 'none'"
            )
        if self.freeze == "layer4" and self.model in THREE_STAGES:
            raise ValueError(
                f"freeze must be none, stem, layer1, layer2, layer3 or backbone for {self.model}, which has "
                "three stages, got 'layer4'"
            )
        return self
