"""Runs, metrics and artifacts in MLflow; registered models are in `registry.py`. No other file knows MLflow.

MLflow is reached at MLFLOW_TRACKING_URI. Its client retries by itself; what remains unreachable raises
OutageError naming the address.
"""

import contextlib
import functools
import json
import os
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Final

from mlflow import MlflowClient
from mlflow.entities import Dataset, DatasetInput, Metric, Param, RunTag
from mlflow.exceptions import MlflowException, RestException
from mlflow.system_metrics.system_metrics_monitor import SystemMetricsMonitor
from mlflow.tracking.context.registry import resolve_tags

from nightshift.config import digest_of
from nightshift.errors import InputError, NightshiftError, OutageError, PrunedError
from nightshift.records import lengths
from nightshift.tracking.outbox import BATCH, Outbox

NIGHT = "nightshift.night"  # the tag that finds a night's run again
PARAMS: Final = "nightshift.params"  # the tag with the digest of its parameters
SAMPLE_SECONDS: Final = 15  # between two looks at the machine
PATIENCE, FAILED_PATIENCE = 60.0, 10.0  # seconds for what is not sent when a training ends, and when it fails
Row = tuple[str, float, int]  # name, value, step


def address() -> str:
    return os.environ.get("MLFLOW_TRACKING_URI") or "MLFLOW_TRACKING_URI, which is not set"


def client() -> MlflowClient:
    """MLflow's client for the server that the environment names, with a bounded number of its own retries."""
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "5")
    os.environ.setdefault("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "true")
    os.environ.setdefault("MLFLOW_ALLOW_PICKLE_DESERIALIZATION", "false")
    uri = os.environ.get("MLFLOW_TRACKING_URI")
    if not uri:  # MLflow's own default is a database file in the working folder
        raise InputError("MLFLOW_TRACKING_URI is not set; set it to the address of the MLflow server")
    return _client_of(uri)


@functools.lru_cache(maxsize=1)
def _client_of(uri: str) -> MlflowClient:
    return MlflowClient(uri)


@contextlib.contextmanager
def mlflow_errors() -> Iterator[None]:
    """Put MLflow's failures into one sentence."""
    try:
        yield
    except RestException as error:
        if int(error.get_http_status_code()) >= 500:
            raise OutageError(f"MLflow at {address()} failed ({error.message}); look at its log") from error
        raise InputError(f"MLflow at {address()} refused: {error.message}") from error
    except MlflowException as error:
        if error.error_code == "RESOURCE_DOES_NOT_EXIST":  # where a database is asked instead of a server
            raise InputError(f"MLflow at {address()} refused: {error.message}") from error
        if error.get_http_status_code() in (401, 403):
            user = os.environ.get("MLFLOW_TRACKING_USERNAME", "")
            raise InputError(
                f"MLflow at {address()} refuses the login of {user or 'nobody'}; set "
                "MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD"
            ) from error
        raise OutageError(
            f"MLflow at {address()} cannot be reached; check MLFLOW_TRACKING_URI and that the server runs"
        ) from error


@mlflow_errors()
def open_run(pipeline: str, night: str, *, params: Mapping[str, object]) -> str:
    """The id of the night's parent run: the one that this DAG run has with these parameters, or a new one."""
    mlflow = client()
    experiment = mlflow.get_experiment_by_name(pipeline)
    experiment_id = experiment.experiment_id if experiment else mlflow.create_experiment(pipeline)
    if experiment and experiment.lifecycle_stage == "deleted":  # its name is taken until it is purged
        mlflow.restore_experiment(experiment_id)
        print(f"the experiment {pipeline} was deleted in MLflow and is restored: nights are logged there")
    return _opened(experiment_id, f"tags.`{NIGHT}` = '{night}'", night, params, {NIGHT: night})


def _opened(
    experiment: str, where: str, name: str, params: Mapping[str, object], tags: Mapping[str, str]
) -> str:
    """The id of the run that `where` finds with these parameters, running again, or of a new one.

    MLflow never changes a parameter. So a night that is cleared after its settings or its data changed has
    another run, and the one before stays as it was; it ends here when nobody ended it.
    """
    mlflow, run_id = client(), ""
    digest = digest_of({key: str(value) for key, value in params.items()})
    for run in mlflow.search_runs([experiment], where):
        if run.data.tags.get(PARAMS) == digest:
            run_id = str(run.info.run_id)
            mlflow.update_run(run_id, status="RUNNING")
        elif run.info.status == "RUNNING":
            mlflow.set_terminated(run.info.run_id, status="KILLED")
    if not run_id:
        created = mlflow.create_run(experiment, run_name=name, tags={**tags, PARAMS: digest})
        run_id = str(created.info.run_id)
    log_params(run_id, params)
    return run_id


@mlflow_errors()
def close_run(run_id: str, *, failed: bool, reason: str) -> None:
    """End the night's run, and those below it whose process could not end them because it was killed."""
    mlflow = client()
    experiment = mlflow.get_run(run_id).info.experiment_id
    below = f"tags.`mlflow.parentRunId` = '{run_id}' and attributes.status = 'RUNNING'"
    for child in mlflow.search_runs([experiment], below):
        mlflow.set_terminated(child.info.run_id, status="KILLED")
    set_tags(run_id, {"nightshift.reason": reason})
    mlflow.set_terminated(run_id, status="FAILED" if failed else "FINISHED")


@contextlib.contextmanager
def child_run(
    parent_run_id: str, name: str, *, params: Mapping[str, object], tags: Mapping[str, str] | None = None
) -> Iterator[str]:
    """A run below the night's run, found again by its name and parameters; FINISHED or FAILED at the end.

    A new one is tagged with `tags`, and as MLflow does it with the user, the program and its git commit.
    One that is pruned is KILLED, MLflow's word for stopped on purpose.
    """
    with mlflow_errors():
        mlflow = client()
        parent = mlflow.get_run(parent_run_id)
        experiment = parent.info.experiment_id
        where = f"tags.`mlflow.parentRunId` = '{parent_run_id}' and attributes.run_name = '{name}'"
        all_tags = {**resolve_tags(), "mlflow.parentRunId": parent_run_id, **(tags or {})}
        run_id = _opened(experiment, where, name, params, all_tags)
    try:
        yield run_id
    except BaseException as error:
        with mlflow_errors():
            mlflow.set_terminated(run_id, status="KILLED" if isinstance(error, PrunedError) else "FAILED")
        raise
    with mlflow_errors():
        mlflow.set_terminated(run_id, status="FINISHED")


@mlflow_errors()
def log_params(run_id: str, params: Mapping[str, object]) -> None:
    texts = {key: lengths.cut(str(value), lengths.PARAM) for key, value in params.items()}
    client().log_batch(run_id, params=[Param(*text) for text in texts.items()])


@mlflow_errors()
def set_tags(run_id: str, tags: Mapping[str, str]) -> None:
    texts = {key: lengths.cut(value, lengths.RUN_TAG) for key, value in tags.items()}
    client().log_batch(run_id, tags=[RunTag(*text) for text in texts.items()])


def log_metrics(run_id: str, rows: Sequence[Row]) -> None:
    """Log rows; one request for every 1,000, because one each is slow."""
    points = _points(rows)
    for start in range(0, len(points), BATCH):
        _send(run_id, points[start : start + BATCH])


def _points(rows: Sequence[Row]) -> list[Metric]:
    now = int(time.time() * 1000)
    return [Metric(name, float(value), now, step) for name, value, step in rows]


@mlflow_errors()
def _send(run_id: str, points: Sequence[Metric]) -> None:
    client().log_batch(run_id, metrics=points)  # MLflow ignores a point that it has, its time included


@mlflow_errors()
def last_step(run_id: str, name: str) -> int:
    """The last step for which a metric was logged; 0 for none."""
    return max((point.step for point in client().get_metric_history(run_id, name)), default=0)


@contextlib.contextmanager
def live(run_id: str, *, machine: bool) -> Iterator[Callable[[Sequence[Row]], None]]:
    """Log while something long goes on, without making it wait: what is yielded takes rows and returns.

    During an outage rows are kept, and sent when the server is back; OutageError when some are left a minute
    after the end. With `machine`, MLflow's system metrics are logged too, at steps in seconds.
    """
    journal = Outbox[Metric](functools.partial(_send, run_id))

    def add(rows: Sequence[Row]) -> None:
        journal.add(_points(rows))

    try:
        with _watched_machine(run_id, add) if machine else contextlib.nullcontext():
            yield add
    except BaseException:
        with contextlib.suppress(NightshiftError):  # what failed says more
            journal.close(FAILED_PATIENCE)
        raise
    journal.close(PATIENCE)


@contextlib.contextmanager
def _watched_machine(run_id: str, add: Callable[[Sequence[Row]], None]) -> Iterator[None]:
    """Add the load of processor, memory, disk, network and GPUs at intervals, and once more at the end.

    MLflow's monitor looks; its own thread would ask the server each time and end for good in an outage.
    """
    with mlflow_errors():
        begun = client().get_run(run_id).info.start_time / 1000
    monitor = SystemMetricsMonitor(run_id, SAMPLE_SECONDS, tracking_uri=os.environ["MLFLOW_TRACKING_URI"])
    ended = threading.Event()

    def look() -> dict[str, float]:
        monitor.collect_metrics()
        found: dict[str, float] = monitor.aggregate_metrics()
        for part in monitor.monitors:
            part.clear_metrics()
        return found

    def watch() -> None:
        last = False
        while not last:
            last = ended.wait(monitor.sampling_interval)
            step = int(time.time() - begun)
            add([(f"system/{name}", value, step) for name, value in look().items()])

    look()  # the load of the processor is counted from here
    thread = threading.Thread(target=watch, name="machine", daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


def log_artifact(run_id: str, path_in_run: str, data: bytes) -> None:
    """Store `data` under the run as `path_in_run`, such as `report/report.html`."""
    folder, _, name = path_in_run.rpartition("/")
    log_artifacts(run_id, folder, {name: data})


@mlflow_errors()
def log_artifacts(run_id: str, folder: str, files: Mapping[str, bytes]) -> None:
    """Store several files of one folder of the run, `""` for its root, at once."""
    with tempfile.TemporaryDirectory() as temporary:
        for name, data in files.items():
            Path(temporary, name).write_bytes(data)
        client().log_artifacts(run_id, temporary, folder or None)


@mlflow_errors()
def stored_artifact(run_id: str, path_in_run: str) -> bytes | None:
    """What `log_artifact` stored, or None when the run has nothing there."""
    folder = path_in_run.rpartition("/")[0]
    if path_in_run not in {file.path for file in client().list_artifacts(run_id, folder or None)}:
        return None
    with tempfile.TemporaryDirectory() as temporary:
        return Path(client().download_artifacts(run_id, path_in_run, temporary)).read_bytes()


@mlflow_errors()
def log_dataset(run_id: str, *, name: str, digest: str, source: str, rows: int) -> None:
    """Record the data set version as an input of the run."""
    entity = Dataset(
        name=name,
        digest=digest[: lengths.DATASET_DIGEST],
        source_type="s3" if source.startswith("s3:") else "local",
        source=json.dumps({"uri": source}),
        profile=json.dumps({"num_rows": rows}),
    )
    client().log_inputs(run_id, [DatasetInput(entity)])


@mlflow_errors()
def pipeline_of(run_id: str) -> str:
    """The pipeline that a run belongs to, which is the name of its experiment."""
    return str(client().get_experiment(client().get_run(run_id).info.experiment_id).name)


def report_url(run_id: str) -> str:
    """The page of a night's report in the MLflow web interface."""
    return f"{run_url(run_id)}/artifacts/report/report.html" if run_id else ""


@mlflow_errors()
def run_url(run_id: str) -> str:
    """The page of a run in the MLflow web interface."""
    experiment = client().get_run(run_id).info.experiment_id
    return f"{address().rstrip('/')}/#/experiments/{experiment}/runs/{run_id}"
