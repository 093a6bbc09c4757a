"""The states of docs/promotion.md in any order, with a real MLflow server and a real S3 store.

`make test` takes a few dozen steps, `make test-all` 500 (NIGHTSHIFT_TEST_STEPS). Always the same ones.
"""

import functools
import itertools
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    rule,
    run_state_machine_as_test,
)
from ml_fixtures import Night
from promotions import act, champion, registering_spec
from test_storage import s3, s3_server

from nightshift import register
from nightshift.errors import InputError, OutageError
from nightshift.records.specs import RegisterSpec
from nightshift.security import signing
from nightshift.tracking import ledger, logged_model, registry

__all__ = ["s3", "s3_server"]  # fixtures: a real S3 server

STEPS = int(os.environ.get("NIGHTSHIFT_TEST_STEPS", "100"))
LENGTH = 20  # steps of one history
WHICH = st.integers(0, 5)  # counted from the newest version
FAULTS = ["none", "none", "cut off", "cut off for good", "twin", "rival"]
NUMBERS = itertools.count(1)


class Histories(RuleBasedStateMachine):
    """One pipeline and what happens to it. `judged` says of each version that came whether it passed."""

    night: Night

    def __init__(self) -> None:
        super().__init__()
        self.name = f"history-{next(NUMBERS)}"
        self.specs: list[RegisterSpec] = []
        self.judged: dict[str, bool] = {}
        self.gone: set[str] = set()
        self.touched = False  # by hand, and not audited since
        self.known: list[object] = []  # the ledger as it was after the last step
        self.newest = 0  # the challenger

    @initialize()
    def begin(self) -> None:
        """One version that passed and one that did not, so that every rule has something to act on."""
        for passed in (True, False):
            self.register(passed)

    # What the product does.

    @rule(passed=st.sampled_from([True, True, False]))
    def register(self, passed: bool) -> None:
        number = next(NUMBERS)
        spec = registering_spec(self.night, self.name, f"night {number}", len(self.specs), passed=passed)
        self.specs.append(spec)
        version = register.register(spec)
        assert version.offered == passed
        self.judged[version.version] = passed

    @rule(which=WHICH)
    def register_again(self, which: int) -> None:
        """A task `register` that is run again, perhaps weeks later; of a version that was deleted, anew."""
        version = register.register(self.specs[-1 - which % len(self.specs)])
        self.judged.setdefault(version.version, version.state == "challenger")
        decided = {each.kind for each in ledger.about(self.name, version.version)}
        if decided & {"promoted", "rolled-back", "rejected", "superseded"}:
            assert not version.offered

    @rule(which=WHICH, answer=st.sampled_from(["approved", "rejected", "expired", "none"]))
    def offer(self, which: int, answer: str) -> None:
        """A challenger is offered, a person is asked, and the answer is perhaps lost."""
        version, before = self.version(which), champion(self.name)
        more = {"only_challenger": True, "asks": "always", "run": self.run()}
        looked = self.attempt(version, lambda: act("check", self.name, version, **more))
        if looked is None or not looked.proceed:
            return
        assert looked.asks
        between = champion(self.name)  # looking may have done what was cut off before
        if answer in ("rejected", "expired"):
            act("record", self.name, version, outcome=answer, **more)
            assert champion(self.name) == between
            return
        approved = answer == "approved"
        moved = act("move", self.name, version, bound=looked.bound, approved=approved, **more)
        assert moved.proceed == approved
        assert champion(self.name) == (version if approved else between), before
        self.touched = False

    @rule(
        which=WHICH, fault=st.sampled_from(["none", "none", "cut off", "cut off for good", "twin", "rival"])
    )
    def promote(self, which: int, fault: str) -> None:
        """A person promotes, and the task is cut off between ledger and alias, or done twice at once."""
        version, run = self.version(which), self.run()
        looked = self.attempt(version, lambda: act("check", self.name, version, run=run))
        if looked is None or not looked.proceed:
            assert looked is None or champion(self.name) == version
            return

        def move() -> None:
            act("move", self.name, version, run=run, bound=looked.bound)

        self.touched = False
        with self.disturbed(fault, move) as expected:
            move()
        if fault == "cut off":
            move()  # the retry of the task
        if fault != "cut off for good":
            assert champion(self.name) in {version, *expected}
            return
        assert ledger.champion(self.name).version == version

    @rule(which=st.none() | WHICH)
    def roll_back(self, which: int | None) -> None:
        """To the champion before, or to any that was champion once and is still there: always possible."""
        act("check", self.name, intent="audit")  # so that what was done by hand is known
        self.touched = False
        before, version = champion(self.name), "" if which is None else self.version(which)
        line = ledger.moves(self.name) if version else ledger.reign(self.name)
        reigned = {each.version for each in line} - self.gone
        possible = reigned & {version} if version else reigned - {before}
        run = {"intent": "roll back", "run": self.run()}
        if not possible:
            with pytest.raises(InputError):
                act("check", self.name, version, **run)
            return
        looked = act("check", self.name, version, **run)
        if looked.proceed:
            act("move", self.name, version, bound=looked.bound, **run)
            assert champion(self.name) == looked.version != before
        else:
            assert looked.version == before

    @rule(policy=st.sampled_from(["report", "put_back"]))
    def audit(self, policy: str) -> None:
        looked = act("check", self.name, intent="audit", manual_moves=policy)
        if looked.proceed:
            act("move", self.name, intent="audit", manual_moves=policy, run=self.run())
        self.touched = False
        alias, known = champion(self.name), ledger.champion(self.name)
        if policy == "put_back" or alias is None or self.judged[alias]:
            assert alias is None or self.judged[alias]
            assert alias == (known.version if known else None) or (alias is None and self.told("removed"))
        else:
            assert self.told("disputed") == alias

    # What people do in MLflow, and what clocks do.

    @rule(which=WHICH)
    def delete_version(self, which: int) -> None:
        version = self.version(which)
        if version not in self.gone:
            registry.client().delete_model_version(self.name, version)
            self.gone.add(version)
            self.touched = True

    @rule(which=WHICH, then=st.sampled_from(["nothing", "report", "put_back"]))
    def move_by_hand(self, which: int, then: str) -> None:
        version = self.version(which)
        if version not in self.gone:
            registry.set_alias(self.name, registry.CHAMPION, version)
            self.touched = True
            if then != "nothing":
                self.audit(then)

    @rule()
    def remove_by_hand(self) -> None:
        registry.remove_alias(self.name, registry.CHAMPION)
        self.touched = True

    @rule(year=st.sampled_from(["1999", "2026", "2099"]))
    def set_clock(self, year: str) -> None:
        """The machine that writes next has another time."""
        ledger.now = lambda: f"{year}-01-01T00:00:00.000Z"

    # What always holds.

    @invariant()
    def nothing_is_champion_that_was_not_allowed(self) -> None:
        alias = champion(self.name)
        if not self.touched and alias is not None and not self.judged[alias]:
            assert self.told("disputed") == alias

    @invariant()
    def the_ledger_only_grows(self) -> None:
        now = ledger.history(self.name)
        assert now[: len(self.known)] == self.known
        assert [each.number for each in now] == list(range(1, len(now) + 1))
        self.known = list(now)

    @invariant()
    def the_ledger_explains_the_champion(self) -> None:
        alias = champion(self.name)
        if self.touched or alias is None:
            return
        moved = [each for each in ledger.history(self.name) if each.kind in (*ledger.MOVES, "disputed")]
        assert alias in {each.version for each in moved}
        if moved[-1].version != alias:  # cut off for good: the next audit does it
            assert moved[-1].replaces == alias

    @invariant()
    def the_challenger_never_goes_back(self) -> None:
        alias = registry.alias_version(self.name, registry.CHALLENGER)
        if alias is not None:
            assert int(alias) >= self.newest or str(self.newest) in self.gone
            self.newest = int(alias)

    def teardown(self) -> None:
        """Nobody is locked out: after all that, a good challenger is promoted, and what it replaced again."""
        self.audit("put_back")
        before = champion(self.name)
        self.register(passed=True)
        version = list(self.judged)[-1]
        self.promote(0, "none")
        assert champion(self.name) == version
        if before is not None:
            act("move", self.name, intent="roll back", run=self.run())
            assert champion(self.name) == before

    # What the rules need.

    def version(self, which: int) -> str:
        return list(self.judged)[-1 - which % len(self.judged)]

    def run(self) -> str:
        return f"promotion {next(NUMBERS)}"

    def told(self, kind: str) -> str | None:
        found = ledger.newest(self.name, (kind,))
        return found.version if found else None

    def attempt(self, version: str, action: Callable[[], object]) -> object | None:
        """What an action finds; it refuses exactly what did not pass and what is gone."""
        if self.judged[version] and version not in self.gone:
            return action()
        with pytest.raises(InputError):
            action()
        return None

    @contextmanager
    def disturbed(self, fault: str, move: Callable[[], None]) -> Iterator[set[str]]:
        """Does something between ledger and alias; yields other champions that may come of it."""
        real, expected = registry.set_alias, set[str]()

        def set_alias(*given: str) -> None:
            registry.set_alias = real
            if fault.startswith("cut off"):
                raise OutageError("the worker was cut off")
            if fault == "twin":
                move()  # another worker that does the same, from its beginning to its end
            if fault == "rival":
                others = [each for each, good in self.judged.items() if good and each not in self.gone]
                expected.add(others[0])
                act("move", self.name, others[0], run=self.run())
            real(*given)

        if fault != "none":
            registry.set_alias = set_alias
        try:
            if fault.startswith("cut off"):
                with pytest.raises(OutageError):
                    yield expected
            else:
                yield expected
        finally:
            registry.set_alias = real


@pytest.mark.timeout(3600)
def test_any_order_of_events_keeps_what_is_promised(s3, ml_night, mlflow_server, monkeypatch):
    for name in (signing.SIGNING_KEY, signing.PUBLIC_KEYS):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("NIGHTSHIFT_STORE", f"{s3}/histories")
    # A file is logged once, which is what takes long, and the list of packages is not looked at.
    monkeypatch.setattr(logged_model, "log", logged_once(logged_model.log))
    monkeypatch.setattr(register, "_record_packages", lambda run_id: None)
    monkeypatch.setattr(ledger, "now", ledger.now)  # rules change it
    Histories.night = ml_night
    run_state_machine_as_test(
        Histories,
        settings=settings(
            max_examples=max(1, STEPS // LENGTH),
            stateful_step_count=LENGTH,
            derandomize=True,
            database=None,
            deadline=None,
            phases=[Phase.generate],  # to make a failure smaller would take hours
            suppress_health_check=list(HealthCheck),
        ),
    )


def logged_once(log: Callable[..., str]) -> Callable[..., str]:
    """Logs the same bytes only once; versions of several runs then have one logged model."""
    known: dict[bytes, str] = {}

    @functools.wraps(log)
    def once(run_id: str, model: bytes, *given: object) -> str:
        if model not in known:
            known[model] = log(run_id, model, *given)
        return known[model]

    return once
