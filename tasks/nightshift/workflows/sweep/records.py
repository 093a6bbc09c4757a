"""What the stages of a sweep hand to each other, kept below `sweeps/<pipeline>/<name>/` in the store."""

from typing import Literal

from nightshift.config import Pipeline
from nightshift.records import InitialWeights, Record
from nightshift.workflows.sweep.search_space import Space, Value


class Sweep(Record):
    """What all trials have in common, `sweep.json`."""

    name: str
    pipeline: Pipeline  # every trial trains with its settings but for those that are swept
    dataset_uri: str
    spaces: tuple[Space, ...]
    trials: int
    starts: dict[
        str, InitialWeights | None
    ]  # what each value of `train.weights` came to when the sweep began
    mlflow_run_id: str | None = None


class Trial(Record):
    """One training of a sweep, `trial-0007.json`; only the worker that trains it writes it."""

    number: int  # from 1
    state: Literal["running", "complete", "pruned", "failed"] = "running"
    parameters: dict[str, Value]
    accuracies: tuple[float, ...] = ()  # on the validation split after each epoch
    value: float | None = None  # validation accuracy of the network that came out, when complete
    error: str = ""  # why it failed


class Swept(Record):
    """What came of a sweep, `best.json`."""

    sweep_uri: str
    best: int  # number of the trial
    value: float
    toml: str  # the best settings, as a pipeline file has them
    trials: tuple[Trial, ...]
