"""Who may import whom: the order of the rooms, the rooms of the libraries, and what lies at the door."""

import ast
import subprocess
import sys
from pathlib import Path
from typing import Final

import pytest

from nightshift.runner import STAGES

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "tasks" / "nightshift"
STAGE: Final = "a stage"
# A room imports only rooms before it; stages, and the steps of workflows, never import each other.
ORDER: Final = [
    *("errors", "hardware", "config", "records"),  # what is said, and by which processor it is computed
    *("storage", "runner", "security"),  # what touches the machine
    *("tracking", "data", "models", "inference", "report"),
    *("training", "quantization", "evaluation", "provenance"),
    STAGE,
    *("airflow", "serving", "stack", "cli"),
]
DOOR: Final = {"preprocess", "train", "quantize", "evaluate", "register"}
# A trial is a training that is watched.
EXCEPTIONS: Final = {("workflows/sweep/trial.py", "train")}
AIRFLOW_MAY_IMPORT: Final = {"errors", "config", "records", "runner"}  # it is parsed every minute
OWNERS: Final = {  # rooms, stages and single files that may import a library
    "mlflow": {"tracking", "cli/checks/tracking.py"},  # doctor asks the client itself
    "obstore": {"storage"},
    "matplotlib": {"report"},
    "jinja2": {"report"},
    "optuna": {"workflows"},
    "nncf": {"quantization"},
    "openvino": {"inference"},
    "fastapi": {"serving"},
    "starlette": {"serving"},
    "typer": {"cli"},
    "rich": {"cli"},
    "cryptography": {"security"},
    "model_signing": {"security"},
    "pebble": {"data"},
    "simplejpeg": {"data"},
    "scipy": {"evaluation"},
    "torchmetrics": {"evaluation"},
    "airflow": {"airflow", "stack"},
    "torch": {"models", "training", "quantization", "evaluation", "provenance", "train", "evaluate"}
    | {"data/dataset.py"},
}
MOST_MODULES: Final = 18  # in a folder, beside its __init__
LARGER: Final = {"stack": 25, "cli": 22}  # folders that are one list: servers' files, commands


def imported(path: Path) -> set[str]:
    """Names of all modules that a file imports anywhere, also inside functions."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return found


def inside(path: Path) -> str:
    return path.relative_to(PACKAGE).as_posix()


def room(path: Path) -> str:
    """The room of a file; a stage's is its own name, and each workflow is a room."""
    parts = path.relative_to(PACKAGE).with_suffix("").parts
    return "/".join(parts[:2]) if parts[0] == "workflows" and len(parts) > 2 else parts[0]


def place(of: str) -> int:
    return ORDER.index(STAGE if of in DOOR or of.startswith("workflows") else of)


def rooms_of(names: set[str]) -> set[str]:
    """The rooms of the package's modules among these names."""
    found = set()
    for name in names:
        package, *rest = name.split(".")
        if package == "nightshift" and rest:
            path = PACKAGE.joinpath(*rest)
            path = path if path.is_dir() else path.with_suffix(".py")
            while not path.exists():  # a name in a module
                path = path.parent if path.parent.is_dir() else path.parent.with_suffix(".py")
            if path != PACKAGE:
                found.add(room(path / "__init__.py" if path.is_dir() else path))
    return found


def files() -> list[Path]:
    return sorted(path for path in PACKAGE.rglob("*.py") if path.parent != PACKAGE or path.stem in DOOR)


def test_imports_inside_functions_are_seen():
    assert rooms_of(imported(PACKAGE / "evaluation" / "contenders.py")) >= {"data", "tracking", "storage"}
    assert rooms_of(imported(PACKAGE / "workflows" / "sweep" / "trial.py")) >= {"train", "workflows/sweep"}
    assert "airflow" in {name.split(".")[0] for name in imported(PACKAGE / "airflow" / "retrain.py")}


def test_only_the_stages_lie_at_the_door():
    assert {path.stem for path in PACKAGE.glob("*.py")} == DOOR | {"__init__", "__main__", "errors"}


@pytest.mark.parametrize("path", files(), ids=inside)
def test_a_room_imports_only_rooms_before_it(path):
    mine = room(path)
    for other in rooms_of(imported(path)) - {mine, "workflows"}:
        allowed = place(other) < place(mine) or (inside(path), other) in EXCEPTIONS
        assert allowed, f"{inside(path)} imports nightshift.{other.replace('/', '.')}"


@pytest.mark.parametrize("library", OWNERS)
def test_a_library_is_imported_by_its_rooms_only(library):
    users = {path for path in files() if library in {name.split(".")[0] for name in imported(path)}}
    strangers = {
        inside(path) for path in users if not {room(path).split("/")[0], inside(path)} & OWNERS[library]
    }
    assert users
    assert not strangers


def test_no_folder_has_too_many_modules():
    for folder in {path.parent for path in files()} - {PACKAGE}:
        modules = [path for path in folder.glob("*.py") if path.name != "__init__.py"]
        assert len(modules) <= LARGER.get(folder.name, MOST_MODULES), folder


def test_every_dag_file_is_two_lines_and_has_its_workflow():
    workflows = {path.name for path in (PACKAGE / "workflows").iterdir() if (path / "__init__.py").exists()}
    assert {"retrain", "promote", "predict", "sweep", "upkeep"} == workflows
    for path in (ROOT / "dags").glob("*.py"):
        lines = path.read_text(encoding="utf-8").splitlines()
        assert len([line for line in lines if line and not line.startswith('"""')]) == 2, path
        assert (PACKAGE / "airflow" / path.name).exists() or path.stem == "pipeline_errors"
    assert workflows | {"pipeline_errors"} == {path.stem for path in (ROOT / "dags").glob("*.py")}


def test_every_stage_is_in_a_room_of_stages():
    for name, module in STAGES.items():
        path = PACKAGE.joinpath(*module.split(".")[1:]).with_suffix(".py")
        assert f"\ndef {name}(" in path.read_text(encoding="utf-8"), f"{name} in {module}"
        assert room(path) in DOOR or room(path).startswith("workflows/")
    assert set(STAGES) >= DOOR


@pytest.mark.parametrize("name", ["retrain", "promote", "predict", "sweep", "upkeep", "pipeline_errors"])
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


@pytest.mark.parametrize("path", sorted((PACKAGE / "airflow").glob("*.py")), ids=lambda path: path.name)
def test_dags_are_built_with_light_rooms_only(path):
    allowed = {"airflow", "nightshift", "pydantic", *sys.stdlib_module_names}
    assert {name.split(".")[0] for name in imported(path)} <= allowed
    assert rooms_of(imported(path)) - {"airflow"} <= AIRFLOW_MAY_IMPORT


def test_heavy_libraries_stay_out_of_light_rooms():
    light = "data.images, workflows.retrain.plan, preprocess, cli, inference.runtime"
    code = (
        f"import sys; import {', '.join(f'nightshift.{name}' for name in light.split(', '))}; "
        "found = {'torch', 'mlflow', 'airflow', 'torchvision', 'sklearn'} & set(sys.modules); "
        "print(found); sys.exit(bool(found))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
