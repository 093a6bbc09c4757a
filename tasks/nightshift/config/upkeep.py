"""How long things are kept, and when the store is cleaned; read from `dags/upkeep.toml`."""

from pydantic import Field

from nightshift.config.base import Settings
from nightshift.config.schedule import Cron, TimeZone

DAY = 86400.0  # seconds


class Retention(Settings):
    """What may go. What a registered version, the ledger or a young record names stays in any case."""

    grace_days: float = Field(
        30,
        ge=1,
        le=3650,
        description="Nothing that was written in the last so many days is deleted.",
    )
    version_days: float = Field(
        180,
        ge=1,
        le=36500,
        description="A registered version that never was champion may be removed after so many days.",
    )
    keep_versions: int = Field(
        20,
        ge=1,
        le=100_000,
        description="The newest so many versions of each model stay, however old they are.",
    )
    prediction_days: float = Field(
        90,
        ge=1,
        le=36500,
        description="Predictions of other versions than the champion stay so many days; the newest ones of a "
        "batch always stay.",
    )
    log_days: float = Field(
        90,
        ge=1,
        le=36500,
        description="Logs of tasks that Airflow keeps in the store, below logs/, stay so many days.",
    )


class Upkeep(Retention):
    """`dags/upkeep.toml`: the DAG `upkeep`."""

    schedule: Cron | None = Field(None, description="Cron expression; empty means by hand only.")
    timezone: TimeZone = Field("UTC", description="Time zone of the schedule, such as Europe/Berlin.")
    dry_run: bool = Field(False, description="Only list what would be deleted, and delete nothing.")
