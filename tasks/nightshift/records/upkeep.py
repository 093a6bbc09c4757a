"""Records of a cleaning: what goes, why, and what is wrong with what stays."""

from nightshift.config.upkeep import Retention
from nightshift.records.data import Record


class GarbageItem(Record):
    """One thing that is to be deleted: an object of the store, an upload in parts, or a version in MLflow."""

    kind: str  # what it is counted as
    uri: str
    size: int  # bytes; 0 where nobody says
    reason: str
    upload: str = ""  # of an upload in parts: what S3 calls it


class Tally(Record):
    """Things of one kind, in numbers and bytes."""

    doomed: int = 0
    doomed_size: int = 0
    kept: int = 0
    kept_size: int = 0


class GarbageList(Record):
    """`upkeep/<time>.json`: what `look` found, in the order in which `delete` deletes it."""

    at: float  # seconds since 1970
    settings: Retention
    named: tuple[str, ...]  # addresses, or JSON with addresses, of what stays whatever else says so
    doomed: tuple[GarbageItem, ...]
    tallies: dict[str, Tally]
    findings: tuple[str, ...]  # what registered versions lack, a sentence each
    remarks: tuple[str, ...]  # what could not be looked at, or is not known here
