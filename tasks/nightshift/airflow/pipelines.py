"""Pipeline files beside a DAG file, and the DAGs that are built of them, none at another's cost."""

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from airflow.sdk import DAG, Asset
from airflow.sdk.definitions.param import ParamsDict

from nightshift.config import Pipeline
from nightshift.config.pipelines import load_pipeline, pipeline_files
from nightshift.errors import InputError


class Built(NamedTuple):
    """DAGs by their id, and what Airflow refused of which pipeline."""

    dags: dict[str, DAG]
    refused: list[InputError]


def folder_of(place: str) -> Path:
    """The folder of pipeline files: `place` itself, or `pipelines` beside it where it is a DAG file."""
    path = Path(place)
    return path if path.is_dir() else path.parent / "pipelines"


def pipelines(place: str) -> tuple[list[Pipeline], list[InputError]]:
    """All pipelines that can be read, and what is wrong with the others."""
    good: list[Pipeline] = []
    bad: list[InputError] = []
    for path in pipeline_files(folder_of(place)):
        try:
            good.append(load_pipeline(path))
        except InputError as error:
            bad.append(error)
    return good, bad


def build(dag_of: Callable[[Pipeline], DAG], place: str) -> Built:
    """The DAG of every pipeline that can be read.

    What `dag_of` makes must not register itself, or half a DAG would count when it breaks off.
    """
    built = Built({}, [])
    for pipeline in pipelines(place)[0]:
        try:
            dag = dag_of(pipeline)
        except Exception as error:  # whatever Airflow says of this one, the others are built
            what, kind = f"{type(error).__name__}: {error}", dag_of.__module__.rpartition(".")[2]
            built.refused.append(InputError(f"{pipeline.name}.toml: Airflow takes no {kind} DAG: {what}"))
        else:
            built.dags[dag.dag_id] = _lean(dag)
    return built


def _lean(dag: DAG) -> DAG:
    """The DAG without the copy of its params in every task.

    A task's context has the DAG's own. Airflow checks each copy twice, which was nine tenths of the time
    in which the DAG file is read.
    """
    for task in dag.tasks:
        task.params = ParamsDict()
        if task.is_mapped:
            task.partial_kwargs["params"] = ParamsDict()
    return dag


def asset(pipeline: str, alias: str) -> Asset:
    """What tells other DAGs that an alias of the pipeline's model, `challenger` or `champion`, is new."""
    return Asset(name=f"{pipeline}-{alias}", uri=f"x-nightshift://{pipeline}/{alias}")
