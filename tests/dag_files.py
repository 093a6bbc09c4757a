"""The DAG files as modules, with a home of Airflow's that nothing else uses."""

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

DAGS = Path(__file__).parent.parent / "dags"


@pytest.fixture(scope="module")
def airflow_home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AIRFLOW_HOME", str(tmp_path_factory.mktemp("airflow")))
        patch.syspath_prepend(str(DAGS))
        yield
        for name in (
            "retrain",
            "promote",
            "sweep",
            "upkeep",
            "wiring",
            "forms",
            "notices",
            "links",
            "pipeline_errors",
        ):
            sys.modules.pop(name, None)
