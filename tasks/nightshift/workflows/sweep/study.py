"""What the trials of a sweep know of each other: Optuna's study, made anew from the records in the store.

Workers share nothing but the store. Each trial has one record there that only its own worker writes; so none
waits for another, and the same records give the same suggestions.
"""

from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final

import optuna
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)
from optuna.pruners import MedianPruner
from optuna.samplers import TPESampler
from optuna.trial import FrozenTrial, TrialState, create_trial

from nightshift import storage
from nightshift.config import digest_of
from nightshift.workflows.sweep.records import Sweep, Trial
from nightshift.workflows.sweep.search_space import Space, Value, grid

LOOKUPS: Final = 32  # records that are read at a time
DRAWS: Final = 10  # before settings that were tried already are tried again
DIGITS: Final = 4  # of a suggested number, so that people can read and copy it
# A trial is pruned when its best accuracy so far is below the median that at least 3 complete trials had at
# the same share of their epochs, but not in the first quarter: schedules begin slowly.
WARM_UP, COMPLETE = 25, 3  # percent of the epochs, trials
STATES: Final = {
    "running": TrialState.RUNNING,
    "complete": TrialState.COMPLETE,
    "pruned": TrialState.PRUNED,
    "failed": TrialState.COMPLETE,  # with nothing right, for Optuna would learn nothing from a failed one
}


class Study:
    """The sweep whose `sweep.json` is at `uri`, and its trials as far as they have come."""

    def __init__(self, uri: str) -> None:
        self.sweep = storage.read_record(uri, Sweep)
        self._folder = uri.rpartition("/")[0]
        self._ended: dict[str, Trial] = {}  # what does not change any more is read once
        self._distributions = {space.setting: _distribution(space) for space in self.sweep.spaces}

    def trials(self) -> list[Trial]:
        """All trials that have begun, by number."""
        names = [entry.key for entry in storage.listing(self._folder) if entry.key.startswith("trial-")]
        with ThreadPoolExecutor(LOOKUPS) as pool:
            return list(pool.map(self._read, names))

    def begin(self, number: int) -> Trial:
        """A trial with the settings to try; one that was begun before keeps its own."""
        others = self.trials()
        for trial in others:
            if trial.number == number:
                return trial
        trial = Trial(number=number, parameters=self._suggest(number, others))
        self.write(trial)
        return trial

    def write(self, trial: Trial) -> None:
        storage.write_record(storage.join(self._folder, f"trial-{trial.number:04d}.json"), trial)

    def is_hopeless(self, trial: Trial) -> bool:
        """Whether a running trial does worse than most did when they were as far."""
        others = [other for other in self.trials() if other.number != trial.number]
        pruner = MedianPruner(n_startup_trials=COMPLETE, n_warmup_steps=WARM_UP, n_min_trials=COMPLETE)
        return pruner.prune(self._optuna(others), self._frozen(trial))

    def _read(self, name: str) -> Trial:
        trial = self._ended.get(name) or storage.read_record(storage.join(self._folder, name), Trial)
        if trial.state != "running":
            self._ended[name] = trial
        return trial

    def _suggest(self, number: int, others: list[Trial]) -> dict[str, Value]:
        """Where there are as many trials as combinations of values, each once; otherwise what TPE draws."""
        if combinations := grid(self.sweep.spaces, self.sweep.trials):
            return combinations[number - 1]
        tried = [other.parameters for other in others]
        parameters: dict[str, Value] = {}
        for draw in range(DRAWS):
            seed = int(digest_of([self.sweep.pipeline.train.seed, number, draw])[:8], 16)
            random = min(10, max(3, self.sweep.trials // 4))  # trials before TPE has something to go by
            sampler = TPESampler(seed=seed, n_startup_trials=random, constant_liar=True)
            drawn = self._optuna(others, sampler).ask(self._distributions).params
            parameters = {space.setting: _rounded(drawn[space.setting], space) for space in self.sweep.spaces}
            if parameters not in tried:
                break
        return parameters

    def _optuna(self, trials: list[Trial], sampler: TPESampler | None = None) -> optuna.Study:
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        study = optuna.create_study(direction="maximize", sampler=sampler)
        study.add_trials([self._frozen(trial) for trial in trials])
        return study

    def _frozen(self, trial: Trial) -> FrozenTrial:
        """The trial as Optuna knows it, its steps being percent of its epochs."""
        epochs = int(trial.parameters.get("train.epochs", self.sweep.pipeline.train.epochs))
        steps = {100 * number // epochs: value for number, value in enumerate(trial.accuracies, start=1)}
        return create_trial(
            state=STATES[trial.state],
            value=0.0 if trial.state == "failed" else trial.value,
            params=dict(trial.parameters),
            distributions=self._distributions,
            intermediate_values=steps if trial.state != "failed" else {},
        )


def _distribution(space: Space) -> BaseDistribution:
    if space.choices:
        return CategoricalDistribution(space.choices)
    if space.whole:
        return IntDistribution(int(space.low), int(space.high), log=space.log, step=int(space.step or 1))
    return FloatDistribution(space.low, space.high, log=space.log, step=space.step)


def _rounded(value: Any, space: Space) -> Value:
    """The value with few digits, where it is a fraction, and still inside its range."""
    if isinstance(value, float) and not space.choices:
        value = min(max(float(f"{value:.{DIGITS}g}"), space.low), space.high)
    return value  # type: ignore[no-any-return]
