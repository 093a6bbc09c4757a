"""The knobs of the data: how files become images, images a data set, and when a new one is worth a night."""

from typing import Any, Final, Literal

from pydantic import Field, model_validator

from nightshift.config.base import ADVANCED, Settings, digest_of

# What decides the pixels of an image that is accepted: these settings travel with the model.
PIXELS: Final = {
    *("image_size", "stored_size", "channels", "resize", "scaled_decoding"),
    *("denoise", "denoise_strength", "smoothing"),
}


class PreprocessSettings(Settings):
    image_size: int = Field(32, ge=8, le=1024, description="Side of the square the model sees, in pixels.")
    stored_size: int | None = Field(
        None,
        ge=8,
        le=2048,
        description="Side of the square kept in the shards, in pixels; empty means the image size. "
        "Larger leaves room for random crops (256 for 224).",
        json_schema_extra=ADVANCED,
    )
    channels: int = Field(
        3,
        ge=1,
        le=32,
        description="Channels of an image: 3 is RGB, 1 grey, made of each other; any other number takes .npy "
        "arrays [H,W,C] that have just so many.",
        json_schema_extra=ADVANCED,
    )
    resize: Literal["crop", "letterbox", "stretch"] = Field(
        "crop",
        description="How a photo becomes a square: crop the centre, letterbox with black, or stretch.",
        json_schema_extra=ADVANCED,
    )
    part_seconds: float = Field(
        20,
        gt=0,
        le=600,  # a part that breaks off begins anew
        description="Estimated work in one queue message, in seconds of one core; 10 to 60 keeps workers "
        "busy and restarts cheap.",
        json_schema_extra=ADVANCED,
    )
    validation_fraction: float = Field(
        0.15,
        gt=0,
        lt=0.5,
        description="Share of the images kept for choosing among candidates.",
        json_schema_extra=ADVANCED,
    )
    test_fraction: float = Field(
        0.15,
        gt=0,
        lt=0.5,
        description="Share of the images kept for the final judgement.",
        json_schema_extra=ADVANCED,
    )
    max_pixels: int = Field(
        50_000_000,
        ge=64,
        le=500_000_000,
        description="Images with more pixels than this are refused before they are decoded.",
        json_schema_extra=ADVANCED,
    )
    max_side: int = Field(
        65_500,
        ge=8,
        le=65_500,
        description="Images with a longer side, in pixels, are refused before they are decoded.",
        json_schema_extra=ADVANCED,
    )
    max_megabytes: int = Field(
        64,
        ge=1,
        le=1024,
        description="Files larger than this many MiB are refused.",
        json_schema_extra=ADVANCED,
    )
    animated: Literal["first", "refuse"] = Field(
        "first",
        description="Animations and files of several pages: take the first picture, or refuse the file.",
        json_schema_extra=ADVANCED,
    )
    scaled_decoding: bool = Field(
        True,
        description="Decode JPEGs much larger than needed at 1/2, 1/4 or 1/8 of their size: several times "
        "faster, and a grey level or two different.",
        json_schema_extra=ADVANCED,
    )
    decode_seconds: float = Field(
        5,
        gt=0,
        le=600,
        description="An image that takes longer to decode is refused.",
        json_schema_extra=ADVANCED,
    )
    decode_megabytes: int = Field(
        1024,
        ge=64,
        le=65_536,
        description="An image that takes more memory to decode, in MiB, is refused.",
        json_schema_extra=ADVANCED,
    )
    denoise: Literal["none", "median", "bilateral", "nlmeans"] = Field(
        "none",
        description="Remove noise from the resized image; nlmeans (non-local means) is the best and takes "
        "about a hundred times longer than the others.",
        json_schema_extra=ADVANCED,
    )
    denoise_strength: int = Field(
        1,
        ge=1,
        le=10,
        description="How much noise is removed: median over 2n+1 pixels a side, bilateral within 10n grey "
        "levels, non-local means with a filter strength of 3n.",
        json_schema_extra=ADVANCED,
    )
    smoothing: float = Field(
        0,
        ge=0,
        le=1,
        description="Edge-preserving smoothing of the resized image: differences below this share of the "
        "range are evened out; 0 is off, 0.4 strong.",
        json_schema_extra=ADVANCED,
    )

    @model_validator(mode="after")
    def _fit_together(self) -> "PreprocessSettings":
        if self.stored_size is not None and self.stored_size < self.image_size:
            raise ValueError(
                f"stored_size must be at least image_size ({self.image_size}), got {self.stored_size}"
            )
        if self.channels != 3 and (self.denoise != "none" or self.smoothing):
            raise ValueError(
                f"denoise and smoothing need 3 channels, got {self.channels}; set denoise to none and "
                "smoothing to 0"
            )
        return self

    def shards_digest(self) -> str:
        """Digest of what shapes the shards; how the work is cut into parts is named by their files."""
        return digest_of(self.model_dump(mode="json", exclude={"part_seconds"}))

    @property
    def side(self) -> int:
        """Side of the stored square in pixels."""
        return self.stored_size or self.image_size

    @property
    def input_shape(self) -> tuple[int, int, int]:
        """Of an image as the model takes it, [H,W,C]."""
        return self.image_size, self.image_size, self.channels

    def pixel_settings(self) -> dict[str, Any]:
        """The settings in `PIXELS`, those without effect as they are by default."""
        strength = self.denoise_strength if self.denoise != "none" else 1
        return self.model_dump(include=PIXELS) | {"stored_size": self.side, "denoise_strength": strength}

    def same_pixels(self, other: "PreprocessSettings") -> bool:
        """Whether both make the same pixels of every image that both accept."""
        return self.pixel_settings() == other.pixel_settings()

    def reads(self, other: "PreprocessSettings") -> bool:
        """Whether images that `other` accepts have channels that these settings can use too."""
        return self.channels == other.channels or {self.channels, other.channels} == {1, 3}


class AssembleSettings(Settings):
    max_refused_fraction: float = Field(
        0.5,
        ge=0,
        le=1,
        description="Share of a batch's files that may be refused; with more the night fails and says why.",
    )
    conflicting_labels: Literal["refuse", "keep"] = Field(
        "refuse",
        description="An image under two labels in one upload: leave out all its copies, or keep the first.",
        json_schema_extra=ADVANCED,
    )
    near_duplicates: Literal["exclude", "report"] = Field(
        "exclude",
        description="Training images that look like a validation or test image: leave them out, or only "
        "list them.",
        json_schema_extra=ADVANCED,
    )
    near_duplicate_bits: int = Field(
        4,
        ge=0,
        le=8,
        description="Bits, of 64, in which the perceptual hashes of two images that look alike may differ.",
        json_schema_extra=ADVANCED,
    )


class RetrainPolicy(Settings):
    """When a scheduled night has work. New settings, removed batches and the first night always count."""

    always: bool = Field(False, description="Train every night, even when nothing is new.")
    min_new_images: int = Field(
        1,
        ge=1,
        le=1_000_000_000,
        description="New images, since the last decision, from which a night trains; a batch whose labels or "
        "images changed without growing counts whole.",
    )
    max_age_days: float | None = Field(
        None,
        gt=0,
        le=36_500,
        description="Train when the last decision is older than this; empty means never for its age.",
    )
    max_drift: float | None = Field(
        None,
        gt=0,
        le=1000,
        description="Train when the images drift from those of the last decision by more than this "
        "(population stability index; 0.1 is small, 0.25 is large); empty means never for drift.",
    )
