"""Decisions about registered versions: into the ledger before they are done, onto the version when they are.

The ledger comes first, so a crash in between leaves a decision to repeat, never a move without its record.
"""

from nightshift.records import Decision, DecisionKind
from nightshift.tracking import ledger, registry, runs


def record(
    pipeline: str,
    kind: DecisionKind,
    version: str,
    replaces: str | None,
    by: str,
    *,
    reasons: tuple[str, ...] = (),
    run: str = "",
) -> Decision:
    """Write a decision about a version into the ledger; `run` is the promotion that decides.

    Of a version that MLflow does not have any more, the facts are those that the ledger has of it.
    """
    return ledger.append(
        Decision(
            pipeline=pipeline,
            kind=kind,
            version=version,
            replaces=replaces,
            by=by,
            at=ledger.now(),
            reasons=reasons,
            run=run,
            **_facts(pipeline, version),
        )
    )


def confirm(decision: Decision) -> None:
    """Tag the version with the decision once it is done; the tags of earlier decisions stay."""
    if there(decision):
        registry.set_version_tag(
            decision.pipeline, decision.version, tag_of(decision), decision.model_dump_json()
        )


def confirmed(decision: Decision) -> bool:
    """Whether a decision was done after it was written down: its task may have been cut off in between."""
    return tag_of(decision) in (registry.find_tags(decision.pipeline, decision.version) or {})


def tag_of(decision: Decision) -> str:
    """The tag that says that a decision is done."""
    return f"{registry.DECISION}.{decision.number:08d}-{decision.kind}"


def there(decision: Decision) -> bool:
    """Whether MLflow still has the version that was decided about, and not another one of that number."""
    tags = registry.find_tags(decision.pipeline, decision.version)
    return tags is not None and tags.get(registry.SHA256, "") == decision.sha256


def _facts(pipeline: str, version: str) -> dict[str, str]:
    tags = registry.find_tags(pipeline, version)
    if tags is None:
        known = ledger.about(pipeline, version)
        named = {"sha256", "dataset", "data_digest", "settings_digest", "night", "evidence"}
        return known[-1].model_dump(include=named) if known else dict.fromkeys(named, "")
    return {
        "sha256": tags.get(registry.SHA256, ""),
        "dataset": tags.get(registry.DATASET, ""),
        "data_digest": tags.get(registry.DATA, ""),
        "settings_digest": tags.get(registry.SETTINGS, ""),
        "night": tags.get(runs.NIGHT, ""),
        "evidence": tags.get(registry.REPORT, ""),
    }
