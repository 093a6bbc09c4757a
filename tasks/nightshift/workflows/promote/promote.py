"""After the night: look once more, move `champion` to the version, or write down why not.

Only the promote DAG calls this. It looks and moves in a pool of one slot, so that no two of these ever race.
What a move is decided on is bound when `check` looks: the file, the champion that is replaced, the test
images. When any of it changed since, nothing moves. Where a person has to answer, that is found out once
more where the alias moves, and no answer is a refusal. docs/promotion.md has all states.
"""

from pydantic import BaseModel

from nightshift.errors import InputError
from nightshift.records import Decision, DecisionKind, PromotionPrecondition
from nightshift.records.specs import PromoteSpec
from nightshift.tracking import ledger, registry
from nightshift.workflows.promote import approval, decisions, moves
from nightshift.workflows.promote.audit import Audit, audit, earlier, unjudged


class Promotion(BaseModel):
    """What came of one action. `proceed` is false when there is nothing to move, with the reason.

    `asks` says that a person has to approve of the move.
    """

    pipeline: str
    version: str
    sha256: str
    proceed: bool
    reason: str
    replaces: str | None
    asks: bool = False
    bound: PromotionPrecondition | None = None
    body: str = ""  # what an approver reads, Markdown


def promote(spec: PromoteSpec) -> Promotion:
    """Run the action. Raises InputError when the version is not the one that was evaluated and passed."""
    if spec.action == "record":
        result = refuse(spec)
        print(f"promote record: {result.reason}")
        return result
    found = audit(spec.pipeline)
    print(f"audit: {found.reason}")
    if found.unfinished:
        moves.finish(spec.pipeline)
    undo = not found.accepted and spec.manual_moves == "put_back"
    if undo and spec.action == "move":
        result = _put_back(spec, found)
    elif spec.intent == "audit":
        result = _result(spec, found.champion or "", found.champion, found.reason, proceed=undo)
    else:
        result = check(spec) if spec.action == "check" else move(spec)
    print(f"promote {spec.action}: {result.reason}")
    return result


def check(spec: PromoteSpec) -> Promotion:
    """Whether the version may still be promoted, and what the decision is bound to."""
    version, champion = _version(spec), registry.alias_version(spec.pipeline, registry.CHAMPION)
    tags = registry.version_tags(spec.pipeline, version)
    if spec.sha256 and tags.get(registry.SHA256) != spec.sha256:
        raise InputError(
            f"version {version} of {spec.pipeline} has SHA-256 {tags.get(registry.SHA256)}, not "
            f"{spec.sha256}: not moved"
        )
    if tags.get(registry.STATE) == "refused":
        raise InputError(f"version {version} of {spec.pipeline} was refused: {tags.get(registry.REASONS)}")
    if found := unjudged(spec.pipeline, version, tags):
        raise InputError(f"version {version} of {spec.pipeline} cannot be promoted: {found}")
    if champion == version:
        return _result(spec, version, champion, f"version {version} is the champion already")
    sha256 = tags.get(registry.SHA256, "")
    if spec.intent == "roll back" and not _reigned(spec.pipeline, version, sha256):
        raise InputError(
            f"version {version} of {spec.pipeline} was never champion, so there is nothing to roll back to; "
            "promote it instead"
        )
    bound = PromotionPrecondition(
        sha256=sha256, champion=champion, test=_test(tags.get(registry.DATASET, ""))
    )
    if stays := _void(spec, version, tags, bound):
        kind, reason = stays
        _stay(spec, version, kind, champion, reason)
        return _result(spec, version, champion, reason)
    replaced = f"instead of version {champion}" if champion else "as the first champion"
    reason = f"version {version} may be promoted {replaced}"
    body = approval.body(spec.pipeline, version, reason)
    result = _result(spec, version, champion, reason, proceed=True, bound=bound, body=body)
    return result.model_copy(update={"asks": _asks(spec, champion)})


def move(spec: PromoteSpec) -> Promotion:
    """Fetch the file again, so that the digest is that of the stored bytes, and move the alias."""
    if done := ledger.moved_by(spec.pipeline, spec.run):
        return _moved(spec, done)
    checked = check(spec)
    if not checked.proceed:
        return checked
    version, champion = checked.version, checked.replaces
    if checked.asks and not spec.approved:
        reason = "a person has to approve of it and there is no answer, which is a refusal"
        _stay(spec, version, "rejected", champion, reason)
        return _result(spec, version, champion, f"version {version} is not promoted: {reason}")
    try:
        registry.fetch_model(f"models:/{spec.pipeline}/{version}")
    except InputError as error:
        _stay(spec, version, "stale", champion, str(error))
        raise
    kind: DecisionKind = "rolled-back" if spec.intent == "roll back" else "promoted"
    reasons = (spec.reason,) if spec.reason else ()
    decided = decisions.record(spec.pipeline, kind, version, champion, spec.by, reasons=reasons, run=spec.run)
    moves.finish(spec.pipeline)
    return _moved(spec, decided)


def refuse(spec: PromoteSpec) -> Promotion:
    """Write down that a person refused, that time ran out, or that a newer version came meanwhile."""
    if spec.outcome is None:
        raise InputError("promote record needs an outcome: rejected or expired; got none")
    champion = registry.alias_version(spec.pipeline, registry.CHAMPION)
    newer = _newer(spec, spec.version) if spec.outcome == "expired" else None
    if newer:
        reason = f"version {spec.version} was superseded by version {newer}"
        _stay(spec, spec.version, "superseded", champion, reason)
    else:
        reason = f"version {spec.version} is {spec.outcome}, decided by {spec.by}"
        _stay(spec, spec.version, spec.outcome, champion, spec.reason)
    return _result(spec, spec.version, champion, reason)


def _version(spec: PromoteSpec) -> str:
    """The version that is meant: to roll back without naming one, the champion before the present one."""
    if spec.version:
        return spec.version
    before = earlier(spec.pipeline) if spec.intent == "roll back" else None
    if before is None:
        raise InputError(
            f"{spec.pipeline} has no champion before the present one to roll back to; name a version"
            if spec.intent == "roll back"
            else f"promoting {spec.pipeline} needs a version, got none"
        )
    return before.version


def _reigned(pipeline: str, version: str, sha256: str) -> bool:
    return any(each.kind in ledger.MOVES for each in ledger.about(pipeline, version, sha256))


def _asks(spec: PromoteSpec, champion: str | None) -> bool:
    """Whether a person has to approve: to roll back is a person's act, and the policy names the rest."""
    return spec.intent == "promote" and (spec.asks == "always" or (spec.asks == "first" and champion is None))


def _void(
    spec: PromoteSpec, version: str, tags: dict[str, str], bound: PromotionPrecondition
) -> tuple[DecisionKind, str] | None:
    """Why the decision does not stand any more, and how that is called; None when it does."""
    if newer := _newer(spec, version):
        return "superseded", f"version {version} was superseded by version {newer}"
    changed = []
    judged = tags.get(registry.CHAMPION_THEN)
    if spec.only_challenger and judged is not None and judged != (bound.champion or ""):
        changed.append(f"it was judged beside {_named(judged)}, and {_named(bound.champion)} is champion now")
    if spec.intent == "promote" and registry.TEST in tags and tags[registry.TEST] != bound.test:
        changed.append(
            f"the test images it was judged on ({tags[registry.TEST][:12]}) are not there any more"
        )
    if spec.bound is not None and spec.bound.champion != bound.champion:
        was = _named(spec.bound.champion)
        changed.append(f"{_named(bound.champion)} is champion, it was {was} when this was decided")
    if spec.bound is not None and spec.bound.sha256 != bound.sha256:
        changed.append(
            f"the file has SHA-256 {bound.sha256}, it had {spec.bound.sha256} when this was decided"
        )
    if not changed:
        return None
    return "stale", f"version {version} is not promoted: {'; '.join(changed)}; a new night judges it again"


def _newer(spec: PromoteSpec, version: str) -> str | None:
    """The challenger that came after a version that was offered."""
    challenger = registry.alias_version(spec.pipeline, registry.CHALLENGER) if spec.only_challenger else None
    return challenger if challenger not in (None, version) else None


def _test(dataset: str) -> str:
    """Digest of the test images of a data set; empty when its manifest is gone."""
    found = ledger.dataset(dataset) if dataset else None
    return found.test_digest if found else ""


def _moved(spec: PromoteSpec, decided: Decision) -> Promotion:
    """What came of a decision: the champion, unless somebody else decided after it."""
    version, last = decided.version, ledger.champion(spec.pipeline)
    if last != decided:
        now = _named(last.version if last else None)
        reason = f"version {version} was the champion, and meanwhile {now} is"
        return _result(spec, version, decided.replaces, reason)
    replaced = f"instead of version {decided.replaces}" if decided.replaces else "as the first one"
    reason = f"version {version} is the champion {replaced}"
    return _result(spec, version, decided.replaces, reason, proceed=True)


def _put_back(spec: PromoteSpec, found: Audit) -> Promotion:
    """Undo a move by hand that is not accepted, instead of what else was asked for."""
    why = f"version {found.champion} was set by hand and is not accepted" if found.champion else found.reason
    if found.back is None:
        version = found.champion or ""
        registry.remove_alias(spec.pipeline, registry.CHAMPION)
        decisions.confirm(
            decisions.record(spec.pipeline, "removed", version, None, "policy", reasons=(why,), run=spec.run)
        )
        return _result(spec, version, None, f"there is no champion again: {why}")
    back = decisions.record(
        spec.pipeline, "put-back", found.back, found.champion, "policy", reasons=(why,), run=spec.run
    )
    moves.finish(spec.pipeline)
    return _moved(spec, back)


def _stay(spec: PromoteSpec, version: str, kind: DecisionKind, champion: str | None, reason: str) -> None:
    """Write down that the version does not become champion."""
    reasons = (reason,) if reason else ()
    decision = decisions.record(
        spec.pipeline, kind, version, champion, spec.by, reasons=reasons, run=spec.run
    )
    # One that is stale is still a challenger, only its offer is void.
    if kind != "stale" and decisions.there(decision):
        registry.set_version_tag(spec.pipeline, version, registry.STATE, kind)
    decisions.confirm(decision)


def _named(version: str | None) -> str:
    return f"version {version}" if version else "no champion"


def _result(
    spec: PromoteSpec,
    version: str,
    champion: str | None,
    reason: str,
    *,
    proceed: bool = False,
    bound: PromotionPrecondition | None = None,
    body: str = "",
) -> Promotion:
    tags = (registry.find_tags(spec.pipeline, version) if version else None) or {}
    return Promotion(
        pipeline=spec.pipeline,
        version=version,
        sha256=tags.get(registry.SHA256, ""),
        proceed=proceed,
        reason=reason,
        replaces=champion,
        bound=bound,
        body=body,
    )
