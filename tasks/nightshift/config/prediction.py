"""What is predicted in batches, when, and which of it a person should look at."""

from typing import Literal

from pydantic import Field

from nightshift.config.base import Settings
from nightshift.config.schedule import Cron
from nightshift.config.source import Source


class PredictPolicy(Settings):
    """Batches without labels are predicted by the champion; a new champion predicts some of them again."""

    source: Source | None = Field(
        None, description="URI of the batches to predict; empty means <store>/unlabelled/<name>."
    )
    schedule: Cron = Field(
        "@daily",
        description="Cron expression for looking whether new batches came; they are also looked for after "
        "each promotion and each nightshift ingest --unlabelled. Whatever nobody told of is found then.",
    )
    repredict: Literal["none", "recent", "all"] = Field(
        "recent",
        description="What a new champion predicts again: nothing, batches of the last recent_days, or all. "
        "What nobody predicted yet is always predicted.",
    )
    recent_days: float = Field(
        30, gt=0, le=36_500, description="A batch is recent when its newest file is not older than this."
    )
    low_confidence: float = Field(
        0.6,
        ge=0,
        le=1,
        description="An image whose label has a lower probability is listed for a person to label.",
    )
    max_to_label: int = Field(
        500, ge=0, le=100_000, description="Images of a batch that are listed at most, the least sure ones."
    )
