"""The alias follows the ledger: what was decided is done, by whoever comes next if need be.

A move is written down first and done then. To do it twice changes nothing, and whoever does it looks again
afterwards whether a newer one was written meanwhile, so that of two at once the alias ends at the later one.
"""

from nightshift.records import Decision
from nightshift.tracking import ledger, registry
from nightshift.workflows.promote import decisions


def finish(pipeline: str) -> Decision:
    """Do the newest move of the ledger, until there is no newer one, and return it."""
    while True:
        move = ledger.champion(pipeline)
        if move is None:
            raise LookupError(f"the ledger of {pipeline} has no champion, so there is no move to finish")
        registry.set_alias(pipeline, registry.CHAMPION, move.version)
        registry.set_version_tag(pipeline, move.version, registry.STATE, "promoted")
        if move.kind == "rolled-back" and move.replaces:
            _withdraw(pipeline, move.replaces)
        decisions.confirm(move)
        if ledger.champion(pipeline) == move:
            return move


def unfinished(move: Decision, alias: str | None) -> bool:
    """Whether a move was cut off between ledger and alias, `alias` being the champion of MLflow now.

    Where the alias is at a third version, somebody moved it by hand since.
    """
    return alias in (None, move.version, move.replaces) and not decisions.confirmed(move)


def _withdraw(pipeline: str, version: str) -> None:
    """Mark what a rollback took back; a version that never was promoted keeps what is said of it."""
    tags = registry.find_tags(pipeline, version) or {}
    if tags.get(registry.STATE) == "promoted":
        registry.set_version_tag(pipeline, version, registry.STATE, registry.WITHDRAWN)
