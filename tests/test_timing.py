"""Models timed in processes of their own: in turns, with nothing left behind, one failure alone."""

import os
import signal
import subprocess
import sys
from typing import Any

import numpy as np
import psutil
import pytest
from small_models import onnx_model
from waiting import patience

from nightshift import storage
from nightshift.config import EvaluateSettings
from nightshift.data.dataset import load_split
from nightshift.evaluation import benchmark
from nightshift.evaluation.benchmark import Process, UntimedError, measure
from nightshift.records import Benchmark, Machine

SETTINGS = EvaluateSettings(latency_runs=10, throughput_batch=16)


@pytest.fixture(scope="module")
def images() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (24, 4, 4, 3), dtype=np.uint8)


@pytest.fixture
def asked(monkeypatch) -> list[tuple[str, dict[str, Any]]]:
    """Every command that a process got, in order, by the model's name."""
    seen: list[tuple[str, dict[str, Any]]] = []
    ask = Process.ask

    def noted(process: Process, command: dict[str, Any]) -> dict[str, Any]:
        seen.append((process.name, command))
        return ask(process, command)

    monkeypatch.setattr(Process, "ask", noted)
    return seen


@pytest.fixture
def started(monkeypatch) -> list[Process]:
    """Every process that was started."""
    seen: list[Process] = []
    load = Process.load
    monkeypatch.setattr(Process, "load", lambda process: seen.append(process) or load(process))
    return seen


def test_every_number_comes_from_runs_of_the_real_candidates(ml_night, monkeypatch):
    monkeypatch.setenv("NIGHTSHIFT_THREADS", "2")
    split = load_split(ml_night.dataset, "validation").images.numpy()
    models = {name: storage.read_artifact(made.model) for name, made in ml_night.candidates.items()}
    speeds, machine = measure(models, dict.fromkeys(models, split), SETTINGS)
    assert [*speeds] == [*models]
    for name, speed in speeds.items():
        assert speed.runtime.split("-")[0] in machine.versions
        assert 0.999 <= speed.agreements[speed.runtime] <= 1
        assert (speed.single.threads, speed.full.threads) == (1, 2)
        for pace in (speed.single, speed.full):
            assert 0 < pace.latency_ms_p50 <= pace.latency_ms_p90 <= pace.latency_ms_p99 < 1000 * patience(10)
            assert pace.batch in {1, 8, 16}
            assert pace.images_per_second >= 0.999 * 1000 / pace.latency_ms_p50
        assert 0 < speed.load_seconds < patience(60)
        assert 20 < speed.memory_mb < 1000
        assert speed.size == len(models[name])
    assert machine.threads == 2


def test_processes_take_turns_one_call_at_a_time(images, asked):
    measure(
        {"a": onnx_model(1), "b": onnx_model(2), "c": onnx_model(3)}, dict.fromkeys("abc", images), SETTINGS
    )
    singles = [name for name, command in asked if command["batch"] == 1]
    assert singles == ["a", "b", "c"] * benchmark.ROUNDS * 2  # with all threads, then with one
    batches = [(name, command["batch"]) for name, command in asked if command["batch"] > 1]
    assert batches[:9] == [(name, 8) for name in "abc"] * benchmark.BATCH_ROUNDS
    assert {command["calls"] for _, command in asked if command["batch"] == 1} == {10 // benchmark.ROUNDS}


def test_batches_grow_only_as_long_as_it_pays():
    class Fake:
        def take(self, names, rounds, batch, calls, limit):
            asked.extend((name, batch) for name in names)
            return {name: [seconds[name](batch)] for name in names}

    asked: list[tuple[str, int]] = []
    seconds = {"flat": lambda n: n * 0.01, "steep": lambda n: 0.01 + n * 0.0001, "slow": lambda n: n * 0.3}
    singles = {name: [call(1)] for name, call in seconds.items()}
    rates = benchmark._rates(Fake(), singles, 100)
    assert asked == [("flat", 8), ("steep", 8), ("steep", 32), ("steep", 100)]
    assert [*rates["steep"]] == [1, 8, 32, 100]
    assert rates["steep"][100] == pytest.approx(5000)
    pace = benchmark._pace(2, [0.001, 0.002, 0.003], rates["steep"])
    assert (pace.batch, pace.images_per_second, pace.latency_ms_p50) == (100, pytest.approx(5000), 2)


@pytest.mark.parametrize(
    ("largest", "batches"), [(1, []), (5, [5]), (8, [8]), (128, [8, 32, 128]), (200, [8, 32, 128, 200])]
)
def test_the_largest_batch_is_a_setting(largest, batches):
    assert [*benchmark._batches(largest)] == batches


def test_one_process_has_all_threads_and_one_has_one(images, monkeypatch):
    caps: list[set[str]] = []
    load = Process.load

    def noted(process: Process) -> None:
        load(process)  # first: a process that has hardly begun shows no variables yet
        variables = psutil.Process(process.pid).environ()
        caps.append({variables["NIGHTSHIFT_THREADS"], variables["OMP_NUM_THREADS"]})
        assert "MALLOC_TOP_PAD_" not in variables

    monkeypatch.setattr(Process, "load", noted)
    monkeypatch.setenv("NIGHTSHIFT_THREADS", "2")
    monkeypatch.setenv("MALLOC_TOP_PAD_", "268435456")  # as a stage has it
    measure({"a": onnx_model(1)}, {"a": images}, SETTINGS)
    assert caps == [{"2"}, {"1"}]


def test_no_process_is_left(images, started):
    measure({"a": onnx_model(1)}, {"a": images}, SETTINGS)
    assert len(started) == 2
    assert not any(psutil.pid_exists(process.pid) for process in started)


def test_a_process_ends_with_the_one_that_started_it(images, tmp_path):
    np.save(tmp_path / "images.npy", images)
    (tmp_path / "model.onnx").write_bytes(onnx_model(1))
    code = (
        "import sys, time, pathlib; "
        "from nightshift.evaluation.benchmark import Process; folder = pathlib.Path(sys.argv[1]); "
        "child = Process('a', (folder / 'model.onnx', folder / 'images.npy'), 'onnxruntime', 1); "
        "child.load(); print(child.pid, flush=True); time.sleep(600)"
    )
    parent = subprocess.Popen([sys.executable, "-c", code, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    with parent:
        child = psutil.Process(int(parent.stdout.readline()))
        parent.kill()
    child.wait(timeout=patience(60))
    assert not child.is_running()


def test_a_model_that_does_not_load_is_named_and_the_others_are_timed(images):
    models = {"a": onnx_model(1), "broken": b"no model", "b": onnx_model(2)}
    with pytest.raises(UntimedError, match=r"model 'broken' could not be timed: .*cannot load") as raised:
        measure(models, dict.fromkeys(models, images), SETTINGS)
    error = raised.value
    assert [*error.reasons] == ["broken"]
    assert all(isinstance(speed, Benchmark) for speed in error.speeds.values())
    assert [*error.speeds] == ["a", "b"]
    assert isinstance(error.machine, Machine)


@pytest.mark.parametrize("number", [1, 4])  # that of b with all threads, and with one
def test_a_process_that_dies_takes_no_other_with_it(images, started, monkeypatch, number):
    ask = Process.ask

    def deadly(process: Process, command: dict[str, Any]) -> dict[str, Any]:
        if process is dict(enumerate(started)).get(number) and command["batch"] == 8:
            os.kill(process.pid, signal.SIGKILL)
        return ask(process, command)

    monkeypatch.setattr(Process, "ask", deadly)
    models = {"a": onnx_model(1), "b": onnx_model(2), "c": onnx_model(3)}
    with pytest.raises(
        UntimedError, match=r"model 'b' could not be timed: .*ended with signal SIGKILL"
    ) as raised:
        measure(models, dict.fromkeys(models, images), SETTINGS)
    assert [*raised.value.speeds] == ["a", "c"]
    assert not any(psutil.pid_exists(process.pid) for process in started)


def test_images_that_do_not_fit_are_said(images):
    with pytest.raises(UntimedError, match=r"model 'a' could not be timed: images must be uint8 \[N,4,4,3\]"):
        measure({"a": onnx_model(1)}, {"a": images[:, :3]}, SETTINGS)
