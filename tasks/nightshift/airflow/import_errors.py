"""What is wrong with pipeline files and variables, for Airflow's list of DAG import errors.

The DAGs of all pipelines that can be read are made by the other files, which leave out the rest: so one
malformed file breaks only its own DAGs, and visibly.
"""

from nightshift.airflow import notifications, predict, promote, retrain, stages, sweep
from nightshift.airflow.pipelines import build, pipelines
from nightshift.errors import InputError


def check(place: str) -> None:
    """Raise InputError with everything that is wrong beside the DAG file `place`, a sentence a line."""
    errors = pipelines(place)[1]
    for dag_of in (retrain.dag_of, promote.dag_of, predict.dag_of, sweep.dag_of):
        errors += build(dag_of, place).refused
    for read in (notifications.channels, stages.retry_seconds):
        try:
            read()
        except InputError as error:
            errors.append(error)
    if errors:
        raise errors[0] if len(errors) == 1 else InputError("\n".join(map(str, errors)))
