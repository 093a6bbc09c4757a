"""After the night: look once more, move `champion` to the version, or write down why not.

Only the promote DAG calls this, in a pool of one slot, so that no two moves ever race.
"""

from pydantic import BaseModel

from tasks import ledger, registry, tracking
from tasks.errors import InputError
from tasks.records import Decision
from tasks.specs import PromoteSpec


class Promotion(BaseModel):
    """What came of one action. `proceed` is false when there is nothing to move, with the reason."""

    pipeline: str
    version: str
    sha256: str
    proceed: bool
    reason: str
    instead_of: str | None


def promote(spec: PromoteSpec) -> Promotion:
    """Run the action. Raises InputError when the version is not the one that was evaluated and passed."""
    tags = registry.version_tags(spec.pipeline, spec.version)
    sha256 = tags.get(registry.SHA256, "")
    if spec.sha256 and sha256 != spec.sha256:
        raise InputError(
            f"version {spec.version} of {spec.pipeline} has SHA-256 {sha256}, not {spec.sha256}: not moved"
        )
    champion = registry.alias_version(spec.pipeline, registry.CHAMPION)
    if spec.action == "check":
        result = check(spec, tags, champion, sha256)
    elif spec.action == "move":
        result = move(spec, tags, champion, sha256)
    else:
        result = record(spec, tags, champion, sha256)
    print(f"promote {spec.action}: {result.reason}")
    return result


def check(spec: PromoteSpec, tags: dict[str, str], champion: str | None, sha256: str) -> Promotion:
    """Whether the version may still be promoted."""
    if tags.get(registry.STATE) == "refused":
        raise InputError(
            f"version {spec.version} of {spec.pipeline} was refused: {tags.get(registry.REASONS)}"
        )
    if champion == spec.version:
        return _result(spec, sha256, champion, False, f"version {spec.version} is the champion already")
    challenger = registry.alias_version(spec.pipeline, registry.CHALLENGER)
    if spec.only_challenger and challenger != spec.version:
        ledger.append(_decision(spec, "superseded", tags, champion, sha256))
        registry.set_version_tag(spec.pipeline, spec.version, registry.STATE, "superseded")
        return _result(
            spec, sha256, champion, False, f"version {spec.version} was superseded by version {challenger}"
        )
    replaced = f"instead of version {champion}" if champion else "as the first champion"
    return _result(spec, sha256, champion, True, f"version {spec.version} may be promoted {replaced}")


def move(spec: PromoteSpec, tags: dict[str, str], champion: str | None, sha256: str) -> Promotion:
    """Fetch the file again, so that the digest is that of the stored bytes, and move the alias."""
    checked = check(spec, tags, champion, sha256)
    if not checked.proceed:
        return checked
    registry.fetch_model(f"models:/{spec.pipeline}/{spec.version}")
    # The ledger comes first: a crash in between leaves a decision to repeat, never a move without its record.
    ledger.append(_decision(spec, "promoted", tags, champion, sha256))
    registry.set_alias(spec.pipeline, registry.CHAMPION, spec.version)
    registry.set_version_tag(spec.pipeline, spec.version, registry.STATE, "promoted")
    replaced = f"instead of version {champion}" if champion else "as the first one"
    return _result(spec, sha256, champion, True, f"version {spec.version} is the champion {replaced}")


def record(spec: PromoteSpec, tags: dict[str, str], champion: str | None, sha256: str) -> Promotion:
    """Write down that a person refused or that time ran out."""
    if spec.outcome is None:
        raise InputError("promote record needs an outcome: rejected or expired; got none")
    ledger.append(_decision(spec, spec.outcome, tags, champion, sha256))
    registry.set_version_tag(spec.pipeline, spec.version, registry.STATE, spec.outcome)
    return _result(
        spec, sha256, champion, False, f"version {spec.version} is {spec.outcome}, decided by {spec.by}"
    )


def _result(spec: PromoteSpec, sha256: str, champion: str | None, proceed: bool, reason: str) -> Promotion:
    return Promotion(
        pipeline=spec.pipeline,
        version=spec.version,
        sha256=sha256,
        proceed=proceed,
        reason=reason,
        instead_of=champion,
    )


def _decision(
    spec: PromoteSpec, kind: str, tags: dict[str, str], champion: str | None, sha256: str
) -> Decision:
    return Decision.model_validate(
        {
            "pipeline": spec.pipeline,
            "kind": kind,
            "version": spec.version,
            "sha256": sha256,
            "dataset": tags.get(registry.DATASET, ""),
            "data_digest": tags.get(registry.DATA, ""),
            "settings_digest": tags.get(registry.SETTINGS, ""),
            "instead_of": champion,
            "by": spec.by,
            "at": ledger.now(),
            "night": tags.get(tracking.NIGHT, ""),
            "reasons": (),
        }
    )
