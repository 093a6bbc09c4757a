"""One DAG `sweep_<name>` for each pipeline: trainings with other settings, to find the best ones.

prepare -> trial (one task each) -> conclude. Started by hand or with `nightshift sweep`; nothing is
registered. `conclude` also runs when trials failed, and fails when none was completed.
"""

from datetime import timedelta
from typing import Any

from airflow.sdk import DAG, TriggerRule, dag, task

from nightshift.airflow.params import OVER, TRIALS, chosen, sweep_params
from nightshift.airflow.pipelines import build
from nightshift.airflow.stages import retries, run
from nightshift.config import Pipeline
from nightshift.config.pipelines import override
from nightshift.records.specs import ConcludeSpec, SweepSpec, TrialSpec

DOC = """
### Sweep over settings of {name}
Trains on the data set of the newest night with values that a sampler suggests, several at once where there
are workers, and stops trials that are clearly worse than the others. The log of `conclude` ends with the best
settings, to be copied into `pipelines/{name}.toml`. They are judged on the validation split; the test split
is never looked at.
"""


@task(queue="train", pool="train", execution_timeout=timedelta(hours=24))
def trial(asked: dict[str, Any]) -> dict[str, Any]:
    """Train with the next settings."""
    return run("trial", TrialSpec.model_validate(asked))


@task(trigger_rule=TriggerRule.ALL_DONE_MIN_ONE_SUCCESS, execution_timeout=timedelta(minutes=15))
def conclude(trials: list[dict[str, Any]]) -> dict[str, Any]:
    """Find the best trial."""
    return run("conclude", ConcludeSpec(sweep_uri=trials[0]["sweep_uri"]))


def dag_of(pipeline: Pipeline) -> DAG:
    """Build the DAG of one pipeline."""

    @dag(
        dag_id=f"sweep_{pipeline.name}",
        description=f"Searches for better training settings of {pipeline.name}",
        schedule=None,
        auto_register=False,
        catchup=False,
        max_active_runs=1,
        is_paused_upon_creation=False,
        params=sweep_params(pipeline),
        default_args=retries(),
        tags=["nightshift", "sweep"],
        doc_md=DOC.format(name=pipeline.name),
    )
    def search() -> None:
        @task(execution_timeout=timedelta(minutes=15))
        def prepare(params: dict[str, Any], run_id: str) -> list[dict[str, Any]]:
            """Say what each trial trains on."""
            effective = override(pipeline, chosen(params))
            spec = SweepSpec(pipeline=effective, name=run_id, over=params[OVER], trials=params[TRIALS])
            return list(run("sweep", spec)["trials"])

        trials = prepare()
        trial.expand(asked=trials) >> conclude(trials)

    return search()


def dags(place: str) -> dict[str, DAG]:
    """The DAG `sweep_<name>` of every pipeline; `place` is the DAG file or the folder of the files."""
    return build(dag_of, place).dags
