"""The minute after a pipeline file was copied, good or bad, and what arrives while a prediction runs."""

import contextlib
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from test_isolation import WRONG_FILES
from waiting import wait_for

from nightshift import storage
from nightshift.cli.airflow_api import Airflow
from nightshift.cli.checks import Finding
from nightshift.cli.checks.airflow import airflow as ask
from nightshift.config import store_root
from nightshift.workflows.predict import layout

ROOT = Path(__file__).parent.parent
COMMAND = str(Path(sys.executable).with_name("nightshift"))
WRONG_VALUES = {
    "hour25": 'schedule = "0 25 * * *"\n',
    "never": 'schedule = "0 0 30 2 *"\n',
    "zone": 'timezone = "America"\n',
    "nul": 'description = "a\\u0000b"\n',
    "infinite": "deadline_hours = inf\n",
    "digits": f"deadline_hours = {'9' * 5000}\n",
}


def nightshift(*arguments: str) -> subprocess.CompletedProcess[str]:
    done = subprocess.run([COMMAND, *arguments], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done


@pytest.fixture(scope="module")
def pipelines(stack, watched):
    """The folder of the stack's pipelines, and what puts a file there until the end."""
    folder, made = stack.home / "dags" / "pipelines", []

    def put(name: str, make: Callable[[Path], object]) -> None:
        made.append(folder / f"{name}.toml")
        make(made[-1])

    yield put
    for path in made:
        path.rmdir() if path.is_dir() else path.unlink()
    wait_for(lambda: not Airflow().import_errors(), "Airflow to forget them")  # for the tests that follow


def test_a_night_of_a_new_file_waits_until_airflow_has_read_it_whatever_is_beside_it(pipelines, stack):
    for name, text in WRONG_VALUES.items():
        pipelines(f"wrong-{name}", lambda path, text=text: path.write_text(text))
    for kind, make in WRONG_FILES.items():
        if kind != "unreadable":  # which nothing is for root
            pipelines(f"wrong-{kind.replace(' ', '-')}", make)
    tiny = (stack.home / "dags" / "pipelines" / "tiny.toml").read_text()
    pipelines("fresh", lambda path: path.write_text(f'source = "s3://nightshift/incoming/tiny"\n{tiny}'))
    done = nightshift("run", "fresh", "--wait")
    assert '"state": "promoted"' in done.stdout.splitlines()[-1]
    assert "Airflow has not read fresh.toml yet, which takes up to half a minute: waiting" in done.stderr


def test_doctor_names_each_wrong_file_and_line_and_counts_what_is_read(pipelines, monkeypatch, stack):
    monkeypatch.setenv("NIGHTSHIFT_DAGS", str(stack.home / "dags"))
    found: list[Finding] = []

    def all_read() -> bool:
        found[:] = ask()
        told = any("wrong-zone.toml" in finding.sentence for finding in found)
        return told and any("DAGs of" in finding.sentence and finding.good for finding in found)

    wait_for(all_read, lambda: f"all DAGs to be read: {found}")
    said = [finding.sentence for finding in found if finding.good is False]
    for name in WRONG_VALUES:
        assert any(f"wrong-{name}.toml" in each for each in said), name
        if name != "digits":  # Python's parser does not say where
            assert any(f"wrong-{name}.toml, line 1:" in each for each in said), name
    assert all("pipeline_errors.py" in each for each in said), said
    ids = Airflow().dags()
    assert not [dag for dag in ids if "wrong" in dag]
    assert not ids["retrain_tiny"]["is_stale"]


def runs(airflow: Airflow) -> list[str]:
    """Ids of the newest predictions of `tiny`."""
    newest = {"order_by": "-run_after", "limit": 20}
    page = airflow._call("GET", "/api/v2/dags/predict_tiny/dagRuns", params=newest)
    return [str(run["dag_run_id"]) for run in page["dag_runs"]]


def looked(airflow: Airflow, run: str) -> bool:
    """Whether a prediction has looked for batches: of what comes later it knows nothing."""
    tasks = airflow.tasks("predict_tiny", run)
    return any(each["task_id"] == "look" and each["state"] == "success" for each in tasks)


def test_two_uploads_while_a_prediction_runs_are_predicted_without_another_event(watched, tmp_path):
    airflow = Airflow()
    for name in ("first", "second", "third"):
        with contextlib.suppress(FileExistsError):
            (tmp_path / name).mkdir()
        source = next((ROOT / "docs").glob("*.png"))
        (tmp_path / name / f"{name}.png").write_bytes(source.read_bytes() + name.encode())
    before = runs(airflow)
    nightshift("ingest", str(tmp_path / "first"), "--pipeline", "tiny", "--unlabelled")
    wait_for(
        lambda: any(looked(airflow, run) for run in runs(airflow) if run not in before),
        "the prediction of the first upload to have looked",
    )
    for name in ("second", "third"):
        nightshift("ingest", str(tmp_path / name), "--pipeline", "tiny", "--unlabelled")

    def missing() -> list[str]:
        every = storage.join(store_root(), "predictions", "tiny")  # whichever version is the champion by now
        return [
            name
            for name in ("first", "second", "third")
            if not any(layout.done(storage.join(every, of, name)) for of in storage.folders(every))
        ]

    wait_for(lambda: not missing(), lambda: f"predictions of {missing()}")
