"""One model in one process: what it says, what it counts, and that nothing else comes out of it."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from small_models import onnx_model
from waiting import patience

from nightshift.evaluation import benchmark_worker
from nightshift.inference import runtime
from nightshift.inference.runtime import Session

IMAGES = np.random.default_rng(0).integers(0, 256, (6, 4, 4, 3), dtype=np.uint8)


@pytest.fixture
def files(tmp_path: Path) -> tuple[str, str]:
    np.save(tmp_path / "images.npy", IMAGES)
    (tmp_path / "model.onnx").write_bytes(onnx_model(1))
    return str(tmp_path / "model.onnx"), str(tmp_path / "images.npy")


def run(*command: str, stdin: str = "") -> tuple[list[dict[str, Any]], str, int]:
    """Every line of stdout as JSON, stderr, and the exit code."""
    done = subprocess.run(
        [sys.executable, *command],
        input=stdin,
        capture_output=True,
        text=True,
        timeout=patience(120),
        check=False,
    )
    return [json.loads(line) for line in done.stdout.splitlines()], done.stderr, done.returncode


def test_it_says_what_it_loaded_and_times_what_it_is_told(files):
    command = {"batch": 1, "calls": 7, "limit": 60, "warm": 2}
    more = {"batch": 9, "calls": 3, "limit": 60, "warm": 0}
    lines, _, code = run(
        *("-m", "nightshift.evaluation.benchmark_worker", *files, benchmark_worker.FASTEST),
        stdin=f"{json.dumps(command)}\n{json.dumps(more)}\n",
    )
    facts, singles, batches = lines
    assert code == 0
    assert facts["runtime"] in runtime.installed()
    assert 0.999 <= facts["agreements"][facts["runtime"]] <= 1
    assert facts["reference"] == "onnxruntime"
    assert facts["load_seconds"] > 0
    assert [len(answer["seconds"]) for answer in (singles, batches)] == [7, 3]
    assert min(singles["seconds"] + batches["seconds"]) > 0


def test_a_named_runtime_is_taken_without_a_choice(files):
    ((facts,), _, code) = run("-m", "nightshift.evaluation.benchmark_worker", *files, "onnxruntime")
    assert (code, facts["runtime"], facts["rejected"]) == (0, "onnxruntime", [])


def test_what_libraries_print_goes_to_stderr(files):
    code = (
        "import os, sys; from nightshift.inference import runtime; "
        "from nightshift.evaluation import benchmark_worker as stopwatch; load = runtime._load_cpu; "
        "noise = lambda model: (print('from Python', flush=True), os.system('echo from C'), load(model))[2]; "
        "runtime.LOADERS['onnxruntime'] = noise; sys.exit(stopwatch.main(*sys.argv[1:]))"
    )
    ((facts,), err, _) = run("-c", code, *files, "onnxruntime")
    assert facts["runtime"] == "onnxruntime"
    assert "from Python\nfrom C\n" in err


def test_a_fault_is_said_in_one_line(files):
    Path(files[0]).write_bytes(b"no model")
    ((fault,), _, code) = run("-m", "nightshift.evaluation.benchmark_worker", *files, "onnxruntime")
    assert code == 1
    assert fault["error"].startswith("onnxruntime cannot load the model")


def test_it_imports_numpy_and_the_runtimes_only():
    code = (
        "import sys, nightshift.evaluation.benchmark_worker; "
        "heavy = {'torch', 'openvino', 'onnx', 'mlflow', 'boto3', 'cv2', 'pydantic'} & set(sys.modules); "
        "sys.exit(str(heavy) if heavy else 0)"
    )
    assert run("-c", code) == ([], "", 0)


def test_memory_of_the_process_that_started_it_is_not_counted(files):
    ballast = np.ones(500_000_000, np.uint8)
    ((facts,), _, _) = run("-m", "nightshift.evaluation.benchmark_worker", *files, "onnxruntime")
    assert 20 < facts["memory_mb"] < 400 < ballast.nbytes / 1e6


@pytest.mark.parametrize(("limit", "calls"), [(60, 5), (0, 1)])
def test_timing_stops_at_the_number_of_calls_or_when_time_is_up(limit, calls, monkeypatch):
    seen: list[int] = []
    session = Session(onnx_model(1))
    predict = session.predict
    monkeypatch.setattr(session, "predict", lambda images: seen.append(len(images)) or predict(images))
    seconds = benchmark_worker._times(session, IMAGES, batch=8, calls=5, limit=limit, warm=2)
    assert len(seconds) == calls
    assert seen == [8] * (2 + calls)


def test_single_images_are_others_every_turn():
    firsts = [benchmark_worker._some(IMAGES, 1, turn) for turn in range(7)]
    assert all(np.array_equal(one, IMAGES[turn % 6][None]) for turn, one in enumerate(firsts))
    assert np.array_equal(benchmark_worker._some(IMAGES, 8, 0)[6:], IMAGES[:2])
