"""What Prometheus is told, of a real broker with a real worker and of a ledger of the test's own."""

import os
import shutil
import socket
import subprocess
import sys
import tempfile
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
from celery import Celery
from guardian import noted
from prometheus_client.parser import text_string_to_metric_families
from test_ledger import decision
from typer.testing import CliRunner
from waiting import patience, wait_for

from nightshift.cli import app
from nightshift.stack import lifecycle, metrics, prepare, private_files
from nightshift.stack.environment import BROKER_URL
from nightshift.tracking import ledger

Found = dict[tuple[str, ...], float]


@pytest.fixture
def home(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A stack's folder, and a store beside it; nothing runs."""
    folder = Path(tempfile.mkdtemp(prefix="ns-", dir="/tmp"))
    (folder / "dags").mkdir()
    monkeypatch.delenv(BROKER_URL, raising=False)
    monkeypatch.setenv("NIGHTSHIFT_DAGS", str(folder / "dags"))
    monkeypatch.setenv("NIGHTSHIFT_HOME", str(folder))
    monkeypatch.setenv("NIGHTSHIFT_STORE", f"file://{folder}/store")
    with noted(folder):
        yield folder
        lifecycle.down(folder)
        shutil.rmtree(folder)


def parsed(text: str) -> Found:
    """Values by the name and the labels."""
    return {
        (sample.name, *sample.labels.values()): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def test_ages_are_those_of_the_ledger(home):
    for kind, at in (("challenger", "01"), ("promoted", "02"), ("challenger", "04"), ("refused", "05")):
        ledger.append(decision(kind=kind, at=f"2026-11-{at}T00:00:00.000Z", version=str(int(at))))
    ledger.append(decision(kind="rolled-back", at="2026-11-06T00:00:00.000Z", version="9"))
    now = 1794096000.0  # 2026-11-08
    made = {
        (sample.name, *sample.labels.values()): sample.value
        for metric in metrics.decisions(now)
        for sample in metric.samples
    }
    days = {name: value / 86400 for name, value in made.items() if name[0].endswith("_seconds")}
    assert days == {
        ("nightshift_champion_age_seconds", "pets"): 2,
        ("nightshift_last_night_age_seconds", "pets"): 3,
        ("nightshift_last_decision_age_seconds", "pets"): 2,
    }
    assert made["nightshift_last_decision", "pets", "rolled-back"] == 1
    assert made["nightshift_champion_version", "pets"] == 9


def test_queues_are_counted_with_who_works_on_them(home, tmp_path):
    lifecycle.up(home, only=["valkey"], random_ports=True)
    site = prepare.find_site(home)
    assert site is not None
    broker = site.broker_url
    with Celery(broker=broker, set_as_current=False) as sender:
        for _ in range(3):
            sender.send_task("nothing", queue="preprocess")
    (tmp_path / "quiet.py").write_text(
        "import os\nfrom celery import Celery\napp = Celery(broker=os.environ['BROKER'])\n"
    )
    command = [sys.executable, "-m", "celery", "-A", "quiet", "worker", "-Q", "train", "--pool", "solo"]
    environ = os.environ | {"BROKER": broker}
    worker = subprocess.Popen(
        command, cwd=tmp_path, env=environ, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        found: Found = {}

        def works() -> bool:
            done = CliRunner().invoke(app, ["metrics"])
            assert done.exit_code == 0, done.output
            found.update(parsed(done.stdout))
            return found.get(("nightshift_queue_workers", "train")) == 1

        wait_for(works, "the worker to be counted", 60)
    finally:
        worker.terminate()
        worker.wait(patience(30))
    assert {name: value for name, value in found.items() if "queue" in name[0]} == {
        ("nightshift_queue_length", "default"): 0,
        ("nightshift_queue_length", "preprocess"): 3,
        ("nightshift_queue_length", "train"): 0,
        ("nightshift_queue_workers", "default"): 0,
        ("nightshift_queue_workers", "preprocess"): 0,
        ("nightshift_queue_workers", "train"): 1,
    }
    assert found["nightshift_scrape_success", "broker"] == 1


def test_the_role_answers_and_what_does_not_is_missing(home):
    """The store is that of the stack, which does not run; the broker is there."""
    lifecycle.up(home, only=["valkey"], also=["metrics"], random_ports=True)
    status = {one.name: one for one in lifecycle.status(home)}
    assert status["metrics"].healthy
    with urllib.request.urlopen(
        f"http://{status['metrics'].address}/metrics", timeout=patience(60)
    ) as answer:
        found = parsed(answer.read().decode())
    assert found["nightshift_scrape_success", "broker"] == 1
    assert found["nightshift_scrape_success", "ledger"] == 0
    assert ("nightshift_queue_length", "train") in found
    log = home / "logs" / "metrics.log"  # the supervisor writes it, a moment later
    wait_for(lambda: "metrics: S3 at http://127.0.0.1" in log.read_text(), "the sentence on S3")
    said = log.read_text()
    secrets = private_files.stored_secrets(home)
    assert secrets is not None
    assert secrets.valkey_password not in said


def test_without_a_broker_to_ask_it_is_a_sentence(home):
    done = CliRunner().invoke(app, ["metrics"])
    assert done.exit_code == 2
    assert "there are no queues to measure: set AIRFLOW__CELERY__BROKER_URL" in done.output


def test_a_port_that_is_taken_is_a_sentence(home, monkeypatch):
    monkeypatch.setenv(BROKER_URL, "redis://127.0.0.1:1/0")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        done = CliRunner().invoke(app, ["metrics", "--port", str(taken.getsockname()[1])])
    assert done.exit_code == 2
    assert "choose another --port" in done.output
