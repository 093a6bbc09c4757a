"""Decisions about registered versions: into the ledger before they are done, onto the version when they are.

The ledger comes first, so a crash in between leaves a decision to repeat, never a move without its record.
"""

from tasks import ledger, registry, storage, tracking
from tasks.records import Decision, DecisionKind


def record(
    pipeline: str,
    kind: DecisionKind,
    version: str,
    instead_of: str | None,
    by: str,
    *,
    reasons: tuple[str, ...] = (),
    run: str = "",
) -> Decision:
    """Write a decision about a registered version into the ledger; `run` is the promotion that decides."""
    tags = registry.version_tags(pipeline, version)
    decision = Decision(
        pipeline=pipeline,
        kind=kind,
        version=version,
        sha256=tags.get(registry.SHA256, ""),
        dataset=tags.get(registry.DATASET, ""),
        data_digest=tags.get(registry.DATA, ""),
        settings_digest=tags.get(registry.SETTINGS, ""),
        instead_of=instead_of,
        by=by,
        at=ledger.now(),
        night=tags.get(tracking.NIGHT, ""),
        reasons=reasons,
        evidence=tags.get(registry.REPORT, ""),
        run=run,
    )
    return storage.read_record(ledger.append(decision), Decision)  # that of an earlier try, if there is one


def confirm(decision: Decision) -> None:
    """Tag the version with the decision once it is done; the tags of earlier decisions stay."""
    registry.set_version_tag(
        decision.pipeline, decision.version, tag_of(decision), decision.model_dump_json()
    )


def tag_of(decision: Decision) -> str:
    """The tag that says that a decision is done."""
    return f"{registry.DECISION}.{decision.at.replace(':', '')}"
