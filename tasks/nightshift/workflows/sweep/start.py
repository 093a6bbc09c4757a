"""The beginning of a sweep: which values are tried, on which data, in how many trials.

python -m nightshift sweep --spec spec.json --result result.json
"""

import re
from collections.abc import Sequence

from pydantic import BaseModel

from nightshift import storage
from nightshift.config import Pipeline, store_root
from nightshift.errors import InputError
from nightshift.models import initial_weights
from nightshift.records import Dataset, InitialWeights
from nightshift.records.specs import SweepSpec, TrialSpec
from nightshift.tracking import ledger
from nightshift.workflows.sweep.records import Sweep
from nightshift.workflows.sweep.search_space import Space, grid, parse


class Prepared(BaseModel):
    """What there is to try."""

    trials: tuple[TrialSpec, ...]


def sweep(spec: SweepSpec) -> Prepared:
    """Write `sweeps/<pipeline>/<name>/sweep.json`, which all trials read.

    They train on the data set of the newest night that registered a version. Raises InputError when there is
    none or a space of values is refused.
    """
    name, spaces = spec.pipeline.name, parse(spec.over, spec.pipeline)
    last = ledger.registered(name)
    dataset = ledger.dataset(last.dataset) if last else None
    if dataset is None:
        raise InputError(f"pipeline {name} has no data set to train on; make one with: nightshift run {name}")
    trials = len(grid(spaces, spec.trials)) or spec.trials
    if trials < spec.trials:
        print(f"{spec.trials} trials were asked for, but there are {trials} combinations: each is tried once")
    begun = Sweep(
        name=re.sub(r"[^\w.-]+", "-", spec.name),
        pipeline=spec.pipeline,
        dataset_uri=storage.join(store_root(), "datasets", f"{dataset.digest}.json"),
        spaces=spaces,
        trials=trials,
        starts=starts(spec.pipeline, spaces),
    )
    begun = begun.model_copy(update={"mlflow_run_id": open_run(begun, dataset, spec.over)})
    uri = storage.join(store_root(), "sweeps", name, begun.name, "sweep.json")
    storage.write_record(uri, begun)
    print(f"{trials} trials over {', '.join(space.setting for space in spaces)}: {uri}")
    return Prepared(trials=tuple(TrialSpec(sweep_uri=uri, number=number + 1) for number in range(trials)))


def starts(pipeline: Pipeline, spaces: Sequence[Space]) -> dict[str, InitialWeights | None]:
    """What all trials start from, for each value of `train.weights`: an alias may move meanwhile."""
    swept = [str(choice) for space in spaces if space.setting == "train.weights" for choice in space.choices]
    return {name: initial_weights.find(name, pipeline.name) for name in swept or [pipeline.train.weights]}


def open_run(begun: Sweep, dataset: Dataset, over: tuple[str, ...]) -> str:
    """Open the sweep's run in MLflow, under which its trials lie."""
    from nightshift.tracking import runs

    settings = {f"train.{key}": value for key, value in begun.pipeline.train.model_dump(mode="json").items()}
    swept = dict(text.split("=", 1) for text in over)
    params = {**settings, **swept, "trials": begun.trials, "dataset": dataset.digest}
    run_id = runs.open_run(begun.pipeline.name, f"sweep-{begun.name}", params=params)
    rows = dataset.profile.images
    runs.log_dataset(
        run_id, name=begun.pipeline.name, digest=dataset.digest, source=begun.dataset_uri, rows=rows
    )
    return run_id
