"""Run a stage in a fresh interpreter: spec.json in, result.json out, nothing left behind.

A fresh interpreter means no CUDA after fork, memory returned, a kill by the kernel seen as exit -9, and
that Airflow runs exactly what a person can run: `python -m nightshift <stage> --spec s.json --result r.json`.
NIGHTSHIFT_PYTHON names another interpreter; NIGHTSHIFT_THREADS caps the stage's computing threads.
"""

import contextlib
import ctypes
import json
import os
import re
import selectors
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import psutil
from pydantic import BaseModel

from nightshift.errors import InputError, OutageError, StageError
from nightshift.hardware import processor
from nightshift.runner import json_logs

REFUSED, OUTAGE = 2, 3  # exit codes for InputError and OutageError
PARENT = "NIGHTSHIFT_PARENT_PID"
STAGES = {  # the module of each, whose function of that name takes its spec
    "plan": "nightshift.workflows.retrain.plan",
    "preprocess": "nightshift.preprocess",
    "assemble": "nightshift.workflows.retrain.assemble",
    "train": "nightshift.train",
    "quantize": "nightshift.quantize",
    "evaluate": "nightshift.evaluate",
    "register": "nightshift.register",
    "close": "nightshift.workflows.retrain.close",
    "promote": "nightshift.workflows.promote.promote",
    "look": "nightshift.workflows.predict.plan",
    "predict": "nightshift.workflows.predict.predict",
    "summarise": "nightshift.workflows.predict.summarize",
    "sweep": "nightshift.workflows.sweep.start",
    "trial": "nightshift.workflows.sweep.trial",
    "conclude": "nightshift.workflows.sweep.finish",
    "upkeep": "nightshift.workflows.upkeep.upkeep",
}
AIRFLOW = ("AIRFLOW", "NIGHTSHIFT_AIRFLOW_")  # what its variables begin with
SIGNING = "NIGHTSHIFT_SIGNING_"  # what those of the private key begin with
SIGNERS = ("register",)
PR_SET_PDEATHSIG = 1
LOOK_SECONDS = 1.0  # how often a stage's descendants are looked up
# glibc hands large tensors back to the kernel and faults them in again; these keep them (system time / 10).
MALLOC = {
    "MALLOC_MMAP_THRESHOLD_": "4294967296",
    "MALLOC_TRIM_THRESHOLD_": "4294967296",
    "MALLOC_TOP_PAD_": "268435456",
}


def run_stage(
    stage: str,
    spec: BaseModel,
    *,
    echo: Callable[[str], None] = print,
    environment: Mapping[str, str] = MappingProxyType({}),
    labels: Mapping[str, object] = MappingProxyType({}),
) -> dict[str, Any]:
    """Run `stage` to its end and return its result as a plain dict.

    Its process has the environment of this one, but for the variables of `environment`. Every line it prints
    goes to `echo`, as JSON with `labels` where NIGHTSHIFT_LOG says so. Raises InputError or OutageError as
    the stage raised it, StageError when the process was killed or crashed. However this ends, the stage's
    processes end too.
    """
    echo = json_logs.labelled(echo, stage, spec, labels)
    with tempfile.TemporaryDirectory(prefix=f"nightshift-{stage}-") as folder:
        spec_file, result_file = Path(folder, "spec.json"), Path(folder, "result.json")
        spec_file.write_text(spec.model_dump_json(), encoding="utf-8")
        command = [
            os.environ.get("NIGHTSHIFT_PYTHON", sys.executable),
            *("-m", "nightshift", stage, "--spec", str(spec_file), "--result", str(result_file)),
        ]
        last = "without a word"
        with subprocess.Popen(
            command,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env=stage_environment(stage, environment),
        ) as process:
            family = {psutil.Process(process.pid)}
            try:
                for line in _lines(process, family):
                    last = line or last
                    echo(line)
                code = process.wait()
            finally:
                end(family)
        return outcome(stage, code, result_file, last)


def stage_environment(stage: str, own: Mapping[str, str] = MappingProxyType({})) -> dict[str, str]:
    """The environment of a stage's process: capped threads, malloc settings, and who its parent is.

    Variables of its `own` come before those of this process. Airflow's stay behind, its connections and the
    broker's password among them, since a stage talks to the store and to MLflow only. Where the private key
    is, only the stage that signs is told.
    """
    hidden = AIRFLOW if stage in SIGNERS else (*AIRFLOW, SIGNING)
    given = {name: value for name, value in {**os.environ, **own}.items() if not name.startswith(hidden)}
    threads = str(processor.threads(given))
    caps = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), threads)
    return {
        **given,
        **MALLOC,
        **caps,
        "NIGHTSHIFT_THREADS": threads,
        "PYTHONUNBUFFERED": "1",
        PARENT: str(os.getpid()),
    }


def die_with_parent() -> None:
    """Ask Linux to kill this process when its parent dies, and end at once if that already happened.

    Called first thing in a stage's process and in every process that a stage starts. Elsewhere than on
    Linux a thread watches the parent instead.
    """
    parent = int(os.environ.get(PARENT, "0"))
    if not parent:
        return
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    else:
        threading.Thread(target=_watch_parent, args=(parent,), daemon=True).start()
    if os.getppid() != parent:
        os._exit(1)
    os.environ[PARENT] = str(os.getpid())  # for the processes that this one starts


def end(family: Iterable[psutil.Process]) -> None:
    """Kill processes and all their descendants, whether or not they still answer.

    psutil knows a process by its number and its start, so a number that was given away again is left alone.
    """
    for process in list(family):
        with contextlib.suppress(psutil.NoSuchProcess):
            for victim in [*process.children(recursive=True), process]:
                with contextlib.suppress(psutil.NoSuchProcess):
                    victim.kill()


def _lines(process: subprocess.Popen[bytes], family: set[psutil.Process]) -> Iterator[str]:
    """The lines that a stage prints, to its end. Its descendants are collected in `family` on the way.

    A descendant that outlives the stage keeps the output open: after the stage's end, silence is the end.
    """
    output, rest, looked = process.stdout, b"", 0.0
    if output is None:
        return
    with selectors.DefaultSelector() as selector:
        selector.register(output, selectors.EVENT_READ)
        while True:
            if time.monotonic() - looked > LOOK_SECONDS and process.poll() is None:
                with contextlib.suppress(psutil.NoSuchProcess):
                    family.update(psutil.Process(process.pid).children(recursive=True))
                looked = time.monotonic()
            if selector.select(timeout=LOOK_SECONDS):
                chunk = os.read(output.fileno(), 65536)
                if not chunk:
                    break
                *lines, rest = re.split(rb"\r\n|\n|\r", rest + chunk)
                yield from (line.decode(errors="replace").rstrip() for line in lines)
            elif process.poll() is not None:
                break
    if rest:
        yield rest.decode(errors="replace").rstrip()


def _watch_parent(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(1)
    os._exit(1)


def outcome(stage: str, code: int, result_file: Path, last: str) -> dict[str, Any]:
    """The result that a stage's process left when it ended with `code`; raises what it failed with.

    `last` is the last line that it printed.
    """
    if code == 0 and not result_file.exists():
        raise StageError(f"stage {stage} ended well but left no result; last line: {last}")
    if code == 0:
        result: dict[str, Any] = json.loads(result_file.read_text(encoding="utf-8"))
        return result
    if code in (REFUSED, OUTAGE) and result_file.exists():
        sentence = json.loads(result_file.read_text(encoding="utf-8"))["error"]
        raise (InputError if code == REFUSED else OutageError)(sentence)
    if code == -signal.SIGKILL:
        raise StageError(
            f"stage {stage} was killed (exit -9), most likely by the kernel because memory ran out: "
            "lower its batch or part size, or give the worker more memory"
        )
    if code < 0:
        raise StageError(
            f"stage {stage} was ended by {signal.Signals(-code).name} (exit {code}); last line: {last}"
        )
    raise StageError(f"stage {stage} failed with exit {code}; last line: {last}")
