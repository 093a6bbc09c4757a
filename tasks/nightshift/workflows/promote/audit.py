"""Whether the champion is the one that the ledger knows: what somebody did by hand in MLflow is found here.

To move the alias is a supported way to promote. It is accepted and recorded when the version passed its gates
and its stored file is the evaluated one; otherwise it is recorded as disputed, and put back where the policy
says so. A champion that was deleted is recorded as gone, and nothing waits for it any more.
"""

from collections.abc import Mapping
from typing import Final, NamedTuple

from nightshift.errors import InputError
from nightshift.records import Decision, DecisionKind
from nightshift.tracking import ledger, registry
from nightshift.workflows.promote import decisions, moves

BY_HAND: Final = "by hand in MLflow"


class Audit(NamedTuple):
    """What was found. A champion that should not be one is not `accepted`; `back` is the one before it.

    With `unfinished`, the newest move of the ledger waits to be done.
    """

    champion: str | None
    accepted: bool
    back: str | None
    reason: str
    unfinished: bool = False


def audit(pipeline: str) -> Audit:
    """Compare the alias with the ledger, and record what the ledger does not know. Moves no alias."""
    champion = registry.alias_version(pipeline, registry.CHAMPION)
    last = ledger.champion(pipeline)
    lost = ""
    if last is not None and not decisions.there(last):
        lost = f"version {last.version} was the champion and was deleted {BY_HAND}"
        decisions.record(pipeline, "gone", last.version, None, BY_HAND, reasons=(lost,))
        last, lost = None, f"{lost}; "
    if champion is None and last is None:
        return Audit(None, True, None, f"{lost}there is no champion")
    if last is not None and moves.unfinished(last, champion):
        reason = f"version {last.version} was to become champion, and that was cut off: it is done now"
        return Audit(champion, True, None, reason, unfinished=True)
    if last is not None and champion == last.version:
        return Audit(champion, True, None, f"version {champion} is the champion that the ledger knows")
    if champion is None and last is not None:
        reason = f"the alias was removed {BY_HAND}, the ledger knows version {last.version}"
        _notice(pipeline, "removed", last.version, None, reason)
        return Audit(None, False, last.version, reason)
    found = _moved(pipeline, champion or "", last.version if last else None)
    return found._replace(reason=lost + found.reason)


def _moved(pipeline: str, champion: str, back: str | None) -> Audit:
    """Judge a champion that somebody set by hand."""
    objection = _objection(pipeline, champion)
    if objection:
        _notice(pipeline, "disputed", champion, back, objection)
        reason = f"version {champion}, set {BY_HAND}, is disputed: {objection}"
        return Audit(champion, False, back, reason)
    reason = "it passed its gates and its file is the evaluated one"
    decisions.record(pipeline, "adopted", champion, back, BY_HAND, reasons=(reason,))
    return Audit(
        champion, True, back, f"version {champion}, set {BY_HAND}, is accepted: {reason}", unfinished=True
    )


def _notice(pipeline: str, kind: DecisionKind, version: str, replaces: str | None, reason: str) -> None:
    """Record what is found, once until the alias is moved again, however often it is looked at."""
    moved, known = ledger.champion(pipeline), ledger.newest(pipeline, (kind,))
    if known is None or known.version != version or (moved is not None and known.number < moved.number):
        known = decisions.record(pipeline, kind, version, replaces, BY_HAND, reasons=(reason,))
    decisions.confirm(known)


def earlier(pipeline: str) -> Decision | None:
    """The newest champion that is not the present one, was not taken back, and that MLflow still has."""
    champion = registry.alias_version(pipeline, registry.CHAMPION)
    for move in reversed(ledger.reign(pipeline)):
        if move.version == champion:
            continue
        if decisions.there(move):
            return move
        print(f"version {move.version} of {pipeline} was champion and is not in MLflow any more: skipped")
    return None


def _objection(pipeline: str, version: str) -> str:
    """Why a version should not be champion; empty when nothing speaks against it."""
    try:
        registry.fetch_model(f"models:/{pipeline}/{version}")
    except InputError as error:
        return str(error)
    return unjudged(pipeline, version, registry.version_tags(pipeline, version))


def unjudged(pipeline: str, version: str, tags: Mapping[str, str]) -> str:
    """Why a version with these tags may not be champion, whatever its file; empty when all gates passed.

    With public keys configured, its gates count only where they are those that were signed with the file.
    """
    gates = {key: value for key, value in tags.items() if key.startswith(registry.GATE)}
    failed = [key.removeprefix(registry.GATE) for key, value in gates.items() if not value.startswith("pass")]
    if not gates:
        return "it was never judged by any gate"
    if failed:
        return f"it failed {', '.join(sorted(failed))}"
    try:
        registry.check_judgement(pipeline, version)
    except InputError as error:
        return str(error)
    return ""
