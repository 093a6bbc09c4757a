"""The knobs of what training images go through."""

from typing import Literal

from pydantic import Field

from nightshift.config.base import ADVANCED, Settings


class AugmentationSettings(Settings):
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
    adversarial: Literal["none", "fgsm", "pgd"] = Field(
        "none",
        description="Train on images that are changed to mislead the network: 'fgsm' by one step, at twice "
        "the time, 'pgd' by several, at as many times more. It costs accuracy on images that nobody changed.",
        json_schema_extra=ADVANCED,
    )
    adversarial_epsilon: float = Field(
        2.0,
        gt=0,
        le=64,
        description="Largest change of a pixel by 'adversarial', of a range of 255.",
        json_schema_extra=ADVANCED,
    )
    adversarial_steps: int = Field(5, ge=2, le=100, description="Steps of 'pgd'.", json_schema_extra=ADVANCED)
    progressive_resize_start: float = Field(
        1.0,
        ge=0.25,
        le=1,
        description="Training begins on images shrunk to this share of their side and they grow to all of it "
        "over two thirds of the epochs; 0.5 saves about a third of the time.",
        json_schema_extra=ADVANCED,
    )
