"""The end of a sweep: the best of its trials, as a piece of a pipeline file.

python -m nightshift conclude --spec spec.json --result result.json
"""

import json

from nightshift import storage
from nightshift.errors import InputError
from nightshift.records.specs import ConcludeSpec
from nightshift.workflows.sweep.records import Sweep, Swept, Trial
from nightshift.workflows.sweep.study import Study


def conclude(spec: ConcludeSpec) -> Swept:
    """Write `best.json` and end the sweep's run in MLflow. Raises InputError when no trial was completed."""
    study = Study(spec.sweep_uri)
    sweep, trials = study.sweep, tuple(_ended(trial) for trial in study.trials())
    complete = [trial for trial in trials if trial.value is not None]
    if not complete:
        why = "; ".join(dict.fromkeys(trial.error for trial in trials)) or "none has begun"
        reason = f"no trial of sweep {sweep.name} was completed: {why}"
        _close(sweep, failed=True, reason=reason)
        raise InputError(reason)
    best = max(complete, key=lambda trial: trial.value or 0.0)  # the first of equals
    value = best.value or 0.0
    toml = fragment(best, f"{100 * value:.1f} % validation accuracy, trial {best.number} of {sweep.trials}")
    swept = Swept(sweep_uri=spec.sweep_uri, best=best.number, value=value, toml=toml, trials=trials)
    _log(sweep, swept)
    storage.write_record(storage.join(spec.sweep_uri.rpartition("/")[0], "best.json"), swept)
    _close(sweep, failed=False, reason=toml.splitlines()[0].removeprefix("# "))
    print(toml, flush=True)
    return swept


def fragment(trial: Trial, comment: str) -> str:
    """The trial's settings as the table `[train]` of a pipeline file."""
    lines = [f"# {comment}", "[train]"]
    # The JSON of a number, a truth value or a text is TOML too.
    lines += [f"{name.partition('.')[2]} = {json.dumps(value)}" for name, value in trial.parameters.items()]
    return "\n".join(lines)


def _ended(trial: Trial) -> Trial:
    """A trial whose process was killed could not write down how it ended."""
    if trial.state != "running":
        return trial
    error = f"trial {trial.number} was broken off, see its log"
    return trial.model_copy(update={"state": "failed", "error": error})


def _log(sweep: Sweep, swept: Swept) -> None:
    if sweep.mlflow_run_id is None:
        return
    from nightshift.tracking import runs  # imports mlflow, which takes seconds

    rows = [("validation_accuracy", t.value, t.number) for t in swept.trials if t.value is not None]
    runs.log_metrics(sweep.mlflow_run_id, [*rows, ("best_validation_accuracy", swept.value, 0)])
    runs.log_artifact(sweep.mlflow_run_id, "sweep/best.toml", swept.toml.encode())


def _close(sweep: Sweep, *, failed: bool, reason: str) -> None:
    if sweep.mlflow_run_id is None:
        return
    from nightshift.tracking import runs

    runs.close_run(sweep.mlflow_run_id, failed=failed, reason=reason)
