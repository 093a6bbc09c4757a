"""The knobs of the network and of what is made of it."""

from typing import Literal

from pydantic import Field, field_validator

from tasks.config.base import ADVANCED, Settings

VoteRule = Literal["soft", "hard"]
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


class TrainSettings(Settings):
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
    epochs: int = Field(20, ge=1, le=1000, description="Passes over the training images.")
    batch_size: int = Field(128, ge=2, le=8192, description="Images per optimizer step.")
    learning_rate: float = Field(0.05, gt=0, le=10, description="Highest learning rate of the schedule.")
    optimizer: Literal["sgd", "adam", "adamw", "rmsprop", "muon"] = Field(
        "sgd",
        description="'sgd' is Nesterov momentum 0.9; 'muon' is for the kernels, with adamw for all else.",
    )
    schedule: Literal["one_cycle", "cosine", "step", "plateau"] = Field(
        "one_cycle",
        description="How the learning rate moves: up and down, down along a cosine after a warm-up, to a "
        "tenth at half and at three quarters, or to a tenth when validation no longer gets better.",
        json_schema_extra=ADVANCED,
    )
    warmup_epochs: int = Field(
        1,
        ge=0,
        le=100,
        description="Epochs in which the learning rate rises, for 'cosine' and 'step'.",
        json_schema_extra=ADVANCED,
    )
    loss: Literal["cross_entropy", "bce", "focal"] = Field(
        "cross_entropy",
        description="'bce' asks for every class by itself, 'focal' looks at what is still predicted wrongly.",
        json_schema_extra=ADVANCED,
    )
    focal_gamma: float = Field(
        2.0,
        ge=0,
        le=10,
        description="How little 'focal' cares for what is predicted well; 0 is the cross entropy.",
        json_schema_extra=ADVANCED,
    )
    imbalance: Literal["none", "weights", "sampling"] = Field(
        "none",
        description="Against classes of unequal size: give rare ones more weight, or show them more often.",
        json_schema_extra=ADVANCED,
    )
    clip_norm: float = Field(
        0.0,
        ge=0,
        le=1000,
        description="Longest gradient over all weights; longer ones are shortened. 0 is off.",
        json_schema_extra=ADVANCED,
    )
    accumulation: int = Field(
        1,
        ge=1,
        le=256,
        description="Pieces in which a batch goes through the network, to save memory.",
        json_schema_extra=ADVANCED,
    )
    ema: float = Field(
        0.0,
        ge=0,
        lt=1,
        description="Share of the old weights in a moving average that is the result, as 0.999; 0 is off.",
        json_schema_extra=ADVANCED,
    )
    patience: int = Field(
        0,
        ge=0,
        le=1000,
        description="Epochs without a better validation accuracy after which training stops, with the "
        "weights of the best epoch as its result. 0 is off.",
        json_schema_extra=ADVANCED,
    )
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
    jitter: float = Field(
        0.0,
        ge=0,
        lt=1,
        description="Brightness, contrast and saturation of training images vary by up to this share.",
        json_schema_extra=ADVANCED,
    )
    auto_augment: Literal["none", "randaugment", "trivial"] = Field(
        "none",
        description="Random operations on training images from a fixed list: two of RandAugment or one of "
        "TrivialAugment.",
        json_schema_extra=ADVANCED,
    )
    cutout: int = Field(
        0,
        ge=0,
        le=512,
        description="Side in pixels of a black square in each training image; 0 is off.",
        json_schema_extra=ADVANCED,
    )
    mixup: float = Field(
        0.0,
        ge=0,
        le=10,
        description="Blend pairs of training images and their labels; the beta distribution's parameter, "
        "such as 0.2, and 0 is off.",
        json_schema_extra=ADVANCED,
    )
    cutmix: float = Field(
        0.0,
        ge=0,
        le=10,
        description="Put a piece of one training image into another, labels alike; the beta distribution's "
        "parameter, such as 1, and 0 is off.",
        json_schema_extra=ADVANCED,
    )
    noise: float = Field(
        0.0,
        ge=0,
        le=1,
        description="Largest deviation of Gaussian noise in training images, on the scale 0 to 1.",
        json_schema_extra=ADVANCED,
    )
    salt_pepper: float = Field(
        0.0,
        ge=0,
        le=1,
        description="Largest share of pixels of a training image that become black or white.",
        json_schema_extra=ADVANCED,
    )
    blur: float = Field(
        0.0,
        ge=0,
        le=2,
        description="Half of the training images are blurred, with a deviation of up to this many pixels.",
        json_schema_extra=ADVANCED,
    )
    members: int = Field(
        1,
        ge=1,
        le=16,
        description="Networks trained with different seeds; the best one and their vote become candidates.",
        json_schema_extra=ADVANCED,
    )
    weights: Literal["none", "imagenet"] = Field(
        "none",
        description="Start from random weights, or from torchvision's ImageNet weights.",
        json_schema_extra=ADVANCED,
    )
    seed: int = Field(
        0, ge=0, le=2**31 - 1, description="Seed of every random choice.", json_schema_extra=ADVANCED
    )

    @field_validator("stem_kernel")
    @classmethod
    def _odd(cls, value: int | None) -> int | None:
        if value is not None and value % 2 == 0:
            raise ValueError(f"stem_kernel must be odd, got {value}")
        return value


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
