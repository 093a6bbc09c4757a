"""Who may import whom, held transitively in fresh interpreters."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
LEVELS = {
    0: {
        *("clutter", "config", "records", "specs", "errors", "pipelines"),
        *("processor", "spaces", "trials", "toml", "lengths", "model_facts"),
    },
    1: {
        "s3",
        "storage",
        "journal",
        "lines",
        "outputs",
        "tracking",
        "registry",
        "inventory",
        "runner",
        "signing",
        "signatures",
        "logged_model",
    },
    2: {
        "annotations",
        "batches",
        "card",
        "cells",
        "decoders",
        "dicom",
        "drift",
        "duplicates",
        "uploads",
        "owners",
        "features",
        "formats",
        "images",
        "index",
        "labels",
        "likeness",
        "manifest",
        "quarantine",
        "samples",
        "schedule",
        "shards",
        "sheet",
        "sources",
        "splits",
        "transforms",
        "export",
        "dataset",
        "cache",
        "device",
        "feed",
        "ranks",
        "rate",
        "result",
        "freezing",
        "ensemble",
        "model",
        "networks",
        "optimisation",
        "pair_sums",
        "pillow",
        "portability",
        "augmentation",
        "hardening",
        "progress",
        "history",
        "loop",
        "recipes",
        "calibration",
        "graphs",
        "rounding",
        "tuning",
        "streams",
        "runtime",
        "machine",
        "code",
        "conditions",
        "differences",
        "stopwatch",
        "timing",
        "contenders",
        "metrics",
        "choice",
        "comparison",
        "robustness",
        "evidence",
        "gates",
        "published",
        "markdown",
        "approval",
        "audit",
        "moves",
        "decisions",
        "ledger",
        "report",
        "start",
        "weights",
        "study",
        "sealing",
        "model_file",
        "classifier",
        "serving",
        "fetching",
        "predictions",
        "messages",
        "table",
        "answers",
        "embedding",
        "neighbours",
        "sbom",
        "reach",
        "retention",
        "leftovers",
        "gaps",
    },
    3: {
        *("plan", "preprocess", "assemble", "train", "quantize", "evaluate", "register", "promote", "close"),
        *("look", "predict", "summarise"),
        *("sweep", "conclude", "reproduce", "upkeep"),
    },
    4: {"trial"},  # a stage around another: a trial is a training that is watched
    5: {"cli", "stack"},
}
ROOMS = {room: level for level, rooms in LEVELS.items() for room in rooms}
FREE = {"__init__", "__main__"}


def imported(path: Path) -> set[str]:
    """Names of all modules that a file imports anywhere, also inside functions."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return found


def room(path: Path) -> str:
    return path.relative_to(ROOT / "tasks" / "nightshift").parts[0].removesuffix(".py")


def rooms_of(names: set[str]) -> set[str]:
    return {name.split(".")[1] for name in names if name.startswith("nightshift.")} & set(ROOMS)


def files() -> list[Path]:
    return sorted(path for path in (ROOT / "tasks" / "nightshift").rglob("*.py") if room(path) not in FREE)


def test_imports_inside_functions_are_seen():
    assert rooms_of(imported(ROOT / "tasks" / "nightshift" / "contenders.py")) >= {
        "images",
        "registry",
        "storage",
    }
    assert "airflow" in {name.split(".")[0] for name in imported(ROOT / "dags" / "retrain.py")}


def test_every_room_has_its_level():
    assert {room(path) for path in files()} <= set(ROOMS)


@pytest.mark.parametrize("path", files(), ids=lambda path: str(path.relative_to(ROOT)))
def test_imports_go_downward_only_and_stages_never_import_each_other(path):
    level = ROOMS[room(path)]
    for other in rooms_of(imported(path)) - {room(path)}:
        assert ROOMS[other] <= level, f"{path} imports nightshift.{other}"
        assert not (level == 3 and ROOMS[other] == 3), f"stage {path} imports stage {other}"


@pytest.mark.parametrize("path", files(), ids=lambda path: str(path.relative_to(ROOT)))
def test_only_the_stack_may_import_airflow(path):
    if room(path) != "stack":
        assert not {name for name in imported(path) if name.split(".")[0] == "airflow"}


@pytest.mark.parametrize("name", ["retrain", "promote", "sweep", "upkeep", "pipeline_errors"])
def test_a_dag_file_parses_without_heavy_modules(name, tmp_path):
    code = (
        f"import sys; sys.path.insert(0, 'dags'); before = set(sys.modules); import {name}; "
        "heavy = {'torch', 'torchvision', 'mlflow', 'cv2', 'numpy', 'pandas', 'boto3', 'onnx', 'sklearn'}; "
        "import airflow.sdk; found = sorted(heavy & set(sys.modules)); print(found); sys.exit(bool(found))"
    )
    environment = {"PATH": "/usr/bin:/bin", "AIRFLOW_HOME": str(tmp_path), "PYTHONPATH": str(ROOT / "tasks")}
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("path", sorted((ROOT / "dags").glob("*.py")), ids=lambda path: path.name)
def test_dags_import_levels_0_and_1_only(path):
    beside = {other.stem for other in (ROOT / "dags").glob("*.py")}
    allowed = {"airflow", "nightshift", "pydantic", *beside, *sys.stdlib_module_names}
    assert {name.split(".")[0] for name in imported(path)} <= allowed
    assert {ROOMS[room] for room in rooms_of(imported(path))} <= {0, 1}


def test_heavy_rooms_stay_out_of_light_ones():
    code = (
        "import sys; import nightshift.data.images, nightshift.workflows.retrain.plan, nightshift.preprocess, nightshift.cli, nightshift.inference.runtime; "
        "found = {'torch', 'mlflow', 'airflow', 'torchvision', 'sklearn'} & set(sys.modules); "
        "print(found); sys.exit(bool(found))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
