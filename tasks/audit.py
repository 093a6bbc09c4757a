"""Whether the champion is the one that the ledger knows: a move made by hand in MLflow is found here.

Such a move is a supported way to promote. It is accepted and recorded when the version passed its gates and
its stored file is the evaluated one; otherwise it is recorded as disputed, and put back where the policy says
so.
"""

from collections.abc import Mapping
from typing import Final, NamedTuple

from tasks import decisions, ledger, registry
from tasks.errors import InputError
from tasks.records import Decision, DecisionKind

BY_HAND: Final = "by hand in MLflow"


class Audit(NamedTuple):
    """What was found. A champion that should not be one is not `accepted`; `back` is the one before it."""

    champion: str | None
    accepted: bool
    back: str | None
    reason: str


def audit(pipeline: str) -> Audit:
    """Compare the alias with the ledger, and record a move that the ledger does not know.

    Moves no alias.
    """
    champion = registry.alias_version(pipeline, registry.CHAMPION)
    last = ledger.champion(pipeline)
    if champion is None and last is None:
        return Audit(None, True, None, "there is no champion")
    if last is not None and (champion == last.version or not _finished(last)):
        return Audit(champion, True, None, f"version {last.version} is the champion that the ledger knows")
    if champion is None:
        reason = f"the alias was removed {BY_HAND}, the ledger knows version {last.version if last else None}"
        return Audit(None, False, last.version if last else None, reason)
    back = last.version if last else None
    found = _objection(pipeline, champion)
    kind: DecisionKind = "disputed" if found else "adopted"
    reason = found or "it passed its gates and its file is the evaluated one"
    decisions.confirm(decisions.record(pipeline, kind, champion, back, BY_HAND, reasons=(reason,)))
    verdict = "is disputed" if found else "is accepted"
    return Audit(champion, not found, back, f"version {champion}, set {BY_HAND}, {verdict}: {reason}")


def _finished(move: Decision) -> bool:
    """Whether the alias was moved after the ledger's entry: a promotion may have been cut off in between."""
    return decisions.tag_of(move) in registry.version_tags(move.pipeline, move.version)


def _objection(pipeline: str, version: str) -> str:
    """Why a version should not be champion; empty when nothing speaks against it."""
    if found := unjudged(registry.version_tags(pipeline, version)):
        return found
    try:
        registry.fetch_model(f"models:/{pipeline}/{version}")
    except InputError as error:
        return str(error)
    return ""


def unjudged(tags: Mapping[str, str]) -> str:
    """Why a version with these tags may not be champion, whatever its file; empty when all gates passed."""
    gates = {key: value for key, value in tags.items() if key.startswith(registry.GATE)}
    failed = [key.removeprefix(registry.GATE) for key, value in gates.items() if not value.startswith("pass")]
    if not gates:
        return "it was never judged by any gate"
    if failed:
        return f"it failed {', '.join(sorted(failed))}"
    return ""
