"""The knobs of a training, with those of its network and its images."""

from typing import Literal

from pydantic import Field

from nightshift.config.augmentation import AugmentationSettings
from nightshift.config.base import ADVANCED
from nightshift.config.model import NetworkSettings


class TrainSettings(AugmentationSettings, NetworkSettings):
    epochs: int = Field(20, ge=1, le=1000, description="Passes over the training images.")
    batch_size: int = Field(128, ge=2, le=8192, description="Images per optimizer step.")
    learning_rate: float = Field(0.05, gt=0, le=10, description="Highest learning rate of the schedule.")
    find_learning_rate: bool = Field(
        False,
        description="Find the learning rate by trying rising ones, instead of learning_rate.",
        json_schema_extra=ADVANCED,
    )
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
    gradient_accumulation: int = Field(
        0,
        ge=0,
        le=256,
        description="Pieces in which a batch goes through the network, to save memory; 0 is as few as the "
        "memory allows.",
        json_schema_extra=ADVANCED,
    )
    compile: Literal["auto", "yes", "no"] = Field(
        "auto",
        description="Let torch compile the network; 'auto' does on a GPU where the training is long enough.",
        json_schema_extra=ADVANCED,
    )
    processes: int = Field(
        0,
        ge=0,
        le=64,
        description="Processes that train together on one machine; 0 is one for each GPU.",
        json_schema_extra=ADVANCED,
    )
    checkpoint_minutes: float = Field(
        5.0,
        ge=0,
        le=24 * 60,
        description="Within a long epoch, the state is kept again after so many minutes.",
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
    members: int = Field(
        1,
        ge=1,
        le=16,
        description="Networks trained with different seeds; the best one and their vote become candidates.",
        json_schema_extra=ADVANCED,
    )
    seed: int = Field(
        0, ge=0, le=2**31 - 1, description="Seed of every random choice.", json_schema_extra=ADVANCED
    )
