"""One trial of a sweep: a training with the settings that the earlier trials speak for.

python -m nightshift trial --spec spec.json --result result.json
"""

from nightshift.config.pipelines import override
from nightshift.errors import InputError, PrunedError
from nightshift.records.models import Epoch
from nightshift.records.specs import TrainSpec, TrialSpec
from nightshift.train import train
from nightshift.workflows.sweep.records import Trial
from nightshift.workflows.sweep.study import Study


def trial(spec: TrialSpec) -> Trial:
    """Train with suggested settings, or stop when others did better; the record says how it went.

    What is judged is the validation accuracy of the network that comes out, as a night with these settings
    reports it; the test split is never read. Settings that cannot be trained make a failed trial, not an
    error. A trial that was broken off goes on with its settings, and one that ended is not repeated.
    """
    study = Study(spec.sweep_uri)
    found = study.begin(spec.number)
    chosen = ", ".join(f"{name} = {value}" for name, value in found.parameters.items())
    print(f"trial {found.number} of {study.sweep.trials}: {chosen}", flush=True)
    if found.state in ("complete", "pruned"):
        return found
    found = found.model_copy(update={"state": "running", "error": ""})

    def watch(epoch: Epoch) -> None:
        nonlocal found
        if epoch.number <= len(found.accuracies):
            return  # known from before it was broken off
        found = found.model_copy(update={"accuracies": (*found.accuracies, epoch.validation_accuracy)})
        study.write(found)
        if study.is_hopeless(found):
            raise PrunedError(f"trial {found.number} is pruned after epoch {epoch.number}: most did better")

    try:
        settings = override(study.sweep.pipeline, found.parameters).train
        checkpoint = train(
            TrainSpec(
                dataset_uri=study.sweep.dataset_uri,
                settings=settings,
                start=study.sweep.starts[settings.weights],
                mlflow_run_id=study.sweep.mlflow_run_id,
                run_name=f"trial-{found.number}",
            ),
            watch,
        )
        change = {"state": "complete", "value": checkpoint.metrics["validation_accuracy"]}
    except PrunedError as pruned:
        print(pruned, flush=True)
        change = {"state": "pruned"}
    except InputError as error:
        print(f"trial {found.number} failed: {error}", flush=True)
        change = {"state": "failed", "error": str(error)}
    found = found.model_copy(update=change)
    study.write(found)
    return found
